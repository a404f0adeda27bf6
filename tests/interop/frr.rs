//! FRR as the upstream router.

use anyvip_tests::{Fabric, Frr, Lab, Namespace, Need};
use nix::sys::signal::Signal;

use crate::features::Feature;
use crate::router::{Bfd, Manner, Router, Tells, Told, host_route, spaced};

/// ECMP into the kernel, both families over either session. FRR sends its first UPDATE a second after Established unless
/// `coalesce-time` says otherwise.
fn config(manner: &Manner) -> String {
    let side = if manner.asn == 65000 { "external" } else { "internal" };
    let mut lines = String::new();
    let mut line = |text: String| lines += &format!(" {text}\n");
    if manner.extended_next_hop {
        line("neighbor HOSTS capability extended-nexthop".to_owned());
    }
    if let Some(key) = manner.key {
        line(format!("neighbor HOSTS password {key}"));
    }
    if manner.ttl_security {
        line("neighbor HOSTS ttl-security hops 1".to_owned());
    }
    if manner.multihop {
        line("neighbor HOSTS ebgp-multihop 2".to_owned());
    }
    if let Some(role) = manner.role {
        line(format!("neighbor HOSTS local-role {role}"));
    }
    if manner.bfd == Bfd::Guard {
        line("neighbor HOSTS bfd profile fast".to_owned());
    }
    if manner.links > 0 {
        line("neighbor HOSTS timers connect 1".to_owned());
        for n in 1..=manner.links {
            line(format!("neighbor h{n} interface peer-group HOSTS"));
        }
    } else if manner.calls {
        line("neighbor 10.1.1.2 peer-group HOSTS".to_owned());
        line("neighbor HOSTS timers connect 1".to_owned());
    } else {
        line("bgp listen range 10.1.0.0/16 peer-group HOSTS".to_owned());
        line("bgp listen range fd00:1::/32 peer-group HOSTS".to_owned());
    }
    let mut family = String::new();
    match manner.tells {
        Tells::Nothing => {}
        Tells::AllPaths => family += "  neighbor HOSTS addpath-tx-all-paths\n",
        Tells::Default => family += "  neighbor HOSTS default-originate\n",
        // Among the lines of IPv4 below.
        Tells::Thousand => {}
    }
    if let Some(limit) = manner.limit {
        family += &format!("  neighbor HOSTS maximum-prefix {limit}\n");
    }
    let mut networks = String::new();
    if manner.tells == Tells::Thousand {
        networks.extend((0..1000).map(|n| format!("  network {}\n", host_route(n))));
    }
    let bfd = match manner.bfd {
        Bfd::None => "",
        Bfd::Guard => PROFILE,
        Bfd::Alone => PEERS,
        other => unreachable!("{other:?} is not FRR's"),
    };
    format!(
        r"frr defaults datacenter
hostname router
service integrated-vtysh-config
{bfd}router bgp {asn}
 bgp router-id 10.9.0.1
 bgp log-neighbor-changes
 no bgp ebgp-requires-policy
 no bgp network import-check
 bgp bestpath as-path multipath-relax
 coalesce-time 10
 neighbor HOSTS peer-group
 neighbor HOSTS remote-as {side}
 neighbor HOSTS timers 3 9
{lines} address-family ipv4 unicast
  neighbor HOSTS activate
{networks}{family}  maximum-paths 16
  maximum-paths ibgp 16
 exit-address-family
 address-family ipv6 unicast
  neighbor HOSTS activate
{family}  maximum-paths 16
  maximum-paths ibgp 16
 exit-address-family
exit
",
        asn = manner.asn
    )
}

const PROFILE: &str = "bfd
 profile fast
  transmit-interval 50
  receive-interval 50
  detect-multiplier 3
 exit
exit
";

const PEERS: &str = "bfd
 profile fast
  transmit-interval 50
  receive-interval 50
  detect-multiplier 3
 exit
 peer 10.1.1.2 local-address 10.1.1.1 interface h1
  profile fast
 exit
 peer fd00:1:1::2 local-address fd00:1:1::1 interface h1
  profile fast
 exit
 peer 10.1.1.2 multihop local-address 10.1.2.1
  transmit-interval 100
  receive-interval 100
  minimum-ttl 250
 exit
exit
";

impl Router for Frr {
    const NAME: &'static str = "FRR";
    const NEEDS: &'static [Need] = &[Need::Root, Need::Frr, Need::Bfdd];

    fn version() -> String {
        crate::page::version("/usr/lib/frr/bgpd", &["--version"])
    }

    fn lacks(feature: Feature) -> Option<&'static str> {
        match feature {
            Feature::BfdAuthentication => Some("has no BFD authentication"),
            Feature::StaticRoute => Some("8.4 has no static route with BFD"),
            Feature::UnnumberedCall => Some("calls by interface only, and advertises itself before"),
            _ => None,
        }
    }

    fn start(lab: &Lab, namespace: &Namespace, manner: &Manner) -> Self {
        Frr::with(lab, namespace, &config(manner))
    }

    fn stop(&mut self) {
        Frr::stop(self);
    }

    fn shown(&self, address: &str) -> String {
        let family = if address.contains(':') { "ipv6" } else { "ipv4" };
        self.ask(&format!("show bgp {family} unicast {address}")).unwrap_or_else(|text| text)
    }

    fn words(fact: &Told) -> String {
        match fact {
            Told::Path([]) => "\n  Local\n".to_owned(),
            Told::Path(asns) => format!("\n  {}\n", spaced(asns)),
            Told::Med(med) => format!("metric {med},"),
            Told::LocalPref(value) => format!("localpref {value},"),
            Told::Community(high, low) => format!("{high}:{low}"),
            Told::LargeCommunity(a, b, c) => format!("Large Community: {a}:{b}:{c}"),
            Told::RouteTarget(asn, value) => format!("Extended Community: RT:{asn}:{value}"),
            Told::GracefulShutdown => "graceful-shutdown".to_owned(),
            Told::OnlyToCustomer(asn) => format!("otc {asn}"),
        }
    }

    fn next_hops(&self, fabric: &Fabric, address: &str) -> Vec<String> {
        fabric.router.next_hops(address)
    }

    fn log(&self) -> String {
        Frr::log(self)
    }

    fn shut_down(&self, text: &str) {
        let line = format!("neighbor HOSTS shutdown message {text}");
        self.tell(&["configure terminal", "router bgp 65000", &line]).unwrap();
    }

    fn ask_again(&self) {
        self.ask("clear bgp ipv4 unicast * soft in").unwrap();
    }

    fn session(&self) -> String {
        self.ask("show bgp neighbors 10.1.1.2").unwrap_or_default()
    }

    fn bfd_state(&self, session: &str) -> Result<String, String> {
        let text = self.ask("show bfd peers json")?;
        let list: Vec<serde_json::Value> = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let found = list.iter().find(|peer| match session {
            "v4" => peer["peer"] == "10.1.1.2" && peer["multihop"] == false,
            "v6" => peer["peer"] == "fd00:1:1::2",
            _ => peer["multihop"] == true,
        });
        found.and_then(|peer| peer["status"].as_str()).map(str::to_owned).ok_or(text)
    }

    fn freeze(&mut self, signal: Signal) {
        self.bfdd().signal(signal);
    }
}
