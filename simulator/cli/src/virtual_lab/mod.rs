//! `anyvip-sim run --backend virtual`: the same lab and scenario in virtual time, reproducible by its seed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use anyvip_machine::Time;
use anyvip_virtual::diagnostic::{Diagnostic, Place, Severity};
use anyvip_virtual::lab::{Exec, Lab, Role};
use anyvip_virtual::scenario::{Action, Disturbance, Scenario};
use anyvip_virtual::world::{Options, Tracing, World};

use crate::cli;
use crate::journal::Journal;
use crate::report::Report;
use crate::run::{about, check_outputs, read, read_both, reload_files, scenario_file, size, write_journal};

mod clients;
mod play;

/// Runs a lab with its scenario. 0: all expectations met; 1: not, or refused.
pub(crate) fn run(arguments: &cli::Run, seed: u64) -> Result<ExitCode, String> {
    let (lab, scenario) = read_both(arguments)?;
    check_outputs(&[&arguments.json, &arguments.report])?;
    let scenario_file = scenario_file(arguments, &lab);
    let mut refused = refused_nodes(&lab, &arguments.lab);
    refused.extend(refusals(&lab, &scenario, &scenario_file));
    if !refused.is_empty() {
        refused.iter().for_each(|one| eprintln!("{one}"));
        return Err("nothing was started; --backend netns can do it".to_owned());
    }
    let configs = configs(&lab, &arguments.lab)?;
    let world = World::from_lab(&lab, &configs, seed, Options { tracing: Tracing::Hash, notes: true })
        .map_err(|error| format!("{}:{error}", arguments.lab.display()))?;
    let files = reload_files(&scenario, &scenario_file, &arguments.lab)?;
    let report = Report::new(Time::ZERO);
    report.title(&lab.name, &scenario.title, &format!("{}; in virtual time, seed {seed}", size(&lab)));
    let about = about(arguments, "virtual", &scenario_file, None);
    let journal = Journal::new(&lab, &scenario.title, about, Time::ZERO);
    let outcome = play::play(&lab, &scenario, &files, world, report, journal);
    let met = outcome.stopped.is_none() && outcome.verdicts.iter().all(|verdict| verdict.met);
    write_journal(arguments, &outcome.journal.finish(outcome.ended, outcome.verdicts))?;
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The agents' configuration files, by node.
fn configs(lab: &Lab, lab_file: &Path) -> Result<BTreeMap<String, String>, String> {
    let folder = lab_file.parent().unwrap_or(Path::new(""));
    let mut configs = BTreeMap::new();
    for (name, node) in &lab.nodes {
        if let Role::Agent(agent) = &node.role
            && let Some(outside) = node.outside(&agent.config)
        {
            configs.insert(name.clone(), read(&folder.join(outside))?);
        }
    }
    Ok(configs)
}

/// Nodes that only real kernels can have.
fn refused_nodes(lab: &Lab, file: &Path) -> Vec<Diagnostic> {
    let mut refused = Vec::new();
    for (name, node) in &lab.nodes {
        let mut refuse = |text: String| {
            let (file, severity) = (file.display().to_string(), Severity::Error);
            refused.push(Diagnostic {
                file,
                place: node.place,
                severity,
                text: format!("node {name}: {text}"),
            });
        };
        if node.role.daemon().is_some() {
            refuse("the virtual backend has the embedded router only, no other daemon".to_owned());
        }
        for exec in &node.exec {
            if let Exec::Command(words) = exec {
                refuse(format!("exec `{}`: the virtual backend runs no commands", words.join(" ")));
            }
        }
    }
    refused.sort_by_key(|one| one.place);
    refused
}

/// Steps that only real kernels can do.
fn refusals(lab: &Lab, scenario: &Scenario, file: &Path) -> Vec<Diagnostic> {
    let refuse = |place: Place, text: String| Diagnostic {
        file: file.display().to_string(),
        place,
        severity: Severity::Error,
        text,
    };
    let steps = scenario.steps.iter().filter_map(|step| match &step.action {
        Action::Flows { traffic, .. } | Action::Start { traffic, .. }
            if scenario.traffic.get(traffic).is_some_and(|traffic| traffic.is_fragmented()) =>
        {
            Some(refuse(step.place, format!("traffic {traffic}: the virtual backend has no fragments")))
        }
        Action::Disturb(Disturbance::Sysctl { node, key, value }) => {
            let is = |is: fn(&Role) -> bool| lab.nodes.get(node).is_some_and(|node| is(&node.role));
            let checked = match (is(Role::is_agent), is(Role::is_router)) {
                (true, _) => World::check_sysctl(key, value),
                (_, true) => World::check_router_sysctl(key, value),
                _ => {
                    Err(format!("the virtual backend has sysctls of servers and routers only, not of {node}"))
                }
            };
            let text = match checked {
                Ok(()) => return None,
                Err(text) => format!("sysctl: {text}"),
            };
            Some(refuse(step.place, text))
        }
        _ => None,
    });
    steps.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{read_lab, read_scenario};

    #[test]
    fn all_nodes_that_only_real_kernels_can_have_are_refused_by_name_and_place() {
        let topology = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../topology");
        let lab = read_lab(&topology.join("frr-bird.clab.yml")).unwrap();
        let refused = refused_nodes(&lab, Path::new("frr-bird.clab.yml"));
        for (node, what) in
            [("bird", "no other daemon"), ("frr", "no other daemon"), ("bird", "exec `ip addr")]
        {
            let Place { line, column } = lab.nodes[node].place;
            let begin = format!("frr-bird.clab.yml:{line}:{column}: error: node {node}: ");
            let found = refused
                .iter()
                .map(ToString::to_string)
                .any(|one| one.starts_with(&begin) && one.contains(what));
            assert!(found, "{begin}{what}: {refused:?}");
        }
    }

    #[test]
    fn every_configuration_that_is_refused_is_told_in_words_with_its_place() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../topology/quickstart.clab.yml");
        let lab = read_lab(&file).unwrap();
        let mut configs = configs(&lab, &file).unwrap();
        for host in ["h1", "h3"] {
            let config = configs.get_mut(host).unwrap();
            *config = config.replacen("asn = 650", "asn = x650", 1);
        }
        let Err(error) = World::from_lab(&lab, &configs, 1, Options::default()) else {
            panic!("it is built")
        };
        let lines: Vec<&str> = error.text.lines().filter(|line| line.contains("is refused")).collect();
        let of = |host: &str| format!("the configuration of {host} is refused: config.toml:");
        assert!(lines[0].starts_with(&of("h1")) && lines[1].starts_with(&of("h3")), "{}", error.text);
        assert!(error.text.contains("must be quoted") && !error.text.contains('{'), "{}", error.text);
    }

    #[test]
    fn a_step_that_only_real_kernels_can_do_is_refused_by_name_and_place() {
        let topology = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../topology");
        let lab = read_lab(&topology.join("lan-arp.clab.yml")).unwrap();
        let file = topology.join("lan-arp.scenario.yml");
        let scenario = read_scenario(&file, &lab).unwrap();
        let refused = refusals(&lab, &scenario, Path::new("lan-arp.scenario.yml"));
        assert_eq!(refused.len(), 2, "{refused:?}");
        let text = refused[0].to_string();
        assert!(text.starts_with("lan-arp.scenario.yml:48:5: error: sysctl: "), "{text}");
        assert!(text.contains("send_redirects"), "{text}");
    }
}
