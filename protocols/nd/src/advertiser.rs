//! The machine: all interfaces on which this host peers without an address.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use anyvip_machine::{Failure, Seed, Time};
use serde::{Deserialize, Serialize};

use crate::boundary::{Action, Event, Fact, InterfaceName, Link};
use crate::error::Discard;
use crate::interface::Interface;
use crate::status::InterfaceView;
use crate::wire::{HOP_LIMIT, Message};

/// Who is at the other end of some links, and how that end learns who we are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Advertiser {
    seed: Seed,
    interfaces: BTreeMap<InterfaceName, Interface>,
}

impl Advertiser {
    /// An advertiser without interfaces. The seed decides all jitter.
    pub fn new(seed: Seed) -> Advertiser {
        Advertiser { seed, interfaces: BTreeMap::new() }
    }

    /// Takes an event and gives back what to do, in this order.
    #[must_use]
    pub fn handle(&mut self, now: Time, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::DeadlineReached => {
                for (name, interface) in &mut self.interfaces {
                    interface.deadline_reached(now, name, &mut actions);
                }
                debug_assert!(
                    self.next_deadline().is_none_or(|next| next > now),
                    "a deadline was left overdue"
                );
            }
            Event::Wanted { interfaces } => self.want(now, interfaces, &mut actions),
            Event::Received { interface, source, hop_limit, bytes } => {
                self.receive(now, &interface, source, hop_limit, &bytes, &mut actions);
            }
            Event::Done { interface, result } => self.done(interface, result, &mut actions),
        }
        actions
    }

    /// When to call `handle` with [`Event::DeadlineReached`].
    pub fn next_deadline(&self) -> Option<Time> {
        self.interfaces.values().filter_map(Interface::next_deadline).min()
    }

    /// One interface; `None` if it is not wanted.
    pub fn interface(&self, name: &InterfaceName) -> Option<InterfaceView> {
        self.interfaces.get(name).map(Interface::view)
    }

    fn want(&mut self, now: Time, wanted: BTreeMap<InterfaceName, Link>, actions: &mut Vec<Action>) {
        self.interfaces.retain(|name, interface| {
            // Another number is another interface of the same name: nothing of the former one is true of it.
            let stays = wanted.get(name).is_some_and(|link| link.index == interface.index());
            if !stays {
                actions.push(Action::Close { interface: name.clone() });
            }
            stays
        });
        for (name, link) in wanted {
            if let Some(known) = self.interfaces.get_mut(&name) {
                known.look(now, link.link_local);
                continue;
            }
            actions.push(Action::Open { interface: name.clone(), index: link.index });
            let mut interface = Interface::new(link.index, self.seed.child(&name.0));
            interface.look(now, link.link_local);
            self.interfaces.insert(name, interface);
        }
    }

    fn receive(
        &mut self,
        now: Time,
        name: &InterfaceName,
        source: Ipv6Addr,
        hop_limit: Option<u8>,
        bytes: &[u8],
        actions: &mut Vec<Action>,
    ) {
        let Some(interface) = self.interfaces.get_mut(name) else { return };
        // RFC 4861 §6.1: the hop limit first, it says whether the sender is on this link at all.
        let message = match hop_limit {
            Some(HOP_LIMIT) => Message::decode(bytes),
            hop_limit => Err(Discard::NotFromThisLink { hop_limit }),
        };
        let heard = message.and_then(|message| interface.hear(now, source, &message));
        let fact = match heard {
            Ok(None) => return,
            Ok(Some(router)) => Fact::RouterHeard { interface: name.clone(), router },
            Err(reason) if interface.refuse(now, reason) => {
                Fact::Discarded { interface: name.clone(), source, reason }
            }
            Err(_) => return,
        };
        actions.push(Action::Fact(fact));
    }

    fn done(&mut self, name: InterfaceName, result: Result<(), Failure>, actions: &mut Vec<Action>) {
        if let Some(interface) = self.interfaces.get_mut(&name)
            && interface.done(&result)
        {
            actions.push(Action::Fact(Fact::CannotSend { interface: name, failure: result.err() }));
        }
    }
}
