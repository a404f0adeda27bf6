//! The two files.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyvip_core::Agent;
use anyvip_core::recording::{self, Header};

/// Names of the two.
const NAMES: [&str; 2] = ["anyvip-0.recording", "anyvip-1.recording"];

/// See the module's text.
#[derive(Debug)]
pub(super) struct Segments {
    folder: PathBuf,
    file: Option<(File, PathBuf)>,
    /// The next segment goes there; `None`: where the older one is.
    next: Option<usize>,
    current: usize,
    /// Something was appended to the current one: it is worth keeping.
    holds_events: bool,
}

impl Segments {
    pub(super) fn new(folder: &Path) -> Segments {
        Segments { folder: folder.to_owned(), file: None, next: None, current: 0, holds_events: false }
    }

    /// Begins a segment over the older one. One that never got beyond its beginning is begun anew: a full disk must
    /// not cost the other, too.
    pub(super) fn open(&mut self, header: &Header, agent: &Agent) -> Result<(), String> {
        self.file = None;
        let number = match self.next {
            None => self.older(),
            Some(next) if self.holds_events => next,
            Some(_) => self.current,
        };
        let path = self.folder.join(NAMES[number]);
        let bytes = recording::open(header, agent).map_err(|error| error.to_string())?;
        self.make_folder()?;
        let cannot = |what: &str, error: &std::io::Error| format!("{what} {}: {error}", path.display());
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(&path)
            .map_err(|error| cannot("cannot open", &error))?;
        file.try_lock().map_err(|error| format!("{} is in use: {error}", path.display()))?;
        (self.current, self.next, self.holds_events) = (number, Some(1 - number), false);
        file.set_permissions(Permissions::from_mode(0o600))
            .and_then(|()| file.set_len(0))
            .map_err(|error| cannot("cannot empty", &error))?;
        self.file = Some((file, path));
        self.write(&bytes)
    }

    /// Appends whole records; nothing where no segment is open.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.file.is_some() {
            self.write(bytes)?;
            self.holds_events = true;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        let Some((file, path)) = &mut self.file else { return Ok(()) };
        let written =
            file.write_all(bytes).map_err(|error| format!("cannot write {}: {error}", path.display()));
        if written.is_err() {
            self.file = None;
        }
        written
    }

    fn make_folder(&self) -> Result<(), String> {
        if self.folder.is_dir() {
            return Ok(());
        }
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        made.map_err(|error| format!("cannot make the folder {}: {error}", self.folder.display()))
    }

    /// What the process before this one wrote last is what people look for.
    fn older(&self) -> usize {
        let written = |name: &str| self.folder.join(name).metadata().and_then(|found| found.modified()).ok();
        match (written(NAMES[0]), written(NAMES[1])) {
            (Some(first), Some(second)) => usize::from(second < first),
            (first, _) => usize::from(first.is_some()),
        }
    }
}
