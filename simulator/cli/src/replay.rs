//! `anyvip-sim replay`: lives through a recording of a real agent again.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyvip_virtual::replay::{Next, Over, Played, Replay, Upcoming, action, event, utc};
use serde::Serialize;

use crate::cli;

/// 0: the same actions to the end; 1: not, or damaged; 2: no recording.
pub(crate) fn main(arguments: &cli::Replay) -> ExitCode {
    let bytes = match std::fs::read(&arguments.file) {
        Ok(bytes) => bytes,
        Err(error) => return refuse(&arguments.file, &error.to_string(), 2),
    };
    let mut replay = match Replay::begin(&bytes) {
        Ok(replay) => replay,
        Err(error) => {
            let code = if error.is_of_another_kind() { 2 } else { 1 };
            return refuse(&arguments.file, &error.to_string(), code);
        }
    };
    match run(&mut replay, arguments) {
        Ok(report) if report.good() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => refuse(Path::new("standard output"), &error.to_string(), 1),
    }
}

fn refuse(file: &Path, why: &str, code: u8) -> ExitCode {
    eprintln!("anyvip-sim: {}: {why}", file.display());
    ExitCode::from(code)
}

/// What came of it; `--json` prints this.
#[derive(Debug, Serialize)]
struct Report {
    /// Version of the program that recorded.
    program: String,
    /// Wall clock at the start of the recorded process.
    started: String,
    /// Number of the first event.
    first: u64,
    /// Events played.
    events: u64,
    /// How the recording ends.
    ends: String,
    /// The event within which it ends: the agent did not come back from it, or the file was cut there.
    unfinished: Option<u64>,
    differs: Option<Difference>,
    /// What made the rest unreadable.
    unreadable: Option<String>,
}

/// The first event that brought other actions than then.
#[derive(Debug, Serialize)]
struct Difference {
    event: u64,
    offset: usize,
    at_ns: u64,
    what: String,
    /// What the agent did now.
    actions: Vec<String>,
}

impl Report {
    fn good(&self) -> bool {
        self.differs.is_none() && self.unreadable.is_none()
    }
}

fn run(replay: &mut Replay<'_>, arguments: &cli::Replay) -> io::Result<Report> {
    let mut out = BufWriter::new(io::stdout().lock());
    let header = replay.header().clone();
    if header.program != env!("CARGO_PKG_VERSION") {
        eprintln!(
            "anyvip-sim: recorded by version {}, replayed by {}: other actions need not mean a bug",
            header.program,
            env!("CARGO_PKG_VERSION")
        );
    }
    let mut report = Report {
        program: header.program,
        started: utc(header.wall_clock_ms),
        first: header.first,
        events: 0,
        ends: String::new(),
        unfinished: None,
        differs: None,
        unreadable: None,
    };
    let lines = arguments.print && !arguments.json;
    if !arguments.json {
        writeln!(out, "recorded by anyvip {}, started {}", report.program, report.started)?;
    }
    loop {
        let upcoming = match replay.upcoming() {
            Ok(Next::Event(upcoming)) => *upcoming,
            Ok(Next::Over(over)) => {
                report.ends = ending(over, report.unfinished);
                break;
            }
            Err(error) => {
                let number = report.first + report.events;
                report.unreadable = Some(format!("event {number} cannot be read: {error}"));
                break;
            }
        };
        if arguments.until.is_some_and(|until| upcoming.at.as_nanos() > nanos(until)) {
            report.ends = "stopped where --until said".to_owned();
            break;
        }
        if lines {
            let clock = utc(header.wall_clock_ms.saturating_add(upcoming.at.as_millis()));
            writeln!(out, "#{} {} {clock}  {}", upcoming.number, upcoming.at, event(&upcoming.event))?;
        }
        if upcoming.did.is_none() {
            report.unfinished = Some(upcoming.number);
            // It may be the end of this process as it was of that one.
            out.flush()?;
            eprintln!(
                "anyvip-sim: the recording ends within event {} at {}: {}",
                upcoming.number,
                upcoming.at,
                event(&upcoming.event)
            );
        }
        let about = upcoming.clone();
        let played = replay.give(upcoming);
        report.events += 1;
        if lines {
            for done in &played.actions {
                writeln!(out, "      {}", action(done))?;
            }
        }
        if !played.same {
            report.differs = Some(difference(&about, &played));
            break;
        }
    }
    tell(&mut out, &report, arguments)?;
    out.flush()?;
    Ok(report)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn ending(over: Over, unfinished: Option<u64>) -> String {
    match (over, unfinished) {
        (Over::Cut, Some(number)) => {
            format!("it ends within event {number}: the agent did not come back from it, or was killed then")
        }
        (over, _) => over.words().to_owned(),
    }
}

fn difference(about: &Upcoming, played: &Played) -> Difference {
    Difference {
        event: about.number,
        offset: about.offset,
        at_ns: about.at.as_nanos(),
        what: event(&about.event),
        actions: played.actions.iter().map(action).collect(),
    }
}

fn tell(out: &mut impl Write, report: &Report, arguments: &cli::Replay) -> io::Result<()> {
    if arguments.json {
        let text = serde_json::to_string_pretty(report).map_err(io::Error::other)?;
        return writeln!(out, "{text}");
    }
    if let Some(differs) = &report.differs {
        let at = anyvip_machine::Time::from_nanos(differs.at_ns);
        writeln!(
            out,
            "DIFFERS at event {} (offset {}), {at}: {}\n  now the agent does:",
            differs.event, differs.offset, differs.what
        )?;
        for done in &differs.actions {
            writeln!(out, "      {done}")?;
        }
        if differs.actions.is_empty() {
            writeln!(out, "      nothing")?;
        }
        return writeln!(out, "{} events before it brought the same actions", report.events - 1);
    }
    if let Some(text) = &report.unreadable {
        return writeln!(out, "DAMAGED: {text}\n{} events before it brought the same actions", report.events);
    }
    let last = report.first + report.events;
    writeln!(
        out,
        "{} events ({} to {}) brought the same actions\n{}",
        report.events,
        report.first,
        last.saturating_sub(1),
        report.ends
    )
}
