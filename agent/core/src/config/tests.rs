//! Files as people write them.

use std::collections::BTreeSet;
use std::time::Duration;

use anyvip_bgp::PeerName;
use anyvip_bgp::wire::Family;

use super::*;
use crate::boundary::{CheckName, ServiceName};

const MINIMAL: &str = r#"[bgp]
asn = 65011
[bgp.peer.tor1]
address = "10.0.1.1"
asn = 65001
[service.web]
vips = ["192.0.2.80"]
[[service.web.check]]
http = { port = 8080, path = "/healthz" }
"#;

fn source(name: &str, text: &str) -> Source {
    Source { name: name.to_owned(), text: text.to_owned() }
}

/// A host with one uplink.
fn facts() -> HostFacts {
    let at = |interface: &str, address: &str, prefix_len| InterfaceAddress {
        interface: interface.to_owned(),
        address: address.parse().unwrap(),
        prefix_len,
    };
    HostFacts {
        stored_router_id: None,
        addresses: vec![
            at("lo", "127.0.0.1", 8),
            at("lo", "192.0.2.80", 32),
            at("eth0", "169.254.7.7", 16),
            at("eth0", "10.0.1.11", 24),
            at("docker0", "10.0.0.1", 24),
        ],
        default_uplinks: BTreeSet::new(),
    }
}

fn loaded(text: &str) -> Loaded {
    match load(&[source("config.toml", text)], &facts()) {
        Ok(loaded) => loaded,
        Err(found) => panic!("{}", lines(&found)),
    }
}

fn lines(found: &[Diagnostic]) -> String {
    found.iter().map(|found| format!("{found}\n")).collect()
}

fn refused(text: &str) -> String {
    match load(&[source("c", text)], &facts()) {
        Ok(loaded) => panic!("taken: {loaded:?}"),
        Err(found) => lines(&found),
    }
}

#[test]
fn a_file_of_ten_lines_is_enough() {
    assert!(MINIMAL.lines().count() <= 10);
    let Loaded { config, warnings } = loaded(MINIMAL);
    assert_eq!(lines(&warnings), "");
    assert_eq!(config.router_id.to_string(), "10.0.1.11");
    let peer = &config.bgp.peers[&PeerName::from("tor1")];
    assert_eq!((peer.remote.port, peer.ttl, peer.connect), (179, Some(1), true));
    assert_eq!((peer.hold_time, peer.connect_retry), (Some(Duration::from_secs(9)), Duration::from_secs(1)));
    assert_eq!(peer.families, BTreeSet::from([Family::Ipv4]));
    let web = &config.services[&ServiceName::from("web")];
    assert_eq!(web.peers, BTreeSet::from([PeerName::from("tor1")]));
    let [check] = web.checks.as_slice() else { panic!("{:?}", web.checks) };
    assert_eq!(check.name, CheckName::from("web/1"));
    assert!(check.on_vip);
    assert_eq!((check.interval, check.timeout), (Duration::from_secs(1), Duration::from_millis(500)));
    assert_eq!((check.rise, check.fall), (2, 2));
    let CheckKind::Http(http) = &check.kind else { panic!("{check:?}") };
    assert_eq!((http.port, http.path.as_str(), http.address), (8080, "/healthz", None));
    assert_eq!(http.expect_status, [(200, 299)]);
    assert_eq!(config.host.vip_interface, "lo");
    assert_eq!(config.host.stop_time, Duration::from_secs(2));
}

#[test]
fn a_missing_number_is_told_with_its_place_and_remedy() {
    let text = MINIMAL.replace("asn = 65001\n", "");
    let found = refused(&text);
    assert_eq!(
        found,
        "c:3:11: bgp.peer.tor1.asn: missing; write asn = …, the AS number of the router, here or in [bgp.defaults]\n"
    );
}
