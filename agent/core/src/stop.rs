//! The end in order: withdraw, wait until it is written and the stop time is over, Cease, clean up where wanted, exit.

use std::time::Duration;

use anyvip_machine::Time;
use serde::{Deserialize, Serialize};

use crate::agent::Agent;
use crate::attempt::GUARD;
use crate::boundary::{Action, Fact};

/// What a peer that has taken nothing for a whole guard still gets for the NOTIFICATION.
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
    /// The clean exit is being written.
    Writing {
        guard: Time,
    },
    Over,
}

impl Stop {
    pub(crate) fn begun(&self) -> bool {
        *self != Stop::Running
    }

    pub(crate) fn removes_vips(&self) -> bool {
        matches!(self, Stop::Removing { .. })
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        match self {
            Stop::Running | Stop::Over => None,
            Stop::Withdrawing { guard } | Stop::Removing { guard } | Stop::Writing { guard } => Some(*guard),
            Stop::Waiting { until } => Some(*until),
        }
    }
}

impl Agent {
    /// SIGTERM; a second one skips the wait.
    pub(crate) fn terminate(&mut self, now: Time, out: &mut Vec<Action>) {
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
            Stop::Removing { .. } if self.vips.gone() && self.guard.restored() => self.write_exit(now),
            // What was said last must be out before the process is gone.
            Stop::Writing { .. } if self.store.clean() && self.speaker.is_silent() => self.exit(out),
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
                if let Stop::Writing { guard } = &mut self.stop {
                    *guard = now + LAST_CHANCE;
                }
            }
            Stop::Waiting { .. } => self.cease(now, out),
            Stop::Removing { .. } => {
                let text = "not everything could be removed; `anyvip cleanup` finishes it";
                out.push(Action::Record(Fact::Lifecycle { text: text.to_owned() }));
                self.write_exit(now);
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
            false => Stop::Writing { guard: now + GUARD },
        };
        self.tell_speaker(now, anyvip_bgp::Event::Stop { text }, out);
        match self.stop.removes_vips() {
            true => self.configure_kernel_side(),
            false => self.write_exit(now),
        }
        self.touched = true;
    }

    fn write_exit(&mut self, now: Time) {
        self.stop = Stop::Writing { guard: now + GUARD };
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
