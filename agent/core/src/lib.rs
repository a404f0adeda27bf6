//! What the anyvip agent decides, without touching anything.
//!
//! # The straight path
//!
//! Probes, the kernel view, operators and peers are *facts*. Health machines, drain machines and the VIP machine turn
//! them into plain values; [`gates`] asks those values, in one fixed order, whether a service's VIP may be announced
//! to a peer, and the first closed gate is the [`Reason`] that people see. What passes is the wanted set of each peer; the
//! BGP speaker sends the difference. Start-up, failure, recovery, drain, reload and a new session all take this same path.
//!
//! # Parts, and who owns what
//!
//! - [`boundary`]: every [`Event`] and [`Action`], on one page.
//! - `agent`: the machine; owns everything below and `anyvip_bgp::Speaker`; `settle()` after each event.
//! - `health`: rise/fall per check and target; `schedule`: when each check runs.
//! - `vip`: the order in and out, ownership, contest, the ARP guard; reads [`KernelView`], asks for kernel changes.
//! - `drain`: operator state; `state`: what survives a restart.
//! - `gates`: gates, verdicts, reasons; `announce`: peer → prefix → attributes.
//! - [`config`]: written → meant, all errors at once; [`status`]: what `status` and `explain` print.
#![forbid(unsafe_code)]

mod agent;
mod announce;
mod asks;
mod attempt;
pub mod boundary;
mod checks;
pub mod config;
mod crash_loop;
mod drain;
mod explain;
mod gates;
mod guard;
mod health;
pub mod kernel;
mod peers;
mod reload;
mod schedule;
mod services;
pub mod state;
pub mod status;
mod stop;
mod store;
mod vip;

pub use agent::Agent;
pub use boundary::{
    Action, CheckName, Command, Event, Fact, KernelRequest, KernelRequestId, ProbeId, ProbeOutcome,
    ProbeResult, Reason, Reply, RequestId, ServiceName, Start, Target, Verdict,
};
pub use config::Config;
pub use kernel::KernelView;
