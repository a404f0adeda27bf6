//! What real routers send, damaged in seeded ways: no panic, what is read is read wholly.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use anyvip_machine::Seed;
use anyvip_nd::wire::Message;

const CASES: u64 = 200_000;

mod fixtures;

#[test]
fn a_damaged_message_is_refused_or_read_wholly() {
    let whole = fixtures::messages();
    let (mut read, mut refused) = (0, 0);
    for case in 0..CASES {
        let mut seed = Seed::new(case);
        let bytes = damaged(&whole, &mut seed);
        match Message::decode(&bytes) {
            Ok(message) => {
                read += 1;
                let again = message.encode();
                assert_eq!(Message::decode(&again).as_ref(), Ok(&message), "case {case}");
                assert_eq!(again.len(), bytes.len(), "case {case}");
            }
            Err(_) => refused += 1,
        }
    }
    // The damage must be neither so mild nor so harsh that one of the two ways is never gone.
    assert!(read > 20_000 && refused > 20_000, "{read} {refused}");
}

fn damaged(whole: &[Vec<u8>], seed: &mut Seed) -> Vec<u8> {
    let pick = |seed: &mut Seed, most: usize| usize::try_from(seed.below(most as u64)).unwrap();
    let mut bytes = whole[pick(seed, whole.len())].clone();
    for _ in 0..seed.below(4) {
        if bytes.is_empty() {
            break;
        }
        let at = pick(seed, bytes.len());
        match seed.below(5) {
            0 => bytes[at] ^= 1 << seed.below(8),
            1 => bytes[at] = u8::try_from(seed.below(256)).unwrap(),
            2 => bytes.truncate(at),
            3 => bytes.insert(at, u8::try_from(seed.below(256)).unwrap()),
            _ => {
                let other = &whole[pick(seed, whole.len())];
                let from = pick(seed, other.len());
                bytes.truncate(at);
                bytes.extend(&other[from..]);
            }
        }
    }
    bytes
}
