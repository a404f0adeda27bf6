//! Configuration files as they lie on the disk.

use std::path::{Path, PathBuf};

use anyvip_core::config::{self, HostFacts, Loaded, Source};

use crate::complaint::Complaint;
use crate::render;

/// Where it is unless `-c` says otherwise.
pub(crate) const DEFAULT: &str = "/etc/anyvip/config.toml";

/// The main file and what it includes, in order.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn read(path: &Path) -> Result<Vec<Source>, Complaint> {
    let main = source(path).map_err(|complaint| {
        complaint.remedy(format!("the configuration is {DEFAULT} unless -c names another file"))
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut sources = vec![main];
    // What is wrong with the patterns is reported again when the whole is read.
    let (patterns, _) = config::includes(&sources[0]);
    for pattern in patterns {
        for file in matching(folder, &pattern.value)? {
            sources.push(source(&file)?);
        }
    }
    Ok(sources)
}

/// Reads, validates and resolves. The error is what `anyvip validate` prints.
///
/// # Errors
/// When a file cannot be read or the configuration is refused.
pub(crate) fn load(path: &Path, facts: &HostFacts, color: bool) -> Result<(Loaded, Vec<Source>), Complaint> {
    let sources = read(path)?;
    match config::load(&sources, facts) {
        Ok(loaded) => Ok((loaded, sources)),
        Err(diagnostics) => Err(Complaint::refused(render::render(&diagnostics, &sources, color))),
    }
}

fn source(path: &Path) -> Result<Source, Complaint> {
    let cannot = |why: String| Complaint::refused(format!("cannot read {}: {why}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => cannot("there is no such file".to_owned()),
        std::io::ErrorKind::PermissionDenied => cannot("permission denied".to_owned()),
        _ => cannot(error.to_string()),
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        cannot(format!("it is not UTF-8 text (from byte {})", error.utf8_error().valid_up_to()))
    })?;
    Ok(Source { name: path.display().to_string(), text })
}

/// Files that match a pattern relative to a folder, sorted; `*` and `?` in the last part only. A name without either
/// must exist, a pattern may match nothing.
fn matching(folder: &Path, pattern: &str) -> Result<Vec<PathBuf>, Complaint> {
    let whole = folder.join(pattern);
    let Some(last) = whole.file_name().and_then(|name| name.to_str()).map(str::to_owned) else {
        return Ok(Vec::new());
    };
    if !last.contains(['*', '?']) {
        return Ok(vec![whole]);
    }
    let within = whole.parent().unwrap_or(Path::new(""));
    let entries = match std::fs::read_dir(within) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(Complaint::refused(format!("cannot read the folder {}: {error}", within.display())));
        }
    };
    let mut found: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|entry| {
            let name = entry.file_name();
            // As in a shell, a hidden file is only meant when the pattern says so.
            name.to_str().is_some_and(|name| {
                (!name.starts_with('.') || last.starts_with('.')) && fits(last.as_bytes(), name.as_bytes())
            })
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    Ok(found)
}

fn fits(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            fits(rest, name) || name.split_first().is_some_and(|(_, shorter)| fits(pattern, shorter))
        }
        (Some((b'?', pattern)), Some((_, name))) => fits(pattern, name),
        (Some((wanted, pattern)), Some((found, name))) => wanted == found && fits(pattern, name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_as_in_a_shell() {
        let cases = [
            ("*.toml", "a.toml", true),
            ("*.toml", "a.toml.bak", false),
            ("?-*.toml", "1-dns.toml", true),
            ("?-*.toml", "10-dns.toml", false),
            ("*", "", true),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn included_files_come_sorted_and_hidden_ones_do_not() {
        let folder = std::env::temp_dir().join(format!("anyvip-includes-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("conf.d")).unwrap();
        for name in ["20-b.toml", "10-a.toml", ".swp.toml", "c.txt"] {
            std::fs::write(folder.join("conf.d").join(name), "").unwrap();
        }
        let found = matching(&folder, "conf.d/*.toml").unwrap();
        let names: Vec<_> = found.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        assert_eq!(names, ["10-a.toml", "20-b.toml"]);
        assert_eq!(matching(&folder, "none.d/*.toml").unwrap(), Vec::<PathBuf>::new());
        assert_eq!(matching(&folder, "one.toml").unwrap(), [folder.join("one.toml")]);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_missing_file_is_named() {
        let complaint = read(Path::new("/nonexistent/config.toml")).unwrap_err();
        assert!(
            complaint
                .to_string()
                .starts_with("anyvip: cannot read /nonexistent/config.toml: there is no such file\n")
        );
    }
}
