//! A new configuration on a living agent: what is not touched by it notices nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyvip_machine::Time;

use crate::agent::{Agent, refuse};
use crate::boundary::{Action, CheckName, Fact, HealthState, RequestId, ServiceName, Target};
use crate::checks::Heritage;
use crate::config::{Config, Service};

impl Agent {
    pub(crate) fn reload(
        &mut self,
        now: Time,
        request: RequestId,
        (config, keys): (Result<Box<Config>, String>, &[String]),
        out: &mut Vec<Action>,
    ) {
        let config = match config {
            Ok(config) => *config,
            Err(text) => {
                let fact = Fact::Reloaded { applied: false, text: text.clone() };
                out.push(Action::Record(fact));
                return refuse(request, format!("the running configuration stays:\n{text}"), out);
            }
        };
        let text = summary(&self.config, &config, keys);
        let heirs = self.heirs(&config.services);
        let former_addresses = self.peer_addresses();
        let former_speaker = self.speaker_config();
        let former = std::mem::replace(&mut self.config, config);
        let services = std::mem::take(&mut self.config.services);
        let inherited = |service: &ServiceName, _: &CheckName, target: Target| {
            let vips = services.get(service).map_or(&[][..], |service| &service.vips);
            let states = Agent::target_vips(target, vips).into_iter().filter_map(|vip| heirs.get(&vip));
            // A check for all VIPs must not bring down those that are up: what is down is held down by its own.
            let rank = |state: &&HealthState| match state {
                HealthState::Unknown => 0,
                HealthState::Down => 1,
                HealthState::Up => 2,
            };
            Heritage::Stands(states.max_by_key(rank).copied().unwrap_or(HealthState::Unknown))
        };
        self.checks.configure(now, &services, inherited, out);
        self.config.services = services;

        self.configure_kernel_side();
        for (address, present) in self.present_vips() {
            self.checks.vip_is(now, address, present, out);
        }
        if former_addresses != self.peer_addresses() {
            out.push(Action::WatchRoutes { interests: self.peer_addresses().into_iter().collect() });
        }
        if former.bgp.listen != self.config.bgp.listen {
            out.push(Action::Listen { address: self.config.bgp.listen });
        }
        self.peers.configure(now, self.config.bgp.peers.keys());
        // Which services a peer is told decides also what it is listened to about.
        let speaker = self.speaker_config();
        if former_speaker != speaker {
            self.tell_speaker(now, anyvip_bgp::Event::Configure(speaker), out);
        }
        if former.router_id != self.config.router_id {
            self.store.change();
        }
        out.push(Action::Record(Fact::Reloaded { applied: true, text: text.clone() }));
        self.neighbours.stirred = true;
        if self.view.is_some() {
            self.look(now, false, out);
        }
        self.touched = true;
        self.reply_when_written(request, text, out);
    }

    /// What was known of each address that the new configuration serves too.
    fn heirs(&self, services: &BTreeMap<ServiceName, Service>) -> BTreeMap<IpAddr, HealthState> {
        let vips = services.values().flat_map(|service| &service.vips);
        vips.filter_map(|vip| Some((*vip, self.health_of(vip)?))).collect()
    }

    fn present_vips(&self) -> Vec<(IpAddr, bool)> {
        self.vips.iter().map(|(address, vip)| (*address, vip.present)).collect()
    }
}

/// For people: what came, went and changed.
fn summary(was: &Config, is: &Config, keys: &[String]) -> String {
    let mut parts = Vec::new();
    let services = compare(&was.services, &is.services);
    let peers = compare(&was.bgp.peers, &is.bgp.peers);
    let bfd = compare(&was.bgp.bfd, &is.bgp.bfd);
    let statics = compare(&was.statics, &is.statics);
    let parts_of = [("service", services), ("peer", peers), ("BFD of peer", bfd), ("static peer", statics)];
    for (what, (came, went, changed)) in parts_of {
        for (word, names) in [("added", came), ("removed", went), ("changed", changed)] {
            if !names.is_empty() {
                parts.push(format!("{what} {word}: {}", names.join(", ")));
            }
        }
    }
    if was.bgp.install_default != is.bgp.install_default {
        let word = if is.bgp.install_default { "installed" } else { "no longer installed" };
        parts.push(format!("default routes that peers tell are {word}"));
    }
    if was.responder != is.responder {
        parts.push("responder changed".to_owned());
    }
    if was.host != is.host {
        parts.push("host settings changed".to_owned());
    }
    if (was.bgp.asn, was.router_id) != (is.bgp.asn, is.router_id) {
        parts.push("AS number or router id changed: all sessions start anew".to_owned());
    }
    if !keys.is_empty() {
        parts.push(format!("key changed: {}", keys.join(", ")));
    }
    if parts.is_empty() { "nothing changed".to_owned() } else { parts.join("; ") }
}

type Names = Vec<String>;

fn compare<K: Ord + std::fmt::Display, V: PartialEq>(
    was: &BTreeMap<K, V>,
    is: &BTreeMap<K, V>,
) -> (Names, Names, Names) {
    let came = is.keys().filter(|key| !was.contains_key(key));
    let went = was.keys().filter(|key| !is.contains_key(key));
    let changed = is.iter().filter(|(key, value)| was.get(key).is_some_and(|old| old != *value));
    let words = |keys: Vec<&K>| keys.into_iter().map(ToString::to_string).collect();
    (words(came.collect()), words(went.collect()), words(changed.map(|(key, _)| key).collect()))
}
