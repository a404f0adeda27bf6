//! A network namespace for the lab itself, and with it, for whoever is not root, a user namespace.

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Uid, getegid, geteuid};

/// How the lab got its rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rights {
    /// Root, or the capabilities of root.
    Root,
    /// A user namespace of its own.
    UserNamespace,
}

/// Moves this process into a network namespace of its own (bridges and cable ends live there, so that nothing of the
/// lab ever is in the host's). Must be called before any thread is started.
pub(crate) fn enter() -> Result<Rights, String> {
    if geteuid().is_root() && unshare(CloneFlags::CLONE_NEWNET).is_ok() {
        return Ok(Rights::Root);
    }
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).map_err(|error| {
        format!(
            "this user may not make network namespaces ({error}). Run as root, or allow user namespaces: \
             sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0, \
             user.max_user_namespaces > 0"
        )
    })?;
    let write =
        |path: &str, text: String| std::fs::write(path, text).map_err(|error| format!("{path}: {error}"));
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    Ok(Rights::UserNamespace)
}

/// Who runs this, before [`enter`] makes everybody root.
pub(crate) fn user() -> Uid {
    geteuid()
}
