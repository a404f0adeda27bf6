//! The private folder of a running lab: sockets, state and logs of its agents.
//!
//! A lab holds a lock on its folder. Folders that nobody holds are left over from a lab that was killed, and the next
//! lab removes them.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::Uid;

/// FRR keeps files of an instance under this name, followed by lab and node, in its own folder.
const FRR_INSTANCES: &str = "anyvip-sim_";
const FRR_STATE: &str = "/var/run/frr";

/// The name of FRR's instance at a node, for which it takes no dots.
pub(crate) fn frr_instance(lab: &str, node: &str) -> String {
    format!("{FRR_INSTANCES}{lab}_{}", node.replace('.', "_"))
}

/// Removed when dropped.
pub(crate) struct Folder {
    path: PathBuf,
    base: PathBuf,
    _held: Flock<File>,
}

/// Where labs of this user have their folders: short, because socket names are.
pub(crate) fn base(user: Uid) -> PathBuf {
    if user.is_root() {
        return PathBuf::from("/run/anyvip-sim");
    }
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| belongs_to(path, user));
    match own {
        Some(path) => path.join("anyvip-sim"),
        None => std::env::temp_dir().join(format!("anyvip-sim-{user}")),
    }
}

/// A folder of this user. `sudo -u` and the like leave a variable that names somebody else's; and a folder in /tmp may have been made by anybody.
fn belongs_to(path: &Path, user: Uid) -> bool {
    path.metadata().is_ok_and(|found| found.is_dir() && found.uid() == user.as_raw())
}

impl Folder {
    /// Makes a folder of this name, after removing what others left behind.
    pub(crate) fn make(base: &Path, name: &str) -> Result<Folder, String> {
        let text = |error: io::Error| format!("{}: {error}", base.display());
        for _ in 0..5 {
            match Folder::try_make(base, name) {
                // Another lab removed the empty base meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                done => return done.map_err(text),
            }
        }
        Err(format!("{}: cannot be made", base.display()))
    }

    fn try_make(base: &Path, name: &str) -> io::Result<Folder> {
        // To be passed through, not looked into: FRR's user must reach its own folder.
        DirBuilder::new().recursive(true).mode(0o711).create(base)?;
        if !belongs_to(base, Uid::effective()) {
            return Err(io::Error::other("belongs to another user"));
        }
        let guard = lock(base, FlockArg::LockExclusive)?;
        for entry in std::fs::read_dir(base)? {
            let path = entry?.path();
            if path.is_dir() && lock(&path, FlockArg::LockExclusiveNonblock).is_ok() {
                forget(&path)?;
            }
        }
        let path = base.join(name);
        DirBuilder::new().mode(0o711).create(&path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                io::Error::other(format!("a lab `{name}` runs already; anyvip-sim down {name} ends it"))
            }
            _ => error,
        })?;
        let held = lock(&path, FlockArg::LockExclusiveNonblock)?;
        drop(guard);
        Ok(Folder { path, base: base.to_owned(), _held: held })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = remove(&self.path);
        // Only works, and only should, when it is empty.
        let _ = std::fs::remove_dir(&self.base);
    }
}

/// So many wait at once for a disk.
const REMOVERS: usize = 8;

/// Removes a folder with all that is in it. Where /run is on a disk, one after the other would take a lab of many nodes a second.
fn remove(path: &Path) -> io::Result<()> {
    let inside: Vec<PathBuf> =
        std::fs::read_dir(path)?.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    std::thread::scope(|scope| {
        for some in inside.chunks(inside.len().div_ceil(REMOVERS).max(1)) {
            scope.spawn(move || {
                for folder in some.iter().filter(|path| path.is_dir() && !path.is_symlink()) {
                    // What stays is tried again below, and its error told.
                    let _ = std::fs::remove_dir_all(folder);
                }
            });
        }
    });
    std::fs::remove_dir_all(path)
}

/// Removes what a lab that was killed has left: its processes are gone with it, its folder and what FRR keeps elsewhere are not.
fn forget(path: &Path) -> io::Result<()> {
    let lab = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let instances = frr_instance(&lab, "");
    for entry in std::fs::read_dir(FRR_STATE).into_iter().flatten().filter_map(Result::ok) {
        if entry.file_name().to_string_lossy().starts_with(&instances) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    remove(path)
}

/// Removes the folders of a lab that nobody holds: that of `up`, and those of `run`, which have a number behind the name. True if
/// there was one.
pub(crate) fn clean(base: &Path, name: &str) -> Result<bool, String> {
    let text = |error: io::Error| format!("{}: {error}", base.display());
    if !belongs_to(base, Uid::effective()) {
        return Ok(false);
    }
    let _guard = lock(base, FlockArg::LockExclusive).map_err(text)?;
    let mut found = false;
    for entry in std::fs::read_dir(base).map_err(text)?.filter_map(Result::ok) {
        let (path, entry) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let number = entry.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
        let of_run = number.is_some_and(|number| number.bytes().all(|digit| digit.is_ascii_digit()));
        if (entry == name || of_run) && path.is_dir() && !is_held(&path) {
            forget(&path).map_err(text)?;
            found = true;
        }
    }
    let _ = std::fs::remove_dir(base);
    Ok(found)
}

/// Whether somebody holds this folder.
pub(crate) fn is_held(path: &Path) -> bool {
    path.is_dir() && lock(path, FlockArg::LockExclusiveNonblock).is_err()
}

fn lock(path: &Path, how: FlockArg) -> io::Result<Flock<File>> {
    Flock::lock(File::open(path)?, how).map_err(|(_, error)| error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_somebody_else_is_not_used() {
        assert!(belongs_to(&std::env::current_dir().unwrap(), Uid::effective()));
        let other = if Uid::effective().is_root() { 65534 } else { 0 };
        assert!(!belongs_to(Path::new("/proc"), Uid::from_raw(65534)));
        assert!(!belongs_to(&std::env::current_dir().unwrap(), Uid::from_raw(other)));
        assert!(!belongs_to(Path::new("/nowhere"), Uid::effective()));
    }

    #[test]
    fn a_folder_is_removed_at_the_end_and_a_forgotten_one_by_the_next_lab() {
        let base = std::env::temp_dir().join(format!("anyvip-sim-test-{}", std::process::id()));
        std::fs::create_dir_all(base.join("forgotten/h1")).unwrap();
        let first = Folder::make(&base, "first").unwrap();
        assert!(!base.join("forgotten").exists());
        assert!(is_held(first.path()));
        let second = Folder::make(&base, "second").unwrap();
        assert!(first.path().is_dir(), "one that is held stays");
        let Err(error) = Folder::make(&base, "first") else { panic!() };
        assert!(error.contains("runs already"), "{error}");
        std::fs::create_dir_all(base.join("third-4711/h1")).unwrap();
        std::fs::create_dir_all(base.join("third-party")).unwrap();
        assert_eq!(clean(&base, "first"), Ok(false), "what is held stays");
        assert_eq!(clean(&base, "third"), Ok(true));
        assert!(!base.join("third-4711").exists() && base.join("third-party").exists());
        drop(first);
        assert!(base.is_dir());
        std::fs::remove_dir(base.join("third-party")).unwrap();
        drop(second);
        assert!(!base.exists());
    }
}
