//! OpenBGPD as the upstream router. On Linux it has no kernel table: its own counts.

use anyvip_tests::{Fabric, Lab, Namespace, Need, Openbgpd};

use crate::features::Feature;
use crate::router::{Manner, Router, Tells, Told, spaced};

/// Neighbours by range; one by one only where a key or a call needs it.
fn config(manner: &Manner) -> String {
    let mut lines = String::new();
    let mut line = |text: String| lines += &format!("  {text}\n");
    line("announce IPv4 unicast".to_owned());
    line("announce IPv6 unicast".to_owned());
    line("announce enhanced refresh yes".to_owned());
    if !manner.calls {
        line("passive".to_owned());
    }
    if let Some(key) = manner.key {
        line(format!("tcp md5sig password \"{key}\""));
    }
    if manner.multihop {
        line("multihop 2".to_owned());
    }
    if manner.ttl_security {
        line("ttl-security yes".to_owned());
    }
    if let Some(role) = manner.role {
        line(format!("announce policy {role}"));
    }
    if let Some(limit) = manner.limit {
        line(format!("max-prefix {limit} restart 1"));
    }
    match manner.tells {
        Tells::AllPaths => line("announce add-path send all".to_owned()),
        Tells::Default => line("export default-route".to_owned()),
        Tells::Nothing | Tells::Thousand => {}
    }
    let mut neighbors = String::new();
    if manner.calls || manner.key.is_some() {
        for n in 1..=3 {
            for address in [format!("10.1.{n}.2"), format!("fd00:1:{n}::2")] {
                if !manner.calls || address == "10.1.1.2" {
                    neighbors += &format!("  neighbor {address} {{ remote-as {} }}\n", 65000 + n);
                }
            }
        }
    } else {
        let internal = if manner.asn == 65000 { "" } else { " { remote-as 65001 }" };
        neighbors += &format!("  neighbor 10.1.0.0/16{internal}\n  neighbor fd00:1::/32{internal}\n");
    }
    let to = if manner.tells == Tells::Nothing { "deny to any" } else { "allow to any" };
    format!(
        "AS {}\nrouter-id 10.9.0.1\nholdtime 9\nconnect-retry 1\ngroup \"hosts\" {{\n{lines}{neighbors}}}\nallow from any\n{to}\n\
         match from any community GRACEFUL_SHUTDOWN set {{ localpref 0 }}\n",
        manner.asn
    )
}

impl Router for Openbgpd {
    const NAME: &'static str = "OpenBGPD";
    const NEEDS: &'static [Need] = &[Need::Root, Need::Openbgpd];

    fn version() -> String {
        crate::page::version("/usr/sbin/bgpd", &["-V"])
    }

    fn lacks(feature: Feature) -> Option<&'static str> {
        match feature {
            Feature::BothFamiliesForwarded => Some("writes no routes into Linux's kernel"),
            Feature::Ipv4OverIpv6Link => Some("takes no IPv6 next hop for IPv4"),
            Feature::Weights => Some("drops link bandwidth, which is not transitive"),
            Feature::CollisionSmaller | Feature::CollisionGreater => Some("never holds two connections"),
            Feature::HostName => Some("shows no names of hosts"),
            Feature::LongMessages => Some("has no extended messages"),
            Feature::Unnumbered
            | Feature::UnnumberedAgain
            | Feature::UnnumberedCall
            | Feature::UpgradedByLink
            | Feature::UnnumberedGuarded => Some("takes no IPv6 next hop for IPv4"),
            Feature::UnnumberedBfd
            | Feature::BfdSessions
            | Feature::BfdGuard
            | Feature::UpgradedUnderBfd
            | Feature::BfdAuthentication
            | Feature::StaticRoute => Some("has no BFD"),
            _ => None,
        }
    }

    fn start(lab: &Lab, namespace: &Namespace, manner: &Manner) -> Self {
        Openbgpd::with(lab, namespace, &config(manner))
    }

    fn stop(&mut self) {
        Openbgpd::stop(self);
    }

    fn shown(&self, address: &str) -> String {
        self.ask(&format!("show rib detail {address}")).unwrap_or_else(|text| text)
    }

    fn words(fact: &Told) -> String {
        match fact {
            Told::Path([]) => "internal,".to_owned(),
            Told::Path(asns) => format!("\n    {}\n", spaced(asns)),
            Told::Med(med) => format!("metric {med},"),
            Told::LocalPref(value) => format!("localpref {value},"),
            Told::Community(high, low) => format!("{high}:{low}"),
            Told::LargeCommunity(a, b, c) => format!("Large Communities: {a}:{b}:{c}"),
            Told::RouteTarget(asn, value) => format!("rt {asn}:{value}"),
            Told::GracefulShutdown => "GRACEFUL_SHUTDOWN".to_owned(),
            Told::OnlyToCustomer(asn) => format!("OTC: {asn}"),
        }
    }

    fn next_hops(&self, _: &Fabric, address: &str) -> Vec<String> {
        let hop = |path: &serde_json::Value| path["exit_nexthop"].as_str().map(str::to_owned);
        let mut hops: Vec<String> = self.paths(address).iter().filter_map(hop).collect();
        hops.sort();
        hops
    }

    fn log(&self) -> String {
        Openbgpd::log(self)
    }

    fn forwards() -> bool {
        false
    }

    fn forgive(&self) {
        let _ = self.ask("neighbor 10.1.1.2 clear");
    }

    fn shut_down(&self, text: &str) {
        self.tell(&["neighbor", "10.1.1.2", "down", text]).unwrap();
    }

    fn ask_again(&self) {
        self.ask("neighbor 10.1.1.2 refresh").unwrap();
    }

    fn session(&self) -> String {
        self.ask("show neighbor 10.1.1.2").unwrap_or_default()
    }
}
