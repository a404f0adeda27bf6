//! VIPs on this host: whose they are, whether they are there, and who fights for them.
//!
//! A VIP is ours if the state names it (with interface and boot) or if it carries our mark. What is not ours is used and
//! never touched. Ours is added only after the state that names it is on disk, so that a crash in between leaves nothing
//! that nobody would clean up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use anyvip_machine::{Failure, FailureKind, Time};
use serde::{Deserialize, Serialize};

use crate::asks::Asks;
use crate::attempt::{Attempt, GUARD};
use crate::boundary::{Fact, KernelRequest, KernelRequestId};
use crate::kernel::{Address, KernelView, VIP_PROTOCOL};
use crate::state::OwnedVip;

/// More deletions than this in [`CONTEST_WINDOW`] are a contest.
const TOLERATED_DELETIONS: usize = 5;
const CONTEST_WINDOW: Duration = Duration::from_secs(60);
/// A contested VIP is put back this long after each deletion, not at once.
const CONTESTED_PAUSE: Duration = Duration::from_secs(10);
const CONFIRM: Duration = Duration::from_secs(2);

/// All VIPs, wanted and leaving.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Vips {
    boot_id: String,
    /// Name of the interface where VIPs go.
    interface: String,
    wanted: BTreeMap<IpAddr, Vip>,
    owned: Vec<Owned>,
}

/// One wanted VIP.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Vip {
    /// Usable: on an interface that is up, and not tentative.
    pub(crate) present: bool,
    /// Put in place by this agent, now or before a restart.
    pub(crate) owned: bool,
    /// Where it is.
    pub(crate) interface: Option<u32>,
    /// Why it is not there.
    pub(crate) missing_because: Option<String>,
    /// It sits on this uplink itself, where no guard silences it.
    pub(crate) exposed: Option<String>,
    add: Attempt,
    deletions: Vec<Time>,
    contested_until: Option<Time>,
    add_again_at: Option<Time>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Owned {
    record: OwnedVip,
    /// The state that carries the record.
    generation: u64,
    /// The kernel was asked to add it, or it was found.
    real: bool,
    /// The last view showed it.
    seen: bool,
    /// A view showed it with our mark: this kernel keeps marks.
    marked: bool,
    /// Not wanted any more, and held until then for those that come.
    patience: Option<Time>,
    impatient: bool,
    remove: Attempt,
}

impl Vip {
    /// Whether somebody keeps deleting it.
    pub(crate) fn contested(&self) -> bool {
        self.contested_until.is_some()
    }

    /// Why the kernel refused to add it.
    pub(crate) fn refusal(&self) -> Option<&Failure> {
        self.add.refusal()
    }
}

impl Vips {
    /// Knows what the state carried; records of another boot are void.
    pub(crate) fn new(boot_id: &str, recorded: &BTreeSet<OwnedVip>) -> Vips {
        let ours = recorded.iter().filter(|record| record.boot_id == boot_id);
        let owned = ours.map(|record| Owned::new(record.clone(), 0, true)).collect();
        Vips { boot_id: boot_id.to_owned(), interface: String::new(), wanted: BTreeMap::new(), owned }
    }

    /// What shall be there, and where.
    pub(crate) fn configure(&mut self, interface: &str, wanted: &BTreeSet<IpAddr>) {
        self.interface = interface.to_owned();
        self.wanted.retain(|address, _| wanted.contains(address));
        for address in wanted {
            self.wanted.entry(*address).or_default();
        }
    }

    /// For the state on disk.
    pub(crate) fn recorded(&self) -> BTreeSet<OwnedVip> {
        self.owned.iter().map(|owned| owned.record.clone()).collect()
    }

    /// One wanted VIP.
    pub(crate) fn get(&self, address: &IpAddr) -> Option<&Vip> {
        self.wanted.get(address)
    }

    /// All wanted VIPs.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&IpAddr, &Vip)> {
        self.wanted.iter()
    }

    /// Addresses that are wanted or ours.
    pub(crate) fn addresses(&self) -> BTreeSet<IpAddr> {
        self.wanted.keys().copied().chain(self.owned.iter().map(|owned| owned.record.address)).collect()
    }

    /// Whether the ARP guard is needed: an IPv4 VIP is wanted, or one of ours is still there.
    pub(crate) fn need_guard(&self) -> bool {
        self.wanted.keys().any(IpAddr::is_ipv4)
            || self.owned.iter().any(|owned| owned.seen && owned.record.address.is_ipv4())
    }

    /// Whether none of ours is left.
    pub(crate) fn gone(&self) -> bool {
        self.owned.is_empty()
    }

    /// Takes a new view: adopts what carries our mark, sees what came and went.
    pub(crate) fn observe(
        &mut self,
        view: &KernelView,
        is_uplink: impl Fn(u32) -> bool,
        first: bool,
        asks: &mut Asks<'_>,
    ) {
        self.adopt(view, first, asks);
        self.notice_deletions(view, asks.now);
        for (address, vip) in &mut self.wanted {
            let here: Vec<&Address> = view.addresses.iter().filter(|a| a.address == *address).collect();
            let up = |a: &&&Address| view.links.get(&a.interface).is_some_and(|link| link.up);
            let usable = here.iter().filter(|a| !a.tentative).find(up);
            let owned = |a: &Address| self.owned.iter().any(|o| o.is(a));
            let (was_present, was_owned, was_on) = (vip.present, vip.owned, vip.interface);
            vip.present = usable.is_some();
            vip.owned = !here.is_empty() && here.iter().all(|a| owned(a));
            vip.interface = usable.or(here.first()).map(|a| a.interface);
            vip.missing_because = match (usable, here.first()) {
                (Some(_), _) => None,
                (None, None) => Some("it is not on this host".to_owned()),
                (None, Some(a)) if a.tentative => {
                    Some("duplicate address detection has not let it through".to_owned())
                }
                (None, Some(a)) => Some(format!("{} is down", link_name(view, a.interface))),
            };
            let on_uplink = here.iter().find(|a| is_uplink(a.interface));
            vip.exposed = on_uplink.map(|a| link_name(view, a.interface));
            if vip.present {
                vip.add.seen();
            }
            if was_present != vip.present {
                let interface = vip.interface.or(was_on).map(|index| link_name(view, index));
                let text = match (vip.present, vip.owned, first) {
                    (true, true, true) => "found in place, adopted",
                    (true, true, false) => "in place",
                    (true, false, _) => "in place, but not ours: used, never changed",
                    (false, ..) => "gone",
                };
                asks.record(Fact::VipChanged {
                    vip: *address,
                    interface: interface.unwrap_or_else(|| self.interface.clone()),
                    present: vip.present,
                    owned: if vip.present { vip.owned } else { was_owned },
                    text: text.to_owned(),
                });
            }
        }
    }

    fn adopt(&mut self, view: &KernelView, first: bool, asks: &mut Asks<'_>) {
        for address in &view.addresses {
            let known = self.owned.iter_mut().find(|owned| owned.is(address));
            let marked = address.protocol == VIP_PROTOCOL;
            match known {
                // Named by the state but never asked for, or ours was replaced: it is somebody else's.
                Some(owned) if !marked && (!owned.real || owned.marked) => {
                    let record = owned.record.clone();
                    self.owned.retain(|owned| owned.record != record);
                    asks.store.change();
                }
                Some(owned) => {
                    (owned.real, owned.seen) = (true, true);
                    owned.marked |= marked;
                }
                None if marked => {
                    let record = OwnedVip {
                        address: address.address,
                        interface: address.interface,
                        boot_id: self.boot_id.clone(),
                    };
                    let generation = asks.store.change();
                    let mut owned = Owned::new(record, generation, true);
                    (owned.seen, owned.marked) = (true, true);
                    self.owned.push(owned);
                    if !first || !self.wanted.contains_key(&address.address) {
                        asks.record(Fact::Lifecycle {
                            text: format!("{} carries our mark: adopted", address.address),
                        });
                    }
                }
                None => {}
            }
        }
    }

    fn notice_deletions(&mut self, view: &KernelView, now: Time) {
        for owned in &mut self.owned {
            let here = view.addresses.iter().any(|a| owned.is(a));
            if owned.seen
                && !here
                && view.links.contains_key(&owned.record.interface)
                && let Some(vip) = self.wanted.get_mut(&owned.record.address)
            {
                vip.deleted(now);
            }
            owned.seen = here;
        }
    }

    /// Adds what is missing and removes what is not wanted. `withdrawn` says whether no peer still has a route to it.
    pub(crate) fn pursue(
        &mut self,
        view: &KernelView,
        guarded: bool,
        withdrawn: impl Fn(&IpAddr) -> bool,
        asks: &mut Asks<'_>,
    ) {
        let target = view.links.iter().find(|(_, link)| link.name == self.interface).map(|(index, _)| *index);
        if let Some(target) = target {
            self.add(view, target, guarded, asks);
        } else {
            for vip in self.wanted.values_mut().filter(|vip| !vip.present) {
                vip.missing_because = Some(format!("there is no interface {}", self.interface));
            }
        }
        self.remove(view, target, withdrawn, asks);
    }

    fn add(&mut self, view: &KernelView, target: u32, guarded: bool, asks: &mut Asks<'_>) {
        for (address, vip) in &mut self.wanted {
            let ours = |a: &Address| self.owned.iter().any(|owned| owned.is(a));
            let here = view.addresses.iter().filter(|a| a.address == *address);
            let there = here.clone().any(|a| a.interface == target || !ours(a));
            if there || vip.add_again_at.is_some() {
                continue;
            }
            if address.is_ipv4() && !guarded {
                vip.missing_because = Some("it waits for the ARP guard".to_owned());
                continue;
            }
            let named = |o: &Owned| o.record.address == *address && o.record.interface == target;
            if !self.owned.iter().any(named) {
                let record = OwnedVip { address: *address, interface: target, boot_id: self.boot_id.clone() };
                let generation = asks.store.change();
                self.owned.push(Owned::new(record, generation, false));
            }
            let Some(owned) = self.owned.iter_mut().find(|o| named(o)) else { continue };
            if !asks.store.holds(owned.generation) {
                let why = asks.store.failure().map(|failure| format!(" ({failure})")).unwrap_or_default();
                vip.missing_because = Some(format!("it waits for the state to be written{why}"));
            } else if vip.add.ready() {
                owned.real = true;
                let change = KernelRequest::AddVip { interface: target, address: *address };
                asks.kernel(&mut vip.add, change);
            }
        }
    }

    fn remove(
        &mut self,
        view: &KernelView,
        target: Option<u32>,
        withdrawn: impl Fn(&IpAddr) -> bool,
        asks: &mut Asks<'_>,
    ) {
        // New ones come before old ones go; one that cannot come does not hold them for ever.
        let coming = self.wanted.values().any(|vip| !vip.present && vip.add.refusal().is_none());
        let mut changed = false;
        let wanted = &self.wanted;
        self.owned.retain_mut(|owned| {
            let record = &owned.record;
            let vip = wanted.get(&record.address);
            if vip.is_some() && target == Some(record.interface) {
                (owned.patience, owned.impatient) = (None, false);
                return true;
            }
            if !owned.seen {
                changed = true;
                return false;
            }
            let other_place = |vip: &Vip| {
                vip.present
                    && view.addresses.iter().any(|a| {
                        a.address == record.address && a.interface != record.interface && !a.tentative
                    })
            };
            let free = match vip {
                Some(vip) => other_place(vip),
                None => (!coming || owned.impatient) && withdrawn(&record.address),
            };
            if !free && !owned.impatient {
                owned.patience = owned.patience.or(Some(asks.now + GUARD));
            }
            if free && owned.remove.ready() {
                let change =
                    KernelRequest::RemoveVip { interface: record.interface, address: record.address };
                asks.kernel(&mut owned.remove, change);
            }
            true
        });
        if changed {
            asks.store.change();
        }
    }

    /// Takes an answer of the kernel; false if it was not about a VIP.
    pub(crate) fn answered(
        &mut self,
        request: KernelRequestId,
        result: &Result<(), Failure>,
        asks: &mut Asks<'_>,
    ) -> bool {
        // What is there already, or gone already, is what was wished for; the view will show it.
        let settled = |kinds: [FailureKind; 2]| match result {
            Err(failure) if kinds.contains(&failure.kind) => Ok(()),
            other => other.clone(),
        };
        let added = settled([FailureKind::AlreadyExists, FailureKind::AddressInUse]);
        for (address, vip) in &mut self.wanted {
            if asks.answer(&mut vip.add, request, &added, CONFIRM, || format!("add {address}")) {
                return true;
            }
        }
        let removed = settled([FailureKind::NotFound, FailureKind::AddressNotAvailable]);
        for owned in &mut self.owned {
            let address = owned.record.address;
            if asks.answer(&mut owned.remove, request, &removed, CONFIRM, || format!("remove {address}")) {
                return true;
            }
        }
        false
    }

    /// Its next moment.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let of_vips = self
            .wanted
            .values()
            .flat_map(|vip| [vip.add.deadline(), vip.contested_until, vip.add_again_at])
            .flatten();
        let of_owned = self.owned.iter().flat_map(|owned| [owned.remove.deadline(), owned.patience]);
        of_vips.chain(of_owned.flatten()).min()
    }

    /// Lets time act.
    pub(crate) fn expire(&mut self, asks: &mut Asks<'_>) {
        for (address, vip) in &mut self.wanted {
            if vip.add_again_at.is_some_and(|at| at <= asks.now) {
                vip.add_again_at = None;
            }
            if vip.contested_until.is_some_and(|until| until <= asks.now) {
                vip.contested_until = None;
                vip.deletions.clear();
            }
            asks.expire(&mut vip.add, || format!("add {address}"));
        }
        for owned in &mut self.owned {
            if owned.patience.is_some_and(|until| until <= asks.now) {
                (owned.patience, owned.impatient) = (None, true);
            }
            let address = owned.record.address;
            asks.expire(&mut owned.remove, || format!("remove {address}"));
        }
    }
}

impl Vip {
    fn deleted(&mut self, now: Time) {
        self.deletions.retain(|at| now.since(*at) < CONTEST_WINDOW);
        self.deletions.push(now);
        if self.contested() || self.deletions.len() > TOLERATED_DELETIONS {
            self.contested_until = Some(now + CONTEST_WINDOW);
            self.add_again_at = Some(now + CONTESTED_PAUSE);
        }
    }
}

impl Owned {
    fn new(record: OwnedVip, generation: u64, real: bool) -> Owned {
        Owned {
            record,
            generation,
            real,
            seen: false,
            marked: false,
            patience: None,
            impatient: false,
            remove: Attempt::default(),
        }
    }

    fn is(&self, address: &Address) -> bool {
        self.record.address == address.address && self.record.interface == address.interface
    }
}

fn link_name(view: &KernelView, index: u32) -> String {
    view.links.get(&index).map_or_else(|| format!("interface {index}"), |link| link.name.clone())
}
