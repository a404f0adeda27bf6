//! `anyvip-sim compare`: one traffic and failure plan under several designs, one table.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use self::outcome::{Outcome, Source};
use self::plan::{Kind, Plan, short};
use crate::run::{check_outputs, interrupted, read};
use crate::{cli, page};

mod flows;
pub(crate) mod kernel;
pub(crate) mod model;
pub(crate) mod outcome;
pub(crate) mod plan;

/// Everything that `--json` writes and the page shows.
#[derive(Serialize)]
pub(crate) struct Comparison {
    pub(crate) command: Vec<String>,
    pub(crate) version: &'static str,
    pub(crate) backend: &'static str,
    /// Where and how it was measured, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) measured: Option<String>,
    pub(crate) hash_seed: u32,
    pub(crate) plan: Plan,
    /// In the order of the designs; what was measured before what was played.
    pub(crate) results: Vec<Outcome>,
}

impl Comparison {
    /// What a row is called: a model's row beside a kernel's is known by it.
    pub(crate) fn row(&self, result: &Outcome) -> String {
        let measured = |other: &Outcome| other.design == result.design && other.by == Source::Kernel;
        match result.by {
            Source::Model if self.results.iter().any(measured) => "… by the model".to_owned(),
            _ => result.design.clone(),
        }
    }
}

/// 0: compared; 1: not; as a shell would report it: a signal ended it.
pub(crate) fn main(arguments: &cli::Compare) -> ExitCode {
    compare(arguments).unwrap_or_else(|error| {
        eprintln!("anyvip-sim: {error}");
        ExitCode::FAILURE
    })
}

fn compare(arguments: &cli::Compare) -> Result<ExitCode, String> {
    let (plan, diagnostics) = Plan::read(&arguments.plan.to_string_lossy(), &read(&arguments.plan)?);
    diagnostics.iter().for_each(|diagnostic| eprintln!("{diagnostic}"));
    let plan = plan.ok_or("nothing was compared")?;
    check_outputs(&[&arguments.json, &arguments.report])?;
    if !["model", "netns"].contains(&arguments.backend.as_str()) {
        return Err(format!("there is no backend `{}` (model, netns)", arguments.backend));
    }
    let played =
        plan.designs.iter().map(|design| model::play(&plan, design)).collect::<Result<Vec<_>, _>>()?;
    let (backend, mut measured) = match arguments.backend.as_str() {
        "netns" => match kernel::measure(&plan, arguments.agent.as_deref())? {
            Ok(measured) => ("netns", Some(measured)),
            Err(signal) => return Ok(interrupted(signal)),
        },
        _ => ("model", None),
    };
    let mut results = Vec::new();
    for (number, model) in played.into_iter().enumerate() {
        results.extend(measured.as_mut().and_then(|measured| measured.outcomes.remove(&number)));
        results.push(model);
    }
    let measured = measured.map(|measured| measured.how);
    let mut command: Vec<String> =
        std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    if let Some(program) = command.first_mut() {
        *program = "anyvip-sim".to_owned();
    }
    let version = env!("CARGO_PKG_VERSION");
    let hash_seed = model::HASH_SEED;
    let comparison = Comparison { command, version, backend, measured, hash_seed, plan, results };
    let json = serde_json::to_string_pretty(&comparison).map_err(|error| error.to_string())?;
    let write = |path: &Path, text: &str| {
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    if let Some(path) = &arguments.json {
        write(path, &(json.clone() + "\n"))?;
    }
    if let Some(path) = &arguments.report {
        write(path, &page::compare::page(&comparison, &json))?;
    }
    // A reader that went away is no failure.
    let _ = write!(std::io::stdout(), "{}", table(&comparison));
    Ok(ExitCode::SUCCESS)
}

/// What was assumed, line by line.
pub(crate) fn assumptions(plan: &Plan) -> Vec<(String, String)> {
    let (requests, connections, dns) = (&plan.requests, &plan.connections, &plan.dns);
    let mut list = vec![
        (
            "traffic".to_owned(),
            format!(
                "{} requests a second from {} clients for {}, a socket each; timeout {}, {} in all, to the {} address",
                requests.rate,
                requests.clients,
                short(plan.duration),
                short(requests.timeout),
                if requests.tries == 1 { "1 try".to_owned() } else { format!("{} tries", requests.tries) },
                if requests.retry == plan::Retry::Next { "next" } else { "same" }
            ),
        ),
        (
            "connections".to_owned(),
            format!(
                "{} opened at the beginning, each asks every {} and bears {} of silence",
                connections.count,
                short(connections.every),
                short(connections.patience)
            ),
        ),
        (
            "names".to_owned(),
            format!(
                "{} resolvers, TTL {}, kept at least {}, {} in an answer, order {} by resolvers",
                dns.resolvers,
                short(dns.ttl),
                short(dns.at_least),
                if dns.answers == plan::Answers::All { "all addresses" } else { "one address" },
                if dns.rotate { "turned" } else { "kept" }
            ),
        ),
        ("servers".to_owned(), format!("{}, seed {}", plan.servers, plan.seed)),
    ];
    list.extend(plan.happens.iter().map(|one| (format!("at {}", short(one.at)), one.what.to_string())));
    list
}

/// The cells of a design, in words.
pub(crate) fn cells(result: &Outcome) -> [String; 7] {
    let time =
        |ms: Option<u64>| ms.map_or("0 s".to_owned(), |ms| format!("{}.{} s", ms / 1000, ms % 1000 / 100));
    [
        result.lost.to_string(),
        result.late.to_string(),
        time(result.recover_ms),
        result.cut_needlessly.to_string(),
        result.cut_with_server.to_string(),
        result.balancer_packets.to_string(),
        format!("{}.{:02}", result.fullest_permille / 1000, result.fullest_permille % 1000 / 10),
    ]
}

/// What the cells are.
pub(crate) const COLUMNS: [&str; 7] =
    ["lost", "late", "to recover", "cut, server well", "cut with server", "through balancer", "fullest/mean"];

fn table(comparison: &Comparison) -> String {
    let plan = &comparison.plan;
    let mut text = format!("{}\n", plan.title);
    for (what, value) in assumptions(plan) {
        text += &format!("  {what:<12} {value}\n");
    }
    let mut builder = tabled::builder::Builder::new();
    builder.push_record(std::iter::once("design").chain(COLUMNS));
    for result in &comparison.results {
        let cells = cells(result).map(|cell| format!("{cell} {}", result.by.letter()));
        builder.push_record(std::iter::once(comparison.row(result)).chain(cells));
    }
    let mut table = builder.build();
    table.with(tabled::settings::Style::markdown());
    table.modify(tabled::settings::object::Columns::new(1..), tabled::settings::Alignment::right());
    text += &format!("\n{table}\n\n");
    let widest = plan.designs.iter().map(|design| design.name.chars().count()).max().unwrap_or(0);
    for design in &plan.designs {
        text += &format!("  {:<widest$}  {design}\n", design.name);
    }
    text += "\n";
    for (word, meaning) in legend(comparison) {
        text += &format!("{word}: {meaning}\n");
    }
    text
}

/// What letters and columns mean, and what stands for something else.
pub(crate) fn legend(comparison: &Comparison) -> Vec<(&'static str, String)> {
    let mut list = Vec::new();
    if let Some(how) = &comparison.measured {
        list.push(("k", format!("measured. {how}.")));
    }
    let all = if comparison.measured.is_none() {
        " Every cell here is; --backend netns measures besides."
    } else {
        ""
    };
    list.push((
        "m",
        format!(
            "by the model, in virtual time; of anycast, the router's choice is the twin of the kernel's.{all}"
        ),
    ));
    let synced =
        comparison.plan.designs.iter().any(|design| matches!(design.kind, Kind::Balancer { sync: true, .. }));
    if comparison.measured.is_some() && synced {
        let text = "no flows are sent from balancer to standby. The balancer itself stands for one that knows them all: it passes \
                    nothing on for the time of the take-over and then goes on. So k is what synchronisation without a gap gives, not \
                    what a certain daemon reaches.";
        list.push(("A table that the standby knows", text.to_owned()));
    }
    for result in comparison.results.iter().filter(|result| result.flooded_packets > 0) {
        let name = &result.design;
        list.push((
            "Flooding",
            format!(
                "under \"{name}\" servers got {} packets that were another's, and dropped them.",
                result.flooded_packets
            ),
        ));
    }
    let words = [
        ("Lost", "requests of which no try was answered."),
        ("Late", "answered, but not at the first try."),
        ("To recover", "the longest time from a happening to its last request lost or late."),
        (
            "Cut",
            "connections that ended: while the server that they were with was well, or with it (it died, or was taken out).",
        ),
        (
            "Through balancer",
            "packets of requests and answers that it forwarded; of a front, that it answered: two for each try.",
        ),
        ("Fullest/mean", "answers of the server that gave most by the mean, before anything happened."),
    ];
    list.extend(words.map(|(word, meaning)| (word, meaning.to_owned())));
    list
}
