//! `anyvip-sim hash`: which server a flow lands on, how flows spread, and what a change of servers does to them.
//!
//! - `predict`, `spread`, `change`: one file a command; `install`: what `--install` names; `flows`: flows to count;
//! - `kernel`: the same questions asked of the running kernel, in a namespace of its own (`--verify`).

use std::net::IpAddr;
use std::process::ExitCode;

use anyvip_ecmp::{Fields, Flow, Hasher, Member, MemberState, Policy, Threshold};
use clap::{Args, Subcommand};
use ipnet::IpNet;

use self::install::Install;

mod change;
mod flows;
pub(crate) mod install;
mod kernel;
mod predict;
mod spread;

/// A router's next hops, and what it does with them.
#[derive(Args, Clone, Debug)]
pub(crate) struct Router {
    /// net.ipv4.fib_multipath_hash_seed (covers IPv6 too), decimal or 0x….
    #[arg(long, value_parser = seed, default_value = "0x1092", value_name = "N")]
    seed: u32,
    /// net.ipv4.fib_multipath_hash_policy or that of net.ipv6: 0, 1, 2 or 3.
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=3), default_value_t = 3, value_name = "0..3")]
    policy: u8,
    /// net.ipv4.fib_multipath_hash_fields or that of net.ipv6, for policy 3: 0x37 is the 5-tuple.
    #[arg(long, default_value = "0x37", value_name = "MASK")]
    fields: Fields,
    /// Number of servers, all of weight 1 [default: 8].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65_000), value_name = "N", conflicts_with = "weights")]
    members: Option<u32>,
    /// One weight for each server instead, in the router's order.
    #[arg(long, value_delimiter = ',', value_parser = weight, value_name = "W,W,…")]
    weights: Option<Vec<u16>>,
}

/// Flows to count.
#[derive(Args, Clone, Debug)]
pub(crate) struct Traffic {
    /// How many flows.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000), value_name = "N")]
    count: u64,
    /// Where clients are; an address for one client with many ports [default: 198.18.0.0/15 or 2001:db8:1::/48].
    #[arg(long, value_name = "PREFIX")]
    src: Option<Source>,
    /// The service's address.
    #[arg(long, default_value = "192.0.2.53", value_name = "ADDRESS")]
    dst: IpAddr,
    /// tcp, udp, icmp, or a number.
    #[arg(long, default_value = "tcp", value_parser = Protocol::parse, value_name = "NAME|N")]
    proto: Protocol,
    /// The service's port.
    #[arg(long, default_value_t = 443, value_name = "N")]
    dport: u16,
    /// Another number, other clients.
    #[arg(long, default_value_t = 1, value_name = "N")]
    flow_seed: u64,
}

/// `anyvip-sim hash …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Which server one flow lands on, by the arithmetic of Linux 6.11 and later.
    Predict(predict::Predict),
    /// How many of many flows each server gets.
    Spread(spread::Spread),
    /// What becomes of flows when a server leaves, joins, or weights change, under every way to install the routes.
    Change(change::Change),
}

/// Why a command ended without an answer.
#[derive(Debug)]
pub(crate) enum Error {
    /// What was asked makes no sense; exit code 2.
    Usage(String),
    /// It could not be done, or the kernel says otherwise; exit code 1.
    Failed(String),
}

impl Error {
    /// What to say.
    pub(crate) fn text(self) -> String {
        match self {
            Error::Usage(text) | Error::Failed(text) => text,
        }
    }
}

/// 0: answered (and the kernel agrees, if asked); 1: it does not, or could not be asked; 2: arguments that make no sense.
pub(crate) fn main(command: &Command) -> ExitCode {
    let done = match command {
        Command::Predict(arguments) => predict::main(arguments),
        Command::Spread(arguments) => spread::main(arguments),
        Command::Change(arguments) => change::main(arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Failed(text)) => {
            eprintln!("anyvip-sim: {text}");
            ExitCode::FAILURE
        }
        Err(Error::Usage(text)) => {
            eprintln!("anyvip-sim: {text}");
            ExitCode::from(2)
        }
    }
}

impl Router {
    fn policy(&self) -> Result<Policy, Error> {
        Policy::from_number(self.policy, self.fields)
            .ok_or_else(|| Error::Usage(format!("--policy {}: there are 0, 1, 2 and 3", self.policy)))
    }

    fn hasher(&self) -> Result<Hasher, Error> {
        Ok(Hasher::new(self.seed, self.policy()?))
    }

    /// The servers, numbered from 0.
    fn members(&self) -> Vec<Member> {
        match &self.weights {
            Some(weights) => Member::weighted(weights),
            None => Member::equal(self.members.unwrap_or(8)),
        }
    }

    /// `policy 3, fields 0x37, seed 0x1092`.
    fn text(&self) -> String {
        let fields = if self.policy == 3 { format!(", fields {}", self.fields) } else { String::new() };
        format!("policy {}{fields}, seed {:#x}", self.policy, self.seed)
    }
}

/// Clients: a prefix, or one address.
#[derive(Clone, Copy, Debug)]
struct Source(IpNet);

impl std::str::FromStr for Source {
    type Err = String;
    fn from_str(text: &str) -> Result<Source, String> {
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        net.map(Source).map_err(|_| format!("`{text}` is neither an address nor a prefix like 198.18.0.0/15"))
    }
}

/// An IP protocol as written; ICMP's number depends on the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Icmp,
    Number(u8),
}

impl Protocol {
    fn parse(text: &str) -> Result<Protocol, String> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Protocol::Number(6)),
            "udp" => Ok(Protocol::Number(17)),
            "icmp" | "icmpv6" => Ok(Protocol::Icmp),
            number => number
                .parse()
                .map(Protocol::Number)
                .map_err(|_| format!("`{text}` is neither tcp, udp, icmp nor a number from 0 to 255")),
        }
    }

    const fn number(self, ipv4: bool) -> u8 {
        match self {
            Protocol::Number(number) => number,
            Protocol::Icmp if ipv4 => 1,
            Protocol::Icmp => 58,
        }
    }
}

/// `tcp`, `udp`, `icmp`, or the number.
fn protocol_text(number: u8) -> String {
    match number {
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        1 => "icmp".to_owned(),
        58 => "icmpv6".to_owned(),
        number => format!("protocol {number}"),
    }
}

fn seed(text: &str) -> Result<u32, String> {
    let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    match number {
        Ok(0) => Err("with seed 0 the kernel uses a random number of its own that nobody can read; set \
                      net.ipv4.fib_multipath_hash_seed to another value on the router and give it here"
            .to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err(format!("`{text}` is no number of 32 bits, like 4242 or 0x1092")),
    }
}

fn weight(text: &str) -> Result<u16, String> {
    match text.trim().parse() {
        Ok(weight @ 1..=256) => Ok(weight),
        _ => Err(format!("`{text}`: a weight is from 1 to 256; a server that shall get nothing is left out")),
    }
}

/// The positions of the table of a plain route or group in which some members are dead or failed.
fn threshold(members: &[Member], dead: &[u32], failed: &[u32]) -> Result<Threshold, Error> {
    let state = |id: &u32| match (dead.contains(id), failed.contains(id)) {
        (true, _) => MemberState::Dead,
        (_, true) => MemberState::Failed,
        _ => MemberState::Alive,
    };
    Threshold::with_states(members.iter().map(|member| (member.weight, state(&member.id))))
        .map_err(|error| Error::Usage(error.to_string()))
}

/// Whether the kernel can be asked about this flow at all.
fn askable(install: &Install, flow: &Flow) -> Result<(), Error> {
    if !install.is_kernels() {
        return Err(Error::Usage(format!(
            "--verify asks the kernel, which has no `{install}`: it knows plain, group, resilient:N and slots:N"
        )));
    }
    if ![1, 6, 17, 58].contains(&flow.protocol) {
        return Err(Error::Usage(format!(
            "--verify: the kernel answers lookups for tcp, udp and icmp, not for {}",
            protocol_text(flow.protocol)
        )));
    }
    Ok(())
}

/// Processor time of this thread: unlike the clock on the wall it does not count who else uses the machine.
fn cpu_time() -> std::time::Duration {
    use nix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Into::into).unwrap_or_default()
}

/// One line to the reader, who may have gone away.
fn say(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// One JSON value on a line.
fn say_json(value: &serde_json::Value) {
    say(&value.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_router_is_refused_with_a_remedy() {
        assert_eq!(seed("0x1092"), Ok(4242));
        assert_eq!(seed("4242"), Ok(4242));
        assert!(seed("0").unwrap_err().contains("fib_multipath_hash_seed"));
        assert!(seed("0x100000000").unwrap_err().contains("32 bits"));
        assert_eq!(weight("256"), Ok(256));
        assert!(weight("0").unwrap_err().contains("left out"));
        assert_eq!(Protocol::parse("ICMP"), Ok(Protocol::Icmp));
        assert_eq!(Protocol::parse("89"), Ok(Protocol::Number(89)));
        assert!(Protocol::parse("300").is_err());
        assert_eq!(Protocol::Icmp.number(false), 58);
    }
}
