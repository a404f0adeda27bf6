//! `anyvip-sim hash spread`: how many of many flows each server gets, and how fast the twin says so.

use std::time::Duration;

use anyvip_ecmp::{Flow, Packet};
use anyvip_machine::Time;
use clap::Args;
use serde_json::json;

use super::flows::Flows;
use super::install::Install;
use super::kernel::Kernel;
use super::{Error, Router, Traffic, askable, cpu_time, say, say_json};

/// Flows whose hashing is timed at once; they fit into the cache.
const CHUNK: u64 = 4096;
/// Flows about which the kernel is asked.
const ASKED: u64 = 20_000;
/// Servers of which each has a line.
const LINES: usize = 64;
const BAR: u64 = 32;

#[derive(Args, Debug)]
pub(crate) struct Spread {
    #[command(flatten)]
    router: Router,
    #[command(flatten)]
    traffic: Traffic,
    /// How the next hops are installed: plain, group, resilient:BUCKETS, slots:N, or a model: maglev:PLACES, rendezvous, modulo, spray.
    #[arg(long, default_value = "group", value_name = "WAY")]
    install: Install,
    /// Ask this machine's kernel too, about the first 20,000 of the flows.
    #[arg(long)]
    verify: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn main(arguments: &Spread) -> Result<(), Error> {
    let members = arguments.router.members();
    let hasher = arguments.router.hasher()?;
    let flows = Flows::new(&arguments.traffic)?;
    let count = arguments.traffic.count;
    let verified = if arguments.verify {
        askable(&arguments.install, &flows.flow(0))?;
        let asked: Vec<Flow> = (0..count.min(ASKED)).map(|number| flows.flow(number)).collect();
        let kernel = Kernel::open(&arguments.router)?;
        kernel.begin(arguments.install, arguments.traffic.dst, &members)?;
        let answers = kernel.ask(asked.clone())?;
        let mut twin = arguments.install.design(&members)?;
        let differ = asked
            .iter()
            .zip(&answers)
            .filter(|(flow, answer)| twin.pick(Time::ZERO, hasher.lookup(flow)) != Some(**answer));
        Some((asked.len(), differ.count()))
    } else {
        None
    };

    let mut design = arguments.install.design(&members)?;
    let mut counts = vec![0_u64; members.len()];
    let mut busy = Duration::ZERO;
    let mut chunk: Vec<Packet> = Vec::new();
    for begin in (0..count).step_by(CHUNK as usize) {
        chunk.clear();
        chunk.extend((begin..count.min(begin + CHUNK)).map(|number| Packet::Whole(flows.flow(number))));
        let start = cpu_time();
        let hashes: Vec<u32> = chunk.iter().map(|packet| hasher.forwarded(packet)).collect();
        let picks = design.pick_all(Time::ZERO, &hashes);
        busy += cpu_time().saturating_sub(start);
        for pick in picks.into_iter().flatten() {
            if let Some(count) = counts.get_mut(pick as usize) {
                *count += 1;
            }
        }
    }
    let rate = count as f64 / busy.as_secs_f64().max(1e-9);
    let weights: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
    let fair = |weight: u16| f64::from(weight) / weights as f64;
    // The server that has most, compared with what its weight gives it.
    let worst = members
        .iter()
        .zip(&counts)
        .map(|(member, got)| *got as f64 / (count as f64 * fair(member.weight)))
        .fold(0.0, f64::max);
    if arguments.json {
        say_json(&json!({
            "flows": count,
            "install": arguments.install.to_string(),
            "members": members.iter().zip(&counts).map(|(member, got)| json!({
                "member": member.id, "weight": member.weight, "flows": got,
            })).collect::<Vec<_>>(),
            "most_over_fair": worst,
            "flows_per_second": rate,
            "verified": verified.map(|(asked, differ)| json!({ "asked": asked, "differ": differ })),
        }));
    } else {
        say(&format!("{count} flows, {}, installed as {}", arguments.router.text(), arguments.install));
        let most = counts.iter().copied().max().unwrap_or(1).max(1);
        for (member, got) in members.iter().zip(&counts).take(LINES) {
            let bar = "█".repeat((got * BAR).div_ceil(most) as usize);
            let share = *got as f64 * 100.0 / count as f64;
            say(&format!(
                "  {:>5}  {bar:<width$} {share:>6.2} %  {got:>9}   {:>6.2} % by weight",
                member.id,
                100.0 * fair(member.weight),
                width = BAR as usize
            ));
        }
        if members.len() > LINES {
            say(&format!("  … and {} servers more (--json has all)", members.len() - LINES));
        }
        say(&format!("the fullest server has {worst:.3} times its share"));
        say(&format!("{:.1} million flows/s on one core", rate / 1e6));
        if let Some((asked, differ)) = verified {
            say(&format!(
                "kernel {}: {} of {asked} decisions equal",
                super::kernel::release(),
                asked - differ
            ));
        }
    }
    match verified {
        Some((_, differ)) if differ > 0 => {
            Err(Error::Failed(format!("the kernel decides otherwise for {differ} flows")))
        }
        _ => Ok(()),
    }
}
