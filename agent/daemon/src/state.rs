//! The state directory: one agent at a time, and a file that is always whole.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyvip_core::boundary::Event;
use anyvip_core::state::{StoredState, StoredStateRead};
use anyvip_machine::Failure;
use tokio::sync::mpsc;

use crate::complaint::{Complaint, Exit};

/// Where it is unless `--state-dir` says otherwise.
pub(crate) const DEFAULT: &str = "/var/lib/anyvip";

/// What is wrong if this version does not know the format.
const VERSION: u32 = 1;

/// Reads what an earlier agent left. Never fails: what cannot be used says why.
pub(crate) fn read(folder: &Path) -> StoredStateRead {
    let path = folder.join("state.json");
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return StoredStateRead::Absent,
        Err(error) => return StoredStateRead::Unreadable(format!("{}: {error}", path.display())),
    };
    // The version is looked at first: a newer file may have any shape.
    let version = serde_json::from_slice::<serde_json::Value>(&bytes)
        .ok()
        .and_then(|value| value.get("version")?.as_u64());
    match (version, serde_json::from_slice::<StoredState>(&bytes)) {
        (Some(version), _) if version > u64::from(VERSION) => StoredStateRead::Unreadable(format!(
            "{} has version {version}, this agent knows {VERSION}",
            path.display()
        )),
        (_, Ok(state)) => StoredStateRead::Read(state),
        (_, Err(error)) => StoredStateRead::Unreadable(format!("{}: {error}", path.display())),
    }
}

/// Replaces the state file: whoever reads finds the former or this one, also after a power cut.
///
/// # Errors
/// When the file system refuses; the former file stands then.
pub(crate) fn write(folder: &Path, state: &StoredState) -> io::Result<()> {
    let fresh = folder.join("state.json.new");
    let mut text = serde_json::to_vec_pretty(state)?;
    text.push(b'\n');
    let mut file = File::create(&fresh)?;
    file.write_all(&text)?;
    file.sync_all()?;
    drop(file);
    std::fs::rename(&fresh, folder.join("state.json"))?;
    File::open(folder)?.sync_all()
}

/// Held by the one process that may write the state; given back by the kernel when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the state directory, making it if it is not there.
    ///
    /// # Errors
    /// [`Exit::Conflict`] when an agent holds it, [`Exit::Refused`] when the system refuses.
    pub(crate) fn take(folder: &Path) -> Result<Lock, Complaint> {
        let path = folder.join("lock");
        let cannot = |what: &str, error: &io::Error| {
            Complaint::refused(format!("cannot {what} {}: {error}", path.display()))
                .remedy("run it as root, or name a folder of your own with --state-dir")
        };
        std::fs::create_dir_all(folder).map_err(|error| cannot("make the state directory of", &error))?;
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| cannot("open", &error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                let _ = file.read_to_string(&mut owner);
                let who = match owner.trim() {
                    "" => "another anyvip".to_owned(),
                    pid => format!("another anyvip (process {pid})"),
                };
                return Err(Complaint::new(
                    Exit::Conflict,
                    format!("{who} uses the state directory {}", folder.display()),
                )
                .remedy("stop it first: `systemctl stop anyvip`"));
            }
            Err(TryLockError::Error(error)) => return Err(cannot("lock", &error)),
        }
        // For people only; the lock itself is the kernel's.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Lock { _file: file })
    }
}

/// Writes states beside the loop; a newer one is never replaced by an older one.
#[derive(Clone, Debug)]
pub(crate) struct StateWriter {
    folder: PathBuf,
    newest: Arc<Mutex<u64>>,
}

impl StateWriter {
    pub(crate) fn new(folder: &Path) -> StateWriter {
        StateWriter { folder: folder.to_owned(), newest: Arc::new(Mutex::new(0)) }
    }

    /// Writes on a thread that may wait for the disk; the answer is sent as an event.
    pub(crate) fn write(&self, generation: u64, state: StoredState, answers: &mpsc::UnboundedSender<Event>) {
        let (writer, answers) = (self.clone(), answers.clone());
        tokio::task::spawn_blocking(move || {
            let result = writer.write_if_newer(generation, &state);
            let _ = answers.send(Event::Persisted { generation, result });
        });
    }

    fn write_if_newer(&self, generation: u64, state: &StoredState) -> Result<(), Failure> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if generation < *newest {
            return Ok(());
        }
        write(&self.folder, state).map_err(|error| {
            let what = format!("cannot write {}", self.folder.join("state.json").display());
            anyvip_io::failure::failed(what, &error)
        })?;
        *newest = generation;
        Ok(())
    }
}

/// Identifies this boot of the kernel.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("anyvip-state-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn state(generation: u64) -> StoredState {
        StoredState { version: 1, generation, ..StoredState::default() }
    }

    #[test]
    fn what_is_written_is_read_again_and_nothing_is_not_unreadable() {
        let folder = Folder::new("round");
        assert_eq!(read(&folder.0), StoredStateRead::Absent);
        write(&folder.0, &state(3)).unwrap();
        write(&folder.0, &state(4)).unwrap();
        assert_eq!(read(&folder.0), StoredStateRead::Read(state(4)));
    }

    #[test]
    fn a_torn_or_newer_file_is_unreadable_and_says_why() {
        let folder = Folder::new("torn");
        for (text, words) in
            [("{\"version\": 1, \"gener", "EOF"), ("{\"version\": 9}", "version 9"), ("", "EOF")]
        {
            std::fs::write(folder.0.join("state.json"), text).unwrap();
            match read(&folder.0) {
                StoredStateRead::Unreadable(why) => assert!(why.contains(words), "{why}"),
                other => panic!("{text:?} was read as {other:?}"),
            }
        }
    }

    #[test]
    fn an_older_state_never_replaces_a_newer_one() {
        let folder = Folder::new("order");
        let writer = StateWriter::new(&folder.0);
        writer.write_if_newer(5, &state(5)).unwrap();
        writer.write_if_newer(4, &state(4)).unwrap();
        assert_eq!(read(&folder.0), StoredStateRead::Read(state(5)));
    }

    #[test]
    fn a_folder_that_is_gone_is_a_failure_with_its_name() {
        let writer = StateWriter::new(Path::new("/nonexistent"));
        let failure = writer.write_if_newer(1, &state(1)).unwrap_err();
        assert!(failure.text.starts_with("cannot write /nonexistent/state.json"), "{failure}");
    }

    #[test]
    fn a_second_agent_is_told_who_holds_the_state() {
        let folder = Folder::new("lock");
        let held = Lock::take(&folder.0).unwrap();
        let complaint = Lock::take(&folder.0).unwrap_err();
        assert_eq!(complaint.exit, Exit::Conflict);
        assert!(complaint.to_string().contains(&format!("process {}", std::process::id())), "{complaint}");
        drop(held);
        assert!(Lock::take(&folder.0).is_ok());
    }
}
