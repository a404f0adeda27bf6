//! The state directory: one agent at a time, and a file that is always whole.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyvip_core::boundary::Event;
use anyvip_core::state::{StoredState, StoredStateRead};
use anyvip_io::state_file::{self, Lock, LockError};
use anyvip_machine::{Failure, FailureKind};
use tokio::sync::mpsc;

use crate::complaint::{Complaint, Exit};

/// Where it is unless `--state-dir` says otherwise.
pub(crate) const DEFAULT: &str = "/var/lib/anyvip";

/// The format that this version knows.
const VERSION: u32 = 1;

fn file(folder: &Path) -> PathBuf {
    folder.join("state.json")
}

/// Reads what an earlier agent left. Never fails: what cannot be used says why.
pub(crate) fn read(folder: &Path) -> StoredStateRead {
    let path = file(folder);
    let bytes = match state_file::read(&path) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return StoredStateRead::Absent,
        Err(failure) => return StoredStateRead::Unreadable(failure.text),
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
pub(crate) fn write(folder: &Path, state: &StoredState) -> Result<(), Failure> {
    let mut text = serde_json::to_vec_pretty(state).map_err(|error| {
        Failure::new(FailureKind::Other, format!("the state cannot be written down: {error}"))
    })?;
    text.push(b'\n');
    // Somebody may have removed it while the agent runs; the next write must not fail for that.
    if let Err(error) = std::fs::create_dir_all(folder) {
        let text = format!("cannot make the state directory {}: {error}", folder.display());
        return Err(Failure::new(FailureKind::Other, text));
    }
    state_file::write(&file(folder), &text)
}

/// Takes the state directory, making it if it is not there, for the one process that may write it.
///
/// # Errors
/// [`Exit::Conflict`] when an agent holds it, [`Exit::Refused`] when the system refuses.
pub(crate) fn lock(folder: &Path) -> Result<Lock, Complaint> {
    let own_folder = "run it as root, or name a folder of your own with --state-dir";
    std::fs::create_dir_all(folder).map_err(|error: io::Error| {
        Complaint::refused(format!("cannot make the state directory {}: {error}", folder.display()))
            .remedy(own_folder)
    })?;
    Lock::acquire(&folder.join("lock")).map_err(|error| match error {
        LockError::Held { pid } => {
            let who = pid.map_or(String::new(), |pid| format!(" (process {pid})"));
            let text = format!("another anyvip{who} uses the state directory {}", folder.display());
            Complaint::new(Exit::Conflict, text).remedy("stop it first: `systemctl stop anyvip`")
        }
        LockError::Failed(failure) => {
            let remedy = match failure.kind {
                FailureKind::PermissionDenied => own_folder,
                _ => "the state directory must be writable, with room left: what an operator drained is kept there",
            };
            Complaint::refused(failure.text).remedy(remedy)
        }
    })
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
        write(&self.folder, state)?;
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
    fn a_folder_that_is_gone_is_made_again_and_one_that_cannot_be_is_named() {
        let folder = Folder::new("gone");
        std::fs::remove_dir_all(&folder.0).unwrap();
        StateWriter::new(&folder.0).write_if_newer(1, &state(1)).unwrap();
        assert_eq!(read(&folder.0), StoredStateRead::Read(state(1)));
        let writer = StateWriter::new(Path::new("/proc/nonexistent"));
        let failure = writer.write_if_newer(1, &state(1)).unwrap_err();
        assert!(failure.text.contains("/proc/nonexistent"), "{failure}");
    }

    #[test]
    fn a_second_agent_is_told_who_holds_the_state() {
        let folder = Folder::new("lock");
        let held = lock(&folder.0).unwrap();
        let complaint = lock(&folder.0).unwrap_err();
        assert_eq!(complaint.exit, Exit::Conflict);
        assert!(complaint.to_string().contains(&format!("process {}", std::process::id())), "{complaint}");
        drop(held);
        assert!(lock(&folder.0).is_ok());
    }
}
