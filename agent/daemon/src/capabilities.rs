//! What the kernel must allow this process, and how to grant it.

use anyvip_core::Config;

use crate::complaint::Complaint;

/// A capability of capabilities(7) and what for.
struct Needed {
    bit: u32,
    name: &'static str,
    what_for: &'static str,
}

const NET_BIND_SERVICE: Needed =
    Needed { bit: 10, name: "CAP_NET_BIND_SERVICE", what_for: "listen on a port below 1024" };
const NET_ADMIN: Needed = Needed { bit: 12, name: "CAP_NET_ADMIN", what_for: "add addresses and guard ARP" };
const NET_RAW: Needed =
    Needed { bit: 13, name: "CAP_NET_RAW", what_for: "bind a BGP session to its interface" };

/// Refuses to start without what this configuration needs, naming all of it at once.
///
/// # Errors
/// Which capabilities are missing, and how to grant them.
pub(crate) fn check(config: &Config) -> Result<(), Complaint> {
    // Without the file (no procfs) the first refusal of the kernel has to do.
    let Some(effective) = effective() else { return Ok(()) };
    match missing(effective, config).as_slice() {
        [] => Ok(()),
        missing => {
            let names: Vec<&str> = missing.iter().map(|needed| needed.name).collect();
            let reasons: Vec<String> =
                missing.iter().map(|needed| format!("{} (to {})", needed.name, needed.what_for)).collect();
            Err(Complaint::refused(format!("this process lacks {}", reasons.join(" and "))).remedy(format!(
                "run it as root, or grant it: in the unit AmbientCapabilities={}; for a file \
                 `setcap {}+ep /usr/bin/anyvip`",
                names.join(" "),
                names.join(",").to_lowercase(),
            )))
        }
    }
}

fn missing(effective: u64, config: &Config) -> Vec<&'static Needed> {
    let bound = config.bgp.peers.values().any(|peer| peer.remote.interface.is_some());
    let low = config.bgp.listen.is_some_and(|listen| listen.port() < 1024);
    [(&NET_ADMIN, true), (&NET_RAW, bound), (&NET_BIND_SERVICE, low)]
        .into_iter()
        .filter(|(needed, wanted)| *wanted && effective & (1 << needed.bit) == 0)
        .map(|(needed, _)| needed)
        .collect()
}

fn effective() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}
