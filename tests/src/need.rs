//! What a test needs of the machine. Missing: the test is skipped with a line; in CI that is a failure.

use std::io::Write as _;
use std::path::Path;
use std::sync::OnceLock;

/// Something that not every machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Root, and the right to make network namespaces.
    Root,
    /// BIRD 2.
    Bird,
    /// FRR's zebra and bgpd.
    Frr,
    /// FRR's bfdd.
    Bfdd,
    /// OpenBGPD, whose daemon has the name of FRR's.
    Openbgpd,
    /// ExaBGP.
    Exabgp,
    /// This program in PATH.
    Program(&'static str),
}

impl Need {
    fn missing(self) -> Option<String> {
        match self {
            Need::Root => namespaces().clone(),
            Need::Bird => program("bird"),
            Need::Bfdd => file("/usr/lib/frr/bfdd"),
            Need::Openbgpd => file("/usr/sbin/bgpd").or_else(|| file("/usr/sbin/bgpctl")),
            Need::Exabgp => file("/usr/sbin/exabgp").or_else(|| file("/usr/bin/python3")),
            Need::Frr => {
                file("/usr/lib/frr/zebra").or_else(|| file("/usr/lib/frr/bgpd")).or_else(|| program("vtysh"))
            }
            Need::Program(name) => program(name),
        }
    }
}

/// True when all of it is there. Else says so on stderr (not captured), and the test returns at once.
///
/// # Panics
/// When something is missing and `CI` is set: continuous integration tests everything.
#[must_use]
pub fn met(needs: &[Need]) -> bool {
    met_by(std::thread::current().name().unwrap_or("a test"), needs)
}

/// The same for a test that knows its name.
///
/// # Panics
/// As above.
#[must_use]
pub fn met_by(test: &str, needs: &[Need]) -> bool {
    let missing: Vec<String> = needs.iter().filter_map(|need| need.missing()).collect();
    if missing.is_empty() {
        return true;
    }
    let text = missing.join("; ");
    assert!(std::env::var_os("CI").is_none(), "{test} cannot run: {text}");
    let _ = writeln!(std::io::stderr(), "skipped {test}: {text} (scripts/test.sh installs what is needed)");
    false
}

fn file(path: &str) -> Option<String> {
    (!Path::new(path).exists()).then(|| format!("{path} is not installed"))
}

fn program(name: &str) -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder| folder.join(name).is_file());
    (!found).then(|| format!("{name} is not installed"))
}

fn namespaces() -> &'static Option<String> {
    static ANSWER: OnceLock<Option<String>> = OnceLock::new();
    ANSWER.get_or_init(|| {
        if !nix::unistd::geteuid().is_root() {
            return Some("must be root".to_owned());
        }
        if let Some(text) = program("ip").or_else(|| program("setpriv")) {
            return Some(text);
        }
        let tried = std::process::Command::new("unshare").args(["--net", "true"]).output();
        match tried {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(format!(
                "cannot make a network namespace: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            )),
            Err(error) => Some(format!("cannot run unshare: {error}")),
        }
    })
}
