//! A router that tracks the host by probe, with no routing protocol at all.

use anyvip_tests::{Fabric, LONG, Namespace, VIP4, binaries, wait_until};

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
