//! `anyvip-sim run`: read, build, play, judge, remove.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyvip_virtual::diagnostic::{Diagnostic, Severity};
use anyvip_virtual::lab::{Daemon, Lab, Role};
use anyvip_virtual::scenario::{Action, Disturbance, Scenario};
use tokio::signal::unix::{SignalKind, signal};

use crate::bench::Bench;
use crate::folder::{self, Folder};
use crate::journal::{Journal, Run};
use crate::report::Report;
use crate::rootless::{self, Rights};
use crate::{cli, clock, node, page, process, virtual_lab};

/// What ended a lab early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Interrupt,
    Terminate,
}

impl Signal {
    /// As the kernel knows it.
    pub(crate) fn number(self) -> nix::sys::signal::Signal {
        match self {
            Signal::Interrupt => nix::sys::signal::Signal::SIGINT,
            Signal::Terminate => nix::sys::signal::Signal::SIGTERM,
        }
    }
}

/// Runs a lab with its scenario. 0: all expectations met; 1: not, or refused.
pub(crate) fn main(arguments: &cli::Run) -> ExitCode {
    match prepare_and_run(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("anyvip-sim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn prepare_and_run(arguments: &cli::Run) -> Result<ExitCode, String> {
    match (arguments.backend.as_str(), arguments.seed) {
        ("virtual", seed) => return virtual_lab::run(arguments, seed.unwrap_or(1)),
        ("netns", None) => {}
        ("netns", Some(_)) => {
            return Err("--seed means nothing to real kernels; it needs --backend virtual".to_owned());
        }
        (other, _) => return Err(format!("there is no backend `{other}` (netns, virtual)")),
    }
    let lab_file = absolute(&arguments.lab)?;
    let (lab, scenario) = read_both(arguments)?;
    let scenario_file = scenario_file(arguments, &lab);
    if scenario.needs_nft() && process::find_program("nft").is_none() {
        return Err(
            "the step `loss` needs the program `nft` (package nftables), which is not here".to_owned()
        );
    }
    reload_files(&scenario, &scenario_file, &arguments.lab)?;
    check_outputs(&[&arguments.json, &arguments.report])?;
    check_daemons(&lab, &arguments.lab)?;
    let agent = find_agent(arguments.agent.as_deref())?;
    let base = folder::base(rootless::user());
    let rights = rootless::enter()?;
    crate::raise_descriptor_limit();
    let name = format!("{}-{}", lab.name, std::process::id());
    process::adopt_orphans();
    let work = async {
        let mut signals = Signals::new()?;
        let begin = clock::now();
        let report = Report::new(begin);
        report.title(&lab.name, &scenario.title, &summary(&lab, &agent, rights));
        let live = report.live();
        live.doing("build the lab");
        let folder = Folder::make(&base, &name)?;
        let mut bench = Bench::new(folder);
        let about =
            Run { began: Some(clock::utc()), ..about(arguments, "netns", &scenario_file, Some(&agent)) };
        let journal = Journal::new(&lab, &scenario.title, about, begin);
        let work = async {
            bench.build(&lab, &lab_file, &agent, &scenario.reloads()).await?;
            Ok::<_, String>(crate::play::play(&lab, &scenario, &mut bench, report, journal).await)
        };
        let outcome = tokio::select! {
            outcome = work => Ok(outcome),
            signal = signals.next() => Err(signal),
            never = live.animate() => match never {},
        };
        live.end();
        bench.end().await;
        let outcome = match outcome {
            Ok(outcome) => outcome?,
            Err(signal) => return Ok(interrupted(signal)),
        };
        let met = outcome.stopped.is_none() && outcome.verdicts.iter().all(|verdict| verdict.met);
        write_journal(arguments, &outcome.journal.finish(clock::now(), outcome.verdicts))?;
        Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    };
    let code = block_on(work);
    process::reap(Duration::from_secs(2));
    code
}

/// The scenario that was named, or the lab's own.
pub(crate) fn scenario_file(arguments: &cli::Run, lab: &Lab) -> PathBuf {
    let own = || arguments.lab.with_file_name(format!("{}.scenario.yml", lab.name));
    arguments.scenario.clone().unwrap_or_else(own)
}

/// Writes data and page, where they are wanted.
pub(crate) fn write_journal(arguments: &cli::Run, journal: &Journal) -> Result<(), String> {
    let write = |path: &Path, text: String| {
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    if let Some(path) = &arguments.json {
        write(path, journal.json() + "\n")?;
    }
    if let Some(path) = &arguments.report {
        write(path, page::page(journal))?;
    }
    Ok(())
}

/// What is to be written at the end must have a place before anything begins.
pub(crate) fn check_outputs(paths: &[&Option<PathBuf>]) -> Result<(), String> {
    for path in paths.iter().filter_map(|path| path.as_ref()) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() {
            return Err(format!("{}: there is no folder {}", path.display(), folder.display()));
        }
        if path.is_dir() {
            return Err(format!("{}: is a folder", path.display()));
        }
    }
    Ok(())
}

/// Configurations that nodes begin with must be there.
fn missing_files(lab: &Lab, lab_file: &Path) -> Vec<Diagnostic> {
    let mut missing = Vec::new();
    for (name, node) in &lab.nodes {
        let config = match &node.role {
            Role::Agent(agent) => Some(&agent.config),
            role => role.daemon().map(|daemon| &daemon.config),
        };
        let Some(path) = config.and_then(|config| node.outside(config)) else { continue };
        let path = lab_file.with_file_name(path);
        if !path.is_file() {
            let text = format!("node {name}: its configuration, {}, is not there", path.display());
            let (file, severity) = (lab_file.display().to_string(), Severity::Error);
            missing.push(Diagnostic { file, place: node.place, severity, text });
        }
    }
    missing.sort_by_key(|one| one.place);
    missing
}

/// The same for a lab without a scenario.
pub(crate) fn check_files(lab: &Lab, lab_file: &Path) -> Result<(), String> {
    let missing = missing_files(lab, lab_file);
    accept(missing.is_empty().then_some(()), &missing)
}

/// Foreign daemons of a lab must be here.
pub(crate) fn check_daemons(lab: &Lab, file: &Path) -> Result<(), String> {
    let mut missing = Vec::new();
    for (name, node) in &lab.nodes {
        let Some(daemon) = node.role.daemon() else { continue };
        let text = match node::daemon::missing(daemon.kind) {
            Some(what) => format!("node {name} needs {what}"),
            None if daemon.kind == Daemon::Frr && !rootless::user().is_root() => {
                format!("node {name} is FRR, which runs as a user of its own: only root can start it")
            }
            None => continue,
        };
        let (file, severity) = (file.display().to_string(), Severity::Error);
        missing.push(Diagnostic { file, place: node.place, severity, text });
    }
    missing.sort_by_key(|one| one.place);
    accept(missing.is_empty().then_some(()), &missing)
}

/// How this run came about.
pub(crate) fn about(
    arguments: &cli::Run,
    backend: &'static str,
    scenario: &Path,
    agent: Option<&Path>,
) -> Run {
    let mut command: Vec<String> =
        std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    if let Some(program) = command.first_mut() {
        *program = "anyvip-sim".to_owned();
    }
    let mut versions = BTreeMap::from([("anyvip-sim", env!("CARGO_PKG_VERSION").to_owned())]);
    if let Some(agent) = agent {
        let said = std::process::Command::new(agent).arg("--version").output();
        let text = said.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        versions.insert("agent", format!("{} ({})", text.unwrap_or_default(), agent.display()));
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        versions.insert("kernel", format!("Linux {}", kernel.trim()));
    }
    let seed = (backend == "virtual").then(|| arguments.seed.unwrap_or(1));
    Run { backend, command, scenario: scenario.display().to_string(), versions, seed, ..Run::default() }
}

/// The configurations that agents are given on the way, by file: all must be there before anything starts.
pub(crate) fn reload_files(
    scenario: &Scenario,
    scenario_file: &Path,
    lab_file: &Path,
) -> Result<BTreeMap<String, String>, String> {
    let (mut files, mut missing) = (BTreeMap::new(), Vec::new());
    for step in &scenario.steps {
        let Action::Disturb(Disturbance::Reload { config, .. }) = &step.action else { continue };
        match read(&lab_file.with_file_name(config)) {
            Ok(text) => {
                files.insert(config.clone(), text);
            }
            Err(error) => missing.push(Diagnostic {
                file: scenario_file.display().to_string(),
                place: step.place,
                severity: Severity::Error,
                text: format!("reload: {error}"),
            }),
        }
    }
    accept(missing.is_empty().then_some(files), &missing)
}

/// One thread: children die with the thread that started them.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("runtime: {error}"))?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

/// SIGINT and SIGTERM.
pub(crate) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    pub(crate) fn new() -> Result<Signals, String> {
        let text = |error: std::io::Error| format!("signals: {error}");
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt()).map_err(text)?,
            terminate: signal(SignalKind::terminate()).map_err(text)?,
        })
    }

    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
        }
    }
}

/// What is said and returned when a signal has ended the work, and everything that was made is removed.
pub(crate) fn interrupted(signal: Signal) -> ExitCode {
    eprintln!("anyvip-sim: stopped; everything is removed");
    // As a shell would report it.
    ExitCode::from(if signal == Signal::Interrupt { 130 } else { 143 })
}

fn summary(lab: &Lab, agent: &Path, rights: Rights) -> String {
    let how = match rights {
        Rights::Root => "as root",
        Rights::UserNamespace => "rootless, in a user namespace",
    };
    format!("{}; agent {}; {how}", size(lab), agent.display())
}

/// `1 router, 4 servers, 1 client, 5 links`.
pub(crate) fn size(lab: &Lab) -> String {
    let count = |number: usize, one: &str| format!("{number} {one}{}", if number == 1 { "" } else { "s" });
    let parts = [
        count(lab.names(Role::is_router).len(), "router"),
        count(lab.names(Role::is_agent).len(), "server"),
        count(lab.names(Role::is_client).len(), "client"),
        count(lab.links.len(), "link"),
    ];
    parts.join(", ")
}

pub(crate) fn absolute(path: &Path) -> Result<PathBuf, String> {
    std::fs::canonicalize(path).map_err(|error| format!("{}: {error}", path.display()))
}

pub(crate) fn find_agent(given: Option<&Path>) -> Result<PathBuf, String> {
    match given {
        Some(path) => absolute(path),
        None => process::find_program("anyvip").ok_or_else(|| {
            "cannot find `anyvip`, beside this program or in PATH; say --agent PATH".to_owned()
        }),
    }
}

pub(crate) fn read_lab(path: &Path) -> Result<Lab, String> {
    let (lab, diagnostics) = Lab::read(&path.to_string_lossy(), &read(path)?);
    accept(lab, &diagnostics)
}

/// Lab and scenario, with all that is wrong with either.
pub(crate) fn read_both(arguments: &cli::Run) -> Result<(Lab, Scenario), String> {
    let (draft, mut diagnostics) = Lab::draft(&arguments.lab.to_string_lossy(), &read(&arguments.lab)?);
    let wrong = |list: &[Diagnostic]| list.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    let Some(lab) = draft else { return accept(None, &diagnostics) };
    diagnostics.extend(missing_files(&lab, &arguments.lab));
    let path = scenario_file(arguments, &lab);
    // Without a name there is no telling where its scenario is.
    let scenario = match lab.name.is_empty() && arguments.scenario.is_none() {
        true => None,
        false => {
            let text = match read(&path) {
                Err(_) if wrong(&diagnostics) => return accept(None, &diagnostics),
                read => read?,
            };
            let (scenario, more) = Scenario::read(&path.to_string_lossy(), &text, &lab);
            diagnostics.extend(more);
            scenario
        }
    };
    let refused = wrong(&diagnostics);
    accept(scenario.filter(|_| !refused).map(|scenario| (lab, scenario)), &diagnostics)
}

#[cfg(test)]
pub(crate) fn read_scenario(path: &Path, lab: &Lab) -> Result<Scenario, String> {
    let (scenario, diagnostics) = Scenario::read(&path.to_string_lossy(), &read(path)?, lab);
    accept(scenario, &diagnostics)
}

pub(crate) fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Shows all diagnostics; without a value they are the reason.
fn accept<T>(value: Option<T>, diagnostics: &[Diagnostic]) -> Result<T, String> {
    for diagnostic in diagnostics {
        eprintln!("{diagnostic}");
    }
    value.ok_or_else(|| "nothing was started".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_at_the_end_is_said_at_the_beginning() {
        let refused = |path: &str| check_outputs(&[&None, &Some(PathBuf::from(path))]);
        assert_eq!(
            refused("/no/folder/out.html"),
            Err("/no/folder/out.html: there is no folder /no/folder".into())
        );
        assert_eq!(refused("/tmp"), Err("/tmp: is a folder".into()));
        assert_eq!((refused("out.html"), refused("/tmp/out.html")), (Ok(()), Ok(())));
    }

    #[test]
    fn every_lab_and_scenario_that_we_ship_is_read_without_a_word_and_has_its_files() {
        let topology = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../topology");
        let scenarios = [
            ("quickstart", "quickstart"),
            ("quickstart", "quickstart-loss"),
            ("lan-arp", "lan-arp"),
            ("two-tor", "two-tor"),
            ("membership", "membership"),
            ("membership", "membership-v6"),
            ("two-tier", "two-tier"),
            ("quickstart", "udp-dns"),
            ("router-loss", "router-loss"),
            ("ramp", "ramp"),
            ("hash-fields", "hash-fields"),
            ("two-sites", "two-sites"),
            ("frr-bird", "frr-bird"),
        ];
        for (lab, scenario) in scenarios {
            let text = read(&topology.join(format!("{lab}.clab.yml"))).unwrap();
            let (read_lab, diagnostics) = Lab::read(lab, &text);
            assert_eq!(diagnostics, []);
            let read_lab = read_lab.unwrap();
            for (name, node) in &read_lab.nodes {
                if let Role::Agent(agent) = &node.role {
                    let outside = node.outside(&agent.config).unwrap();
                    assert!(topology.join(&outside).is_file(), "{name}: {outside}");
                }
            }
            let text = read(&topology.join(format!("{scenario}.scenario.yml"))).unwrap();
            let (read_scenario, diagnostics) = Scenario::read(scenario, &text, &read_lab);
            assert_eq!(diagnostics, []);
            assert!(read_scenario.is_some_and(|scenario| !scenario.steps.is_empty()));
        }
    }
}
