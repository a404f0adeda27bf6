//! `anyvip prepare`

use std::time::Duration;

use anyvip_core::Config;
use anyvip_core::status::Status;
use tokio::time::timeout;

use super::{DONE, Ended, terminal};
use crate::complaint::{Complaint, Exit};
use crate::start::{Paths, Prepared, prepare};

/// How long the kernel may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Lets the agent do its first steps (guard, then VIPs), without sessions and checks, and ends it in order.
pub(super) async fn run(paths: &Paths) -> Ended {
    let Prepared { mut driver, alone } = prepare(paths, without_sessions, false).await?;
    driver.start();
    let arrived = timeout(PATIENCE, async {
        while !lacking(&driver.agent().status(driver.now())).is_empty() {
            driver.turn().await;
        }
    })
    .await;
    let status = driver.agent().status(driver.now());
    driver.end().await;
    drop(alone);
    if arrived.is_err() {
        let text = format!("not in place after {} s: {}", PATIENCE.as_secs(), lacking(&status).join(", "));
        return Err(Complaint::new(Exit::TimedOut, text).remedy("the log above says what the kernel refused"));
    }
    let vips: Vec<String> =
        status.services.iter().flat_map(|service| &service.vips).map(|vip| vip.address.to_string()).collect();
    terminal::say(&format!("in place: {}", vips.join(", ")));
    DONE
}

/// Peers stay, because uplinks are found by the routes to them; nobody is connected to, and no service asks for one.
fn without_sessions(config: &mut Config) {
    for peer in config.bgp.peers.values_mut() {
        peer.connect = false;
    }
    config.bgp.listen = None;
    config.bgp.bfd.clear();
    config.responder = Default::default();
    config.host.stop_removes_vip = false;
    config.host.stop_time = Duration::ZERO;
    for service in config.services.values_mut() {
        service.checks.clear();
        service.peers.clear();
        service.statics.clear();
    }
}

fn lacking(status: &Status) -> Vec<String> {
    status
        .services
        .iter()
        .flat_map(|service| &service.vips)
        .filter_map(|vip| match (vip.present, vip.arp_guarded) {
            (false, _) => Some(vip.address.to_string()),
            (true, Some(false)) => Some(format!("the ARP guard of {}", vip.address)),
            (true, _) => None,
        })
        .collect()
}
