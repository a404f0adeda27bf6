//! The agent under test: its files, its process, its command line, and how to read its status.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::lab::{Lab, Namespace};
use crate::process::Process;
use crate::wait::{LONG, wait_until};

/// Configuration, socket, state and log of one agent; they outlive its process, as on a real host.
#[derive(Clone, Debug)]
pub struct AgentFiles {
    folder: PathBuf,
    state: PathBuf,
    binary: &'static str,
    /// What `anyvip run` is given besides.
    pub run_arguments: Vec<String>,
}

impl AgentFiles {
    /// A folder in the lab with this configuration.
    pub fn new(lab: &Lab, name: &str, config: &str) -> Self {
        let path = lab.scratch().write(&format!("{name}/config.toml"), config);
        let folder = path.parent().expect("a file is in a folder").to_owned();
        let state = folder.join("state");
        AgentFiles { folder, state, binary: lab.binaries.agent, run_arguments: Vec::new() }
    }

    /// With a state directory elsewhere.
    #[must_use]
    pub fn with_state(self, state: &Path) -> Self {
        AgentFiles { state: state.to_owned(), ..self }
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.folder.join("config.toml")
    }

    /// Replaces the configuration; the agent is not told.
    pub fn write_config(&self, config: &str) {
        std::fs::write(self.config(), config).expect("write the configuration");
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("anyvip.sock")
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.state.clone()
    }

    /// Everything the agent logged over all its lives.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// `anyvip COMMAND` for these files, run where the caller wants.
    pub fn arguments(&self, command: &mut Command, subcommand: &str) {
        command.arg(subcommand).arg("--socket").arg(self.socket()).arg("--state-dir").arg(self.state());
        if ["run", "validate", "prepare"].contains(&subcommand) {
            command.arg("-c").arg(self.config());
        }
    }

    /// Runs a subcommand to its end in the namespace.
    pub fn command(&self, namespace: &Namespace, subcommand: &str, args: &[&str]) -> Output {
        let mut command = namespace.command(self.binary);
        self.arguments(&mut command, subcommand);
        command.args(args).output().expect("run anyvip")
    }
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    /// Its files.
    pub files: AgentFiles,
    /// Its process.
    pub process: Process,
    namespace: Namespace,
}

impl Agent {
    /// Starts it and waits until it answers on its socket.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn start(lab: &Lab, namespace: &Namespace, files: AgentFiles) -> Self {
        let mut agent = Agent::launch(lab, namespace, files);
        agent.wait_ready();
        agent
    }

    /// Starts it and does not wait.
    pub fn launch(lab: &Lab, namespace: &Namespace, files: AgentFiles) -> Self {
        let mut command = namespace.command(lab.binaries.agent);
        files.arguments(&mut command, "run");
        command.args(&files.run_arguments);
        let name = format!("anyvip in {}", namespace.name());
        let process = Process::start(&name, &mut command, &files.log());
        Agent { files, process, namespace: namespace.clone() }
    }

    /// Starts it with a log that goes elsewhere, and waits until it answers on its socket.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn start_logging_to(lab: &Lab, namespace: &Namespace, files: AgentFiles, stderr: Stdio) -> Self {
        let mut command = namespace.command(lab.binaries.agent);
        files.arguments(&mut command, "run");
        command.args(&files.run_arguments);
        let name = format!("anyvip in {}", namespace.name());
        let process = Process::start_with(&name, &mut command, &files.log(), Stdio::null(), stderr);
        let mut agent = Agent { files, process, namespace: namespace.clone() };
        agent.wait_ready();
        agent
    }

    /// Waits until it answers on its socket.
    #[track_caller]
    pub fn wait_ready(&mut self) {
        wait_until(LONG, || {
            if let Some(status) = self.process.ended() {
                panic!("the agent ended at its start ({status}):\n{}", self.process.output());
            }
            self.try_status()
        });
    }

    /// Runs a subcommand against it.
    pub fn command(&self, subcommand: &str, args: &[&str]) -> Output {
        self.files.command(&self.namespace, subcommand, args)
    }

    /// Runs a subcommand that must succeed, and gives its stdout.
    #[track_caller]
    pub fn run(&self, subcommand: &str, args: &[&str]) -> String {
        let output = self.command(subcommand, args);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "anyvip {subcommand} {args:?}: {}\n{text}{error}", output.status);
        text
    }

    /// `status --json`.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.try_status().unwrap_or_else(|text| panic!("no status: {text}"))
    }

    fn try_status(&self) -> Result<Value, String> {
        let output = self.command("status", &["--json"]);
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
    }

    /// Waits until the status is as wanted; fails with the last status.
    #[track_caller]
    pub fn wait_status(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        wait_until(LONG, || {
            let status = self.try_status()?;
            if wanted(&status) { Ok(status) } else { Err(format!("{what}; the status is {status:#}")) }
        })
    }

    /// Waits until this VIP has been written to this peer.
    #[track_caller]
    pub fn wait_advertised(&self, vip: &str, peer: &str) -> Value {
        self.wait_status(&format!("{vip} advertised to {peer}"), |status| advertised(status, vip, peer))
    }

    /// Waits until this VIP is withheld from everybody for this reason.
    #[track_caller]
    pub fn wait_reason(&self, address: &str, why: &str) -> Value {
        self.wait_status(&format!("{address} withheld for {why}"), |status| reason(status, address) == why)
    }

    /// Sends a signal to the process, which must run.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn process_signal(&self, signal: Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.process.pid()), signal)
            .expect("the agent runs");
    }

    /// SIGTERM, and the exit code.
    #[track_caller]
    pub fn terminate(&mut self) -> Option<i32> {
        self.process.signal(Signal::SIGTERM);
        self.process.wait(LONG).code()
    }

    /// SIGKILL, and its end.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// The log file's text.
    pub fn log(&self) -> String {
        self.process.output()
    }
}

/// The entry of a VIP in a status; null when there is none.
pub fn vip<'a>(status: &'a Value, address: &str) -> &'a Value {
    static NOTHING: Value = Value::Null;
    let services = status["services"].as_array().map(Vec::as_slice).unwrap_or_default();
    services
        .iter()
        .flat_map(|service| service["vips"].as_array().map(Vec::as_slice).unwrap_or_default())
        .find(|vip| vip["address"] == address)
        .unwrap_or(&NOTHING)
}

/// Why a VIP is withheld; empty when it is not.
pub fn reason<'a>(status: &'a Value, address: &str) -> &'a str {
    vip(status, address)["reason"].as_str().unwrap_or_default()
}

/// Whether a VIP has been written to a peer.
pub fn advertised(status: &Value, address: &str, peer: &str) -> bool {
    let peers = vip(status, address)["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
    peers.iter().any(|entry| entry["name"] == peer && entry["advertised"] == true)
}

/// The state of a peer's session and how long it has lasted.
///
/// # Panics
/// When the status has no such peer.
pub fn peer_state(status: &Value, peer: &str) -> (String, Duration) {
    let peers = status["peers"].as_array().expect("peers");
    let entry = peers.iter().find(|entry| entry["name"] == peer).expect("a peer of this name");
    let lasted = Duration::from_millis(entry["for_ms"].as_u64().expect("for_ms"));
    (entry["state"].as_str().expect("state").to_owned(), lasted)
}
