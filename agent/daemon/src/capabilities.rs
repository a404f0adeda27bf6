//! What the kernel must allow this process, and how to grant it.

use anyvip_core::Config;
use anyvip_io::capabilities::{Capabilities, Capability};

use crate::complaint::Complaint;

/// Refuses to start without what this configuration needs, naming all of it at once.
///
/// # Errors
/// Which capabilities are missing, what for, and how to grant them.
pub(crate) fn check(config: &Config) -> Result<(), Complaint> {
    require(&needed(config))
}

/// The same for `cleanup`, which knows no configuration.
///
/// # Errors
/// As for [`check`].
pub(crate) fn check_for_cleanup() -> Result<(), Complaint> {
    require(&[Capability::NetAdmin])
}

fn require(needed: &[Capability]) -> Result<(), Complaint> {
    // Without procfs the first refusal of the kernel has to do.
    match Capabilities::effective() {
        Ok(effective) => complain(&effective.missing(needed)),
        Err(_) => Ok(()),
    }
}

fn needed(config: &Config) -> Vec<Capability> {
    let bound = config.bgp.peers.values().any(|peer| peer.remote.interface().is_some());
    let low = config.bgp.listen.is_some_and(|listen| listen.port() < 1024);
    [(Capability::NetAdmin, true), (Capability::NetRaw, bound), (Capability::NetBindService, low)]
        .into_iter()
        .filter_map(|(capability, wanted)| wanted.then_some(capability))
        .collect()
}

fn what_for(capability: Capability) -> &'static str {
    match capability {
        Capability::NetAdmin => "to add addresses and to guard ARP",
        Capability::NetRaw => "to bind a BGP session to its interface, and for router advertisements",
        Capability::NetBindService => "to listen on a port below 1024",
    }
}

fn complain(missing: &[Capability]) -> Result<(), Complaint> {
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
    let reasons: Vec<String> =
        missing.iter().map(|capability| format!("{capability} ({})", what_for(*capability))).collect();
    let grant = format!(
        "run it as root, or grant it: AmbientCapabilities={} in the unit, or `setcap {}+ep $(command -v anyvip)`",
        names.join(" "),
        names.join(",").to_lowercase(),
    );
    Err(Complaint::refused(format!("this process lacks {}", reasons.join(" and "))).remedy(grant))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_use_and_its_grant() {
        let complaint = complain(&[Capability::NetAdmin, Capability::NetBindService]).unwrap_err();
        assert_eq!(
            complaint.to_string(),
            "anyvip: this process lacks CAP_NET_ADMIN (to add addresses and to guard ARP) and \
             CAP_NET_BIND_SERVICE (to listen on a port below 1024)\n        run it as root, or grant it: \
             AmbientCapabilities=CAP_NET_ADMIN CAP_NET_BIND_SERVICE in the unit, or \
             `setcap cap_net_admin,cap_net_bind_service+ep $(command -v anyvip)`"
        );
        assert!(complain(&[]).is_ok());
    }
}
