//! Missing rights are named, with how to grant them, before anything is touched.

use std::process::{Command, Output};

use anyvip_tests::{AgentFiles, Fabric, LONG, Process, VIP4, agent_config, binaries, wait_until};

use crate::possible;

/// `anyvip SUBCOMMAND` as root without one capability.
fn without(fabric: &Fabric, capability: &str, config: &str, subcommand: &str) -> Command {
    let files = AgentFiles::new(&fabric.lab, "h1", config);
    let mut command = fabric.host(1).command("setpriv");
    let drop = format!("-{capability}");
    command.args(["--bounding-set", &drop, "--inh-caps", &drop, fabric.lab.binaries.agent]);
    files.arguments(&mut command, subcommand);
    command
}

/// `anyvip run`, which ends at once.
fn run_without(capability: &str, config: &str) -> (Output, Fabric) {
    let fabric = Fabric::new(binaries!(), 1);
    let output = without(&fabric, capability, config, "run").output().unwrap();
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

fn listening() -> String {
    agent_config(1).replace("asn = 65001", "asn = 65001\nlisten = \"10.1.1.2:179\"")
}

#[test]
fn prepare_and_cleanup_need_net_admin_and_say_so_before_they_touch_anything() {
    if !possible() {
        return;
    }
    let fabric = Fabric::new(binaries!(), 1);
    let config = agent_config(1);
    let output = without(&fabric, "net_admin", &config, "prepare").output().unwrap();
    assert_named(&output, "CAP_NET_ADMIN");
    assert_eq!(fabric.lab.address(fabric.host(1), VIP4), None);
    let files = AgentFiles::new(&fabric.lab, "h1", &config);
    assert_eq!(files.command(fabric.host(1), "prepare", &[]).status.code(), Some(0));
    let output = without(&fabric, "net_admin", &config, "cleanup").output().unwrap();
    assert_named(&output, "CAP_NET_ADMIN");
    assert!(fabric.lab.address(fabric.host(1), VIP4).is_some());
    assert_eq!(fabric.host(1).sysctl("net/ipv4/conf/eth0/arp_ignore"), "1");
    assert_eq!(files.command(fabric.host(1), "cleanup", &[]).status.code(), Some(0));
}

#[test]
fn prepare_and_cleanup_do_without_net_bind_service() {
    if !possible() {
        return;
    }
    let fabric = Fabric::new(binaries!(), 1);
    for subcommand in ["prepare", "cleanup"] {
        let output = without(&fabric, "net_bind_service", &listening(), subcommand).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{subcommand}: {output:?}");
    }
}

#[test]
fn nothing_needs_net_raw() {
    if !possible() {
        return;
    }
    let fabric = Fabric::new(binaries!(), 1);
    let _router = fabric.speaker(1, "plain");
    let _service = fabric.service(1);
    let log = fabric.lab.scratch().path().join("without-net-raw");
    let mut command = without(&fabric, "net_raw", &agent_config(1), "run");
    let agent = Process::start("anyvip without net_raw", &mut command, &log);
    wait_until(LONG, || {
        let text = agent.output();
        if text.contains(&format!("{VIP4} is announced to tor")) { Ok(()) } else { Err(text) }
    });
}
