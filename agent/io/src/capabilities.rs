//! What this process may do (capabilities(7)).

use std::fmt;

use anyvip_machine::{Failure, FailureKind};

use crate::failure::failed;

/// A capability that anyvip may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capability {
    /// Ports below 1024.
    NetBindService,
    /// Addresses, routes, interface settings.
    NetAdmin,
    /// Raw sockets.
    NetRaw,
}

impl Capability {
    /// All of them.
    pub const ALL: [Capability; 3] = [Capability::NetBindService, Capability::NetAdmin, Capability::NetRaw];

    /// Its number in `linux/capability.h`.
    const fn number(self) -> u32 {
        match self {
            Capability::NetBindService => 10,
            Capability::NetAdmin => 12,
            Capability::NetRaw => 13,
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Capability::NetBindService => "CAP_NET_BIND_SERVICE",
            Capability::NetAdmin => "CAP_NET_ADMIN",
            Capability::NetRaw => "CAP_NET_RAW",
        })
    }
}

/// A set of capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    bits: u64,
}

impl Capabilities {
    /// Those in effect for this process.
    ///
    /// # Errors
    /// When /proc is not mounted.
    pub fn effective() -> Result<Capabilities, Failure> {
        let path = "/proc/self/status";
        let status =
            std::fs::read_to_string(path).map_err(|error| failed(format!("cannot read {path}"), &error))?;
        Capabilities::of_status(&status)
            .ok_or_else(|| Failure::new(FailureKind::Unsupported, format!("{path} shows no capabilities")))
    }

    fn of_status(status: &str) -> Option<Capabilities> {
        let value = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        Some(Capabilities { bits: u64::from_str_radix(value.trim(), 16).ok()? })
    }

    /// Whether it is among them.
    pub fn has(self, capability: Capability) -> bool {
        self.bits & (1 << capability.number()) != 0
    }

    /// Those of `needed` that are not among them.
    pub fn missing(self, needed: &[Capability]) -> Vec<Capability> {
        needed.iter().copied().filter(|capability| !self.has(*capability)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_set_is_read_and_what_is_missing_is_named() {
        let status = "Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t0000000000001400\nCapBnd:\t0\n";
        let some = Capabilities::of_status(status).unwrap();
        let missing: Vec<String> = some.missing(&Capability::ALL).iter().map(ToString::to_string).collect();
        assert_eq!(missing, ["CAP_NET_RAW"]);
        assert_eq!(Capabilities::of_status("CapEff:\t0").unwrap().missing(&Capability::ALL).len(), 3);
        assert_eq!(Capabilities::of_status("CapPrm:\tff"), None);
    }

    #[test]
    fn root_may_do_everything_here() {
        let own = Capabilities::effective().unwrap();
        if nix::unistd::geteuid().is_root() {
            assert!(own.has(Capability::NetBindService));
        }
    }
}
