use serde::{Deserialize, Serialize};

use super::{HEADER_LEN, Kind, MAX_EXTENDED_LEN, MAX_MESSAGE_LEN, Notification};

/// Cuts the byte stream of one connection into messages (RFC 4271 §4.1, §6.1).
///
/// Take all frames after each push: what then stays is less than one message, and memory for more than a short one is
/// given back when nothing stays. After an error nothing more comes out and nothing more is kept; the session is over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Framer {
    buffer: Vec<u8>,
    /// Octets at the front of `buffer` that were handed out already.
    taken: usize,
    broken: bool,
    /// RFC 8654.
    #[serde(default)]
    extended: bool,
}

impl Framer {
    /// Adds what the connection gave.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.broken {
            return;
        }
        if self.taken > 0 {
            self.buffer.drain(..self.taken.min(self.buffer.len()));
            self.taken = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// From here on messages may be as long as RFC 8654 §4 allows.
    pub fn allow_extended(&mut self) {
        self.extended = true;
    }

    /// The next whole message with its header, or the NOTIFICATION to answer a bad header with; `None` until more
    /// octets have come. A bad header is told as soon as it is there, not when the octets it promises are.
    pub fn next_frame(&mut self) -> Option<Result<Vec<u8>, Notification>> {
        if self.pending() == 0 {
            self.buffer.clear();
            self.buffer.shrink_to(MAX_MESSAGE_LEN);
            self.taken = 0;
        }
        let waiting = self.buffer.get(self.taken..)?;
        let header = waiting.first_chunk::<HEADER_LEN>()?;
        let longest = if self.extended { MAX_EXTENDED_LEN } else { MAX_MESSAGE_LEN };
        match check_header(header, longest) {
            Ok((_, length)) => {
                let frame = waiting.get(..length)?.to_vec();
                self.taken += length;
                Some(Ok(frame))
            }
            Err(notification) => {
                *self = Framer { broken: true, ..Framer::default() };
                Some(Err(notification))
            }
        }
    }

    /// Octets of a message that is not complete yet.
    pub fn pending(&self) -> usize {
        self.buffer.len().saturating_sub(self.taken)
    }
}

/// RFC 4271 §6.1: marker, then length, then type. An unknown type is told before a length that only it would make
/// wrong.
pub(super) fn check_header(header: &[u8; HEADER_LEN], longest: usize) -> Result<(Kind, usize), Notification> {
    let [marker @ .., high, low, kind] = header;
    if marker.iter().any(|octet| *octet != 0xff) {
        return Err(Notification::connection_not_synchronized());
    }
    let field = u16::from_be_bytes([*high, *low]);
    let length = usize::from(field);
    if !(HEADER_LEN..=longest).contains(&length) {
        return Err(Notification::bad_message_length(field));
    }
    let kind = Kind::from_octet(*kind).ok_or_else(|| Notification::bad_message_type(*kind))?;
    let fits = match kind {
        // RFC 8654 §4: never longer than before.
        Kind::Open => (29..=MAX_MESSAGE_LEN).contains(&length),
        Kind::Update => length >= 23,
        Kind::Notification => length >= 21,
        Kind::Keepalive => length == HEADER_LEN,
        // Longer ones carry RFC 5291 filters, which we never negotiate; RFC 7313 §5 judges those with a subtype, at decode.
        Kind::RouteRefresh => length >= 23,
    };
    if fits { Ok((kind, length)) } else { Err(Notification::bad_message_length(field)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Codec, Message};

    #[test]
    fn frames_come_out_whole_however_the_stream_is_cut() {
        let keepalive = Message::Keepalive.encode(&Codec::before_open());
        let stream = keepalive.repeat(5);
        for size in 1..=stream.len() {
            let mut framer = Framer::default();
            let mut frames = Vec::new();
            for piece in stream.chunks(size) {
                framer.push(piece);
                while let Some(frame) = framer.next_frame() {
                    frames.push(frame.unwrap());
                }
                assert!(framer.pending() < HEADER_LEN);
            }
            assert_eq!(frames, vec![keepalive.clone(); 5]);
        }
    }

    /// RFC 4271 §6.1.
    #[test]
    fn a_bad_header_names_what_was_bad_and_ends_the_stream() {
        let keepalive = Message::Keepalive.encode(&Codec::before_open());
        let change = |at: usize, to: u8| {
            let mut bytes = keepalive.clone();
            bytes[at] = to;
            bytes
        };
        let long_keepalive = change(17, 20);
        let cases = [
            (change(3, 0), Notification { code: 1, subcode: 1, data: vec![] }),
            (change(17, 18), Notification { code: 1, subcode: 2, data: vec![0, 18] }),
            (change(16, 0x10), Notification { code: 1, subcode: 2, data: vec![0x10, 19] }),
            (long_keepalive, Notification { code: 1, subcode: 2, data: vec![0, 20] }),
            (change(18, 1), Notification { code: 1, subcode: 2, data: vec![0, 19] }),
            (change(18, 2), Notification { code: 1, subcode: 2, data: vec![0, 19] }),
            (change(18, 3), Notification { code: 1, subcode: 2, data: vec![0, 19] }),
            (change(18, 9), Notification { code: 1, subcode: 3, data: vec![9] }),
        ];
        for (bytes, expected) in cases {
            let mut framer = Framer::default();
            framer.push(&bytes);
            assert_eq!(framer.next_frame(), Some(Err(expected)));
            framer.push(&keepalive);
            assert_eq!(framer.next_frame(), None);
            assert_eq!(framer.pending(), 0);
        }
    }
    /// RFC 8654 §4, §5: before it is agreed on, and for an OPEN always, 4096 octets are the most.
    #[test]
    fn a_long_message_is_taken_only_where_it_was_agreed_on_and_never_as_an_open() {
        let header = |length: u16, kind: u8| {
            let mut header = vec![0xff; 16];
            header.extend(length.to_be_bytes());
            header.push(kind);
            header
        };
        for (length, kind, plainly, extended) in [
            (4096, 2, true, true),
            (4097, 2, false, true),
            (u16::MAX, 2, false, true),
            (u16::MAX, 3, false, true),
            (4097, 5, false, true),
            (4097, 1, false, false),
            (4096, 1, true, true),
            (4097, 4, false, false),
        ] {
            for (allowed, taken) in [(false, plainly), (true, extended)] {
                let mut framer = Framer::default();
                if allowed {
                    framer.allow_extended();
                }
                framer.push(&header(length, kind));
                let expected = (!taken).then(|| Err(Notification::bad_message_length(length)));
                assert_eq!(framer.next_frame(), expected, "{length} of type {kind}, allowed {allowed}");
                if taken {
                    framer.push(&vec![0; usize::from(length) - HEADER_LEN]);
                    assert_eq!(framer.next_frame().unwrap().unwrap().len(), usize::from(length));
                }
            }
        }
    }

    #[test]
    fn memory_for_a_long_message_is_given_back() {
        let mut framer = Framer::default();
        framer.allow_extended();
        let mut long = vec![0xff; MAX_EXTENDED_LEN];
        long[18] = 2;
        framer.push(&long[..40_000]);
        assert_eq!(framer.next_frame(), None);
        // Never more than one message that is not complete, and what came at once.
        framer.push(&long[40_000..]);
        assert!(framer.buffer.capacity() <= 2 * MAX_EXTENDED_LEN, "{}", framer.buffer.capacity());
        assert_eq!(framer.next_frame().unwrap().unwrap().len(), MAX_EXTENDED_LEN);
        assert_eq!(framer.next_frame(), None);
        assert!(framer.buffer.capacity() <= MAX_MESSAGE_LEN, "{}", framer.buffer.capacity());
    }
}
