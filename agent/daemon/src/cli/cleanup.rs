//! `anyvip cleanup`

use std::time::Duration;

use anyvip_bgp::wire::Family;
use anyvip_core::kernel::{Address, KernelView, ROUTE_PROTOCOL, Route, VIP_PROTOCOL};
use anyvip_core::state::{OwnedVip, StoredState, StoredStateRead};
use tokio::time::{Instant, timeout_at};

use super::{DONE, Ended, Global, terminal};
use crate::complaint::{Complaint, Exit};
use crate::kernel;
use crate::start::{Alone, KernelSide};
use crate::state;

/// How long an address may take to go.
const PATIENCE: Duration = Duration::from_secs(10);

/// VIPs first; the guard is taken away only when none of them is left.
pub(super) async fn run(global: &Global) -> Ended {
    crate::capabilities::check_for_cleanup()?;
    let _alone = Alone::ensure(&global.state_dir).map_err(|complaint| match complaint.exit {
        Exit::Conflict => complaint.remedy("cleanup would work against it: `systemctl stop anyvip` first"),
        _ => complaint,
    })?;
    let mut side = KernelSide::open().await?;
    let stored = match state::read(&global.state_dir) {
        StoredStateRead::Absent => None,
        StoredStateRead::Read(stored) => Some(stored),
        StoredStateRead::Unreadable(why) => {
            terminal::note(&format!(
                "{why}: only addresses that carry our mark are removed, ARP stays as it is"
            ));
            None
        }
    };
    let boot = state::boot_id();
    let known = stored.clone().unwrap_or_default();
    let defaults = remove_defaults(&side).await?;
    let removed = remove_vips(&mut side, &known, &boot).await?;
    let restored = restore_arp(&side, &known, &boot).await?;
    if let Some(mut stored) = stored {
        stored.owned.clear();
        stored.arp.clear();
        stored.generation += 1;
        state::write(&global.state_dir, &stored).map_err(|failure| Complaint::refused(failure.text))?;
    }
    match removed.as_slice() {
        [] => terminal::say("no VIPs of anyvip were on this host"),
        removed => terminal::say(&format!("removed {}", removed.join(", "))),
    }
    for family in defaults {
        terminal::say(&format!("removed the {family} default route heard from routers"));
    }
    if !restored.is_empty() {
        terminal::say(&format!("restored the ARP settings of {}", restored.join(", ")));
    }
    DONE
}

/// Default routes that an agent installed.
async fn remove_defaults(side: &KernelSide) -> Result<Vec<Family>, Complaint> {
    let mut removed = Vec::new();
    for family in [Family::Ipv4, Family::Ipv6] {
        let default = kernel::everywhere(family);
        let ours = |route: &&Route| route.destination == default && route.protocol == ROUTE_PROTOCOL;
        let Some(route) = side.view.routes.iter().find(ours) else { continue };
        side.netlink.remove_default_route(default, route.metric).await.map_err(|failure| {
            Complaint::refused(format!("the {family} default route cannot be removed: {failure}"))
        })?;
        removed.push(family);
    }
    Ok(removed)
}

/// Marked as ours, or recorded on this boot and interface.
fn is_ours(address: &Address, stored: &StoredState, boot: &str) -> bool {
    let recorded =
        OwnedVip { address: address.address, interface: address.interface, boot_id: boot.to_owned() };
    address.protocol == VIP_PROTOCOL || stored.owned.contains(&recorded)
}

fn ours<'a>(
    view: &'a KernelView,
    stored: &'a StoredState,
    boot: &'a str,
) -> impl Iterator<Item = &'a Address> {
    view.addresses.iter().filter(move |address| is_ours(address, stored, boot))
}

async fn remove_vips(
    side: &mut KernelSide,
    stored: &StoredState,
    boot: &str,
) -> Result<Vec<String>, Complaint> {
    let found: Vec<Address> = ours(&side.view, stored, boot).cloned().collect();
    for address in &found {
        let what = address.address;
        match side.netlink.remove_address(address.interface, what).await {
            Ok(()) => {}
            Err(failure) if failure.kind == anyvip_machine::FailureKind::AddressNotAvailable => {}
            Err(failure) => {
                return Err(Complaint::refused(format!("{what} cannot be removed: {failure}"))
                    .remedy("the ARP guard stays as long as a VIP does"));
            }
        }
    }
    // The acknowledgement is not believed: the view has to show it.
    let deadline = Instant::now() + PATIENCE;
    while ours(&side.view, stored, boot).next().is_some() {
        match timeout_at(deadline, side.monitor.next()).await {
            Ok(snapshot) => side.view = kernel::view(snapshot),
            Err(_) => {
                let left: Vec<String> =
                    ours(&side.view, stored, boot).map(|address| address.address.to_string()).collect();
                return Err(Complaint::new(
                    Exit::TimedOut,
                    format!("still on this host: {}", left.join(", ")),
                )
                .remedy("somebody puts them back; the ARP guard stays"));
            }
        }
    }
    Ok(found.iter().map(|address| address.address.to_string()).collect())
}

/// Values of another boot, of an interface that is gone, or that somebody has changed since, are left alone. Within a boot
/// the number says which interface it is: the kernel counts on, while a name can be changed.
async fn restore_arp(side: &KernelSide, stored: &StoredState, boot: &str) -> Result<Vec<String>, Complaint> {
    let mut restored = Vec::new();
    for (_, former) in stored.arp.iter().filter(|(_, former)| former.boot_id == boot) {
        let Some(link) = side.view.links.get(&former.interface) else { continue };
        if (link.settings.arp_ignore, link.settings.arp_announce) != (1, 2) {
            continue;
        }
        let name = &link.name;
        side.netlink.set_arp(former.interface, former.ignore, former.announce).await.map_err(|failure| {
            Complaint::refused(format!("the ARP settings of {name} cannot be restored: {failure}"))
        })?;
        restored.push(name.clone());
    }
    Ok(restored)
}
