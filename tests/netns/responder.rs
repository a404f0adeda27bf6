//! A router that tracks the host by probe, with no routing protocol at all.

use anyvip_tests::{Fabric, LONG, Namespace, Process, VIP4, binaries, wait_until};

use crate::possible;

const CONFIG: &str = r#"config_version = 1
[host]
stop_time = "1s"
[responder]
listen = "0.0.0.0:8090"
[service.web]
vips = ["198.51.100.1"]
responder = "0.0.0.0:8053"
[[service.web.check]]
tcp = { port = 8080 }
interval = "100ms"
timeout = "100ms"
"#;

/// What the router gets: a status, or how the connection failed.
fn probe(router: &Namespace, port: u16, path: &str) -> String {
    let line = format!(
        "printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' | socat -T2 - TCP:10.1.1.2:{port},connect-timeout=2 2>&1"
    );
    let output = router.output("sh", &["-c", &line]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn wait_for(router: &Namespace, port: u16, path: &str, word: &str) {
    wait_until(LONG, || {
        let answer = probe(router, port, path);
        if answer.contains(word) { Ok(()) } else { Err(format!("{port}{path}: {answer}")) }
    });
}

#[test]
fn a_router_that_probes_follows_health_drain_and_death_without_any_routing_protocol() {
    if !possible() {
        return;
    }
    let fabric = Fabric::new(binaries!(), 1);
    let mut service = fabric.service(1);
    let mut agent = fabric.agent_with(1, CONFIG);
    let router = &fabric.router;
    let up = || {
        wait_for(router, 8090, "/web", "200 OK");
        wait_for(router, 8090, "/", "web: up");
        wait_for(router, 8053, "/", "200 OK");
    };
    let down = || {
        wait_for(router, 8090, "/web", "503");
        wait_for(router, 8053, "/", "refused");
    };
    up();
    let status = agent.wait_status("told", |status| status["services"][0]["responder"]["answer"] == 200);
    assert_eq!(status["services"][0]["vips"][0]["peers"][0]["name"], "probes", "{status}");
    assert_eq!(agent.command("status", &["--check"]).status.code(), Some(0));
    let text = agent.run("status", &[]);
    assert!(text.contains("All as wanted") && text.contains("probes"), "{text}");

    agent.run("drain", &["web"]);
    down();
    agent.run("undrain", &["web"]);
    up();
    service.process.kill();
    down();
    agent.wait_reason(VIP4, "Unhealthy");
    assert_eq!(agent.command("status", &["--check"]).status.code(), Some(2), "nothing is announced");
    drop(service);
    let _service = fabric.service(1);
    up();
    agent.kill();
    wait_for(router, 8090, "/web", "refused");
    wait_for(router, 8053, "/", "refused");
}

/// A router that asks all the time. Its lines: when, how long it took, what came.
fn prober(fabric: &Fabric, port: &str, path: &str) -> Process {
    let log = fabric.lab.scratch().path().join(format!("prober-{port}"));
    let mut command = fabric.router.command(fabric.lab.binaries.service);
    Process::start("prober", command.args(["probe", "10.1.1.2", port, path]), &log)
}

fn answers(prober: &Process) -> Vec<(u64, u64, String)> {
    let output = prober.output();
    // The last line may be half written.
    let whole = output.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let number = |word: Option<&str>| word.and_then(|word| word.parse().ok()).unwrap_or(0);
    whole
        .lines()
        .map(|line| {
            let mut words = line.split(' ');
            (number(words.next()), number(words.next()), words.next().unwrap_or_default().to_owned())
        })
        .collect()
}

#[test]
fn an_upgrade_lets_routers_that_probe_wait_for_a_moment_and_turns_none_away() {
    if !possible() {
        return;
    }
    let fabric = Fabric::new(binaries!(), 1);
    let _service = fabric.service(1);
    let agent = fabric.agent_with(1, CONFIG);
    wait_for(&fabric.router, 8090, "/web", "200 OK");
    wait_for(&fabric.router, 8053, "/", "200 OK");
    let probers = [prober(&fabric, "8090", "/web"), prober(&fabric, "8053", "/")];
    let more = |than: [usize; 2]| {
        wait_until(LONG, || {
            let counts = [0, 1].map(|at| answers(&probers[at]).len());
            let enough = counts.iter().zip(than).all(|(count, than)| *count > than + 20);
            if enough { Ok(counts) } else { Err(format!("{counts:?} answers")) }
        })
    };
    more([0, 0]);
    for _ in 0..5 {
        let plan = agent.run("upgrade", &["--plan"]);
        assert!(plan.contains("on 0.0.0.0:8090, 0.0.0.0:8053 wait for the new version"), "{plan}");
        let said = agent.run("upgrade", &[]);
        assert!(said.contains("took over from"), "{said}");
        let counts = [0, 1].map(|at| answers(&probers[at]).len());
        more(counts);
    }
    for prober in &probers {
        let answers = answers(prober);
        let other: Vec<_> = answers.iter().filter(|(_, _, what)| what != "200").collect();
        let longest = answers.iter().map(|(_, took, _)| took).max();
        println!("{} answers, the slowest after {longest:?} us, others: {other:?}", answers.len());
        assert!(other.is_empty(), "{other:?}");
    }
}
