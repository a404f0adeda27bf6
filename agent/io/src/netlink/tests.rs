//! The real kernel, each test in namespaces of its own.

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyvip_machine::FailureKind;

use super::*;
use crate::Namespace;

const PATIENCE: Duration = Duration::from_secs(30);

/// Runs `story` inside a new namespace in which `lo` is up. Not root: says so, and fails where CI counts on it.
pub(crate) fn inside<F: Future<Output = ()>>(story: impl FnOnce() -> F + Send) {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "CI must run this as root");
        println!("skipped: needs root for a network namespace");
        return;
    }
    Namespace::create()
        .unwrap()
        .run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                Netlink::open().unwrap().set_link_up(1).await.unwrap();
                story().await;
            });
        })
        .unwrap();
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn shell(line: &str) {
    let status = Command::new("sh").args(["-ec", line]).status().unwrap();
    assert!(status.success(), "{line}: {status}");
}

/// The first snapshot for which `wanted` holds.
async fn until(monitor: &mut Monitor, wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
    let mut last = None;
    let search = async {
        loop {
            let snapshot = monitor.next().await;
            if wanted(&snapshot) {
                return snapshot;
            }
            last = Some(snapshot);
        }
    };
    match tokio::time::timeout(PATIENCE, search).await {
        Ok(snapshot) => snapshot,
        Err(_) => panic!("never came; last seen {last:#?}, {:?}", monitor.stats()),
    }
}

fn find<'a>(snapshot: &'a Snapshot, address: &str) -> Option<&'a Address> {
    let address = ip(address);
    snapshot.addresses.iter().find(|found| found.address == address)
}

/// A veth pair within this one namespace; the indices of both ends, up.
async fn veth(netlink: &Netlink) -> (u32, u32) {
    let here = Namespace::current().unwrap();
    netlink.create_veth(("left", &here), ("right", &here)).await.unwrap();
    let ends = (netlink.link("left").await.unwrap().index, netlink.link("right").await.unwrap().index);
    netlink.set_link_up(ends.0).await.unwrap();
    netlink.set_link_up(ends.1).await.unwrap();
    ends
}

#[test]
fn a_vip_is_seen_with_its_marks_and_its_removal_by_somebody_else_too() {
    inside(|| async {
        let netlink = Netlink::open().unwrap();
        let mut monitor = Monitor::open().unwrap();
        let first = monitor.next().await;
        assert!(first.links[&1].loopback && first.links[&1].up && first.links[&1].name == "lo");
        for vip in ["192.0.2.53", "2001:db8::53"] {
            assert!(find(&first, vip).is_none());
            netlink.add_vip(1, ip(vip)).await.unwrap();
            let snapshot = until(&mut monitor, |snapshot| find(snapshot, vip).is_some()).await;
            let address = find(&snapshot, vip).unwrap();
            assert_eq!(address.interface, 1);
            assert_eq!(address.prefix_len, if ip(vip).is_ipv4() { 32 } else { 128 });
            assert_eq!(address.protocol, VIP_PROTOCOL);
            assert!(address.deprecated && !address.tentative && !address.dad_failed);
            assert_eq!(address.scope_host, ip(vip).is_ipv4());
        }
        shell("ip addr del 192.0.2.53/32 dev lo; ip addr del 2001:db8::53/128 dev lo");
        until(&mut monitor, |snapshot| {
            find(snapshot, "192.0.2.53").is_none() && find(snapshot, "2001:db8::53").is_none()
        })
        .await;
    });
}

#[test]
fn refused_changes_are_told_apart_and_name_what_was_tried() {
    inside(|| async {
        let netlink = Netlink::open().unwrap();
        netlink.add_vip(1, ip("192.0.2.53")).await.unwrap();
        let twice = netlink.add_vip(1, ip("192.0.2.53")).await.unwrap_err();
        assert_eq!(twice.kind, FailureKind::AlreadyExists);
        assert!(twice.text.starts_with("cannot add 192.0.2.53 to interface 1: "), "{twice}");
        let nowhere = netlink.add_vip(77, ip("192.0.2.54")).await.unwrap_err();
        assert_eq!(nowhere.kind, FailureKind::NotFound, "{nowhere}");
        netlink.remove_address(1, ip("192.0.2.53")).await.unwrap();
        let gone = netlink.remove_address(1, ip("192.0.2.53")).await.unwrap_err();
        assert_eq!(gone.kind, FailureKind::AddressNotAvailable, "{gone}");
        assert_eq!(netlink.link("nosuch").await.unwrap_err().kind, FailureKind::NotFound);
    });
}

#[test]
fn the_arp_guard_goes_up_and_back_to_zero_and_a_refresh_shows_it() {
    inside(|| async {
        let netlink = Netlink::open().unwrap();
        let (left, right) = veth(&netlink).await;
        let mut monitor = Monitor::open().unwrap();
        let guard = |snapshot: &Snapshot| {
            let settings = snapshot.links[&left].settings;
            (settings.arp_ignore, settings.arp_announce)
        };
        until(&mut monitor, |snapshot| guard(snapshot) == (0, 0) && snapshot.links[&left].arp).await;
        for values in [(1, 2), (0, 0), (0, 2)] {
            netlink.set_arp(left, values.0, values.1).await.unwrap();
            monitor.refresh();
            let snapshot = until(&mut monitor, |snapshot| guard(snapshot) == values).await;
            assert_eq!(snapshot.links[&right].settings.arp_ignore, 0, "the other interface is untouched");
        }
        netlink.set_rp_filter(left, 2).await.unwrap();
        shell("echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore");
        monitor.refresh();
        let snapshot = until(&mut monitor, |snapshot| snapshot.all.arp_ignore == 1).await;
        assert_eq!(snapshot.links[&left].settings.rp_filter, 2);
    });
}

#[test]
fn links_show_carrier_and_a_deleted_one_is_gone_with_its_addresses_and_routes() {
    inside(|| async {
        let netlink = Netlink::open().unwrap();
        let (left, right) = veth(&netlink).await;
        netlink.add_address(left, ip("10.1.0.1"), 24).await.unwrap();
        netlink.add_route("0.0.0.0/0".parse().unwrap(), Some(ip("10.1.0.2")), left, 7).await.unwrap();
        let mut monitor = Monitor::open().unwrap();
        let default = Route {
            destination: "0.0.0.0/0".parse().unwrap(),
            metric: 7,
            hops: vec![Hop { gateway: Some(ip("10.1.0.2")), interface: left, weight: 1 }],
            protocol: 4,
        };
        let snapshot = until(&mut monitor, |snapshot| !snapshot.routes.is_empty()).await;
        assert_eq!(snapshot.routes, [default], "the connected /24 is nobody's interest");
        assert!(snapshot.links[&left].carrier && snapshot.links[&left].mac.is_some());

        netlink.set_link_down(right).await.unwrap();
        let snapshot = until(&mut monitor, |snapshot| !snapshot.links[&left].carrier).await;
        assert!(snapshot.links[&left].up && !snapshot.links[&right].up);
        // IPv4 routes of a link that goes down go without an event of their own.
        netlink.set_link_down(left).await.unwrap();
        until(&mut monitor, |snapshot| !snapshot.links[&left].up && snapshot.routes.is_empty()).await;
        netlink.delete_link(left).await.unwrap();
        until(&mut monitor, |snapshot| {
            !snapshot.links.contains_key(&left) && find(snapshot, "10.1.0.1").is_none()
        })
        .await;
    });
}

#[test]
fn only_routes_that_cover_an_interest_are_kept() {
    inside(|| async {
        let netlink = Netlink::open().unwrap();
        let (left, _) = veth(&netlink).await;
        netlink.add_address(left, ip("10.1.0.1"), 24).await.unwrap();
        for route in 0..200_u8 {
            let destination = format!("10.2.{route}.0/24").parse().unwrap();
            netlink.add_route(destination, Some(ip("10.1.0.2")), left, 0).await.unwrap();
        }
        let mut monitor = Monitor::open().unwrap();
        assert!(monitor.next().await.routes.is_empty());
        monitor.watch(vec![ip("10.2.150.9"), ip("10.1.0.2")]);
        let snapshot = until(&mut monitor, |snapshot| !snapshot.routes.is_empty()).await;
        let destinations: Vec<_> =
            snapshot.routes.iter().map(|route| route.destination.to_string()).collect();
        assert_eq!(destinations, ["10.1.0.0/24", "10.2.150.0/24"]);
        assert_eq!(snapshot.routes[0].hops, [Hop { gateway: None, interface: left, weight: 1 }]);

        netlink.delete_route("10.2.150.0/24".parse().unwrap()).await.unwrap();
        until(&mut monitor, |snapshot| snapshot.routes.len() == 1).await;
        shell(
            "ip route add 10.2.150.0/24 nexthop via 10.1.0.2 weight 1 nexthop via inet6 fe80::2 dev left weight 9",
        );
        let snapshot = until(&mut monitor, |snapshot| snapshot.routes.len() == 2).await;
        let hops = &snapshot.routes[1].hops;
        let told: Vec<_> = hops.iter().map(|hop| (hop.gateway, hop.interface, hop.weight)).collect();
        assert_eq!(told, [(Some(ip("10.1.0.2")), left, 1), (Some(ip("fe80::2")), left, 9)]);
        monitor.watch(Vec::new());
        until(&mut monitor, |snapshot| snapshot.routes.is_empty()).await;
    });
}

#[test]
fn hops_are_found_behind_next_hop_objects_that_the_kernel_does_not_spell_out() {
    inside(|| async {
        shell("echo 0 > /proc/sys/net/ipv4/nexthop_compat_mode");
        let netlink = Netlink::open().unwrap();
        let (left, _) = veth(&netlink).await;
        netlink.add_address(left, ip("10.1.0.1"), 24).await.unwrap();
        netlink.replace_nexthop(1, ip("10.1.0.2"), left).await.unwrap();
        netlink.replace_nexthop(2, ip("10.1.0.3"), left).await.unwrap();
        netlink.replace_nexthop_group(10, &[(1, 1), (2, 200)]).await.unwrap();
        netlink.replace_route_via_nexthop("0.0.0.0/0".parse().unwrap(), 10, 201).await.unwrap();
        let mut monitor = Monitor::open().unwrap();
        let told = |snapshot: &Snapshot| -> Vec<(IpAddr, u16)> {
            let hops = snapshot.routes.iter().flat_map(|route| &route.hops);
            hops.filter_map(|hop| Some((hop.gateway?, hop.weight))).collect()
        };
        until(&mut monitor, |snapshot| told(snapshot) == [(ip("10.1.0.2"), 1), (ip("10.1.0.3"), 200)]).await;
        netlink.replace_nexthop_group(10, &[(2, 1)]).await.unwrap();
        until(&mut monitor, |snapshot| told(snapshot) == [(ip("10.1.0.3"), 1)]).await;
    });
}

#[test]
fn a_burst_that_overruns_the_buffer_ends_in_the_true_view() {
    inside(|| async {
        let mut monitor = Monitor::with_receive_buffer(2048).unwrap();
        monitor.next().await;
        let batch = std::env::temp_dir().join(format!("anyvip-io-burst-{}", std::process::id()));
        let mut lines = String::new();
        for at in 0..3000_u32 {
            lines += &format!("addr add 10.9.{}.{}/32 dev lo\n", at / 250, at % 250 + 1);
        }
        for at in 0..2990_u32 {
            lines += &format!("addr del 10.9.{}.{}/32 dev lo\n", at / 250, at % 250 + 1);
        }
        std::fs::write(&batch, lines).unwrap();
        shell(&format!("ip -batch {}", batch.display()));
        std::fs::remove_file(&batch).unwrap();
        let left = |snapshot: &Snapshot| {
            snapshot.addresses.iter().filter(|found| found.address.to_string().starts_with("10.9.")).count()
        };
        let snapshot = until(&mut monitor, |snapshot| left(snapshot) == 10).await;
        assert!(find(&snapshot, "10.9.11.250").is_some(), "{snapshot:?}");
        assert!(monitor.stats().overruns > 0, "{:?}", monitor.stats());
        assert_eq!(monitor.stats().failed, 0, "{:?}", monitor.stats());
    });
}

#[test]
fn events_that_change_nothing_cost_no_dump_and_no_snapshot() {
    inside(|| async {
        let netlink = Netlink::open().unwrap();
        let (left, right) = veth(&netlink).await;
        netlink.add_address(left, ip("2001:db8::1"), 64).await.unwrap();
        let mut monitor = Monitor::open().unwrap();
        // Quiet: both ends are up, and their link-local addresses are there and found to be unique.
        until(&mut monitor, |snapshot| {
            [left, right].iter().all(|end| {
                let link_local = |address: &&Address| address.interface == *end && address.scope_link;
                snapshot.links[end].carrier
                    && snapshot.addresses.iter().find(link_local).is_some_and(|address| !address.tentative)
            })
        })
        .await;
        let rounds = monitor.stats().rounds;
        for seconds in 1000..1100 {
            shell(&format!(
                "ip addr change 2001:db8::1/64 dev left valid_lft {seconds} preferred_lft {seconds}"
            ));
            shell(&format!("ip route add 10.{}.0.0/16 dev left", seconds - 1000));
        }
        netlink.add_vip(1, ip("192.0.2.53")).await.unwrap();
        let snapshot = monitor.next().await;
        assert!(find(&snapshot, "192.0.2.53").is_some(), "no snapshot before that of the VIP");
        let more = monitor.stats().rounds - rounds;
        assert!(more <= 3, "{more} rounds for one change");
    });
}

#[test]
fn a_group_of_three_spreads_flows_and_asks_the_kernel_which_way() {
    inside(|| async {
        shell(
            "echo 1 > /proc/sys/net/ipv4/ip_forward
             echo 3 > /proc/sys/net/ipv4/fib_multipath_hash_policy
             echo 55 > /proc/sys/net/ipv4/fib_multipath_hash_fields",
        );
        let netlink = Netlink::open().unwrap();
        let (left, right) = veth(&netlink).await;
        netlink.add_address(left, ip("10.1.0.1"), 24).await.unwrap();
        netlink.add_address(left, ip("2001:db8:1::1"), 64).await.unwrap();
        netlink.add_address(right, ip("10.3.0.1"), 24).await.unwrap();
        let gateways = [ip("10.1.0.11"), ip("10.1.0.12"), ip("2001:db8:1::13")];
        for (id, gateway) in (1..).zip(gateways) {
            netlink.replace_nexthop(id, gateway, left).await.unwrap();
        }
        let vip = "192.0.2.53/32".parse().unwrap();
        netlink.replace_nexthop_group(10, &[(1, 1), (2, 1), (3, 2)]).await.unwrap();
        netlink.replace_route_via_nexthop(vip, 10, VIP_PROTOCOL).await.unwrap();
        let ask = async |source_port| {
            let query = RouteQuery {
                destination: ip("192.0.2.53"),
                source: ip("10.3.0.9"),
                input: Some(right),
                protocol: 17,
                source_port,
                destination_port: 53,
            };
            netlink.route_get(query).await
        };
        let mut counts = [0; 3];
        for port in 20_000..20_800 {
            let hop = ask(port).await.unwrap();
            assert_eq!(hop, ask(port).await.unwrap(), "the same flow, the same way");
            assert_eq!(hop.interface, left);
            let way = gateways.iter().position(|gateway| hop.gateway == Some(*gateway));
            counts[way.expect("one of the three")] += 1;
        }
        assert!((130..270).contains(&counts[0]) && (130..270).contains(&counts[1]), "{counts:?}");
        assert!((330..470).contains(&counts[2]), "twice the weight, an IPv6 gateway: {counts:?}");

        netlink.replace_nexthop_group(10, &[(2, 1)]).await.unwrap();
        for port in 20_000..20_020 {
            assert_eq!(ask(port).await.unwrap().gateway, Some(gateways[1]));
        }
        netlink.delete_route(vip).await.unwrap();
        assert_eq!(ask(20_000).await.unwrap_err().kind, FailureKind::Unreachable);
        netlink.delete_nexthop(10).await.unwrap();
        assert_eq!(netlink.delete_nexthop(10).await.unwrap_err().kind, FailureKind::NotFound);
    });
}

#[test]
fn a_silent_interface_sends_nothing_until_the_silence_ends() {
    inside(|| async {
        let (here, there) = (Namespace::current().unwrap(), Namespace::create().unwrap());
        let netlink = Netlink::open().unwrap();
        let other = there.run(Netlink::open).unwrap().unwrap();
        netlink.create_veth(("near", &here), ("far", &there)).await.unwrap();
        let (near, far) = (netlink.link("near").await.unwrap().index, other.link("far").await.unwrap().index);
        assert_eq!(netlink.link("far").await.unwrap_err().kind, FailureKind::NotFound, "born over there");
        netlink.add_address(near, ip("10.1.0.1"), 24).await.unwrap();
        other.add_address(far, ip("10.1.0.2"), 24).await.unwrap();
        netlink.set_link_up(near).await.unwrap();
        other.set_link_up(far).await.unwrap();
        let receiver = there.run(|| std::net::UdpSocket::bind("10.1.0.2:5000").unwrap()).unwrap();
        receiver.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let sender = std::net::UdpSocket::bind("10.1.0.1:0").unwrap();
        let arrives = |word: &[u8]| {
            let mut bytes = [0; 16];
            (0..50).any(|_| {
                // A full queue is the silence itself.
                let _ = sender.send_to(word, "10.1.0.2:5000");
                matches!(receiver.recv(&mut bytes), Ok(length) if &bytes[..length] == word)
            })
        };
        assert!(arrives(b"before"));
        netlink.silence(near).await.unwrap();
        assert!(netlink.link("near").await.unwrap().carrier, "the link stays up");
        let _ = sender.send_to(b"during", "10.1.0.2:5000");
        let mut bytes = [0; 16];
        while let Ok(length) = receiver.recv(&mut bytes) {
            assert_ne!(&bytes[..length], b"during");
        }
        netlink.end_silence(near).await.unwrap();
        assert!(arrives(b"after"));
        assert_eq!(netlink.end_silence(near).await.unwrap_err().kind, FailureKind::NotFound);
    });
}

#[test]
fn bridges_take_ports_and_let_them_go() {
    inside(|| async {
        let netlink = Netlink::open().unwrap();
        let (left, _) = veth(&netlink).await;
        netlink.create_bridge("br0").await.unwrap();
        let bridge = netlink.link("br0").await.unwrap().index;
        netlink.set_link_up(bridge).await.unwrap();
        let master = || {
            let shown = Command::new("ip").args(["-o", "link", "show", "left"]).output().unwrap();
            String::from_utf8_lossy(&shown.stdout).contains("master br0")
        };
        netlink.set_master(left, Some(bridge)).await.unwrap();
        assert!(master());
        netlink.set_master(left, None).await.unwrap();
        assert!(!master());
        assert_eq!(netlink.create_bridge("br0").await.unwrap_err().kind, FailureKind::AlreadyExists);
    });
}

#[test]
fn a_route_without_objects_takes_the_same_next_hop_many_times_and_keeps_their_order() {
    inside(|| async {
        shell("echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
        let netlink = Netlink::open().unwrap();
        let (left, right) = veth(&netlink).await;
        netlink.add_address(left, ip("10.1.0.1"), 24).await.unwrap();
        netlink.add_address(left, ip("2001:db8:1::1"), 64).await.unwrap();
        netlink.add_address(right, ip("10.3.0.1"), 24).await.unwrap();
        let cases = [
            ("192.0.2.0/24", "192.0.2.53", "10.3.0.9", ["10.1.0.11", "10.1.0.12"]),
            ("2001:db8:53::/64", "2001:db8:53::1", "2001:db8:3::9", ["2001:db8:1::11", "2001:db8:1::12"]),
        ];
        for (prefix, destination, source, gateways) in cases {
            let path = |gateway: &str, weight| Path { gateway: ip(gateway), interface: left, weight };
            let prefix = prefix.parse().unwrap();
            // IPv6 takes a gateway once in a route.
            let repeated = if ip(source).is_ipv4() { 500 } else { 1 };
            let mut paths = vec![path(gateways[0], 1); repeated];
            paths.push(path(gateways[1], 256));
            netlink.replace_multipath_route(prefix, &paths, VIP_PROTOCOL).await.unwrap();
            let query = |source_port| RouteQuery {
                destination: ip(destination),
                source: ip(source),
                input: Some(right),
                protocol: 17,
                source_port,
                destination_port: 53,
            };
            let hops = netlink.routes_get((0..500).map(query).collect()).await.unwrap();
            assert_eq!(hops.len(), 500);
            assert!(hops.iter().flatten().filter(|hop| hop.interface == left).count() == 500, "{hops:?}");
            netlink.replace_multipath_route(prefix, &paths[..1], VIP_PROTOCOL).await.unwrap();
            let hops = netlink.routes_get(vec![query(7)]).await.unwrap();
            assert_eq!(hops[0].as_ref().and_then(|hop| hop.gateway), Some(ip(gateways[0])));
        }
        let nowhere = RouteQuery {
            destination: ip("203.0.113.1"),
            source: ip("10.3.0.9"),
            input: Some(right),
            protocol: 17,
            source_port: 1,
            destination_port: 1,
        };
        let failure = netlink.routes_get(vec![nowhere]).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unreachable, "{failure}");
    });
}

#[test]
fn a_resilient_group_shows_its_buckets_and_moves_only_those_of_a_member_that_leaves() {
    inside(|| async {
        let netlink = Netlink::open().unwrap();
        let (left, _) = veth(&netlink).await;
        netlink.add_address(left, ip("10.1.0.1"), 24).await.unwrap();
        for id in 1..=3_u8 {
            let gateway = IpAddr::from([10, 1, 0, 10 + id]);
            netlink.replace_nexthop(id.into(), gateway, left).await.unwrap();
        }
        let table =
            ResilientTable { buckets: 999, idle: Duration::from_secs(120), unbalanced: Duration::ZERO };
        netlink.replace_resilient_group(10, &[(1, 1), (2, 1), (3, 1)], table).await.unwrap();
        let before = netlink.resilient_buckets(10).await.unwrap();
        assert!(before.iter().map(|bucket| bucket.index).eq(0..999));
        for id in 1..=3 {
            assert_eq!(before.iter().filter(|bucket| bucket.nexthop == id).count(), 333);
        }
        netlink.replace_resilient_group(10, &[(1, 1), (3, 1)], table).await.unwrap();
        let after = netlink.resilient_buckets(10).await.unwrap();
        for (before, after) in before.iter().zip(&after) {
            assert!(before.nexthop == after.nexthop || before.nexthop == 2);
        }
        assert!(after.iter().all(|bucket| bucket.nexthop != 2));
        // Another number of buckets is refused, and no group has none.
        let other = ResilientTable { buckets: 5, ..table };
        assert!(netlink.replace_resilient_group(10, &[(1, 1)], other).await.is_err());
        assert!(netlink.resilient_buckets(77).await.is_err());
    });
}

#[test]
fn a_default_route_of_ours_comes_changes_and_goes_beside_those_of_others() {
    inside(|| async {
        let netlink = Netlink::open().unwrap();
        let (left, _right) = veth(&netlink).await;
        netlink.add_address(left, ip("10.1.0.1"), 24).await.unwrap();
        netlink.add_address(left, ip("fd00:1::1"), 64).await.unwrap();
        let mut monitor = Monitor::open().unwrap();
        for (default, one, two, metric) in
            [("0.0.0.0/0", "10.1.0.2", "10.1.0.3", 7), ("::/0", "fd00:1::2", "fd00:1::3", 1024)]
        {
            let default: ipnet::IpNet = default.parse().unwrap();
            netlink.add_route(default, Some(ip(one)), left, metric).await.unwrap();
            let gateways = |snapshot: &Snapshot| -> Vec<(u8, u32, Vec<IpAddr>)> {
                let of = |route: &Route| {
                    (route.protocol, route.metric, route.hops.iter().filter_map(|hop| hop.gateway).collect())
                };
                snapshot.routes.iter().filter(|route| route.destination == default).map(of).collect()
            };
            let other = (4, metric, vec![ip(one)]);
            netlink.set_default_route(default, &[(ip(one), None)], 50, false).await.unwrap();
            until(&mut monitor, |s| gateways(s).contains(&(VIP_PROTOCOL, 50, vec![ip(one)]))).await;
            netlink
                .set_default_route(default, &[(ip(one), None), (ip(two), Some(left))], 50, true)
                .await
                .unwrap();
            let both = (VIP_PROTOCOL, 50, vec![ip(one), ip(two)]);
            until(&mut monitor, |s| gateways(s).contains(&both) && gateways(s).contains(&other)).await;
            // Of those with another protocol number none is removed, also with the same metric.
            netlink.remove_default_route(default, 50).await.unwrap();
            until(&mut monitor, |s| gateways(s) == [other.clone()]).await;
            let refused = netlink.remove_default_route(default, metric).await;
            assert!(refused.is_err(), "{refused:?}");
            assert!(
                netlink.set_default_route(default, &[(ip(two), None)], metric, false).await.is_err()
                    || default.addr().is_ipv6()
            );
            netlink.delete_route(default).await.unwrap();
        }
    });
}
