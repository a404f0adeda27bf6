//! How this process becomes another version of the program: which, whether it is good, and what it is handed.
//!
//! What is handed down lies in a file of its own, which counts for the one process that wrote it, once and for 30 s. A crash leaves
//! none, and a process that is started anew does not believe one.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use anyvip_bfd::{Former, SessionName};
use anyvip_core::boundary::RequestId;
use anyvip_core::restored::{Inheritance, OLDEST, Restored};
use anyvip_io::child::{self, Command, End};
use anyvip_io::connections::Signers;
use anyvip_io::{process, state_file};
use anyvip_machine::{Failure, FailureKind};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::complaint::Complaint;
use crate::start::Paths;
use crate::state;

/// How long the new program may take to say its version, and to validate.
const EXAMINATION: Duration = Duration::from_secs(6);

/// A program and what it is called with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) arguments: Vec<OsString>,
}

impl Program {
    /// What this process was started as. The name that it was called by comes first: the file behind it may have been replaced.
    pub(crate) fn ours() -> Program {
        let arguments: Vec<OsString> = std::env::args_os().collect();
        let called = arguments.first().map(PathBuf::from).filter(|path| path.is_absolute());
        let path = called.or_else(|| std::env::current_exe().ok()).unwrap_or_default();
        Program { path: without_mark(path), arguments }
    }

    /// The same call of another file.
    pub(crate) fn at(&self, path: Option<PathBuf>) -> Program {
        match path {
            None => self.clone(),
            Some(path) => {
                let own = self.arguments.get(1..).unwrap_or_default();
                let arguments = std::iter::once(path.clone().into_os_string()).chain(own.iter().cloned());
                Program { arguments: arguments.collect(), path }
            }
        }
    }
}

/// The kernel names a file that was removed or replaced with a mark behind it.
fn without_mark(path: PathBuf) -> PathBuf {
    match path.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
        Some(bare) => PathBuf::from(bare),
        None => path,
    }
}

/// Whether the new program runs here, understands the configuration and what it will be handed; its version.
///
/// # Errors
/// Why not, in words for the operator.
pub(crate) async fn examine(program: &Path, paths: &Paths) -> Result<String, String> {
    let version = ask(program, vec!["--version".into()]).await?;
    let version = version.lines().next().unwrap_or_default().trim().to_owned();
    if !version.starts_with("anyvip ") {
        return Err(format!("{} is not anyvip: it says {version:?} of its version", program.display()));
    }
    let validate: Vec<OsString> = vec![
        "validate".into(),
        "--config".into(),
        paths.config.clone().into(),
        "--state-dir".into(),
        paths.state_dir.clone().into(),
        "--takes-over".into(),
        Restored::VERSION.to_string().into(),
    ];
    ask(program, validate).await?;
    Ok(version)
}

async fn ask(program: &Path, arguments: Vec<OsString>) -> Result<String, String> {
    let command =
        Command { program: program.to_owned(), arguments, environment: Vec::new(), directory: None };
    let words = command.arguments.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    let called = format!("{} {words}", program.display());
    let outcome = child::run(&command, EXAMINATION).await.map_err(|failure| failure.text)?;
    let output = String::from_utf8_lossy(&outcome.output).trim().to_owned();
    match outcome.end {
        End::Exited(0) => Ok(output),
        End::Exited(2) => Err(format!(
            "{} cannot take over from this version; stop it and start the other:\n{output}",
            program.display()
        )),
        End::Exited(code) => Err(format!("{called} ended with {code}:\n{output}")),
        End::Signalled(signal) => Err(format!("{called} was ended by signal {signal}:\n{output}")),
        End::TimedOut => Err(format!("{called} did not end within {} s", EXAMINATION.as_secs())),
    }
}

/// A look at a new program.
#[derive(Debug)]
pub(crate) struct Examination {
    pub(crate) request: RequestId,
    pub(crate) program: Program,
    pub(crate) force: bool,
    pub(crate) found: Pin<Box<JoinHandle<Result<String, String>>>>,
}

/// What the look at a new program came to; never ends without one.
pub(crate) async fn found(examination: &mut Option<Examination>) -> Result<String, String> {
    let Some(examination) = examination else { return std::future::pending().await };
    let found = (&mut examination.found).await;
    found.unwrap_or_else(|error| Err(format!("the new program could not be looked at: {error}")))
}

/// The file: what is handed down, and for whom.
#[derive(Debug, Serialize, Deserialize)]
struct HandedDown {
    /// Version of the program that wrote it.
    from: String,
    boot_id: String,
    /// The process, whatever program it runs: number and start time.
    pid: u32,
    started: u64,
    /// Since boot.
    written_ms: u64,
    restored: Restored,
    /// BFD sessions that go on.
    #[serde(default)]
    bfd: BTreeMap<SessionName, Former>,
    /// For whom the listeners have keys of TCP MD5, and who was last called on each link.
    #[serde(default)]
    signers: BTreeSet<IpAddr>,
    #[serde(default)]
    called: BTreeMap<String, IpAddr>,
}

/// What the loop and its threads know and the agent does not.
#[derive(Debug, Default)]
pub(crate) struct Legacy {
    /// BFD sessions that go on.
    pub(crate) bfd: BTreeMap<SessionName, Former>,
    /// Whose calls the listeners want signed.
    pub(crate) signers: Signers,
}

/// What a program finds that takes over.
pub(crate) type Handed = (Inheritance, Legacy);

fn file(folder: &Path) -> PathBuf {
    folder.join("restored.json")
}

/// Writes down what the program that this process becomes is to know.
///
/// # Errors
/// When the disk refuses, or the system does not tell who we are.
pub(crate) fn hand_down(folder: &Path, restored: Restored, legacy: Legacy) -> Result<(), Failure> {
    let (pid, started) = process::identity()?;
    let written_ms = u64::try_from(process::since_boot()?.as_millis()).unwrap_or(u64::MAX);
    let from = env!("CARGO_PKG_VERSION").to_owned();
    let Legacy { bfd, signers: Signers { addresses: signers, called } } = legacy;
    let boot_id = state::boot_id();
    let content = HandedDown { from, boot_id, pid, started, written_ms, restored, bfd, signers, called };
    let mut text = serde_json::to_vec_pretty(&content)
        .map_err(|error| Failure::new(FailureKind::Other, format!("it cannot be written down: {error}")))?;
    text.push(b'\n');
    state_file::write(&file(folder), &text)
}

/// Removes what was written for nobody.
pub(crate) fn forget(folder: &Path) {
    let _ = std::fs::remove_file(file(folder));
}

/// What this process was handed by the program that it was before, or why it is not believed; `None` without a file. The file is gone
/// in any case.
pub(crate) fn inherit(folder: &Path) -> Option<Result<Handed, String>> {
    let read = state_file::read(&file(folder));
    if matches!(read, Ok(None)) {
        return None;
    }
    forget(folder);
    let believed = read.map_err(|failure| failure.text).and_then(|bytes| believe(&bytes.unwrap_or_default()));
    Some(
        believed.map_err(|why| {
            format!("what another process left in {} is not used: {why}", file(folder).display())
        }),
    )
}

fn believe(bytes: &[u8]) -> Result<Handed, String> {
    // The version is looked at first: another may have any shape.
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let version = value.get("restored").and_then(|restored| restored.get("version")?.as_u64());
    if version != Some(Restored::VERSION.into()) {
        let version = version.map_or("none".to_owned(), |version| version.to_string());
        return Err(format!("its version is {version}, this agent knows {}", Restored::VERSION));
    }
    let content: HandedDown = serde_json::from_value(value).map_err(|error| error.to_string())?;
    if content.boot_id != state::boot_id() {
        return Err("it is of another boot".to_owned());
    }
    let (pid, started) = process::identity().map_err(|failure| failure.text)?;
    if (content.pid, content.started) != (pid, started) {
        return Err(format!("process {} wrote it for itself, and has ended", content.pid));
    }
    let now = process::since_boot().map_err(|failure| failure.text)?;
    let age = now.saturating_sub(Duration::from_millis(content.written_ms));
    if age > OLDEST {
        return Err(format!("it is {} s old", age.as_secs()));
    }
    let HandedDown { from, restored, bfd, signers: addresses, called, .. } = content;
    Ok((Inheritance { from, age, restored }, Legacy { bfd, signers: Signers { addresses, called } }))
}

/// For `validate --takes-over`: whether this version reads what another hands down.
///
/// # Errors
/// When it does not.
pub(crate) fn reads(version: u32) -> Result<(), Complaint> {
    match version == Restored::VERSION {
        true => Ok(()),
        false => Err(Complaint::refused(format!(
            "this version cannot take over from the one that runs (what is handed down is of version {version}, not {})",
            Restored::VERSION
        ))
        .remedy("stop the agent and start this one")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(change: impl FnOnce(&mut HandedDown)) -> Vec<u8> {
        let (pid, started) = process::identity().unwrap();
        let written_ms = process::since_boot().unwrap().as_millis() as u64;
        let restored = Restored { version: Restored::VERSION, ..Restored::default() };
        let mut content = HandedDown {
            from: "0.0.9".to_owned(),
            boot_id: state::boot_id(),
            pid,
            started,
            written_ms,
            restored,
            bfd: BTreeMap::new(),
            signers: BTreeSet::new(),
            called: BTreeMap::new(),
        };
        change(&mut content);
        serde_json::to_vec(&content).unwrap()
    }

    #[test]
    fn what_is_handed_down_counts_once_and_for_this_process_alone() {
        let folder = std::env::temp_dir().join(format!("anyvip-handed-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        assert!(inherit(&folder).is_none());
        let restored = Restored { version: Restored::VERSION, ..Restored::default() };
        let signers = Signers {
            addresses: ["10.0.1.1".parse().unwrap()].into(),
            called: [("eth1".to_owned(), "fe80::1".parse().unwrap())].into(),
        };
        let legacy = Legacy { bfd: BTreeMap::new(), signers: signers.clone() };
        hand_down(&folder, restored.clone(), legacy).unwrap();
        let (inherited, legacy) = inherit(&folder).unwrap().unwrap();
        assert!(legacy.bfd.is_empty());
        assert_eq!(legacy.signers, signers);
        assert_eq!((inherited.from.as_str(), inherited.restored), (env!("CARGO_PKG_VERSION"), restored));
        assert!(inherited.age < OLDEST);
        assert!(inherit(&folder).is_none(), "once");
        std::fs::write(file(&folder), written(|content| content.started += 1)).unwrap();
        let why = inherit(&folder).unwrap().unwrap_err();
        assert!(why.contains("has ended") && why.contains("restored.json"), "{why}");
        assert!(inherit(&folder).is_none(), "what is not believed is gone too");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_is_old_or_of_another_boot_or_format_is_not_believed() {
        let refused = |change: &dyn Fn(&mut HandedDown)| believe(&written(change)).unwrap_err();
        assert!(believe(&written(|_| {})).is_ok());
        assert!(refused(&|content| content.boot_id.push('x')).contains("another boot"));
        assert!(refused(&|content| content.pid += 1).contains("wrote it for itself"));
        assert!(refused(&|content| content.restored.version = 2).contains("version is 2"));
        let late = |content: &mut HandedDown| content.written_ms = content.written_ms.saturating_sub(31_000);
        // A machine that has just booted has no 31 s behind it.
        if process::since_boot().unwrap() > Duration::from_secs(32) {
            assert!(refused(&late).contains("31 s old"));
        }
        for torn in ["", "{", "{}", "{\"restored\": {\"version\": 1}}"] {
            assert!(believe(torn.as_bytes()).is_err(), "{torn}");
        }
    }

    #[test]
    fn another_file_is_called_as_this_one_was_and_a_replaced_file_keeps_its_name() {
        let ours = Program {
            path: "/usr/bin/anyvip".into(),
            arguments: vec!["/usr/bin/anyvip".into(), "run".into(), "-c".into(), "x.toml".into()],
        };
        assert_eq!(ours.at(None), ours);
        let other = ours.at(Some("/opt/anyvip".into()));
        assert_eq!(other.path, Path::new("/opt/anyvip"));
        assert_eq!(other.arguments, ["/opt/anyvip", "run", "-c", "x.toml"].map(OsString::from));
        assert_eq!(without_mark("/usr/bin/anyvip (deleted)".into()), Path::new("/usr/bin/anyvip"));
        assert_eq!(without_mark("/usr/bin/anyvip".into()), Path::new("/usr/bin/anyvip"));
    }
}
