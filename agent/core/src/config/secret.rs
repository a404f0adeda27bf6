//! Text that must not leave the process, except to whom it is meant for.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use xxhash_rust::xxh3::xxh3_64;

/// A password, a token, or a text that may hold one. Whatever is written down of a configuration (recordings, status, what a
/// reload changes) and whatever is formatted with `Debug` has a [`Digest`] in its place; only [`Secret::expose`] gives the
/// text, for the probe or the socket that needs it.
///
/// What was written down and read again is a digest alone. It equals the secret that it was made from.
#[derive(Clone)]
pub struct Secret(Inner);

#[derive(Clone)]
enum Inner {
    Text(String),
    Digest(Digest),
}

/// 16 bits of a hash: enough to see whether a secret changed (one change in 65,536 goes unseen in a replay), and all that a
/// guesser can learn, however weak the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest(u16);

impl Secret {
    /// The text, to use it; `None` if this was read from a recording.
    #[must_use]
    pub fn expose(&self) -> Option<&str> {
        match &self.0 {
            Inner::Text(text) => Some(text),
            Inner::Digest(_) => None,
        }
    }

    /// What may be shown of it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        match &self.0 {
            // The lowest 16 bits.
            Inner::Text(text) => Digest((xxh3_64(text.as_bytes()) & 0xffff) as u16),
            Inner::Digest(digest) => *digest,
        }
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Secret {
        Secret(Inner::Text(text.to_owned()))
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret(Inner::Text(text))
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        match (&self.0, &other.0) {
            (Inner::Text(one), Inner::Text(two)) => one == two,
            _ => self.digest() == other.digest(),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "secret#{:04x}", self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.digest().fmt(f)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.digest().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        Digest::deserialize(deserializer).map(|digest| Secret(Inner::Digest(digest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_debug_nor_what_is_written_down_holds_the_text() {
        let secret = Secret::from("hunter2");
        let written = serde_json::to_string(&secret).unwrap();
        for text in [format!("{secret:?}"), secret.digest().to_string(), written.clone()] {
            assert!(!text.contains("hunter2") && text.len() < 20, "{text}");
        }
        assert!(written.parse::<u16>().is_ok(), "16 bits and nothing else: {written}");
    }

    #[test]
    fn what_was_written_down_still_equals_its_secret_and_no_other() {
        let secret = Secret::from("hunter2");
        let again: Secret = serde_json::from_str(&serde_json::to_string(&secret).unwrap()).unwrap();
        assert_eq!(again, secret);
        assert_eq!(again.expose(), None);
        assert_eq!(secret.expose(), Some("hunter2"));
        assert_ne!(again, Secret::from("hunter3"));
    }

    #[test]
    fn two_texts_are_told_apart_although_their_digests_are_equal() {
        let texts: Vec<Secret> = (0..2_000).map(|n| Secret::from(n.to_string())).collect();
        let twins = texts.iter().enumerate().find_map(|(n, one)| {
            let two = texts[..n].iter().find(|two| two.digest() == one.digest())?;
            Some((one, two))
        });
        let (one, two) = twins.expect("2000 texts and 65536 digests");
        assert_ne!(one, two, "a reload must see this change");
    }
}
