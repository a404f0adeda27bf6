//! anyvip hosts against real routers, in namespaces: what counts is the routing table of the router's kernel.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use anyvip_tests::{Bird, Fabric, Frr, Need, binaries, met};

#[test]
fn the_foreign_routers_start_and_stop() {
    if !met(&[Need::Root, Need::Bird, Need::Frr]) {
        return;
    }
    let fabric = Fabric::new(binaries!(), 1);
    let mut bird = Bird::start(&fabric.lab, &fabric.router);
    assert!(bird.ask("show protocols").unwrap().contains("hosts4"));
    bird.stop();
    let mut frr = Frr::start(&fabric.lab, &fabric.router);
    assert!(frr.ask("show bgp summary").unwrap().contains("No BGP neighbors"));
    frr.stop();
}
