//! Network namespaces and the wires between them.

use std::fs;
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::Binaries;
use crate::scratch::{Scratch, unique};

/// All names begin so; then come the pid of the test process and a number.
const PREFIX: &str = "anyvip-test-";

/// A set of namespaces that belong together. Dropping it kills what still runs in them and deletes them.
#[derive(Debug)]
pub struct Lab {
    /// Programs under test.
    pub binaries: Binaries,
    scratch: Scratch,
    id: String,
    namespaces: Mutex<Vec<Namespace>>,
}

/// One network namespace of a [`Lab`]; a copyable handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    name: String,
}

impl Lab {
    /// An empty lab.
    pub fn new(binaries: Binaries) -> Self {
        sweep();
        let id = format!("{PREFIX}{}-{}", std::process::id(), unique());
        Lab { binaries, scratch: Scratch::new(), id, namespaces: Mutex::default() }
    }

    /// The lab's folder.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// A new namespace with `lo` up, and without the delays and defaults that would disturb a test: addresses are
    /// usable at once, survive a bounce of their link, and nothing is filtered by its return path.
    pub fn namespace(&self, role: &str) -> Namespace {
        let namespace = Namespace { name: format!("{}-{role}", self.id) };
        run(Command::new("ip").args(["netns", "add", &namespace.name]));
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner).push(namespace.clone());
        namespace.sysctls(&[
            ("net/ipv6/conf/all/disable_ipv6", "0"),
            ("net/ipv6/conf/default/disable_ipv6", "0"),
            ("net/ipv6/conf/all/accept_dad", "0"),
            ("net/ipv6/conf/default/accept_dad", "0"),
            ("net/ipv6/conf/default/dad_transmits", "0"),
            ("net/ipv6/conf/default/accept_ra", "0"),
            ("net/ipv6/conf/all/keep_addr_on_down", "1"),
            ("net/ipv6/conf/default/keep_addr_on_down", "1"),
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/default/rp_filter", "0"),
        ]);
        namespace.ip("link set lo up");
        namespace
    }

    /// A veth pair between two namespaces, both ends up.
    pub fn wire(&self, a: &Namespace, a_link: &str, b: &Namespace, b_link: &str) {
        let (a_name, b_name) = (&a.name, &b.name);
        let line = format!("link add {a_link} netns {a_name} type veth peer name {b_link} netns {b_name}");
        run(Command::new("ip").args(line.split(' ')));
        a.ip(&format!("link set {a_link} up"));
        b.ip(&format!("link set {b_link} up"));
    }
}

impl Lab {
    /// One address of a namespace (`interface`, `prefix_len`, `scope`, `proto`, `deprecated`, `noprefixroute`), on whatever interface
    /// it is; `None` when it is nowhere.
    #[track_caller]
    pub fn address(&self, namespace: &Namespace, address: &str) -> Option<Value> {
        let text = namespace.run(self.binaries.addresses, &[]);
        let list: Vec<Value> = serde_json::from_str(&text).expect("a JSON list");
        list.into_iter().find(|entry| entry["address"] == address)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in self.namespaces.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            namespace.delete();
        }
    }
}

impl Namespace {
    /// Its name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside it, and die with the thread that starts it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "ip", "netns", "exec", &self.name, program]);
        command
    }

    /// `ip LINE` inside it.
    ///
    /// # Panics
    /// When that fails.
    #[track_caller]
    pub fn ip(&self, line: &str) -> String {
        run(Command::new("ip").args(["-n", &self.name]).args(line.split_whitespace()))
    }

    /// `ip -j LINE` inside it; an empty answer is an empty list.
    #[track_caller]
    pub fn ip_json(&self, line: &str) -> Vec<Value> {
        let text = self.ip(&format!("-d -j {line}"));
        match serde_json::from_str(text.trim()) {
            Ok(Value::Array(list)) => {
                list.into_iter().filter(|item| item != &serde_json::json!({})).collect()
            }
            _ if text.trim().is_empty() => Vec::new(),
            other => panic!("ip -j {line} said {other:?}: {text}"),
        }
    }

    /// Runs a program to its end.
    ///
    /// # Panics
    /// When it cannot be run.
    #[track_caller]
    pub fn output(&self, program: &str, args: &[&str]) -> Output {
        self.command(program)
            .args(args)
            .output()
            .unwrap_or_else(|error| panic!("cannot run {program}: {error}"))
    }

    /// Runs a program that must succeed, and gives its output.
    #[track_caller]
    pub fn run(&self, program: &str, args: &[&str]) -> String {
        run(self.command(program).args(args))
    }

    /// Writes settings below `/proc/sys`.
    #[track_caller]
    pub fn sysctls(&self, settings: &[(&str, &str)]) {
        let lines: Vec<String> =
            settings.iter().map(|(key, value)| format!("echo {value} > /proc/sys/{key}")).collect();
        self.run("sh", &["-ec", &lines.join("\n")]);
    }

    /// Reads a setting below `/proc/sys`.
    #[track_caller]
    pub fn sysctl(&self, key: &str) -> String {
        self.run("cat", &[&format!("/proc/sys/{key}")]).trim().to_owned()
    }

    /// Next hops of a destination in the main table, as the kernel has them; empty without a route.
    pub fn next_hops(&self, destination: &str) -> Vec<String> {
        let family = if destination.contains(':') { "-6" } else { "-4" };
        let mut found = Vec::new();
        for route in self.ip_json(&format!("{family} route show {destination}")) {
            let several = route["nexthops"].as_array().cloned().unwrap_or_default();
            for hop in several.iter().chain([&route]) {
                let gateway = hop["gateway"].as_str().or_else(|| hop["via"]["host"].as_str());
                found.extend(gateway.map(str::to_owned));
            }
        }
        found.sort();
        found
    }

    fn delete(&self) {
        let pids = Command::new("ip").args(["netns", "pids", &self.name]).output();
        for pid in pids
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            .unwrap_or_default()
            .lines()
        {
            if let Ok(pid) = pid.trim().parse() {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// Deletes what a killed test run left: namespaces of ours whose test process is gone.
fn sweep() {
    let Ok(entries) = fs::read_dir("/run/netns") else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()).map(str::to_owned);
        if let Some(pid) = owner.and_then(|pid| pid.parse::<u32>().ok())
            && !fs::exists(format!("/proc/{pid}")).unwrap_or(true)
        {
            Namespace { name }.delete();
        }
    }
}

/// Runs a command that must succeed.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
