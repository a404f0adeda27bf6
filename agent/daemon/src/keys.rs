//! Keys of TCP MD5: read from their files, kept here and in the kernel, and nowhere else.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use anyvip_core::Config;
use anyvip_io::connections::{Md5Key, Protection};

use crate::complaint::Complaint;

/// How each peer's packets are told from those of others, by its address.
pub(crate) type Protections = BTreeMap<IpAddr, Protection>;

/// Reads the key files of all peers.
///
/// # Errors
/// When one cannot be read or holds no key; the text names file and peer, never what is in it.
pub(crate) fn read(config: &Config) -> Result<Protections, Complaint> {
    let mut protections = Protections::new();
    for (name, peer) in &config.bgp.peers {
        let transport = &peer.transport;
        let md5_key = match &transport.password_file {
            Some(file) => Some(key(file).map_err(|why| {
                Complaint::refused(format!("bgp.peer.{name}.password_file: {}: {why}", file.display()))
                    .remedy("write the key into its first line, readable for the agent and nobody else")
            })?),
            None => None,
        };
        // RFC 5082 §3: a peer that is N hops away has passed N - 1 routers.
        let minimum_ttl = transport.ttl_security.map(|hops| u8::MAX - (hops - 1));
        let protection = Protection { minimum_ttl, md5_key };
        if protection != Protection::default() {
            protections.insert(peer.remote.address, protection);
        }
    }
    Ok(protections)
}

/// The first line.
fn key(file: &Path) -> Result<Md5Key, String> {
    let octets = std::fs::read(file).map_err(|error| why_not(&error))?;
    let line = octets.split(|octet| *octet == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    Md5Key::new(line).ok_or_else(|| match line.len() {
        0 => "its first line is empty".to_owned(),
        length => format!("its first line has {length} octets, a key has at most {}", Md5Key::LONGEST),
    })
}

fn why_not(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_first_line_and_never_shown() {
        let file = std::env::temp_dir().join(format!("anyvip-key-{}", std::process::id()));
        let write = |text: &str| std::fs::write(&file, text).unwrap();
        write("s3cret\r\nsomething else\n");
        let found = key(&file).unwrap();
        assert_eq!(Some(&found), Md5Key::new(b"s3cret").as_ref());
        assert_eq!(format!("{found:?}"), "Md5Key(…)");
        write("\n");
        assert_eq!(key(&file).unwrap_err(), "its first line is empty");
        write(&"x".repeat(81));
        assert_eq!(key(&file).unwrap_err(), "its first line has 81 octets, a key has at most 80");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(key(&file).unwrap_err(), "there is no such file");
    }
}
