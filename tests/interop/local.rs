//! A routing daemon on the host itself: it has the sessions with the routers, and tells on what anyvip tells it over 127.0.0.1.

use anyvip_tests::{Bird, Fabric, Frr, LONG, VIP4, VIP6, binaries, wait_until};

use crate::router::{Manner, Router};

const AGENT: &str = r#"config_version = 1
router_id = "10.1.1.200"
[bgp]
asn = 65001
peer.local = { address = "127.0.0.1", asn = 65001 }
[service.web]
vips = ["198.51.100.1", "2001:db8:100::1"]
[[service.web.check]]
tcp = { port = 8080 }
interval = "100ms"
timeout = "100ms"
"#;

/// Takes from 127.0.0.1, tells the router with itself as next hop.
const BIRD: &str = r#"router id 10.1.1.2;
log stderr all;
protocol device { scan time 60; }
protocol direct { ipv4; ipv6; interface "eth0"; }
protocol bgp anyvip {
  local 127.0.0.1 as 65001; neighbor 127.0.0.1 as 65001; passive on;
  ipv4 { import all; export none; };
  ipv6 { import all; export none; };
}
protocol bgp upstream {
  local 10.1.1.2 as 65001; neighbor 10.1.1.1 as 65000;
  connect delay time 1; connect retry time 1; error wait time 1, 2;
  ipv4 { import none; export where source = RTS_BGP; next hop self; };
  ipv6 { import none; export where source = RTS_BGP; next hop self; };
}
"#;

/// FRR refuses its own addresses as next hops, and does not tell a router a route that leads to that router: what it takes from
/// 127.0.0.1 gets any other address of the link, and its own when it is told on.
const FRR: &str = r"frr defaults datacenter
hostname host
service integrated-vtysh-config
router bgp 65001
 bgp router-id 10.1.1.2
 no bgp ebgp-requires-policy
 coalesce-time 10
 neighbor HOSTS peer-group
 neighbor 127.0.0.1 remote-as 65001
 neighbor 127.0.0.1 passive
 neighbor 127.0.0.1 update-source lo
 neighbor 10.1.1.1 remote-as 65000
 neighbor 10.1.1.1 timers connect 1
 address-family ipv4 unicast
  neighbor HOSTS activate
  neighbor 127.0.0.1 activate
  neighbor 127.0.0.1 route-map LOCAL in
  neighbor 10.1.1.1 activate
  neighbor 10.1.1.1 route-map ROUTER out
 exit-address-family
 address-family ipv6 unicast
  neighbor HOSTS activate
  neighbor 127.0.0.1 activate
  neighbor 127.0.0.1 route-map LOCAL in
  neighbor 10.1.1.1 activate
  neighbor 10.1.1.1 route-map ROUTER out
 exit-address-family
exit
route-map LOCAL permit 10
 set ip next-hop 10.1.1.254
 set ipv6 next-hop global fd00:1:1::fe
exit
route-map ROUTER permit 10
 set ip next-hop 10.1.1.2
 set ipv6 next-hop global fd00:1:1::2
exit
end
";

/// BIRD on the host, FRR as the router.
pub(crate) fn bird_on_the_host_tells_on_what_it_is_told() {
    story::<Frr, Bird>(|fabric| Bird::with(&fabric.lab, fabric.host(1), BIRD), Router::log);
}

/// FRR on the host, BIRD as the router.
pub(crate) fn frr_on_the_host_tells_on_what_it_is_told() {
    story::<Bird, Frr>(|fabric| Frr::with(&fabric.lab, fabric.host(1), FRR), Router::log);
}

fn story<Upstream: Router, Local>(start: impl Fn(&Fabric) -> Local, log: impl Fn(&Local) -> String) {
    let fabric = Fabric::new(binaries!(), 1);
    let router = Upstream::start(&fabric.lab, &fabric.router, &Manner::default());
    let local = start(&fabric);
    let mut service = fabric.service(1);
    let agent = fabric.agent_with(1, AGENT);
    // Routers name an IPv6 next hop by its link-local address where they are told both.
    let wait = |four: &[&str], six: usize| {
        wait_until(LONG, || {
            let seen = (router.next_hops(&fabric, VIP4), router.next_hops(&fabric, VIP6));
            match seen.0 == four && seen.1.len() == six {
                true => Ok(()),
                false => Err(format!("the router has {seen:?}\n{}\n{}", agent.status(), log(&local))),
            }
        });
    };
    wait(&["10.1.1.2"], 1);
    for address in [VIP4, VIP6] {
        assert_eq!(fabric.answer(&fabric.client, address).as_deref(), Some("h1"), "{address} answers");
    }
    service.process.kill();
    wait(&[], 0);
    drop(service);
    let _service = fabric.service(1);
    wait(&["10.1.1.2"], 1);
    agent.run("drain", &["web"]);
    wait(&[], 0);
}
