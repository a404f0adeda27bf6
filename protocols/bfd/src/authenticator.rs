//! RFC 5880 §6.7: one session's key and sequence numbers.

use anyvip_machine::Seed;
use md5::Md5;
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use crate::error::Discard;
use crate::secret::{self, Secret};
use crate::wire::{AuthenticationKind, AuthenticationSection, ControlPacket, MANDATORY_LEN};

/// How a session's packets are authenticated, both ways.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authentication {
    pub kind: AuthenticationKind,
    pub key_id: u8,
    /// 1 to [`AuthenticationKind::max_key_len`] octets; longer ones are cut, shorter ones padded with zeros.
    pub key: Secret,
}

/// bfd.AuthType and what belongs to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Authenticator {
    pub(crate) with: Authentication,
    /// bfd.XmitAuthSeq.
    next: u32,
    /// bfd.RcvAuthSeq while bfd.AuthSeqKnown is 1.
    heard: Option<u32>,
    /// What was sealed last, but for sequence and digest.
    last: Option<Vec<u8>>,
}

impl Authenticator {
    /// §6.8.1: bfd.XmitAuthSeq begins at random.
    pub(crate) fn new(with: Authentication, seed: &mut Seed) -> Authenticator {
        let next = u32::try_from(seed.below(1 << 32)).unwrap_or(0);
        Authenticator { with, next, heard: None, last: None }
    }

    /// bfd.XmitAuthSeq.
    pub(crate) fn sequence(&self) -> u32 {
        self.next
    }

    /// Goes on where another program was. It may have sent a few packets since it said so, and the peer takes no number twice, nor one
    /// more than three times its multiplier ahead.
    pub(crate) fn go_on(&mut self, sequence: u32) {
        const SENT_SINCE: u32 = 2;
        self.next = sequence.wrapping_add(SENT_SINCE);
    }

    /// §6.8.1: bfd.AuthSeqKnown "MUST be set to zero after no packets have been received on this session for at least twice the
    /// Detection Time".
    pub(crate) fn forget_heard(&mut self) {
        self.heard = None;
    }

    pub(crate) fn has_heard(&self) -> bool {
        self.heard.is_some()
    }

    /// The packet as octets, with its section.
    pub(crate) fn seal(&mut self, packet: &mut ControlPacket) -> Vec<u8> {
        let Authentication { kind, key_id, key } = &self.with;
        let Some(digest_len) = kind.digest_len() else {
            let password = Secret::new(&key.octets()[..key.len().min(kind.max_key_len())]);
            packet.authentication = Some(AuthenticationSection::Password { key_id: *key_id, password });
            return packet.encode();
        };
        packet.authentication = None;
        let plain = packet.encode();
        // §6.7.3: meticulous: incremented for each packet. Else "occasionally", and SHOULD when the session state changes or
        // anything else in the packet does.
        if kind.is_meticulous() || self.last.as_ref() != Some(&plain) {
            self.next = self.next.wrapping_add(1);
            self.last = Some(plain);
        }
        packet.authentication = Some(AuthenticationSection::Digest {
            kind: *kind,
            key_id: *key_id,
            sequence: self.next,
            digest: vec![0; digest_len],
        });
        let mut bytes = packet.encode();
        let digest = digest(*kind, key, &bytes);
        let at = bytes.len() - digest_len;
        bytes[at..].copy_from_slice(&digest);
        bytes
    }

    /// §6.7.2, §6.7.3, §6.7.4, in their order; but a sequence number counts only after the digest proved right, so that
    /// nobody without the key can move the window.
    pub(crate) fn check(
        &mut self,
        bytes: &[u8],
        section: &AuthenticationSection,
        detect_multiplier: u8,
    ) -> Result<(), Discard> {
        let Authentication { kind, key_id, key } = &self.with;
        let (heard_kind, heard_id) = match section {
            AuthenticationSection::Password { key_id, .. } => (AuthenticationKind::SimplePassword, *key_id),
            AuthenticationSection::Digest { kind, key_id, .. } => (*kind, *key_id),
            AuthenticationSection::Unreadable { .. } => return Err(Discard::AuthenticationKind),
        };
        if heard_kind != *kind {
            return Err(Discard::AuthenticationKind);
        }
        if heard_id != *key_id {
            return Err(Discard::KeyId { key_id: heard_id });
        }
        match section {
            AuthenticationSection::Password { password, .. } => {
                let ours = &key.octets()[..key.len().min(kind.max_key_len())];
                if password.matches(ours) { Ok(()) } else { Err(Discard::Key) }
            }
            AuthenticationSection::Digest { sequence, digest: claimed, .. } => {
                if let Some(heard) = self.heard {
                    // "If the sequence number lies outside of the range of bfd.RcvAuthSeq (meticulous: +1) to
                    // bfd.RcvAuthSeq+(3*Detect Mult) inclusive (when treated as an unsigned 32-bit circular number
                    // space), the received packet MUST be discarded."
                    let ahead = sequence.wrapping_sub(heard);
                    let window = u32::from(kind.is_meticulous())..=3 * u32::from(detect_multiplier);
                    if !window.contains(&ahead) {
                        return Err(Discard::Sequence { sequence: *sequence });
                    }
                }
                let length = bytes.get(3).map_or(MANDATORY_LEN, |length| usize::from(*length));
                let mut packet = bytes.get(..length).unwrap_or(bytes).to_vec();
                let at = packet.len().saturating_sub(claimed.len());
                packet[at..].fill(0);
                if key.is_empty() || !secret::same(&digest(*kind, key, &packet), claimed) {
                    return Err(Discard::Key);
                }
                self.heard = Some(*sequence);
                Ok(())
            }
            AuthenticationSection::Unreadable { .. } => Err(Discard::AuthenticationKind),
        }
    }
}

/// §6.7.3, §6.7.4: over the whole packet with the key, padded with zeros, in place of the digest, which ends the packet.
fn digest(kind: AuthenticationKind, key: &Secret, packet: &[u8]) -> Vec<u8> {
    let length = kind.max_key_len();
    let before = &packet[..packet.len().saturating_sub(length)];
    let mut padded = key.octets()[..key.len().min(length)].to_vec();
    padded.resize(length, 0);
    match kind {
        AuthenticationKind::KeyedSha1 | AuthenticationKind::MeticulousKeyedSha1 => {
            Sha1::new().chain_update(before).chain_update(&padded).finalize().to_vec()
        }
        _ => Md5::new().chain_update(before).chain_update(&padded).finalize().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Diagnostic, Discriminator, State};

    fn packet() -> ControlPacket {
        ControlPacket {
            diagnostic: Diagnostic::NONE,
            state: State::Down,
            poll: false,
            final_: false,
            control_plane_independent: false,
            demand: false,
            detect_multiplier: 3,
            my_discriminator: Discriminator::new(7).unwrap(),
            your_discriminator: None,
            desired_min_tx: 1_000_000,
            required_min_rx: 50_000,
            required_min_echo_rx: 0,
            authentication: None,
        }
    }

    fn end(kind: AuthenticationKind, key_id: u8, key: &str) -> Authenticator {
        Authenticator::new(Authentication { kind, key_id, key: Secret::new(key) }, &mut Seed::new(1))
    }

    fn check(end: &mut Authenticator, bytes: &[u8]) -> Result<(), Discard> {
        let packet = ControlPacket::decode(bytes)?;
        end.check(bytes, &packet.authentication.unwrap(), packet.detect_multiplier)
    }

    /// RFC 5880 §6.7.2–6.7.4
    #[test]
    fn every_kind_opens_with_its_own_key_id_and_type_only() {
        for kind in AuthenticationKind::ALL {
            let bytes = end(kind, 5, "s3cret").seal(&mut packet());
            let expected = match kind {
                AuthenticationKind::SimplePassword => 24 + 3 + 6,
                AuthenticationKind::KeyedMd5 | AuthenticationKind::MeticulousKeyedMd5 => 48,
                _ => 52,
            };
            assert_eq!((bytes.len(), usize::from(bytes[3])), (expected, expected), "{kind}");
            assert_eq!(check(&mut end(kind, 5, "s3cret"), &bytes), Ok(()), "{kind}");
            assert_eq!(check(&mut end(kind, 5, "s3creT"), &bytes), Err(Discard::Key), "{kind}");
            assert_eq!(check(&mut end(kind, 5, ""), &bytes), Err(Discard::Key), "{kind}");
            assert_eq!(
                check(&mut end(kind, 6, "s3cret"), &bytes),
                Err(Discard::KeyId { key_id: 5 }),
                "{kind}"
            );
            for other in AuthenticationKind::ALL.into_iter().filter(|other| *other != kind) {
                let wrong = check(&mut end(other, 5, "s3cret"), &bytes);
                assert_eq!(wrong, Err(Discard::AuthenticationKind), "{kind} {other}");
            }
        }
    }

    #[test]
    fn no_octet_of_a_digested_packet_can_be_changed() {
        for kind in [AuthenticationKind::KeyedMd5, AuthenticationKind::MeticulousKeyedSha1] {
            let bytes = end(kind, 5, "s3cret").seal(&mut packet());
            for at in (1..bytes.len()).filter(|at| ![2, 3, 27].contains(at)) {
                let mut damaged = bytes.clone();
                damaged[at] ^= 0x10;
                // The A bit stays; whatever is read of it, it does not open.
                assert!(check(&mut end(kind, 5, "s3cret"), &damaged).is_err(), "{kind} octet {at}");
            }
        }
    }

    /// RFC 5880 §6.7.3
    #[test]
    fn meticulous_packets_are_taken_once_and_keyed_ones_until_a_newer_came() {
        for (kind, again) in
            [(AuthenticationKind::MeticulousKeyedSha1, false), (AuthenticationKind::KeyedSha1, true)]
        {
            let (mut one, mut other) = (end(kind, 1, "k"), end(kind, 1, "k"));
            let first = one.seal(&mut packet());
            let second = one.seal(&mut ControlPacket { state: State::Init, ..packet() });
            assert_eq!(check(&mut other, &first), Ok(()));
            assert_eq!(check(&mut other, &first).is_ok(), again, "{kind}");
            assert_eq!(check(&mut other, &second), Ok(()), "{kind}");
            assert!(matches!(check(&mut other, &first), Err(Discard::Sequence { .. })), "{kind}");
            // Too far ahead: more than three times Detect Mult.
            for _ in 0..10 {
                one.seal(&mut ControlPacket { state: State::Init, ..packet() });
                one.seal(&mut packet());
            }
            let far = one.seal(&mut ControlPacket { state: State::Up, ..packet() });
            assert!(matches!(check(&mut other, &far), Err(Discard::Sequence { .. })), "{kind}");
            other.forget_heard();
            assert_eq!(check(&mut other, &far), Ok(()), "{kind}");
        }
    }

    /// RFC 5880 §6.7.3: "treated as an unsigned 32-bit circular number space"
    #[test]
    fn sequence_numbers_go_around() {
        let kind = AuthenticationKind::MeticulousKeyedMd5;
        let (mut one, mut other) = (end(kind, 1, "k"), end(kind, 1, "k"));
        one.next = u32::MAX - 2;
        for _ in 0..6 {
            assert_eq!(check(&mut other, &one.seal(&mut packet())), Ok(()));
        }
        assert_eq!(one.next, 3);
    }

    #[test]
    fn the_wrong_key_does_not_move_the_window() {
        let kind = AuthenticationKind::KeyedMd5;
        let (mut one, mut other, mut thief) = (end(kind, 1, "k"), end(kind, 1, "k"), end(kind, 1, "x"));
        thief.next = one.next.wrapping_add(1_000_000);
        assert_eq!(check(&mut other, &thief.seal(&mut packet())), Err(Discard::Key));
        assert_eq!(check(&mut other, &one.seal(&mut packet())), Ok(()));
    }

    /// What BIRD computes. Each packet is taken in its turn, and the capture as a whole is not taken twice.
    #[test]
    fn packets_of_a_foreign_daemon_open_with_its_key_only() {
        let captures = [
            (AuthenticationKind::SimplePassword, include_str!("../tests/fixtures/bird-simple.hex")),
            (AuthenticationKind::KeyedMd5, include_str!("../tests/fixtures/bird-keyed-md5.hex")),
            (
                AuthenticationKind::MeticulousKeyedMd5,
                include_str!("../tests/fixtures/bird-meticulous-keyed-md5.hex"),
            ),
            (AuthenticationKind::KeyedSha1, include_str!("../tests/fixtures/bird-keyed-sha1.hex")),
            (
                AuthenticationKind::MeticulousKeyedSha1,
                include_str!("../tests/fixtures/bird-meticulous-keyed-sha1.hex"),
            ),
        ];
        for (kind, capture) in captures {
            let packets: Vec<Vec<u8>> = capture
                .lines()
                .filter(|line| !line.starts_with('#'))
                .map(|line| {
                    (0..line.len())
                        .step_by(2)
                        .map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap())
                        .collect()
                })
                .collect();
            let (mut right, mut wrong) = (end(kind, 7, "s3cret"), end(kind, 7, "secret"));
            for packet in &packets {
                assert_eq!(check(&mut wrong, packet), Err(Discard::Key), "{kind}");
                assert_eq!(check(&mut right, packet), Ok(()), "{kind}");
            }
            assert_eq!(packets.len(), 14);
            let again = check(&mut right, &packets[0]);
            assert_eq!(again.is_ok(), kind == AuthenticationKind::SimplePassword, "{kind}");
        }
    }
}
