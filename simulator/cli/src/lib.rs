//! `anyvip-sim`: networks of Linux network namespaces in which real `anyvip` agents and the real kernel's ECMP meet
//! faults.
//!
//! # Parts
//!
//! - [`main`]: the command line (`cli`), one file per command: `run`, `up` (with `down` and `exec`), `node`,
//!   `service`, `replay`.
//! - `bench`: a lab built: one child process a node, each in a namespace of its own, and the cables between them.
//! - `play`: a scenario played on a bench; `judge`: the invariants at its end; `report`, `live`, `journal`: for people, for programs;
//!   `figures`: what flows come to; `page`: the same as HTML.
//! - `sweep`: many seeds of the virtual lab under random faults; `fleet`: thousands of hosts, and what dies among them.
//! - `virtual_lab`: the same scenarios in virtual time; `words`: what both backends say.
//! - `node`: what happens inside a node: its network, its role, the orders of the lab (`control`).
//! - `traffic`: the client's flows; `dns`: the least of it.
//! - `hash`: questions about flows that need no lab; `compare`: one plan under several designs, by a model and (`compare::kernel`) measured.
//!
//! Who owns what: the lab's process holds every node by a pipe. When it ends, however it ends, the pipes close, the nodes
//! end, their children get SIGKILL from the kernel, and the namespaces go with them. No namespace has a name, and
//! nothing is made in the host's own.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyvip_virtual::lab::ServicePorts;
use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

mod bench;
mod cli;
mod clock;
mod compare;
mod control;
mod dns;
mod figures;
mod fleet;
mod folder;
mod hash;
mod journal;
mod judge;
mod live;
mod node;
mod page;
mod play;
mod process;
mod replay;
mod report;
mod rootless;
mod run;
mod service;
mod status;
mod sweep;
mod traffic;
mod up;
mod virtual_lab;
mod words;

/// The program `anyvip-sim`.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(first) if first == process::HATCH => return process::hatch(&arguments.collect::<Vec<_>>()),
        Some(first) if first == process::KEEPER => return process::keep(&arguments.collect::<Vec<_>>()),
        _ => {}
    }
    match cli::Cli::parse().command {
        cli::Command::Run(arguments) => run::main(&arguments),
        cli::Command::Up(arguments) => up::up(&arguments),
        cli::Command::Down { lab } => up::down(&lab),
        cli::Command::Exec { node, lab, command } => up::exec(&node, lab.as_deref(), &command),
        cli::Command::Hash(command) => hash::main(&command),
        cli::Command::Node(arguments) => {
            let options = node::Options {
                lab: arguments.lab,
                name: arguments.name,
                own_namespace: arguments.own_namespace,
                orders: arguments.orders,
                run_dir: arguments.run_dir,
                reloadable: arguments.reloadable,
                agent: arguments.agent,
            };
            if arguments.detach { node::detach(&options) } else { node::main(options) }
        }
        cli::Command::Compare(arguments) => compare::main(&arguments),
        cli::Command::Replay(arguments) => replay::main(&arguments),
        cli::Command::Fleet(arguments) => fleet::main(&arguments),
        cli::Command::Sweep(arguments) => sweep::main(&arguments),
        cli::Command::Service { name, http, tcp, udp, dns } => {
            service::main(&name, ServicePorts { http, tcp, udp, dns })
        }
    }
}

/// Flows need descriptors: takes as many as are allowed.
fn raise_descriptor_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Without it, fewer flows fit at once; nothing else changes.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
