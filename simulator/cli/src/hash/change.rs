//! `anyvip-sim hash change`: what a change of servers does to flows, under every way to install the routes.

use std::time::Duration;

use anyvip_ecmp::change::{Outcome, Share, expected, moved_by_joining, moved_by_leaving};
use anyvip_ecmp::{Flow, Member};
use anyvip_machine::Time;
use clap::Args;
use serde_json::{Value, json};

use super::flows::Flows;
use super::install::{ALL, Install};
use super::kernel::Kernel;
use super::{Error, Router, Traffic, askable, cpu_time, say, say_json, weight};

/// Flows about which the kernel is asked, before and after.
const ASKED: u64 = 20_000;
/// All flows are seen, the change comes, all flows are seen again.
const SEEN: Time = Time::from_secs(1);
const CHANGED: Time = Time::from_secs(2);

#[derive(Args, Debug)]
pub(crate) struct Change {
    #[command(flatten)]
    router: Router,
    #[command(flatten)]
    traffic: Traffic,
    /// How the next hops are installed, one or several: plain, group, resilient:BUCKETS[:busy], slots:N, maglev:PLACES, rendezvous,
    /// modulo, spray [default: all].
    #[arg(long, value_delimiter = ',', value_name = "WAY,WAY,…")]
    install: Vec<Install>,
    #[command(flatten)]
    what: What,
    /// Ask this machine's kernel too, about the first 20,000 of the flows, before and after, and about every bucket.
    #[arg(long)]
    verify: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct What {
    /// The server at this position, counted from 0, leaves.
    #[arg(long, value_name = "K")]
    leave: Option<u32>,
    /// A server joins at this position of the list, counted from 0 [default: the end].
    #[arg(long, value_name = "K", num_args = 0..=1, default_missing_value = "4294967295")]
    join: Option<u32>,
    /// The servers have these weights from now on; as many as there are.
    #[arg(long, value_delimiter = ',', value_parser = weight, value_name = "W,W,…")]
    to_weights: Option<Vec<u16>>,
}

/// A change, resolved.
struct Plan {
    before: Vec<Member>,
    after: Vec<Member>,
    text: String,
    /// What hash-threshold does to equal members by the closed formula.
    formula: Option<Share>,
}

/// What became of it under one install.
struct Row {
    install: Install,
    outcome: Outcome,
    expected: Option<Share>,
    took: Duration,
    verified: Option<Verified>,
}

struct Verified {
    asked: usize,
    differ: usize,
}

pub(super) fn main(arguments: &Change) -> Result<(), Error> {
    let plan = plan(arguments)?;
    let flows = Flows::new(&arguments.traffic)?;
    let installs = if arguments.install.is_empty() { ALL.to_vec() } else { arguments.install.clone() };
    if arguments.verify {
        if !installs.iter().any(|install| install.is_kernels()) {
            askable(&Install::Modulo, &flows.flow(0))?;
        }
        askable(&Install::Plain, &flows.flow(0))?;
    }
    let kernel = if arguments.verify { Some(Kernel::open(&arguments.router)?) } else { None };
    let hasher = arguments.router.hasher()?;
    let start = cpu_time();
    let hashes = flows.hashes(&hasher, arguments.traffic.count);
    let hashing = cpu_time().saturating_sub(start);
    let mut rows = Vec::new();
    for install in installs {
        let mut row = play(install, &plan, &hashes)?;
        if let Some(kernel) = kernel.as_ref().filter(|_| install.is_kernels()) {
            let asked: Vec<Flow> =
                (0..arguments.traffic.count.min(ASKED)).map(|number| flows.flow(number)).collect();
            let hashes: Vec<u32> = asked.iter().map(|flow| hasher.lookup(flow)).collect();
            row.verified = Some(verify(kernel, install, &plan, arguments.traffic.dst, &asked, &hashes)?);
        }
        rows.push(row);
    }
    if arguments.json {
        say_json(&as_json(arguments, &plan, &rows, hashing));
    } else {
        print(arguments, &plan, &rows, hashing);
    }
    let differ: usize = rows.iter().filter_map(|row| row.verified.as_ref()).map(|one| one.differ).sum();
    if differ > 0 {
        return Err(Error::Failed(format!("the kernel decides otherwise in {differ} cases")));
    }
    Ok(())
}

fn plan(arguments: &Change) -> Result<Plan, Error> {
    let before = arguments.router.members();
    let count = u32::try_from(before.len()).unwrap_or(u32::MAX);
    let equal = before.iter().all(|member| member.weight == 1);
    let mut after = before.clone();
    let (text, formula) = if let Some(position) = arguments.what.leave {
        if position >= count {
            return Err(Error::Usage(format!(
                "--leave {position}: with {count} servers they are 0 to {}",
                count - 1
            )));
        }
        if count == 1 {
            return Err(Error::Usage(
                "--leave: the only server cannot leave; give --members 2 or more".to_owned(),
            ));
        }
        after.remove(position as usize);
        (format!("server {position} of {count} leaves"), moved_by_leaving(count, position))
    } else if let Some(position) = arguments.what.join {
        let position = if position == u32::MAX { count } else { position };
        if position > count {
            return Err(Error::Usage(format!("--join {position}: the end of the list is position {count}")));
        }
        after.insert(position as usize, Member { id: count, weight: 1 });
        (
            format!("server {count} joins the {count} there are, at position {position}"),
            moved_by_joining(count, position),
        )
    } else {
        let weights = arguments.what.to_weights.clone().unwrap_or_default();
        if weights.len() != before.len() {
            return Err(Error::Usage(format!(
                "--to-weights has {} weights for {count} servers; give one for each",
                weights.len()
            )));
        }
        after = Member::weighted(&weights);
        let list = |members: &[Member]| {
            members.iter().map(|member| member.weight.to_string()).collect::<Vec<_>>().join(",")
        };
        let text = format!("weights {} become {}", list(&before), list(&after));
        return Ok(Plan { before, after, text, formula: None });
    };
    Ok(Plan { before, after, text, formula: equal.then_some(formula) })
}

/// One install, by the twin or the model.
fn play(install: Install, plan: &Plan, hashes: &[u32]) -> Result<Row, Error> {
    let mut design = install.design(&plan.before)?;
    let start = cpu_time();
    let before = design.pick_all(SEEN, hashes);
    let old = design.table();
    design.set(CHANGED, &plan.after);
    let after = design.pick_all(CHANGED, hashes);
    let took = cpu_time().saturating_sub(start);
    let ids: std::collections::BTreeSet<u32> = plan.after.iter().map(|member| member.id).collect();
    let stays = |id: u32| ids.contains(&id);
    let outcome = Outcome::count(&before, &after, stays);
    let expected = old.zip(design.table()).and_then(|(old, new)| expected(&old, &new, stays));
    Ok(Row { install, outcome, expected, took, verified: None })
}

/// The same in the kernel: every lookup, and every bucket, before and after.
fn verify(
    kernel: &Kernel,
    install: Install,
    plan: &Plan,
    service: std::net::IpAddr,
    flows: &[Flow],
    hashes: &[u32],
) -> Result<Verified, Error> {
    let mut verified = Verified { asked: 0, differ: 0 };
    let mut compare = |twin: &[Option<u32>], kernel: &[u32]| {
        verified.asked += kernel.len();
        verified.differ += twin.iter().zip(kernel).filter(|(twin, kernel)| **twin != Some(**kernel)).count();
    };
    let mut design = install.design(&plan.before)?;
    kernel.begin(install, service, &plan.before)?;
    for (time, members) in [(SEEN, &plan.before), (CHANGED, &plan.after)] {
        if time == CHANGED {
            design.set(time, members);
            kernel.change(install, service, &plan.before, members)?;
        }
        compare(&design.pick_all(time, hashes), &kernel.ask(flows.to_vec())?);
        if let (Install::Resilient { .. }, Some(anyvip_ecmp::design::Table::Places(places))) =
            (install, design.table())
        {
            let places: Vec<Option<u32>> = places.into_iter().map(Some).collect();
            compare(&places, &kernel.buckets()?);
        }
    }
    Ok(verified)
}

/// Flows of the members that came new.
fn newcomers(plan: &Plan, outcome: &Outcome) -> Option<Share> {
    let newcomer = plan.after.iter().find(|member| !plan.before.iter().any(|old| old.id == member.id))?;
    Some(Share {
        part: outcome.after.get(&newcomer.id).copied().unwrap_or(0),
        whole: outcome.after.values().sum(),
    })
}

fn as_json(arguments: &Change, plan: &Plan, rows: &[Row], hashing: Duration) -> Value {
    json!({
        "change": plan.text,
        "flows": arguments.traffic.count,
        "closed_formula_percent": plan.formula.map(Share::percent),
        "hashing_cpu_ms": hashing.as_millis() as u64,
        "installs": rows.iter().map(|row| json!({
            "install": row.install.to_string(),
            "moved": row.outcome.moved.part,
            "of": row.outcome.moved.whole,
            "moved_percent": row.outcome.moved.percent(),
            "expected_percent": row.expected.map(Share::percent),
            "had_to_move": row.outcome.orphaned,
            "most_over_mean": row.outcome.imbalance(plan.after.len()),
            "newcomer_percent": newcomers(plan, &row.outcome).map(Share::percent),
            "deciding_cpu_ms": row.took.as_millis() as u64,
            "verified": row.verified.as_ref().map(|one| json!({ "asked": one.asked, "differ": one.differ })),
        })).collect::<Vec<_>>(),
    })
}

fn print(arguments: &Change, plan: &Plan, rows: &[Row], hashing: Duration) {
    let count = arguments.traffic.count;
    say(&format!("{count} flows, {}: {}", arguments.router.text(), plan.text));
    let joined = plan.after.len() > plan.before.len();
    let left = plan.after.len() < plan.before.len();
    // When a server joins or weights change, some of what moves has to: the last lines say how much at best.
    let moved = if left { "moved without need" } else { "moved" };
    let mut head = vec!["installed as", moved, "expected"];
    if left {
        head.push("had to move");
    }
    head.push("fullest/mean");
    if joined {
        head.push("newcomer has");
    }
    if arguments.verify {
        head.push("kernel agrees");
    }
    let mut table = vec![head.into_iter().map(str::to_owned).collect::<Vec<String>>()];
    for row in rows {
        let mut line = vec![
            row.install.to_string(),
            format!(
                "{} of {} {:>6.2} %",
                row.outcome.moved.part,
                row.outcome.moved.whole,
                row.outcome.moved.percent()
            ),
            row.expected.map_or("–".to_owned(), |share| format!("{:.2} %", share.percent())),
        ];
        if left {
            line.push(row.outcome.orphaned.to_string());
        }
        line.push(format!("{:.3}", row.outcome.imbalance(plan.after.len())));
        if let Some(share) = newcomers(plan, &row.outcome) {
            line.push(format!("{:.2} %", share.percent()));
        }
        if arguments.verify {
            line.push(match &row.verified {
                None => "a model".to_owned(),
                Some(one) => format!("{} of {}", one.asked - one.differ, one.asked),
            });
        }
        table.push(line);
    }
    for line in lined_up(&table) {
        say(&line);
    }
    if let Some(formula) = plan.formula {
        say(&format!(
            "plain and group with equal weights, by the closed formula: {:.2} %; the best there can be: {}",
            formula.percent(),
            match joined {
                true => format!("{:.2} %", 100.0 / plan.after.len() as f64),
                false => "0 %".to_owned(),
            }
        ));
    }
    if rows.iter().any(|row| matches!(row.install, Install::Resilient { .. })) {
        say(
            "resilient: no bucket in use when the change comes; busy: every one in use, and none forced to move",
        );
    }
    let deciding: Duration = rows.iter().map(|row| row.took).sum();
    say(&format!(
        "processor time: {:.2} s to make and hash the flows, {:.2} s to decide twice for each",
        hashing.as_secs_f64(),
        deciding.as_secs_f64()
    ));
}

/// Columns of one width; the first to the left, the others to the right.
fn lined_up(table: &[Vec<String>]) -> Vec<String> {
    let columns = table.first().map_or(0, Vec::len);
    let width = |column: usize| {
        table.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |cells: &Vec<String>| {
        let padded = cells.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        format!("  {}", padded.collect::<Vec<_>>().join("   ").trim_end())
    };
    table.iter().map(line).collect()
}
