//! Missing rights are named, with how to grant them, before anything is touched.

use std::process::Output;

use anyvip_tests::{AgentFiles, Fabric, VIP4, agent_config, binaries};

use crate::possible;

/// `anyvip run` as root without one capability.
fn run_without(capability: &str, config: &str) -> (Output, Fabric) {
    let fabric = Fabric::new(binaries!(), 1);
    let files = AgentFiles::new(&fabric.lab, "h1", config);
    let mut command = fabric.host(1).command("setpriv");
    let drop = format!("-{capability}");
    command.args(["--bounding-set", &drop, "--inh-caps", &drop, fabric.lab.binaries.agent]);
    files.arguments(&mut command, "run");
    let output = command.output().unwrap();
    (output, fabric)
}

#[track_caller]
fn assert_named(output: &Output, capability: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(capability), "names {capability}:\n{text}");
    assert!(
        text.contains("setcap") || text.contains("AmbientCapabilities"),
        "and says how to grant it:\n{text}"
    );
}

#[test]
fn without_net_admin_it_refuses_to_start_and_says_why() {
    if !possible() {
        return;
    }
    let (output, fabric) = run_without("net_admin", &agent_config(1));
    assert_named(&output, "CAP_NET_ADMIN");
    assert_eq!(fabric.lab.address(fabric.host(1), VIP4), None);
}

#[test]
fn without_net_bind_service_it_cannot_listen_on_port_179_and_says_so() {
    if !possible() {
        return;
    }
    let config = agent_config(1).replace("asn = 65001", "asn = 65001\nlisten = \"10.1.1.2:179\"");
    let (output, _fabric) = run_without("net_bind_service", &config);
    assert_named(&output, "CAP_NET_BIND_SERVICE");
}
