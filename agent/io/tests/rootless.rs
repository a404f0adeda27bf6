//! A lab without privileges: as nobody, in a user namespace of its own. A program by itself, because only a process
//! without threads may enter one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::IpAddr;
use std::process::Command;

use anyvip_io::netlink::{Monitor, Netlink, RouteQuery, VIP_PROTOCOL};
use anyvip_io::{Namespace, namespace};
use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid};

fn main() {
    if geteuid().is_root() {
        let (nobody, nogroup) = (Uid::from_raw(65534), Gid::from_raw(65534));
        setgroups(&[]).unwrap();
        setresgid(nogroup, nogroup, nogroup).unwrap();
        setresuid(nobody, nobody, nobody).unwrap();
        // Changing ids hides /proc/self from ourselves.
        nix::sys::prctl::set_dumpable(true).unwrap();
    }
    assert!(!geteuid().is_root());
    if let Err(failure) = namespace::enter_user_namespace() {
        assert!(std::env::var_os("CI").is_none(), "CI must allow this: {failure}");
        println!("skipped: {failure}");
        return;
    }
    assert!(geteuid().is_root(), "root in here");
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(story());
    println!("an unprivileged user has a router, a host and a VIP: ok");
}

async fn story() {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let (router, host) = (Namespace::create().unwrap(), Namespace::create().unwrap());
    router.set_sysctl("net.ipv4.ip_forward", "1").unwrap();
    router.set_sysctl("net.ipv4.fib_multipath_hash_policy", "3").unwrap();
    let in_router = router.run(Netlink::open).unwrap().unwrap();
    let in_host = host.run(Netlink::open).unwrap().unwrap();
    let mut monitor = host.run(Monitor::open).unwrap().unwrap();

    in_router.create_veth(("down", &router), ("eth0", &host)).await.unwrap();
    let down = in_router.link("down").await.unwrap().index;
    let eth0 = in_host.link("eth0").await.unwrap().index;
    in_router.set_link_up(1).await.unwrap();
    in_router.set_link_up(down).await.unwrap();
    in_host.set_link_up(1).await.unwrap();
    in_host.set_link_up(eth0).await.unwrap();
    in_router.add_address(down, ip("10.0.0.1"), 24).await.unwrap();
    in_host.add_address(eth0, ip("10.0.0.2"), 24).await.unwrap();
    in_host.set_arp(eth0, 1, 2).await.unwrap();
    in_host.add_vip(1, ip("192.0.2.53")).await.unwrap();

    in_router.replace_nexthop(1, ip("10.0.0.2"), down).await.unwrap();
    in_router.replace_nexthop_group(10, &[(1, 1)]).await.unwrap();
    in_router.replace_route_via_nexthop("192.0.2.53/32".parse().unwrap(), 10, VIP_PROTOCOL).await.unwrap();
    let query = RouteQuery {
        destination: ip("192.0.2.53"),
        source: ip("10.0.0.1"),
        input: None,
        protocol: 6,
        source_port: 40_000,
        destination_port: 80,
    };
    assert_eq!(in_router.route_get(query).await.unwrap().gateway, Some(ip("10.0.0.2")));

    let seen = async {
        loop {
            let snapshot = monitor.next().await;
            let vip = snapshot.addresses.iter().find(|address| address.address == ip("192.0.2.53"));
            let guarded = snapshot.links.get(&eth0).is_some_and(|link| link.settings.arp_ignore == 1);
            if vip.is_some_and(|vip| vip.protocol == VIP_PROTOCOL) && guarded {
                return;
            }
            monitor.refresh();
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), seen).await.expect("the VIP is seen, guarded");

    let named = host.name("host").unwrap();
    let shown = Command::new("ip").args(["-n", "host", "-o", "addr", "show", "lo"]).output().unwrap();
    assert!(String::from_utf8(shown.stdout).unwrap().contains("192.0.2.53/32"), "{named:?}");
    let listener = host.run(|| std::net::TcpListener::bind("192.0.2.53:80").unwrap()).unwrap();
    let stream = router.run(|| std::net::TcpStream::connect("192.0.2.53:80").unwrap()).unwrap();
    assert_eq!(listener.accept().unwrap().1, stream.local_addr().unwrap());
}
