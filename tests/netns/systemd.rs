//! The unit that we ship, under a real systemd.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use anyvip_tests::{Binaries, LONG, Need, Process, Scratch, binaries, met, wait_until};
use nix::sys::signal::Signal;

/// A machine that boots takes longer than a program that starts.
const BOOT: Duration = Duration::from_secs(60);
const CONFIG: &str = r#"config_version = 1
[bgp]
asn = 65011
[bgp.peer.tor1]
address = "10.0.0.1"
asn = 65001
bfd = { interval = "300ms" }
[service.web]
vips = ["192.0.2.80", "2001:db8::80"]
checks = "none"
"#;
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/netns/systemd.sh");
const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../agent/daemon/packaging/anyvip.service");
/// Field of `/proc/PID/task/TID/stat`, after the name: the scheduling policy; `SCHED_FIFO` is 1.
const POLICY: usize = 38;

/// Namespaces in which systemd is process 1.
struct Machine {
    systemd: Process,
    init: String,
    group: String,
    layer: PathBuf,
    _scratch: Scratch,
}

fn possible() -> bool {
    met(&[Need::Root, Need::Program("systemctl"), Need::Program("unshare"), Need::Program("nsenter")])
}

fn so(is: bool, what: &str) -> Result<(), String> {
    if is { Ok(()) } else { Err(format!("not so: {what}")) }
}

impl Machine {
    fn boot(binaries: Binaries) -> Machine {
        let scratch = Scratch::new();
        let layer = scratch.path().join("layer");
        std::fs::create_dir(&layer).unwrap();
        let config = scratch.write("config.toml", CONFIG);
        let group = format!("anyvip-test-{}", std::process::id());
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount", "--net", "--uts", "--ipc", "--kill-child"]);
        command.arg(SCRIPT).args(["boot", &group]).arg(&layer).arg(binaries.agent);
        command.arg(UNIT).arg(config);
        let mut systemd = Process::start("systemd", &mut command, &scratch.path().join("systemd.log"));
        let children = format!("/proc/{0}/task/{0}/children", systemd.pid());
        let init = wait_until(BOOT, || {
            assert!(systemd.ended().is_none(), "it ended:\n{}", systemd.output());
            let init = std::fs::read_to_string(&children).unwrap_or_default().trim().to_owned();
            let up = !init.is_empty()
                && inside(&init, &["systemctl", "is-active", "bare.target"]).stdout == b"active\n";
            so(up, "systemd takes commands").map(|()| init)
        });
        Machine { systemd, init, group, layer, _scratch: scratch }
    }

    #[track_caller]
    fn does(&self, command: &[&str]) -> String {
        let output = inside(&self.init, command);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        let journal = || inside(&self.init, &["journalctl", "--no-pager", "-n", "40"]).stdout;
        assert!(
            output.status.success(),
            "{command:?}: {text}{error}\n{}",
            String::from_utf8_lossy(&journal())
        );
        text.trim().to_owned()
    }

    fn shows(&self, property: &str) -> String {
        self.does(&["systemctl", "show", "--value", "-p", property, "anyvip"])
    }

    fn says(&self, text: &str) -> bool {
        self.does(&["anyvip", "status"]).contains(text)
    }

    /// Scheduling policies of the threads of a process.
    fn policies(&self, pid: &str) -> Vec<String> {
        let stats = self.does(&["sh", "-c", &format!("cat /proc/{pid}/task/*/stat")]);
        let policy = |line: &str| line.rsplit_once(')')?.1.split_whitespace().nth(POLICY).map(str::to_owned);
        stats.lines().filter_map(policy).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Process 1 goes with it, and with that everything inside.
        self.systemd.signal(Signal::SIGKILL);
        let gone = || !PathBuf::from(format!("/proc/{}", self.init)).exists();
        for _ in 0..1000 {
            if gone() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut unshare = Command::new("unshare");
        unshare.arg("--mount").arg(SCRIPT).args(["remove", &self.group]).arg(&self.layer);
        let removed = unshare.status().is_ok_and(|status| status.success());
        assert!(removed || std::thread::panicking(), "control groups are left");
    }
}

/// A command inside the namespaces of this process.
fn inside(init: &str, command: &[&str]) -> Output {
    let mut nsenter = Command::new("nsenter");
    nsenter.args(["-t", init, "-m", "-p", "-n", "-u", "-i", "-C", "--"]).args(command);
    nsenter.env_clear().env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").output().expect("nsenter")
}

#[test]
fn the_unit_starts_reloads_upgrades_restarts_and_stops_the_agent_under_systemd() {
    if !possible() {
        return;
    }
    let machine = Machine::boot(binaries!());
    // Type=notify: the agent has said that it is ready.
    machine.does(&["systemctl", "start", "anyvip"]);
    assert!(machine.says("192.0.2.80"));
    let pid = machine.shows("MainPID");
    assert_eq!(machine.policies(&pid).iter().filter(|policy| *policy == "1").count(), 1, "the BFD thread");
    wait_until(LONG, || so(machine.shows("StatusText").contains("of 2 VIPs"), "it tells systemd how it is"));

    machine.does(&["systemctl", "reload", "anyvip"]);
    wait_until(LONG, || {
        let journal = machine.does(&["journalctl", "--no-pager", "-u", "anyvip"]);
        so(journal.contains("configuration applied"), "it has reloaded")
    });

    // The upgraded agent is the same process to systemd.
    machine.does(&["anyvip", "upgrade"]);
    assert_eq!(machine.shows("MainPID"), pid);
    assert_eq!(machine.shows("ActiveState"), "active");
    assert_eq!(machine.shows("NRestarts"), "0");

    machine.does(&["kill", "-KILL", &pid]);
    wait_until(LONG, || {
        let (restarts, state) = (machine.shows("NRestarts"), machine.shows("ActiveState"));
        so(restarts == "1" && state == "active", "it was started again")
    });
    assert_ne!(machine.shows("MainPID"), pid);

    // In order, and the service keeps its addresses.
    machine.does(&["systemctl", "stop", "anyvip"]);
    assert_eq!(machine.shows("Result"), "success");
    assert_eq!(machine.shows("ExecMainStatus"), "0");
    assert!(machine.does(&["ip", "-br", "address", "show", "lo"]).contains("192.0.2.80/32"));
    assert_eq!(machine.does(&["cat", "/proc/sys/net/ipv4/conf/eth0/arp_ignore"]), "1");

    // The same as a user of its own, with nothing but the capabilities.
    machine.does(&["mkdir", "-p", "/etc/systemd/system/anyvip.service.d"]);
    let own = "printf '[Service]\\nUser=nobody\\n' > /etc/systemd/system/anyvip.service.d/user.conf";
    machine.does(&["sh", "-c", own]);
    machine.does(&["systemctl", "daemon-reload"]);
    machine.does(&["systemctl", "start", "anyvip"]);
    let pid = machine.shows("MainPID");
    assert_eq!(machine.does(&["stat", "-c", "%U", &format!("/proc/{pid}")]), "nobody");
    wait_until(LONG, || so(machine.says("192.0.2.80"), "it has its VIPs"));
    machine.does(&["anyvip", "upgrade"]);
    assert_eq!(machine.shows("MainPID"), pid);
    machine.does(&["systemctl", "stop", "anyvip"]);
    machine.does(&["anyvip", "cleanup"]);
    assert!(!machine.does(&["ip", "-br", "address", "show", "lo"]).contains("192.0.2.80"));
}
