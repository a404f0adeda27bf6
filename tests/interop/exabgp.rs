//! ExaBGP as a strict reader of what we send: it knows no routes, only messages.

use anyvip_tests::{Exabgp, Fabric, Lab, Namespace, Need};

use crate::features::Feature;
use crate::router::{Manner, Router, Told, spaced};

impl Router for Exabgp {
    const NAME: &'static str = "ExaBGP";
    const NEEDS: &'static [Need] = &[Need::Root, Need::Exabgp, Need::Program("ss")];

    fn version() -> String {
        crate::page::version("/usr/bin/python3", &["/usr/sbin/exabgp", "--version"])
    }

    fn lacks(feature: Feature) -> Option<&'static str> {
        match feature {
            Feature::Announced
            | Feature::ServiceDies
            | Feature::Drained
            | Feature::AgentKilled
            | Feature::RouterRestarted
            | Feature::SessionOverIpv6
            | Feature::Communities
            | Feature::Med
            | Feature::Prepend
            | Feature::LocalPref
            | Feature::CoveringPrefix
            | Feature::NextHop
            | Feature::Families
            | Feature::LocalAsn
            | Feature::RoleRequired
            | Feature::WrongAsn => None,
            _ => Some("only reads"),
        }
    }

    fn start(lab: &Lab, namespace: &Namespace, manner: &Manner) -> Self {
        let mut neighbors = String::new();
        let mut listen = Vec::new();
        for (n, range) in [(1, "10.1.1."), (2, "10.1.2."), (3, "10.1.3.")].into_iter().chain([
            (1, "fd00:1:1::"),
            (2, "fd00:1:2::"),
            (3, "fd00:1:3::"),
        ]) {
            if !namespace.ip("address show").contains(&format!(" {range}1/")) {
                continue;
            }
            listen.push(format!("{range}1"));
            neighbors += &format!(
                "neighbor {range}2 {{ router-id 10.9.0.1; local-as {}; peer-as {}; hold-time 9; local-address {range}1; \
                 passive; capability {{ asn4 enable; route-refresh enable; }} \
                 family {{ ipv4 unicast; ipv6 unicast; }} \
                 api {{ processes [ events ]; neighbor-changes; \
                 receive {{ parsed; open; update; notification; refresh; }} }} }}\n",
                manner.asn,
                manner.host_asn.filter(|_| n == 1).unwrap_or(65000 + n)
            );
        }
        Exabgp::with(lab, namespace, &listen.join(" "), &neighbors)
    }

    fn stop(&mut self) {
        Exabgp::stop(self);
    }

    fn shown(&self, address: &str) -> String {
        let list: Vec<_> = self.routes(&prefix(address)).into_values().collect();
        serde_json::json!(list).to_string()
    }

    fn words(fact: &Told) -> String {
        match fact {
            // An empty path is left out.
            Told::Path([]) => "\"local-preference\"".to_owned(),
            Told::Path(asns) => format!("\"as-path\":[{}]", spaced(asns).replace(' ', ",")),
            Told::Med(med) => format!("\"med\":{med}"),
            Told::LocalPref(value) => format!("\"local-preference\":{value}"),
            Told::Community(high, low) => format!("[{high},{low}]"),
            Told::LargeCommunity(a, b, c) => format!("[{a},{b},{c}]"),
            Told::RouteTarget(asn, value) => format!("\"string\":\"target:{asn}:{value}\""),
            Told::GracefulShutdown => "[65535,0]".to_owned(),
            Told::OnlyToCustomer(asn) => unreachable!("ExaBGP 4 has no OTC, and was asked for {asn}"),
        }
    }

    fn next_hops(&self, _: &Fabric, address: &str) -> Vec<String> {
        let mut hops: Vec<String> = self.routes(&prefix(address)).into_values().map(|(hop, _)| hop).collect();
        hops.sort();
        hops
    }

    fn log(&self) -> String {
        Exabgp::log(self)
    }

    fn withdrawals(&self, address: &str) -> usize {
        Exabgp::withdrawals(self, &prefix(address))
    }

    fn forwards() -> bool {
        false
    }
}

fn prefix(address: &str) -> String {
    match (address.contains('/'), address.contains(':')) {
        (true, _) => address.to_owned(),
        (false, true) => format!("{address}/128"),
        (false, false) => format!("{address}/32"),
    }
}
