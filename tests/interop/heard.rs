//! What routers tell us: how many others announce the same, and the way to everywhere.

use anyvip_tests::{
    Agent, Fabric, LONG, Namespace, Service, VIP4, VIP6, agent_config_with, binaries, vip, wait_until,
};

use crate::router::{Manner, Router, Tells};

/// Waits until host 1's agent knows of so many others at its VIP.
#[track_caller]
fn wait_others(agent: &Agent, wanted: &[Option<u64>]) {
    agent.wait_status(&format!("other origins: {wanted:?}"), |status| {
        let shown = &vip(status, VIP4)["peers"][0]["other_origins"];
        wanted.iter().any(|wanted| *shown == serde_json::json!(wanted))
    });
}

pub(crate) fn others_at_the_same_address_are_counted<R: Router>() {
    let fabric = Fabric::new(binaries!(), 3);
    let manner = Manner { tells: Tells::AllPaths, ..Manner::default() };
    let _router = R::start(&fabric.lab, &fabric.router, &manner);
    let services: Vec<Service> = (1..=3).map(|n| fabric.service(n)).collect();
    let vips = format!("\"{VIP4}\"");
    let config =
        |n| agent_config_with(n, &vips, "").replace("asn = 65000\n", "asn = 65000\nadd_path = true\n");
    let mut agents: Vec<Agent> = (1..=3).map(|n| fabric.agent_with(n, &config(n))).collect();
    wait_others(&agents[0], &[Some(2)]);
    let status = agents[0].status();
    assert_eq!(status["peers"][0]["heard"]["add_path"][0], "ipv4", "{status:#}");
    assert!(status["peers"][0]["heard"]["prefixes"].as_u64().unwrap() >= 2);
    agents[2].kill();
    wait_others(&agents[0], &[Some(1)]);
    agents[1].kill();
    // A router may show us our own way, or none.
    wait_others(&agents[0], &[Some(0), None]);
    assert_eq!(agents[0].status()["peers"][0]["sessions_lost"], 0);
    drop((agents, services));
}

/// Gateways of default routes that an agent installed.
fn installed(host: &Namespace) -> Vec<String> {
    let routes = ["-4", "-6"].map(|family| host.ip_json(&format!("{family} route show default")));
    let ours = routes.iter().flatten().filter(|route| route["protocol"] == "201");
    ours.flat_map(|route| {
        let several = route["nexthops"].as_array().cloned().unwrap_or_default();
        several
            .into_iter()
            .chain([route.clone()])
            .filter_map(|hop| hop["gateway"].as_str().map(str::to_owned))
    })
    .collect()
}

#[track_caller]
fn wait_installed(host: &Namespace, gateways: &[&str]) {
    wait_until(LONG, || match installed(host) {
        is if is == gateways => Ok(()),
        is => Err(format!("{is:?}, not {gateways:?}: {}{}", host.ip("route"), host.ip("-6 route"))),
    });
}

pub(crate) fn a_default_route_is_taken_where_wanted_and_goes_with_the_session<R: Router>() {
    let fabric = Fabric::new(binaries!(), 1);
    let host = fabric.host(1).clone();
    host.ip("route del default");
    host.ip("-6 route del default");
    let manner = Manner { tells: Tells::Default, ..Manner::default() };
    let mut router = R::start(&fabric.lab, &fabric.router, &manner);
    let _service = fabric.service(1);
    let config = agent_config_with(1, &format!("\"{VIP4}\", \"{VIP6}\""), "")
        .replace("asn = 65001\n", "asn = 65001\ninstall_default = true\n")
        .replace("asn = 65000\n", "asn = 65000\nfamilies = [\"ipv4\"]\n")
        .replace(
            "[check.web]\n",
            "[bgp.peer.tor6]\naddress = \"fd00:1:1::1\"\nasn = 65000\nfamilies = [\"ipv6\"]\n[check.web]\n",
        );
    let mut agent = fabric.agent_with(1, &config);
    let both = ["10.1.1.1", "fd00:1:1::1"];
    wait_installed(&host, &both);
    if R::forwards() {
        // The only way back to the clients.
        for address in [VIP4, VIP6] {
            wait_until(LONG, || match fabric.answer(&fabric.client, address).as_deref() {
                Some("h1") => Ok(()),
                other => Err(format!("{other:?} answers at {address}")),
            });
        }
    }
    router.stop();
    wait_installed(&host, &[]);
    drop(router);
    let _router = R::start(&fabric.lab, &fabric.router, &manner);
    wait_installed(&host, &both);
    assert_eq!(agent.terminate(), Some(0));
    assert_eq!(installed(&host), [""; 0], "gone before the end");
}
