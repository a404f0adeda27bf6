//! `lab-bfd COMMANDS SESSION…`: BFD sessions as the agent runs them, without an agent. A session is
//! `name=NAME,remote=ADDRESS[,local=ADDRESS][,interface=NAME][,multihop=MIN_TTL][,interval=MS][,multiplier=N][,auth=KIND:ID:KEY]`.
//!
//! Commands come from the named pipe COMMANDS: `held NAME`, `admin NAME`, `up NAME`, `interval NAME MS`, and `busy MS`, which lets the main
//! thread do nothing but count. What the sessions report goes to standard output, one JSON object a line, with the
//! milliseconds since 1970.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyvip_bfd::boundary::Path;
use anyvip_bfd::{
    Authentication, AuthenticationKind, Diagnostic, Hops, Role, Secret, SessionConfig, SessionName, Wish,
};
use anyvip_io::bfd::{Heard, Thread};
use anyvip_io::clock::{Clock, wall_clock_millis};
use anyvip_machine::Seed;
use serde_json::json;

type Sessions = BTreeMap<SessionName, SessionConfig>;

fn main() -> ExitCode {
    let commands = std::env::args().nth(1).unwrap_or_default();
    let sessions: Result<Sessions, String> = std::env::args().skip(2).map(|text| session(&text)).collect();
    match sessions.and_then(|sessions| run(&commands, sessions)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("lab-bfd: {text}");
            ExitCode::FAILURE
        }
    }
}

fn session(text: &str) -> Result<(SessionName, SessionConfig), String> {
    let words: BTreeMap<&str, &str> = text.split(',').filter_map(|word| word.split_once('=')).collect();
    let wrong = |key: &str| format!("{text}: {key} is missing or wrong");
    let address = |key: &str| words.get(key).map(|word| word.parse().map_err(|_| wrong(key))).transpose();
    let number = |key: &str, otherwise: u64| {
        words.get(key).map_or(Ok(otherwise), |word| word.parse::<u64>().map_err(|_| wrong(key)))
    };
    let octet = |key: &str, otherwise: u64| u8::try_from(number(key, otherwise)?).map_err(|_| wrong(key));
    let authentication = match words.get("auth").map(|word| word.splitn(3, ':').collect::<Vec<_>>()) {
        None => None,
        Some(parts) => {
            let &[kind, id, key] = parts.as_slice() else { return Err(wrong("auth")) };
            let kinds = AuthenticationKind::ALL.into_iter();
            let kind =
                kinds.into_iter().find(|known| known.to_string().replace(' ', "-").to_lowercase() == kind);
            Some(Authentication {
                kind: kind.ok_or_else(|| wrong("auth"))?,
                key_id: id.parse().map_err(|_| wrong("auth"))?,
                key: Secret::new(key),
            })
        }
    };
    let interval = Duration::from_millis(number("interval", 50)?);
    let hops = if words.contains_key("multihop") {
        Hops::Multi { min_ttl: octet("multihop", 0)? }
    } else {
        Hops::Single
    };
    let config = SessionConfig {
        path: Path {
            remote: address("remote")?.ok_or_else(|| wrong("remote"))?,
            local: address("local")?,
            interface: words.get("interface").map(|name| (*name).to_owned()),
            hops,
        },
        role: Role::Active,
        wish: Wish::Up,
        carries_health: false,
        desired_min_tx: interval,
        required_min_rx: interval,
        multiplier: octet("multiplier", 3)?,
        authentication,
    };
    Ok((SessionName::from(*words.get("name").ok_or_else(|| wrong("name"))?), config))
}

fn run(commands: &str, mut sessions: Sessions) -> Result<(), String> {
    let clock = Clock::start();
    let seed = wall_clock_millis() ^ u64::from(std::process::id());
    let (thread, mut heard) = Thread::start(clock, Seed::new(seed)).map_err(|failure| failure.text)?;
    std::thread::spawn(move || {
        while let Some(heard) = heard.blocking_recv() {
            let at = wall_clock_millis();
            let line = match heard {
                Heard::Fact(fact) => json!({ "at": at, "fact": fact }),
                Heard::RealTime(result) => json!({ "at": at, "real_time": result.is_ok() }),
                Heard::Listening { port, failure } => {
                    json!({ "at": at, "listening": port, "failure": failure })
                }
            };
            println!("{line}");
        }
    });
    thread.want(sessions.clone(), None);
    // Open for writing too, so that it never ends.
    let commands = std::fs::File::options().read(true).write(true).open(commands);
    let commands = std::io::BufReader::new(commands.map_err(|error| error.to_string())?);
    for line in commands.lines() {
        let line = line.map_err(|error| error.to_string())?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["busy", millis] => {
                let time = Duration::from_millis(millis.parse().map_err(|_| line.clone())?);
                let start = Instant::now();
                while start.elapsed() < time {
                    std::hint::black_box(start.elapsed());
                }
                println!("{}", json!({ "at": wall_clock_millis(), "was_busy": true }));
            }
            [word, name, rest @ ..] => {
                let config = sessions.get_mut(&SessionName::from(*name)).ok_or_else(|| line.clone())?;
                match (*word, rest) {
                    ("held", []) => config.wish = Wish::HeldDown(Diagnostic::CONCATENATED_PATH_DOWN),
                    ("admin", []) => config.wish = Wish::AdminDown,
                    ("up", []) => config.wish = Wish::Up,
                    ("interval", [millis]) => {
                        let interval = Duration::from_millis(millis.parse().map_err(|_| line.clone())?);
                        (config.desired_min_tx, config.required_min_rx) = (interval, interval);
                    }
                    _ => return Err(format!("what is {line:?}?")),
                }
                thread.want(sessions.clone(), None);
            }
            _ => return Err(format!("what is {line:?}?")),
        }
    }
    Ok(())
}
