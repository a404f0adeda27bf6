//! GoBGP as the upstream router. It has no kernel table: its own counts.

use anyvip_tests::{Fabric, Gobgp, Lab, Namespace, Need};

use crate::features::Feature;
use crate::router::{Manner, Router, Tells, Told, spaced};

/// Dynamic neighbours, which it takes back at once; static ones (which it takes back after 4 s) only where it must be: no key and
/// no call without, and add-path is not offered to dynamic ones.
fn config(manner: &Manner) -> String {
    let mut text = format!(
        "[global.config]\nas = {}\nrouter-id = \"10.9.0.1\"\n[global.use-multiple-paths.config]\nenabled = true\n",
        manner.asn
    );
    let families = |owner: &str| {
        ["ipv4", "ipv6"].map(|family| {
            let mut text = format!(
                "[[{owner}.afi-safis]]\n[{owner}.afi-safis.config]\nafi-safi-name = \"{family}-unicast\"\n"
            );
            if manner.tells == Tells::AllPaths {
                text += &format!("[{owner}.afi-safis.add-paths.config]\nsend-max = 8\n");
            }
            if manner.keeps_routes {
                text += &format!("[{owner}.afi-safis.mp-graceful-restart.config]\nenabled = true\n");
            }
            if let Some(limit) = manner.limit {
                text += &format!("[{owner}.afi-safis.prefix-limit.config]\nmax-prefixes = {limit}\n");
            }
            text
        })
        .concat()
    };
    let timers = |owner: &str| {
        format!(
            "[{owner}.timers.config]\nconnect-retry = 1\nhold-time = 9\nkeepalive-interval = 3\n\
             idle-hold-time-after-reset = 1\n"
        )
    };
    let keeping = |owner: &str| match manner.keeps_routes {
        true => format!("[{owner}.graceful-restart.config]\nenabled = true\nrestart-time = 20\n"),
        false => String::new(),
    };
    let secured = |owner: &str| match manner.ttl_security {
        true => format!("[{owner}.ttl-security.config]\nenabled = true\nttl-min = 255\n"),
        false => String::new(),
    };
    let far = |owner: &str| match manner.multihop {
        true => format!("[{owner}.ebgp-multihop.config]\nenabled = true\nmultihop-ttl = 2\n"),
        false => String::new(),
    };
    let all_paths = manner.tells == Tells::AllPaths;
    if manner.calls || manner.key.is_some() || manner.ttl_security || all_paths {
        for n in 1..=3 {
            for address in [format!("10.1.{n}.2"), format!("fd00:1:{n}::2")] {
                if manner.calls && address != "10.1.1.2" {
                    continue;
                }
                text += &format!(
                    "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{address}\"\npeer-as = {}\n",
                    65000 + n
                );
                if let Some(key) = manner.key {
                    text += &format!("auth-password = \"{key}\"\n");
                }
                text += &timers("neighbors");
                text += &keeping("neighbors");
                text += &secured("neighbors");
                text += &format!("[neighbors.transport.config]\npassive-mode = {}\n", !manner.calls);
                text += &families("neighbors");
            }
        }
        return text;
    }
    for (name, range) in [("hosts4", "10.1.0.0/16"), ("hosts6", "fd00:1::/32")] {
        text += &format!("[[peer-groups]]\n[peer-groups.config]\npeer-group-name = \"{name}\"\n");
        text += &timers("peer-groups");
        text += &keeping("peer-groups");
        text += &far("peer-groups");
        text += &families("peer-groups");
        text += &format!(
            "[[dynamic-neighbors]]\n[dynamic-neighbors.config]\nprefix = \"{range}\"\npeer-group = \"{name}\"\n"
        );
    }
    text
}

impl Router for Gobgp {
    const NAME: &'static str = "GoBGP";
    const NEEDS: &'static [Need] = &[Need::Root, Need::Program("gobgpd"), Need::Program("gobgp")];

    fn version() -> String {
        crate::page::version("gobgpd", &["--version"])
    }

    fn lacks(feature: Feature) -> Option<&'static str> {
        match feature {
            Feature::BothFamiliesForwarded => Some("writes no routes into the kernel"),
            Feature::Ipv4OverIpv6Link => Some("writes no routes into the kernel"),
            Feature::RouterWithoutExtendedNextHop => Some("always takes an IPv6 next hop"),
            Feature::GracefulShutdown => Some("does not honour the community by itself"),
            Feature::Weights => Some("shows link bandwidth and makes no use of it"),
            Feature::Roles => Some("has no BGP roles"),
            Feature::EnhancedRefresh => Some("has no enhanced route refresh"),
            Feature::RouteRefresh => Some("keeps what it heard and never asks again"),
            Feature::CollisionSmaller | Feature::CollisionGreater => Some("never holds two connections"),
            Feature::HostName => Some("shows no names of hosts"),
            Feature::DeadIsNotKept => Some("keeps routes after its hold timer too, for the time asked"),
            Feature::LongMessages => Some("has no extended messages"),
            Feature::Unnumbered
            | Feature::UnnumberedAgain
            | Feature::UnnumberedCall
            | Feature::UpgradedByLink
            | Feature::UnnumberedGuarded => {
                Some("was not made to peer by interface: it writes no routes into the kernel")
            }
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
        let gobgp = Gobgp::with(lab, namespace, &config(manner));
        if manner.tells == Tells::Default {
            gobgp.ask("global rib add 0.0.0.0/0 -a ipv4").unwrap();
            gobgp.ask("global rib add ::/0 -a ipv6").unwrap();
        }
        gobgp
    }

    fn stop(&mut self) {
        Gobgp::stop(self);
    }

    fn shown(&self, address: &str) -> String {
        serde_json::Value::from(self.paths(address)).to_string()
    }

    fn words(fact: &Told) -> String {
        match fact {
            Told::Path([]) => "\"as_paths\":[]".to_owned(),
            Told::Path(asns) => format!("\"asns\":[{}]", spaced(asns).replace(' ', ",")),
            Told::Med(med) => format!("\"metric\":{med}"),
            Told::LocalPref(value) => format!("{{\"type\":5,\"value\":{value}}}"),
            Told::Community(high, low) => (u32::from(*high) << 16 | u32::from(*low)).to_string(),
            Told::LargeCommunity(a, b, c) => format!("\"ASN\":{a},\"LocalData1\":{b},\"LocalData2\":{c}"),
            Told::RouteTarget(asn, value) => format!("\"value\":\"{asn}:{value}\""),
            Told::GracefulShutdown => 0xffff_0000_u32.to_string(),
            Told::OnlyToCustomer(asn) => unreachable!("GoBGP has no OTC, and was asked for {asn}"),
        }
    }

    fn next_hops(&self, _: &Fabric, address: &str) -> Vec<String> {
        let hop = |path: &serde_json::Value| {
            let attributes = path["attrs"].as_array()?;
            let hop = attributes.iter().find_map(|attribute| attribute["nexthop"].as_str())?;
            Some(hop.to_owned())
        };
        let mut hops: Vec<String> = self.paths(address).iter().filter_map(hop).collect();
        hops.sort();
        hops
    }

    fn log(&self) -> String {
        Gobgp::log(self)
    }

    fn forwards() -> bool {
        false
    }

    fn shut_down(&self, text: &str) {
        self.tell(&["neighbor", "10.1.1.2", "shutdown", "--reason", text]).unwrap();
    }

    fn ask_again(&self) {
        self.ask("neighbor 10.1.1.2 softresetin").unwrap();
    }

    fn session(&self) -> String {
        self.ask("neighbor 10.1.1.2").unwrap_or_default()
    }
}
