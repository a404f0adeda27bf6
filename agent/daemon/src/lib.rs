//! The `anyvip` binary: the loop around [`anyvip_core::Agent`], the probes, the control socket, the command line.
//!
//! - `cli`: one file per command; `complaint`: exit codes; `terminal`: colour and width.
//! - `start`: locks, kernel side, configuration, until a loop can run; `driver`: the loop.
//! - `probes`: HTTP(S), TCP and exec checks; `kernel`: snapshots and requests in the agent's words; `state`: the state
//!   directory; `reload`: reads the configuration again beside the loop.
//! - `control`: the socket that the other commands talk to, both ends.
//! - `journal`, `wording`, `logging`: what changed, in one wording, for the log and for `anyvip events`.
//! - `recorder`: what the agent is given, in files for `anyvip-sim replay`.
//! - `upgrade`: how this process becomes another version of the program.
//! - `latency`: from a decision to the wire; `systemd`: what a service manager is told.
#![forbid(unsafe_code)]

mod bfd;
mod capabilities;
mod cli;
mod complaint;
mod configuration;
mod control;
mod driver;
mod journal;
mod kernel;
mod keys;
mod latency;
mod listening;
mod logging;
mod probes;
mod recorder;
mod reload;
mod render;
mod responder;
mod signals;
mod start;
mod state;
mod systemd;
mod upgrade;
mod wording;

/// Runs the command line of this process to its end.
pub fn main() -> std::process::ExitCode {
    cli::main()
}
