//! Files that survive a crash, and the lock that keeps a second agent out.
//!
//! All functions block (`fsync` may take long): call them on a blocking thread.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyvip_machine::{Failure, FailureKind};

use crate::failure::failed;

/// Nothing we wrote is larger; what is, is not ours.
const READ_LIMIT: u64 = 16 * 1024 * 1024;

/// Replaces a file as a whole: after a crash at any moment it holds the old or the new content, never a part. The folder must
/// exist. One writer at a time.
///
/// # Errors
/// When the folder is missing, full or not writable; the old content stands.
pub fn write(path: &Path, content: &[u8]) -> Result<(), Failure> {
    prepare(path, content)
        .and_then(|prepared| commit(&prepared, path))
        .map_err(|error| failed(format!("cannot write {}", path.display()), &error))
}

/// The content of a file; `None` if there is none.
///
/// # Errors
/// When it is there and cannot be read.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    let what = || format!("cannot read {}", path.display());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(what(), &error)),
    };
    let mut content = Vec::new();
    let length =
        file.take(READ_LIMIT + 1).read_to_end(&mut content).map_err(|error| failed(what(), &error))?;
    if u64::try_from(length).is_ok_and(|length| length > READ_LIMIT) {
        return Err(Failure::new(FailureKind::Other, format!("{}: larger than any file of ours", what())));
    }
    Ok(Some(content))
}

/// Writes the content beside the file, safely on disk. The name is always the same, so that crashes leave one at most.
fn prepare(path: &Path, content: &[u8]) -> io::Result<PathBuf> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".new");
    let prepared = path.with_file_name(name);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&prepared)?;
    file.write_all(content)?;
    file.sync_all()?;
    Ok(prepared)
}

fn commit(prepared: &Path, path: &Path) -> io::Result<()> {
    std::fs::rename(prepared, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Held while this lives; the kernel lets go of it when the process ends, however it ends. The file stays.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why a lock was not given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockError {
    /// Somebody has it: this process, if the file says so.
    Held {
        /// Process id as the holder wrote it.
        pid: Option<u32>,
    },
    /// The file cannot be opened or locked.
    Failed(Failure),
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::Held { pid: Some(pid) } => write!(f, "process {pid} holds the lock"),
            LockError::Held { pid: None } => f.write_str("another process holds the lock"),
            LockError::Failed(failure) => failure.fmt(f),
        }
    }
}

impl std::error::Error for LockError {}

impl Lock {
    /// Takes the lock (`flock`) or says who has it. For one agent per network namespace put
    /// [`namespace::current_id`](crate::namespace::current_id) into the file's name.
    ///
    /// # Errors
    /// [`LockError::Held`], or what keeps the file from being opened.
    pub fn acquire(path: &Path) -> Result<Lock, LockError> {
        let fail =
            |error: &io::Error| LockError::Failed(failed(format!("cannot lock {}", path.display()), error));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
            .map_err(|error| fail(&error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let pid = file.take(32).read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(LockError::Held { pid });
            }
            Err(TryLockError::Error(error)) => return Err(fail(&error)),
        }
        let mut sign = || {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        // Only for people: the lock holds without it, and a full disk must not keep a service off the air.
        let _ = sign();
        Ok(Lock { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("anyvip-io-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn what_was_written_last_is_read_and_nothing_is_left_beside_it() {
        let folder = Folder::new("write");
        let path = folder.path("state.json");
        assert_eq!(read(&path).unwrap(), None);
        write(&path, b"a longer first content").unwrap();
        write(&path, b"second").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"second");
        assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 1);
    }

    #[test]
    fn a_crash_before_the_rename_leaves_the_old_content_and_the_next_write_works() {
        let folder = Folder::new("crash");
        let path = folder.path("state.json");
        write(&path, b"old").unwrap();
        prepare(&path, b"new, complete").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"old");
        std::fs::write(folder.path("state.json.new"), b"half of somethi").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"old");
        write(&path, b"next").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"next");
        assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 1);
    }

    #[test]
    fn a_write_that_fails_names_the_file_and_changes_nothing() {
        let folder = Folder::new("refused");
        let missing = folder.path("nosuch/state.json");
        let failure = write(&missing, b"x").unwrap_err();
        assert_eq!(failure.kind, FailureKind::NotFound);
        assert!(failure.text.contains("nosuch/state.json"), "{failure}");
        let occupied = folder.path("occupied");
        std::fs::create_dir(&occupied).unwrap();
        assert!(write(&occupied, b"x").is_err());
        assert!(occupied.is_dir());
        assert!(read(&occupied).is_err(), "there and unreadable is not the same as absent");
        let elsewhere = folder.path("elsewhere");
        std::fs::write(&elsewhere, b"precious").unwrap();
        std::os::unix::fs::symlink(&elsewhere, folder.path("state.new")).unwrap();
        assert!(write(&folder.path("state"), b"x").is_err(), "a planted link is not followed");
        assert_eq!(std::fs::read(&elsewhere).unwrap(), b"precious");
    }

    #[test]
    fn a_second_taker_learns_who_has_the_lock_until_it_is_let_go() {
        let folder = Folder::new("lock");
        let path = folder.path("lock");
        let held = Lock::acquire(&path).unwrap();
        let refused = Lock::acquire(&path).unwrap_err();
        assert_eq!(refused, LockError::Held { pid: Some(std::process::id()) });
        assert_eq!(refused.to_string(), format!("process {} holds the lock", std::process::id()));
        drop(held);
        drop(Lock::acquire(&path).unwrap());
        std::fs::write(&path, "4194304999999 of somebody before us\n").unwrap();
        drop(Lock::acquire(&path).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        // A full disk keeps the name out of the file, not the lock from being taken.
        Lock::acquire(Path::new("/dev/full")).unwrap();
        assert!(matches!(Lock::acquire(&folder.path("nosuch/lock")), Err(LockError::Failed(_))));
    }
}
