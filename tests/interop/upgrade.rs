//! One version of the agent makes room for another while routers keep its routes (RFC 4724); and what becomes of routes where they
//! would be kept for an agent that died or hangs.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Instant;

use anyvip_tests::{
    Agent, AgentFiles, Fabric, LONG, Process, VIP4, VIP6, agent_config, binaries, wait_until,
};
use nix::sys::signal::Signal;

use crate::router::{Bfd, Manner, Router};
use crate::unnumbered;

/// The usual host, whose routes a router is to keep for so long.
fn config(time: &str) -> String {
    agent_config(1).replace("asn = 65000", &format!("asn = 65000\ngraceful_restart = \"{time}\""))
}

/// A service for each address: `web` lives while its server does, `six` while a file is there.
fn config_of_two(flag: &str) -> String {
    let web = format!("vips = [\"{VIP4}\", \"{VIP6}\"]");
    config("20s").replace(&web, &format!("vips = [\"{VIP4}\"]"))
        + &format!(
            "[service.six]\nvips = [\"{VIP6}\"]\n[[service.six.check]]\nexec = {{ command = [\"/usr/bin/test\", \"-e\", {flag:?}] }}\n\
             interval = \"1s\"\ntimeout = \"1s\"\n"
        )
}

fn manner(bfd: Bfd) -> Manner {
    Manner { keeps_routes: true, bfd, ..Manner::default() }
}

/// Waits until the router leads there, or nowhere.
#[track_caller]
fn wait_hops<R: Router>(router: &R, fabric: &Fabric, address: &str, hops: &[&str]) {
    wait_until(LONG, || {
        let seen = router.next_hops(fabric, address);
        if seen == hops { Ok(()) } else { Err(format!("{address} leads to {seen:?}, wanted {hops:?}")) }
    });
}

/// Another file with the same program, as a package manager would leave it.
fn new_binary(fabric: &Fabric) -> PathBuf {
    let path = fabric.lab.scratch().path().join("anyvip-new");
    std::fs::copy(fabric.lab.binaries.agent, &path).expect("copy the program");
    path
}

/// `anyvip upgrade` beside what the test does meanwhile.
fn begin_upgrade(fabric: &Fabric, agent: &Agent, args: &[&str]) -> Child {
    let mut command = fabric.host(1).command(fabric.lab.binaries.agent);
    agent.files.arguments(&mut command, "upgrade");
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run anyvip")
}

/// Waits for its end, asking the router all the time whether it still has these addresses; returns what it said.
#[track_caller]
fn watch_until_done<R: Router>(
    router: &R,
    fabric: &Fabric,
    mut upgrade: Child,
    kept: &[(&str, &str)],
) -> String {
    let begun = Instant::now();
    let (mut looks, mut answers) = (0, 0);
    loop {
        let ended = upgrade.try_wait().expect("wait for a child").is_some();
        for (address, hop) in kept {
            let seen = router.next_hops(fabric, address);
            assert_eq!(seen, [*hop], "{address} is lost after {:?}:\n{}", begun.elapsed(), router.log());
            looks += 1;
            if R::forwards() {
                assert_eq!(fabric.answer(&fabric.client, address).as_deref(), Some("h1"), "{address}");
                answers += 1;
            }
        }
        if ended {
            break;
        }
        assert!(begun.elapsed() < LONG, "the upgrade does not end");
    }
    let output = upgrade.wait_with_output().expect("its output");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    println!("upgrade in {:?}, {looks} looks at the router, {answers} answers:\n{text}", begun.elapsed());
    text
}

/// What the router's kernel lost meanwhile; of a router without kernel routes nothing is known.
#[track_caller]
fn assert_nothing_deleted(routes: &Process, address: &str) {
    let output = routes.output();
    let lost = output.lines().filter(|line| line.starts_with("Deleted") && line.contains(address));
    assert_eq!(lost.count(), 0, "{output}");
}

#[track_caller]
fn assert_became(agent: &Agent, binary: &std::path::Path) {
    let running = std::fs::read_link(format!("/proc/{}/exe", agent.process.pid())).expect("the agent runs");
    assert_eq!(running, binary, "the same process, another program");
}

/// No route is lost; what died meanwhile is gone when the new version has looked; what is not configured any more too.
pub(crate) fn a_planned_upgrade_loses_no_route<R: Router>() {
    let fabric = Fabric::new(binaries!(), 1);
    let router: R = R::start(&fabric.lab, &fabric.router, &manner(Bfd::None));
    let _service = fabric.service(1);
    let flag = fabric.lab.scratch().write("flag", "");
    let flag = flag.to_str().expect("a path of ours").to_owned();
    let agent = fabric.agent_with(1, &config_of_two(&flag));
    wait_hops(&router, &fabric, VIP4, &["10.1.1.2"]);
    wait_hops(&router, &fabric, VIP6, &["fd00:1:1::2"]);
    agent.wait_status("agreed", |status| status["peers"][0]["graceful_restart_s"] == 20);
    let plan = agent.run("upgrade", &["--plan"]);
    assert!(plan.contains("keeps 2 routes for up to 20 s") && !plan.contains("lost"), "{plan}");
    let routes = fabric.watch_routes(&fabric.router);
    let binary = new_binary(&fabric);
    let upgrade = begin_upgrade(&fabric, &agent, &["--binary", binary.to_str().expect("a path of ours")]);
    let both = [(VIP4, "10.1.1.2"), (VIP6, "fd00:1:1::2")];
    let said = watch_until_done(&router, &fabric, upgrade, &both);
    assert!(said.contains("all that was inherited was decided"), "{said}");
    assert_became(&agent, &binary);
    let status = agent.status();
    assert_eq!(status["upgrade"]["phase"], "done", "{status}");
    assert!(status["upgrade"]["from"].is_string() && status["warnings"] == serde_json::json!([]), "{status}");
    for (address, _) in both {
        assert_nothing_deleted(&routes, address);
    }
    assert!(!agent.files.state().join("restored.json").exists(), "what is handed down counts once");

    // What dies while nobody looks is gone when the new version has looked, and nothing else is.
    std::fs::remove_file(&flag).expect("the flag is there");
    let upgrade = begin_upgrade(&fabric, &agent, &[]);
    let said = watch_until_done(&router, &fabric, upgrade, &both[..1]);
    assert!(said.contains("all that was inherited was decided"), "{said}");
    wait_hops(&router, &fabric, VIP6, &[]);
    agent.wait_reason(VIP6, "Unhealthy");
    assert_nothing_deleted(&routes, VIP4);

    // What the new version does not know goes with End-of-RIB: nobody ever withdraws it.
    std::fs::write(&flag, "").expect("the flag comes back");
    wait_hops(&router, &fabric, VIP6, &["fd00:1:1::2"]);
    let text = config("20s")
        .replace(&format!(", \"{VIP6}\""), "")
        .replace("asn = 65000", "asn = 65000\nfamilies = [\"ipv4\", \"ipv6\"]");
    agent.files.write_config(&text);
    let upgrade = begin_upgrade(&fabric, &agent, &[]);
    watch_until_done(&router, &fabric, upgrade, &both[..1]);
    wait_hops(&router, &fabric, VIP6, &[]);
    assert_nothing_deleted(&routes, VIP4);
    let events = agent.run("events", &[]);
    assert!(events.contains("took over from"), "{events}");
}

/// BFD that guards the session is switched off in good time, and on again afterwards.
pub(crate) fn a_planned_upgrade_under_bfd_loses_no_route<R: Router>() {
    let fabric = Fabric::new(binaries!(), 1);
    let router: R = R::start(&fabric.lab, &fabric.router, &manner(Bfd::Guard));
    let _service = fabric.service(1);
    let bfd = "asn = 65000\nbfd = { interval = \"50ms\", strict = true }";
    let agent = fabric.agent_with(1, &config("20s").replace("asn = 65000", bfd));
    agent.wait_advertised(VIP4, "tor");
    agent.wait_status("fast BFD", |status| status["peers"][0]["bfd"]["detection_us"] == 150_000);
    let both = [(VIP4, "10.1.1.2"), (VIP6, "fd00:1:1::2")];
    for (address, hop) in both {
        wait_hops(&router, &fabric, address, &[hop]);
    }
    let routes = fabric.watch_routes(&fabric.router);
    for _ in 0..2 {
        let upgrade = begin_upgrade(&fabric, &agent, &[]);
        watch_until_done(&router, &fabric, upgrade, &both);
        agent.wait_status("BFD again", |status| status["peers"][0]["bfd"]["state"] == "Up");
        agent.wait_status("fast BFD", |status| status["peers"][0]["bfd"]["detection_us"] == 150_000);
    }
    for (address, _) in both {
        assert_nothing_deleted(&routes, address);
    }
}

/// The router has to be found again on the link; the routes lead through its link-local address.
pub(crate) fn a_planned_upgrade_over_a_bare_link_loses_no_route<R: Router>() {
    let fabric = unnumbered::bare_fabric(1);
    let by_link = Manner { links: 1, extended_next_hop: true, ..manner(Bfd::Guard) };
    let _router = R::start(&fabric.lab, &fabric.router, &by_link);
    let _service = fabric.service(1);
    let peer = "interface = \"eth0\"\ngraceful_restart = true\nbfd = { interval = \"50ms\" }";
    let agent = fabric.agent_with(1, &unnumbered::config(1, peer));
    unnumbered::wait_table(&fabric, &[1]);
    agent.wait_status("fast BFD", |status| status["peers"][0]["bfd"]["detection_us"] == 150_000);
    let routes = fabric.watch_routes(&fabric.router);
    let said = agent.run("upgrade", &[]);
    assert!(said.contains("all that was inherited was decided"), "{said}");
    println!("{said}");
    agent.wait_status("fast BFD again", |status| status["peers"][0]["bfd"]["detection_us"] == 150_000);
    unnumbered::wait_table(&fabric, &[1]);
    for address in [VIP4, VIP6] {
        assert_nothing_deleted(&routes, address);
    }
}

/// The router calls, with a key. It may do so at the moment when one program becomes the other, so somebody has to listen all the time.
pub(crate) fn a_planned_upgrade_of_a_passive_peer_loses_no_route<R: Router>() {
    let fabric = Fabric::new(binaries!(), 1);
    let key = "fish-and-chips";
    let router =
        R::start(&fabric.lab, &fabric.router, &Manner { calls: true, key: Some(key), ..manner(Bfd::None) });
    let _service = fabric.service(1);
    let file = fabric.lab.scratch().write("h1/tor.key", key);
    let passive = format!("asn = 65000\npassive = true\npassword_file = {file:?}");
    let text = config("20s")
        .replace("asn = 65000", &passive)
        .replace("[bgp]\n", "[bgp]\nlisten = \"0.0.0.0:179\"\n");
    let agent = fabric.agent_with(1, &text);
    let both = [(VIP4, "10.1.1.2"), (VIP6, "fd00:1:1::2")];
    for (address, hop) in both {
        wait_hops(&router, &fabric, address, &[hop]);
    }
    let plan = agent.run("upgrade", &["--plan"]);
    assert!(plan.contains("keeps 2 routes for up to 20 s if it calls us again within that time"), "{plan}");
    let routes = fabric.watch_routes(&fabric.router);
    let calls = fabric.capture(fabric.host(1), "eth0", "tcp port 179");
    let rounds = 2;
    for _ in 0..rounds {
        let upgrade = begin_upgrade(&fabric, &agent, &[]);
        let said = watch_until_done(&router, &fabric, upgrade, &both);
        assert!(said.contains("all that was inherited was decided"), "{said}");
    }
    for (address, _) in both {
        assert_nothing_deleted(&routes, address);
    }
    // After a call that is refused routers take their time, some two minutes; one with a key is not even refused, and comes again.
    let calls = calls.output();
    let seen = |flags: &str| calls.lines().filter(|line| line.contains(flags)).count();
    assert_eq!(
        [seen("Flags [S],"), seen("Flags [S.],"), seen("Flags [R.], seq 0,")],
        [rounds, rounds, 0],
        "{calls}"
    );
    assert_eq!(agent.status()["warnings"], serde_json::json!([]));
}

/// Nobody withdraws anything then: routers wait as long as they were asked to, or until the next start.
pub(crate) fn a_new_version_that_ends_at_once_is_kept_no_longer_than_asked<R: Router>() {
    let fabric = Fabric::new(binaries!(), 1);
    let router: R = R::start(&fabric.lab, &fabric.router, &manner(Bfd::None));
    let _service = fabric.service(1);
    let files = AgentFiles::new(&fabric.lab, "h1", &config("8s"));
    let mut agent = Agent::start(&fabric.lab, fabric.host(1), files.clone());
    wait_hops(&router, &fabric, VIP4, &["10.1.1.2"]);
    let lines = format!("#!/bin/sh\n[ \"$1\" = run ] && exit 3\nexec {} \"$@\"\n", fabric.lab.binaries.agent);
    let path = fabric.lab.scratch().write("ends-at-once", &lines);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a file of ours");
    let output = agent.command("upgrade", &["--binary", path.to_str().expect("a path of ours")]);
    let died = Instant::now();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("the new version has ended: the addresses stay"), "{text}");
    assert_eq!(router.next_hops(&fabric, VIP4), ["10.1.1.2"], "{:?}", died.elapsed());
    assert!(fabric.lab.address(fabric.host(1), VIP4).is_some());
    if R::forwards() {
        assert_eq!(fabric.answer(&fabric.client, VIP4).as_deref(), Some("h1"));
    }
    wait_hops(&router, &fabric, VIP4, &[]);
    println!("ended: the route is gone after {:?}", died.elapsed());
    assert!(fabric.lab.address(fabric.host(1), VIP4).is_some());
    assert_eq!(agent.process.ended().and_then(|status| status.code()), Some(3));
    // The next start is one as ever.
    let agent = Agent::start(&fabric.lab, fabric.host(1), files);
    let events = agent.run("events", &[]);
    assert!(events.contains("is not used: process") && events.contains("and has ended"), "{events}");
    wait_hops(&router, &fabric, VIP4, &["10.1.1.2"]);
    assert!(agent.status()["upgrade"].is_null());
}

/// A router that keeps routes keeps them for an agent that died, no longer than was asked for, and not at all once its next life is
/// there; and it keeps none for a host that is silent.
pub(crate) fn what_died_is_not_kept_for_longer_than_asked<R: Router>() {
    let fabric = Fabric::new(binaries!(), 1);
    let router: R = R::start(&fabric.lab, &fabric.router, &manner(Bfd::None));
    let mut service = fabric.service(1);
    let short_hold = |time| config(time).replace("asn = 65000", "asn = 65000\nhold_time = \"3s\"");
    let mut agent = fabric.agent_with(1, &short_hold("4s"));
    let told = |router: &R| wait_hops(router, &fabric, VIP4, &["10.1.1.2"]);
    told(&router);
    // Killed: kept, and then not any more.
    let killed = Instant::now();
    agent.kill();
    assert!(!agent.files.state().join("restored.json").exists(), "a crash leaves nothing");
    wait_hops(&router, &fabric, VIP4, &[]);
    println!("killed: the route is gone after {:?}", killed.elapsed());
    // Killed with its service, and started again: the router forgets at once, long before its time.
    let files = AgentFiles::new(&fabric.lab, "h1", &short_hold("120s"));
    let mut agent = Agent::start(&fabric.lab, fabric.host(1), files.clone());
    told(&router);
    service.process.kill();
    agent.kill();
    let started = Instant::now();
    let mut agent = Agent::start(&fabric.lab, fabric.host(1), files);
    wait_hops(&router, &fabric, VIP4, &[]);
    println!("started again: the route is gone after {:?}", started.elapsed());
    agent.wait_reason(VIP4, "Unhealthy");
    assert!(agent.status()["upgrade"].is_null());
    let _service = fabric.service(1);
    told(&router);
    // Silent, as a host without power: the hold timer ends it, whatever was asked for.
    let frozen = Instant::now();
    agent.process.signal(Signal::SIGSTOP);
    wait_hops(&router, &fabric, VIP4, &[]);
    println!("silent: the route is gone after {:?}", frozen.elapsed());
    agent.process.signal(Signal::SIGCONT);
    router.forgive();
    told(&router);
    // In good order: withdrawn, and not kept.
    assert_eq!(agent.terminate(), Some(0));
    wait_hops(&router, &fabric, VIP4, &[]);
}
