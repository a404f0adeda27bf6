//! ExaBGP as a strict reader: it accepts our sessions and writes down every message it reads, as JSON.

use std::collections::BTreeMap;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::lab::{Lab, Namespace};
use crate::process::Process;
use crate::wait::{LONG, wait_until};

/// One running ExaBGP.
#[derive(Debug)]
pub struct Exabgp {
    process: Process,
    folder: PathBuf,
}

impl Exabgp {
    /// Starts it in the namespace, listening at these addresses, with these neighbours (blocks of its configuration, which
    /// name the process `events`). Waits until it listens.
    #[track_caller]
    pub fn with(lab: &Lab, namespace: &Namespace, listen: &str, neighbors: &str) -> Self {
        let path = lab.scratch().write("exabgp/exabgp.conf", "");
        let folder = path.parent().expect("a file is in a folder").to_owned();
        let events = folder.join("events");
        let _ = std::fs::remove_file(&events);
        let config = format!(
            "process events {{ run /bin/sh -c \"cat > {}\"; encoder json; }}\n{neighbors}",
            events.display()
        );
        std::fs::write(&path, config).expect("write the configuration");
        let mut command = namespace.command("env");
        command.args([
            "exabgp.daemon.drop=false",
            "exabgp.daemon.daemonize=false",
            "exabgp.api.cli=false",
            "exabgp.api.ack=false",
            "exabgp.tcp.port=179",
            "exabgp.log.destination=stdout",
            "exabgp.log.short=true",
            "PYTHONUNBUFFERED=1",
        ]);
        // A Python of a version manager in PATH would not find its modules.
        command.arg(format!("exabgp.tcp.bind={listen}")).args(["/usr/bin/python3", "/usr/sbin/exabgp"]);
        let process = Process::start("exabgp", command.arg(&path), &folder.join("log"));
        let mut exabgp = Exabgp { process, folder };
        wait_until(LONG, || {
            assert!(exabgp.process.ended().is_none(), "exabgp ended: {}", exabgp.process.output());
            match namespace.run("ss", &["-Hltn", "sport = :179"]).lines().count() {
                0 => Err(format!("not listening: {}", exabgp.process.output())),
                _ => Ok(()),
            }
        });
        exabgp
    }

    /// Everything it has told, in order.
    pub fn events(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.join("events")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// What each neighbour has announced of this prefix and not withdrawn: next hop, and the attributes as ExaBGP words them.
    pub fn routes(&self, prefix: &str) -> BTreeMap<String, (String, Value)> {
        let mut routes = BTreeMap::new();
        for event in self.events() {
            let neighbor = event["neighbor"]["address"]["peer"].as_str().unwrap_or_default().to_owned();
            if event["type"] == "state" && event["neighbor"]["state"] == "down" {
                routes.remove(&neighbor);
            }
            let update = &event["neighbor"]["message"]["update"];
            let lists = |part: &str| update[part].as_object().cloned().unwrap_or_default();
            for prefixes in lists("withdraw").values() {
                if names(prefixes, prefix) {
                    routes.remove(&neighbor);
                }
            }
            for hops in lists("announce").values() {
                for (hop, prefixes) in hops.as_object().into_iter().flatten() {
                    if names(prefixes, prefix) {
                        routes.insert(neighbor.clone(), (hop.clone(), update["attribute"].clone()));
                    }
                }
            }
        }
        routes
    }

    /// Messages so far that withdrew this prefix.
    pub fn withdrawals(&self, prefix: &str) -> usize {
        let withdraws = |event: &&Value| {
            let lists = event["neighbor"]["message"]["update"]["withdraw"].as_object();
            lists.is_some_and(|lists| lists.values().any(|prefixes| names(prefixes, prefix)))
        };
        self.events().iter().filter(withdraws).count()
    }

    /// What it logged.
    pub fn log(&self) -> String {
        self.process.output()
    }

    /// Ends it in good order.
    #[track_caller]
    pub fn stop(&mut self) {
        self.process.signal(Signal::SIGTERM);
        self.process.wait(LONG);
    }
}

fn names(prefixes: &Value, prefix: &str) -> bool {
    prefixes.as_array().into_iter().flatten().any(|entry| entry["nlri"] == prefix)
}
