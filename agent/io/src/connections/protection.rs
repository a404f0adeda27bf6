//! What keeps others out of a session: TCP MD5 (RFC 2385), GTSM (RFC 5082) and the interface, by the address of the peer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr};

use anyvip_bgp::Rejection;
use socket2::Socket;

use crate::sys::arrival::came_through;
use crate::sys::tcp_protection::{set_md5_key, set_minimum_ttl};

/// How packets from one address are told from those of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    /// What comes with a smaller TTL (hop limit) is dropped by the kernel.
    pub minimum_ttl: Option<u8>,
    /// Segments are signed with it, unsigned ones are dropped by the kernel.
    pub md5_key: Option<Md5Key>,
    /// Who calls through any other interface is not heard.
    pub interface: Option<String>,
}

/// Whose packets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// Of who has this address.
    At(IpAddr),
    /// Of who is at the other end of this link, with this link-local address or any.
    OnLink { interface: String, address: Option<Ipv6Addr> },
}

impl Whose {
    /// Whether a peer with this address, on this interface, is meant.
    pub(super) fn is(&self, (peer, link): &(IpAddr, Option<String>)) -> bool {
        match (self, peer) {
            (Whose::At(address), peer) => address == peer,
            (Whose::OnLink { interface, address }, IpAddr::V6(peer)) => {
                peer.is_unicast_link_local()
                    && link.as_ref() == Some(interface)
                    && address.is_none_or(|address| address == *peer)
            }
            (Whose::OnLink { .. }, IpAddr::V4(_)) => false,
        }
    }

    /// Where they are, as far as that is known: `called` says who was last called on each link.
    pub(super) fn address(&self, called: &BTreeMap<String, IpAddr>) -> Option<IpAddr> {
        match self {
            Whose::At(address) => Some(*address),
            Whose::OnLink { address: Some(address), .. } => Some(IpAddr::V6(*address)),
            Whose::OnLink { interface, address: None } => called.get(interface).copied(),
        }
    }

    pub(super) fn names_address(&self) -> bool {
        !matches!(self, Whose::OnLink { address: None, .. })
    }
}

/// Whose calls the listeners of one program want signed, for the program that takes these listeners over. No keys: nobody can read
/// them out of a socket, nor need the other program know what they were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signers {
    pub addresses: BTreeSet<IpAddr>,
    /// By interface, who was last called at the other end of the link.
    pub called: BTreeMap<String, IpAddr>,
}

/// A key of TCP MD5. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Md5Key(Vec<u8>);

impl Md5Key {
    /// The longest that the kernel takes, in octets.
    pub const LONGEST: usize = libc::TCP_MD5SIG_MAXKEYLEN;

    /// `None` if it is empty or too long.
    #[must_use]
    pub fn new(octets: &[u8]) -> Option<Md5Key> {
        (1..=Md5Key::LONGEST).contains(&octets.len()).then(|| Md5Key(octets.to_vec()))
    }
}

impl fmt::Debug for Md5Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Md5Key(…)")
    }
}

/// This peer signs nothing: for a listener that may have had a key for it.
pub(super) fn forget_key(listener: &Socket, peer: IpAddr) -> io::Result<()> {
    set_md5_key(listener, peer, &[])
}

impl Protection {
    /// For a socket that is about to connect, or was accepted.
    pub(super) fn guard(&self, socket: &Socket, remote: IpAddr) -> io::Result<()> {
        if let Some(ttl) = self.minimum_ttl {
            set_minimum_ttl(socket, ttl)?;
        }
        match &self.md5_key {
            Some(key) => set_md5_key(socket, remote, &key.0),
            None => Ok(()),
        }
    }

    /// Keeps an accepted socket to its interface.
    ///
    /// # Errors
    /// When it came through another one, or cannot be kept to it.
    pub(super) fn hold_to_interface(&self, socket: &Socket) -> Result<(), Rejection> {
        let Some(wanted) = &self.interface else { return Ok(()) };
        let through = came_through(socket).ok();
        let holds = || socket.bind_device(Some(wanted.as_bytes())).is_ok();
        if through.is_some() && through == nix::net::if_::if_nametoindex(wanted.as_str()).ok() && holds() {
            return Ok(());
        }
        let name =
            through.and_then(|through| nix::net::if_::if_indextoname(through).ok()?.into_string().ok());
        let through = name.unwrap_or_else(|| "an interface that is gone".to_owned());
        Err(Rejection::OtherInterface { wanted: wanted.clone(), through })
    }

    /// Changes the key of a socket that stands; `former` is what it had.
    pub(super) fn rekey(
        &self,
        former: Option<&Protection>,
        socket: &Socket,
        remote: IpAddr,
    ) -> io::Result<()> {
        let former = former.and_then(|former| former.md5_key.as_ref());
        match &self.md5_key {
            key if key.as_ref() == former => Ok(()),
            Some(key) => set_md5_key(socket, remote, &key.0),
            None => set_md5_key(socket, remote, &[]),
        }
    }

    /// Why a peer that does not answer may not do so.
    pub(super) fn suspicion(&self) -> &'static str {
        match (&self.md5_key, self.minimum_ttl) {
            (Some(_), None) => ": TCP MD5 is on, and a wrong or missing key at either end looks like this",
            (None, Some(_)) => {
                ": ttl_security is on, and a peer whose packets come with a low TTL looks like this"
            }
            (Some(_), Some(_)) => {
                ": TCP MD5 and ttl_security are on; a wrong key or a low TTL at the peer look like this"
            }
            (None, None) => ": not there, or filtered, or it wants TCP MD5 (no password_file here)",
        }
    }
}
