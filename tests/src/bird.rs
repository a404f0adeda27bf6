//! BIRD 2 as an upstream router.

use std::path::PathBuf;

use crate::lab::{Lab, Namespace};
use crate::process::Process;
use crate::wait::{LONG, wait_until};

/// eBGP from any host of the fabric, ECMP into the kernel. Both families over either session. BIRD locks a peer out for a minute
/// and more after an error; the two `error` times make that short.
const CONFIG: &str = r#"
router id 10.9.0.1;
log stderr all;
debug protocols { states, events };
protocol device { scan time 60; }
protocol direct { ipv4; ipv6; interface "*"; }
protocol kernel k4 { scan time 60; merge paths on limit 16; ipv4 { import none; export where source = RTS_BGP; }; }
protocol kernel k6 { scan time 60; merge paths on limit 16; ipv6 { import none; export where source = RTS_BGP; }; }
template bgp hosts {
  local as 65000;
  passive on;
  hold time 9; keepalive time 3;
  error wait time 1, 2; error forget time 5;
  ipv4 { import all; export none; };
  ipv6 { import all; export none; };
}
protocol bgp hosts4 from hosts { neighbor range 10.1.0.0/16 external; dynamic name "host4_"; }
protocol bgp hosts6 from hosts { neighbor range fd00:1::/32 external; dynamic name "host6_"; }
"#;

/// BIRD that calls host N at 10.1.N.2 instead of waiting for it.
fn calling(hosts: usize) -> String {
    let base = CONFIG.split("protocol bgp hosts4").next().unwrap_or_default().replace("  passive on;\n", "");
    let call = |n| {
        format!(
            "protocol bgp h{n} from hosts {{\n  neighbor 10.1.{n}.2 as {};\n  connect delay time 1;\n  \
             connect retry time 1;\n}}\n",
            65000 + n
        )
    };
    base + &(1..=hosts).map(call).collect::<String>()
}

/// One running BIRD. Dropping it kills the process, not what it left in the kernel.
#[derive(Debug)]
pub struct Bird {
    process: Process,
    folder: PathBuf,
}

impl Bird {
    /// Starts it in the namespace and waits until it answers.
    #[track_caller]
    pub fn start(lab: &Lab, namespace: &Namespace) -> Self {
        Bird::with(lab, namespace, CONFIG)
    }

    /// The same, but it calls the first so many hosts of the fabric, each second, and takes their calls too.
    #[track_caller]
    pub fn start_calling(lab: &Lab, namespace: &Namespace, hosts: usize) -> Self {
        Bird::with(lab, namespace, &calling(hosts))
    }

    /// The same as [`start`](Self::start), and it takes IPv4 routes with an IPv6 next hop (RFC 8950).
    #[track_caller]
    pub fn start_extended(lab: &Lab, namespace: &Namespace) -> Self {
        let extended = "ipv4 { import all; export none; extended next hop on; };";
        Bird::with(lab, namespace, &CONFIG.replace("ipv4 { import all; export none; };", extended))
    }

    /// The same as [`start`](Self::start), with these pieces of its configuration replaced.
    ///
    /// # Panics
    /// When there is no such piece.
    #[track_caller]
    pub fn start_with(lab: &Lab, namespace: &Namespace, replaced: &[(&str, &str)]) -> Self {
        let mut config = CONFIG.to_owned();
        for (from, to) in replaced {
            assert!(config.contains(from), "no {from:?} in {config}");
            config = config.replace(from, to);
        }
        Bird::with(lab, namespace, &config)
    }

    /// Starts it with a configuration of the test's own.
    #[track_caller]
    pub fn with(lab: &Lab, namespace: &Namespace, config: &str) -> Self {
        let config = lab.scratch().write("bird/bird.conf", config);
        let folder = config.parent().expect("a file is in a folder").to_owned();
        let mut command = namespace.command("bird");
        command.arg("-f").arg("-c").arg(&config).arg("-s").arg(folder.join("control"));
        let process = Process::start("bird", &mut command, &folder.join("log"));
        let mut bird = Bird { process, folder };
        wait_until(LONG, || {
            assert!(bird.process.ended().is_none(), "bird ended: {}", bird.process.output());
            bird.ask("show status")
        });
        bird
    }

    /// `birdc WORDS`.
    ///
    /// # Errors
    /// What birdc says when it cannot.
    pub fn ask(&self, words: &str) -> Result<String, String> {
        let output = std::process::Command::new("birdc")
            .arg("-s")
            .arg(self.folder.join("control"))
            .args(words.split(' '))
            .output()
            .map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() { Ok(text) } else { Err(text) }
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What it logged.
    pub fn log(&self) -> String {
        self.process.output()
    }

    /// Ends it in good order: sessions are closed, routes removed.
    #[track_caller]
    pub fn stop(&mut self) {
        self.process.signal(nix::sys::signal::Signal::SIGTERM);
        self.process.wait(LONG);
    }
}
