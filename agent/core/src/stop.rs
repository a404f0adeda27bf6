//! The end in order: withdraw, wait until it is written and the stop time is over, Cease, clean up where wanted, exit.

use std::time::Duration;

use anyvip_machine::Time;
use serde::{Deserialize, Serialize};

use crate::agent::Agent;
use crate::attempt::GUARD;
use crate::boundary::{Action, Fact};

/// How long a peer may take to take our last NOTIFICATION.
const LAST_CHANCE: Duration = Duration::from_secs(1);

/// How far stopping has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) enum Stop {
    #[default]
    Running,
    /// Withdrawals are being written; a peer that takes nothing is not waited for beyond the guard.
    Withdrawing {
        guard: Time,
    },
    /// All are written; routers get time to move flows.
    Waiting {
        until: Time,
    },
    /// VIPs go, then the guard.
    Removing {
        guard: Time,
    },
    /// The clean exit is being written, to the disk and to the peers; those are not waited for beyond `peers`.
    Writing {
        guard: Time,
        peers: Option<Time>,
    },
    Over,
}

impl Stop {
    pub(crate) fn begun(&self) -> bool {
        *self != Stop::Running
    }

    /// It has said that it ends.
    pub(crate) fn over(&self) -> bool {
        *self == Stop::Over
    }

    pub(crate) fn removes_vips(&self) -> bool {
        matches!(self, Stop::Removing { .. })
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        match self {
            Stop::Running | Stop::Over => None,
            Stop::Withdrawing { guard } | Stop::Removing { guard } => Some(*guard),
            Stop::Writing { guard, peers } => Some(peers.map_or(*guard, |peers| peers.min(*guard))),
            Stop::Waiting { until } => Some(*until),
        }
    }
}

impl Agent {
    /// SIGTERM; a second one skips the wait.
    pub(crate) fn terminate(&mut self, now: Time, out: &mut Vec<Action>) {
        self.forget_upgrade();
        match self.stop {
            Stop::Running if !self.started => {
                self.stop = Stop::Over;
                out.push(Action::Exit { code: 0 });
            }
            Stop::Running => {
                let text = match self.all_withdrawn() {
                    true => "stopping; nothing is announced",
                    false => "stopping: withdrawing everything",
                };
                out.push(Action::Record(Fact::Lifecycle { text: text.to_owned() }));
                if self.all_withdrawn() {
                    self.touched = true;
                    self.cease(now, out);
                } else {
                    self.stop = Stop::Withdrawing { guard: now + GUARD };
                }
            }
            Stop::Withdrawing { .. } | Stop::Waiting { .. } => self.cease(now, out),
            Stop::Removing { .. } => self.write_exit(now),
            Stop::Writing { .. } | Stop::Over => {}
        }
        self.touched = true;
    }

    /// Looks whether the present stage is done.
    pub(crate) fn stop_goes_on(&mut self, now: Time, out: &mut Vec<Action>) {
        match self.stop {
            Stop::Withdrawing { .. } if self.all_withdrawn() => {
                self.stop = Stop::Waiting { until: now + self.config.host.stop_time };
                if self.config.host.stop_time.is_zero() {
                    self.cease(now, out);
                }
            }
            Stop::Removing { .. } if self.vips.gone() && self.guard.restored() && self.defaults.gone() => {
                self.write_exit(now);
            }
            // What was said last must be out before the process is gone.
            Stop::Writing { peers, .. }
                if self.store.clean()
                    && (peers.is_none() || (self.speaker.is_silent() && self.defaults.gone())) =>
            {
                self.exit(out);
            }
            _ => {}
        }
    }

    /// Time ended a stage.
    pub(crate) fn stop_expired(&mut self, now: Time, out: &mut Vec<Action>) {
        match self.stop {
            Stop::Withdrawing { .. } => {
                let text = "a peer takes nothing: its withdrawal is left to the end of the session";
                out.push(Action::Record(Fact::Lifecycle { text: text.to_owned() }));
                self.cease(now, out);
            }
            Stop::Waiting { .. } => self.cease(now, out),
            Stop::Removing { .. } => {
                let text = "not everything could be removed; `anyvip cleanup` finishes it";
                out.push(Action::Record(Fact::Lifecycle { text: text.to_owned() }));
                self.write_exit(now);
            }
            Stop::Writing { guard, .. } if guard > now => {
                self.stop = Stop::Writing { guard, peers: None };
                self.touched = true;
            }
            Stop::Writing { .. } => self.exit(out),
            Stop::Running | Stop::Over => {}
        }
    }

    fn cease(&mut self, now: Time, out: &mut Vec<Action>) {
        let text = "anyvip stops".to_owned();
        // Set before the speaker speaks: what it says must not find the former stage.
        self.stop = match self.config.host.stop_removes_vip && self.unreadable.is_none() {
            true => Stop::Removing { guard: now + GUARD },
            false => Stop::Writing { guard: now + GUARD, peers: Some(now + LAST_CHANCE) },
        };
        self.tell_speaker(now, anyvip_bgp::Event::Stop { text }, out);
        match self.stop.removes_vips() {
            true => self.configure_kernel_side(),
            false => self.write_exit(now),
        }
        self.touched = true;
    }

    fn write_exit(&mut self, now: Time) {
        self.stop = Stop::Writing { guard: now + GUARD, peers: Some(now + LAST_CHANCE) };
        if self.unreadable.is_none() {
            self.mark_clean_exit();
        }
        self.touched = true;
    }

    fn exit(&mut self, out: &mut Vec<Action>) {
        self.stop = Stop::Over;
        out.push(Action::Record(Fact::Lifecycle { text: "stopped".to_owned() }));
        out.push(Action::Exit { code: 0 });
    }
}
