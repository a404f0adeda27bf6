//! RFC 5880 §4.2–4.4: the authentication section.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// How packets are authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthenticationKind {
    /// RFC 5880 §6.7.2: the password itself. Protects against mistakes only.
    SimplePassword,
    /// RFC 5880 §6.7.3.
    KeyedMd5,
    /// RFC 5880 §6.7.3, and each packet has a number of its own.
    MeticulousKeyedMd5,
    /// RFC 5880 §6.7.4.
    KeyedSha1,
    /// RFC 5880 §6.7.4, and each packet has a number of its own.
    MeticulousKeyedSha1,
}

impl AuthenticationKind {
    /// All of them, in the order of their numbers.
    pub const ALL: [AuthenticationKind; 5] = [
        AuthenticationKind::SimplePassword,
        AuthenticationKind::KeyedMd5,
        AuthenticationKind::MeticulousKeyedMd5,
        AuthenticationKind::KeyedSha1,
        AuthenticationKind::MeticulousKeyedSha1,
    ];

    fn number(self) -> u8 {
        match self {
            AuthenticationKind::SimplePassword => 1,
            AuthenticationKind::KeyedMd5 => 2,
            AuthenticationKind::MeticulousKeyedMd5 => 3,
            AuthenticationKind::KeyedSha1 => 4,
            AuthenticationKind::MeticulousKeyedSha1 => 5,
        }
    }

    /// Length of the digest; `None` for a password.
    pub(crate) fn digest_len(self) -> Option<usize> {
        match self {
            AuthenticationKind::SimplePassword => None,
            AuthenticationKind::KeyedMd5 | AuthenticationKind::MeticulousKeyedMd5 => Some(16),
            AuthenticationKind::KeyedSha1 | AuthenticationKind::MeticulousKeyedSha1 => Some(20),
        }
    }

    /// The most octets that a key may have; one is the least.
    pub fn max_key_len(self) -> usize {
        self.digest_len().unwrap_or(16)
    }

    /// Whether each packet needs a sequence number of its own.
    pub(crate) fn is_meticulous(self) -> bool {
        matches!(self, AuthenticationKind::MeticulousKeyedMd5 | AuthenticationKind::MeticulousKeyedSha1)
    }
}

impl fmt::Display for AuthenticationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AuthenticationKind::SimplePassword => "simple password",
            AuthenticationKind::KeyedMd5 => "keyed MD5",
            AuthenticationKind::MeticulousKeyedMd5 => "meticulous keyed MD5",
            AuthenticationKind::KeyedSha1 => "keyed SHA1",
            AuthenticationKind::MeticulousKeyedSha1 => "meticulous keyed SHA1",
        })
    }
}

/// The section as it stands in a packet. Whether it is right is asked once the session is known (RFC 5880 §6.8.6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuthenticationSection {
    /// §4.2.
    Password { key_id: u8, password: Secret },
    /// §4.3, §4.4. `digest` has the length that belongs to `kind`.
    Digest { kind: AuthenticationKind, key_id: u8, sequence: u32, digest: Vec<u8> },
    /// A type we do not know, or a length that does not fit type or packet.
    Unreadable { octets: Vec<u8> },
}

impl AuthenticationSection {
    pub(super) fn decode(octets: &[u8]) -> AuthenticationSection {
        Self::known(octets).unwrap_or_else(|| AuthenticationSection::Unreadable { octets: octets.to_vec() })
    }

    fn known(octets: &[u8]) -> Option<AuthenticationSection> {
        let (&[number, length, key_id], rest) = octets.split_first_chunk::<3>()?;
        let kind = AuthenticationKind::ALL.into_iter().find(|kind| kind.number() == number)?;
        // The section ends the packet; nothing may follow it unseen by the digest.
        if usize::from(length) != octets.len() {
            return None;
        }
        let Some(digest_len) = kind.digest_len() else {
            let password = Secret::new(rest);
            return (1..=16)
                .contains(&rest.len())
                .then_some(AuthenticationSection::Password { key_id, password });
        };
        // One reserved octet, "ignored on receipt".
        let (&[_, a, b, c, d], digest) = rest.split_first_chunk::<5>()?;
        let sequence = u32::from_be_bytes([a, b, c, d]);
        (digest.len() == digest_len).then(|| AuthenticationSection::Digest {
            kind,
            key_id,
            sequence,
            digest: digest.to_vec(),
        })
    }

    pub(super) fn length(&self) -> usize {
        match self {
            AuthenticationSection::Password { password, .. } => 3 + password.len(),
            AuthenticationSection::Digest { digest, .. } => 8 + digest.len(),
            AuthenticationSection::Unreadable { octets } => octets.len(),
        }
    }

    pub(super) fn encode(&self, bytes: &mut Vec<u8>) {
        let length = u8::try_from(self.length()).unwrap_or(u8::MAX);
        match self {
            AuthenticationSection::Password { key_id, password } => {
                bytes.extend([AuthenticationKind::SimplePassword.number(), length, *key_id]);
                bytes.extend_from_slice(password.octets());
            }
            AuthenticationSection::Digest { kind, key_id, sequence, digest } => {
                bytes.extend([kind.number(), length, *key_id, 0]);
                bytes.extend_from_slice(&sequence.to_be_bytes());
                bytes.extend_from_slice(digest);
            }
            AuthenticationSection::Unreadable { octets } => bytes.extend_from_slice(octets),
        }
    }
}
