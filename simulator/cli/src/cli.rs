//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyvip_virtual::world::Sabotage;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};

use crate::hash;

/// Networks of namespaces in which real anyvip agents and the kernel's own ECMP meet faults.
#[derive(Debug, Parser)]
#[command(name = "anyvip-sim", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build a lab, play its scenario, judge it, and remove everything.
    Run(Run),
    /// Build a lab and leave it running.
    Up(Up),
    /// End a lab that was left running.
    Down {
        /// The lab file, or the lab's name.
        lab: PathBuf,
    },
    /// Run a command inside a node of a lab that was left running.
    Exec {
        /// The node.
        node: String,
        /// Which lab, if several run.
        #[arg(long)]
        lab: Option<String>,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Which server a flow lands on, how flows spread, what a change does to them: by the kernel's own arithmetic.
    #[command(subcommand)]
    Hash(hash::Command),
    /// Play one traffic and failure plan under several designs and print one table.
    Compare(Compare),
    /// Run many seeds of the virtual lab under random faults, with every invariant checked.
    Sweep(Sweep),
    /// Measure what a whole fleet goes through in virtual time when something dies.
    Fleet(Fleet),
    /// Run one node's role inside an existing network namespace or container.
    Node(Node),
    /// Live through a recording of a real agent (anyvip run --record) again.
    Replay(Replay),
    /// The built-in service of a node.
    #[command(hide = true)]
    Service {
        #[arg(long)]
        name: String,
        #[arg(long)]
        http: Option<u16>,
        #[arg(long)]
        tcp: Option<u16>,
        #[arg(long)]
        udp: Option<u16>,
        #[arg(long)]
        dns: Option<u16>,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Run {
    /// The lab: a containerlab topology file.
    pub(crate) lab: PathBuf,
    /// What happens in it [default: NAME.scenario.yml beside the lab].
    #[arg(long, value_name = "FILE")]
    pub(crate) scenario: Option<PathBuf>,
    /// What the lab is made of: netns, network namespaces of this kernel; virtual, the same agent in virtual time.
    #[arg(long, default_value = "netns", value_name = "NAME")]
    pub(crate) backend: String,
    /// Everything that is random in a virtual lab comes from this number [default: 1].
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// The agent [default: anyvip beside this program, else in PATH].
    #[arg(long, value_name = "PATH")]
    pub(crate) agent: Option<PathBuf>,
    /// Write time line, figures and verdicts here.
    #[arg(long, value_name = "OUT")]
    pub(crate) json: Option<PathBuf>,
    /// Write the same as a page for people here: pictures, tables, how to have it again.
    #[arg(long, value_name = "OUT.html")]
    pub(crate) report: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: 0 the same actions to the end, 1 other actions or a damaged file, 2 not a recording."
)]
pub(crate) struct Replay {
    /// One of the two files that the agent wrote.
    pub(crate) file: PathBuf,
    /// Stop after this much time of the recorded process, like 90s or 1500ms.
    #[arg(long, value_name = "TIME", value_parser = anyvip_virtual::duration::parse)]
    pub(crate) until: Option<Duration>,
    /// Print every event, and what the agent did.
    #[arg(long)]
    pub(crate) print: bool,
    /// Print what came of it as JSON.
    #[arg(long, conflicts_with = "print")]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Compare {
    /// The plan, a YAML file.
    pub(crate) plan: PathBuf,
    /// How it is played: model, in virtual time; netns, in network namespaces of this kernel and in real time, with the model's
    /// figures below.
    #[arg(long, default_value = "model", value_name = "NAME")]
    pub(crate) backend: String,
    /// The agent, for --backend netns [default: anyvip beside this program, else in PATH].
    #[arg(long, value_name = "PATH")]
    pub(crate) agent: Option<PathBuf>,
    /// Write plan and results here.
    #[arg(long, value_name = "OUT")]
    pub(crate) json: Option<PathBuf>,
    /// Write the same as a page for people here.
    #[arg(long, value_name = "OUT.html")]
    pub(crate) report: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct Up {
    /// The lab: a containerlab topology file.
    pub(crate) lab: PathBuf,
    /// The agent [default: anyvip beside this program, else in PATH].
    #[arg(long, value_name = "PATH")]
    pub(crate) agent: Option<PathBuf>,
    /// Hold the lab in the foreground.
    #[arg(long, hide = true)]
    pub(crate) hold: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Node {
    /// The lab file.
    #[arg(long, value_name = "FILE")]
    pub(crate) lab: PathBuf,
    /// The node.
    #[arg(long)]
    pub(crate) name: String,
    /// Return as soon as the role has begun.
    #[arg(long)]
    pub(crate) detach: bool,
    /// The agent [default: anyvip beside this program, else in PATH].
    #[arg(long, value_name = "PATH")]
    pub(crate) agent: Option<PathBuf>,
    #[arg(long, hide = true)]
    pub(crate) own_namespace: bool,
    #[arg(long, hide = true)]
    pub(crate) orders: bool,
    #[arg(long, hide = true)]
    pub(crate) reloadable: bool,
    #[arg(long, hide = true)]
    pub(crate) run_dir: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct Sweep {
    /// How many seeds.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) seeds: u64,
    /// The first of them [default: taken from the clock, and said].
    #[arg(long, value_name = "S")]
    pub(crate) first: Option<u64>,
    /// Exactly so many hosts [default: drawn from the seed, 1 to 24].
    #[arg(long, value_name = "H", value_parser = clap::value_parser!(u32).range(1..=16_000))]
    pub(crate) hosts: Option<u32>,
    /// Virtual time under faults, before everything is healed.
    #[arg(long, value_name = "T", default_value = "10m", value_parser = anyvip_virtual::duration::parse)]
    pub(crate) time: Duration,
    /// Seeds at once [default: one a core].
    #[arg(long, value_name = "J")]
    pub(crate) jobs: Option<usize>,
    /// Run this one seed and say everything about it.
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "first", "jobs"])]
    pub(crate) replay: Option<u64>,
    /// Write every event of the replayed seed here.
    #[arg(long, value_name = "FILE", requires = "replay")]
    pub(crate) trace: Option<PathBuf>,
    /// Leave the plan of a failing seed as it is; do not make it small.
    #[arg(long)]
    pub(crate) whole: bool,
    /// Break what surrounds the agent of the first host, to see that it is found and what is said then.
    #[arg(long, value_name = "HOW", value_parser = broken())]
    pub(crate) broken: Option<Sabotage>,
}

fn broken() -> impl TypedValueParser<Value = Sabotage> {
    let names = PossibleValuesParser::new(Sabotage::ALL.map(Sabotage::name));
    names.try_map(|name| Sabotage::ALL.into_iter().find(|how| how.name() == name).ok_or("no such way"))
}

#[derive(Args, Debug)]
pub(crate) struct Fleet {
    /// How many hosts.
    #[arg(long, value_name = "H", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=65_000))]
    pub(crate) hosts: u32,
    /// How many top-of-rack routers; each host has a session with two of them.
    #[arg(long, value_name = "R", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) routers: u32,
    /// Hosts in a rack.
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) rack: u32,
    /// BFD guards every session, a packet each so long, three of them.
    #[arg(long, value_name = "TIME", value_parser = anyvip_virtual::duration::parse)]
    pub(crate) bfd: Option<Duration>,
    /// Everything that is random comes from this number.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Draw the curves here.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}
