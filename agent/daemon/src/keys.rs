//! Keys of TCP MD5 and of BFD: read from their files, kept here and in the kernel, and nowhere else.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use anyvip_bfd::{Secret, SessionConfig, SessionName};
use anyvip_bgp::{PeerName, Remote};
use anyvip_core::Config;
use anyvip_io::connections::{Md5Key, Protection, Whose};

use crate::complaint::Complaint;

/// All keys of a configuration.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    /// How each BGP peer's packets are told from those of others, wherever it is.
    pub(crate) protections: BTreeMap<Whose, Protection>,
    /// The key of each BGP peer that has one, to be compared.
    md5: BTreeMap<PeerName, Md5Key>,
    /// The key of each BFD session that has one.
    bfd: BTreeMap<SessionName, Secret>,
}

impl Keys {
    /// Keys that are others than in `former`, by whose they are.
    pub(crate) fn changed_since(&self, former: &Keys) -> Vec<String> {
        let md5 = self.md5.iter().filter(|(name, key)| former.md5.get(*name).is_some_and(|was| was != *key));
        let bfd = self.bfd.iter().filter(|(name, key)| former.bfd.get(*name).is_some_and(|was| was != *key));
        md5.map(|(name, _)| format!("TCP MD5 of {name}"))
            .chain(bfd.map(|(name, _)| format!("BFD of {name}")))
            .collect()
    }

    /// Puts the keys into the sessions that need them.
    pub(crate) fn unlock(&self, sessions: &mut BTreeMap<SessionName, SessionConfig>) {
        for (name, session) in sessions {
            // That of who is at the end of a link stands for whatever address it has.
            let link = name.0.find('%').and_then(|at| name.0.get(at..));
            let key = self.bfd.get(name).or_else(|| self.bfd.get(&SessionName(link?.to_owned())));
            if let (Some(authentication), Some(key)) = (&mut session.authentication, key) {
                authentication.key = key.clone();
            }
        }
    }
}

/// Reads the key files of all peers.
///
/// # Errors
/// When one cannot be read or holds no key; the text names file and peer, never what is in it.
pub(crate) fn read(config: &Config) -> Result<Keys, Complaint> {
    let mut keys = Keys::default();
    for (name, peer) in &config.bgp.peers {
        let transport = &peer.transport;
        let md5_key = match &transport.password_file {
            Some(file) => {
                let octets = key(&format!("bgp.peer.{name}.password_file"), file, Md5Key::LONGEST)?;
                Md5Key::new(&octets)
            }
            None => None,
        };
        keys.md5.extend(md5_key.clone().map(|key| (name.clone(), key)));
        // RFC 5082 §3: a peer that is N hops away has passed N - 1 routers.
        let minimum_ttl = transport.ttl_security.map(|hops| u8::MAX - (hops - 1));
        // A link-local address says itself which interface it belongs to.
        let interface = match &peer.remote {
            Remote::At(at) if !is_link_local(at.address) => at.interface.clone(),
            _ => None,
        };
        let protection = Protection { minimum_ttl, md5_key, interface };
        if protection != Protection::default() {
            keys.protections.insert(whose(&peer.remote), protection);
        }
    }
    for (session, (path, authentication)) in config.bfd_keys() {
        let octets = key(&path, &authentication.key_file, authentication.kind.max_key_len())?;
        keys.bfd.insert(session, Secret::new(octets));
    }
    Ok(keys)
}

fn whose(remote: &Remote) -> Whose {
    match (remote.address(), remote.interface()) {
        (Some(IpAddr::V6(address)), Some(interface)) if is_link_local(address.into()) => {
            Whose::OnLink { interface: interface.to_owned(), address: Some(address) }
        }
        (Some(address), _) => Whose::At(address),
        (None, interface) => {
            Whose::OnLink { interface: interface.unwrap_or_default().to_owned(), address: None }
        }
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

fn key(path: &str, file: &Path, longest: usize) -> Result<Vec<u8>, Complaint> {
    first_line(file, longest).map_err(|why| {
        Complaint::refused(format!("{path}: {}: {why}", file.display()))
            .remedy("write the key into its first line, readable for the agent and nobody else")
    })
}

fn first_line(file: &Path, longest: usize) -> Result<Vec<u8>, String> {
    let octets = std::fs::read(file).map_err(|error| why_not(&error))?;
    let line = octets.split(|octet| *octet == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match line.len() {
        0 => Err("its first line is empty".to_owned()),
        length if length > longest => {
            Err(format!("its first line has {length} octets, a key of this kind has at most {longest}"))
        }
        _ => Ok(line.to_vec()),
    }
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
    fn keys_that_changed_are_named_and_never_shown() {
        let keys = |md5: &[u8], bfd: &[u8]| Keys {
            md5: [("tor1".into(), Md5Key::new(md5).unwrap())].into(),
            bfd: [("10.0.1.1".into(), Secret::new(bfd.to_vec()))].into(),
            ..Keys::default()
        };
        let was = keys(b"one", b"two");
        assert!(keys(b"one", b"two").changed_since(&was).is_empty());
        assert_eq!(keys(b"other", b"two").changed_since(&was), ["TCP MD5 of tor1"]);
        assert_eq!(keys(b"one", b"other").changed_since(&was), ["BFD of 10.0.1.1"]);
        assert!(was.changed_since(&Keys::default()).is_empty(), "a peer that came has not changed its key");
    }

    #[test]
    fn a_key_is_the_first_line_and_never_shown() {
        let file = std::env::temp_dir().join(format!("anyvip-key-{}", std::process::id()));
        let write = |text: &str| std::fs::write(&file, text).unwrap();
        write("s3cret\r\nsomething else\n");
        assert_eq!(first_line(&file, 80).unwrap(), b"s3cret");
        write("\n");
        assert_eq!(first_line(&file, 80).unwrap_err(), "its first line is empty");
        write(&"x".repeat(81));
        assert_eq!(
            first_line(&file, 80).unwrap_err(),
            "its first line has 81 octets, a key of this kind has at most 80"
        );
        std::fs::remove_file(&file).unwrap();
        assert_eq!(first_line(&file, 80).unwrap_err(), "there is no such file");
    }
}
