//! Drivers that are broken on purpose, so that tests can show that the checker finds what it is there to find, and people see
//! what a sweep says then. An agent that ships has no such switch.

use anyvip_bfd::{Cause, Fact};
use anyvip_core::boundary::Command;
use anyvip_core::{Event, KernelRequest, ProbeResult};

use super::host::Host;
use super::{NodeId, World};

/// How the driver around an agent is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Shows the kernel as it was at first.
    StaleViews,
    /// Says of every probe that it passed.
    PassesAll,
    /// Says of every probe that it failed.
    FailsAll,
    /// Loses UPDATEs that withdraw, and says that they were sent.
    DropsWithdrawals,
    /// Says that the guard is set and sets nothing.
    NoGuard,
    /// Turns a drain into its opposite.
    ForgetsDrains,
    /// Never says that a deadline has come.
    FrozenDeadlines,
    /// Keeps every answer of a probe for ever.
    Leaks,
    /// Says nothing of BFD sessions that failed.
    HidesBfdFailures,
    /// Says of BFD sessions that a router switched off that they failed.
    MistakesAdminDown,
    /// Wants every BFD session Up, whatever the agent wants.
    WantsBfdUp,
    /// Hands nothing to the program that takes over.
    LosesInheritance,
    /// Panics at the first drain.
    Panics,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Sabotage; 13] = [
        Sabotage::StaleViews,
        Sabotage::PassesAll,
        Sabotage::FailsAll,
        Sabotage::DropsWithdrawals,
        Sabotage::NoGuard,
        Sabotage::ForgetsDrains,
        Sabotage::FrozenDeadlines,
        Sabotage::Leaks,
        Sabotage::HidesBfdFailures,
        Sabotage::MistakesAdminDown,
        Sabotage::WantsBfdUp,
        Sabotage::LosesInheritance,
        Sabotage::Panics,
    ];

    /// As on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Sabotage::StaleViews => "stale-views",
            Sabotage::PassesAll => "passes-all",
            Sabotage::FailsAll => "fails-all",
            Sabotage::DropsWithdrawals => "drops-withdrawals",
            Sabotage::NoGuard => "no-guard",
            Sabotage::ForgetsDrains => "forgets-drains",
            Sabotage::FrozenDeadlines => "frozen-deadlines",
            Sabotage::Leaks => "leaks",
            Sabotage::HidesBfdFailures => "hides-bfd-failures",
            Sabotage::MistakesAdminDown => "mistakes-admin-down",
            Sabotage::WantsBfdUp => "wants-bfd-up",
            Sabotage::LosesInheritance => "loses-inheritance",
            Sabotage::Panics => "panics",
        }
    }

    /// What the agent gets to see instead of the event; `None`: nothing.
    #[allow(clippy::panic, reason = "one of the ways to be broken")]
    pub(super) fn bend(self, mut event: Event, seen_before: bool) -> Option<Event> {
        match (&mut event, self) {
            (Event::KernelView(_), Sabotage::StaleViews) if seen_before => return None,
            (Event::DeadlineReached, Sabotage::FrozenDeadlines) => return None,
            (Event::KernelView(view), Sabotage::NoGuard) => {
                for link in view.links.values_mut() {
                    (link.settings.arp_ignore, link.settings.arp_announce) = (1, 2);
                }
            }
            (Event::Bfd(Fact::StateChanged(change)), Sabotage::HidesBfdFailures) if change.is_failure() => {
                return None;
            }
            (Event::Bfd(Fact::StateChanged(change)), Sabotage::MistakesAdminDown)
                if change.cause == Cause::NeighborAdminDown =>
            {
                change.cause = Cause::DetectionTimeExpired;
            }
            (Event::ProbeFinished { outcome, .. }, Sabotage::PassesAll) => outcome.result = ProbeResult::Pass,
            (Event::ProbeFinished { outcome, .. }, Sabotage::FailsAll) => outcome.result = ProbeResult::Fail,
            (Event::Operator { command, .. }, Sabotage::ForgetsDrains) => {
                if let Command::Drain { service, .. } = command {
                    *command = Command::Undrain { service: service.take() };
                }
            }
            (Event::Operator { command: Command::Drain { .. }, .. }, Sabotage::Panics) => {
                panic!("broken on purpose");
            }
            _ => {}
        }
        Some(event)
    }

    /// Whether these octets are lost instead of written.
    pub(super) fn drops(self, bytes: &[u8]) -> bool {
        const UPDATE: u8 = 2;
        // RFC 4271 §4.3: the length of the withdrawn routes follows the header of 19 octets.
        let withdraws =
            bytes.get(18) == Some(&UPDATE) && bytes.get(19..21).is_some_and(|length| length != [0, 0]);
        self == Sabotage::DropsWithdrawals && withdraws
    }

    /// Whether the kernel is asked at all.
    pub(super) fn skips(self, change: &KernelRequest) -> bool {
        self == Sabotage::NoGuard && matches!(change, KernelRequest::SetArp { .. })
    }
}

impl Host {
    /// What the driver keeps for its agent: events that wait, probes, answers of kernel and disk, connections.
    pub fn backlog(&self) -> usize {
        self.process.as_ref().map_or(0, |process| process.kept()) + self.leaked
    }
}

impl World {
    /// Breaks the driver of one host from now on. For tests of the checker.
    pub fn sabotage(&mut self, node: NodeId, how: Option<Sabotage>) {
        if let Some(host) = self.host_mut(node) {
            host.sabotage = how;
        }
    }
}
