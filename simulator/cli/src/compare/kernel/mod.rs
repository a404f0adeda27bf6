//! A plan played in network namespaces, in real time: the kernel forwards, tracks and refuses, agents and routers announce, nftables
//! balances, a name server and resolvers of ours answer for names. All designs are played at the same time, each in a network of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyvip_virtual::lab::{Lab, Role};
use anyvip_virtual::router::MULTIPATH_LIMIT;

use self::order::Task;
use self::stage::Stage;
use super::outcome::Outcome;
use super::plan::{Design, Kind, Plan, What};
use crate::bench::Bench;
use crate::folder::{self, Folder};
use crate::rootless::{self, Rights};
use crate::run::{Signal, Signals, block_on, find_agent};
use crate::{clock, process};

mod balancer;
mod checks;
pub(crate) mod client;
mod happen;
mod judge;
mod lab;
mod names;
pub(crate) mod order;
mod stage;

/// Between the order to begin and the beginning: all nodes have the order by then.
const LEAD: Duration = Duration::from_millis(500);
/// A namespace has one address of a /24 for each server.
const MOST_SERVERS: u16 = MULTIPATH_LIMIT as u16;
/// Each design has a /16 of its own.
const MOST_DESIGNS: usize = 200;

/// What was measured, by number of the design; where a design is missing, only the model can tell.
pub(crate) struct Measured {
    pub(crate) outcomes: BTreeMap<usize, Outcome>,
    /// In a sentence.
    pub(crate) how: String,
}

/// Whether the kernel can play this design.
fn is_kernels(design: &Design) -> bool {
    match &design.kind {
        Kind::Anycast { install, .. } => install.is_kernels(),
        Kind::Dns | Kind::Balancer { .. } => true,
        Kind::Flooding { .. } | Kind::Redirect { .. } => false,
    }
}

/// Plays the plan, until a signal ends it. Nothing is left behind in any case.
pub(crate) fn measure(plan: &Plan, agent: Option<&Path>) -> Result<Result<Measured, Signal>, String> {
    let designs: Vec<usize> = plan
        .designs
        .iter()
        .enumerate()
        .filter(|(_, one)| is_kernels(one))
        .map(|(number, _)| number)
        .collect();
    let of = |wanted: fn(&Kind) -> bool| {
        designs.iter().any(|number| plan.designs.get(*number).is_some_and(|design| wanted(&design.kind)))
    };
    if plan.servers > MOST_SERVERS {
        return Err(format!(
            "the plan has {} servers; in namespaces there may be {MOST_SERVERS}",
            plan.servers
        ));
    }
    if plan.designs.len() > MOST_DESIGNS {
        return Err(format!(
            "the plan has {} designs; in namespaces there may be {MOST_DESIGNS}",
            plan.designs.len()
        ));
    }
    if plan.happens.iter().filter(|one| one.what == What::BalancerDies).count() > 1 {
        return Err("a balancer dies more than once: in namespaces there is one standby".to_owned());
    }
    if of(|kind| matches!(kind, Kind::Balancer { .. })) && process::find_program("nft").is_none() {
        return Err("balancers need the program `nft` (package nftables), which is not here".to_owned());
    }
    let agent = match of(|kind| matches!(kind, Kind::Anycast { .. })) {
        true => find_agent(agent)?,
        false => PathBuf::from("anyvip"),
    };
    let base = folder::base(rootless::user());
    let rights = rootless::enter()?;
    crate::raise_descriptor_limit();
    process::adopt_orphans();
    let name = format!("compare-{}", std::process::id());
    let work = async {
        let mut signals = Signals::new()?;
        let folder = Folder::make(&base, &name)?;
        let mut bench = Bench::new(folder);
        let outcome = tokio::select! {
            outcome = play(plan, &designs, &agent, &mut bench) => outcome.map(Ok),
            signal = signals.next() => Ok(Err(signal)),
        };
        bench.end().await;
        outcome
    };
    let measured = block_on(work);
    process::reap(Duration::from_secs(2));
    let (outcomes, nodes, behind) = match measured? {
        Ok(played) => played,
        Err(signal) => return Ok(Err(signal)),
    };
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let how = format!(
        "Linux {}, {nodes} namespaces{}, all designs at the same time; requests were asked at most {} ms after their time",
        kernel.trim(),
        if rights == Rights::UserNamespace { ", rootless" } else { "" },
        behind.as_millis()
    );
    Ok(Ok(Measured { outcomes, how }))
}

type Played = (BTreeMap<usize, Outcome>, usize, Duration);

async fn play(plan: &Plan, designs: &[usize], agent: &Path, bench: &mut Bench) -> Result<Played, String> {
    let files = lab::write(plan, designs);
    let write = |name: &str, text: &str| {
        let path = bench.folder().join(name);
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display())).map(|()| path)
    };
    let file = write("compare.clab.yml", &files.lab)?;
    for (name, text) in &files.configurations {
        write(name, text)?;
    }
    let (lab, diagnostics) = Lab::read(&file.to_string_lossy(), &files.lab);
    let lab =
        lab.ok_or_else(|| diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    eprintln!(
        "anyvip-sim: {} designs in {} namespaces, for {} s",
        designs.len(),
        size(&lab),
        plan.duration.as_secs()
    );
    bench.prepare(&lab, &file, agent).await?;
    let mut stage = Stage::new(plan, designs, bench);
    stage.begin_roles().await?;
    stage.routes().await?;
    stage.open().await?;
    let begin = clock::now() + LEAD;
    stage
        .all(|design, stage| {
            stage.players(design).into_iter().map(|node| (node, Task::Begin(begin))).collect()
        })
        .await?;
    stage.happen(begin).await?;
    let outcomes = stage.finish(begin).await?;
    for text in &stage.trouble {
        eprintln!("anyvip-sim: {text}");
    }
    let behind = outcomes.values().map(|(_, behind)| *behind).max().unwrap_or_default();
    let outcomes = outcomes.into_iter().map(|(number, (outcome, _))| (number, outcome)).collect();
    Ok((outcomes, size(&lab), behind))
}

fn size(lab: &Lab) -> usize {
    lab.nodes.len() - lab.names(|role| *role == Role::Bridge).len()
}
