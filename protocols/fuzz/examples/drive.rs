//! `drive TARGET|all COUNT [FIRST]`: so many inputs to a target (or divided among all), made by damaging what foreign daemons really
//! sent, with any toolchain and no feedback. Prints how many there were, how fast, and the most memory that was ever in use. An input
//! is made from its number, so a finding is had again by `drive TARGET 1 NUMBER`.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a finding is a panic")]

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyvip_fuzz::TARGETS;

/// The input at work, for the panic message.
static NUMBER: AtomicU64 = AtomicU64::new(0);
/// Shares of the targets in `all`, of 50.
const SHARES: [u64; 5] = [10, 20, 5, 10, 5];
/// No target may make the process larger than this.
const MOST_MEMORY_KB: u64 = 64 * 1024;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at).and_then(|text: &String| text.parse::<u64>().ok());
    let (Some(name), Some(count)) = (arguments.first(), number(1)) else {
        eprintln!("usage: drive TARGET|all COUNT [FIRST]");
        return ExitCode::from(2);
    };
    let first = number(2).unwrap_or(0);
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        eprintln!("input {}:", NUMBER.load(Ordering::Relaxed));
        usual(info);
    }));
    let mut total = 0;
    for ((target, run), share) in TARGETS.into_iter().zip(SHARES) {
        let inputs = match name.as_str() {
            "all" => count * share / SHARES.iter().sum::<u64>(),
            one if one == target => count,
            _ => continue,
        };
        let whole = corpus(target);
        let begun = Instant::now();
        let mut bytes = Vec::new();
        for number in first..first + inputs {
            NUMBER.store(number, Ordering::Relaxed);
            make(number, &whole, &mut bytes);
            run(&bytes);
        }
        total += inputs;
        let secs = begun.elapsed().as_secs_f64();
        println!("{target:12} {inputs:>12} inputs {secs:8.1} s {:>10.0} a second", inputs as f64 / secs);
    }
    let peak = peak_kb();
    println!("{:12} {total:>12} inputs, 0 panics, at most {peak} kB resident", "all");
    if total == 0 || peak > MOST_MEMORY_KB {
        eprintln!("no such target, or more than {MOST_MEMORY_KB} kB resident");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// What a target is fed with whole: the captured bytes of all daemons, cut to what it takes.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let protocol = if target == "bfd" { "bfd" } else { "bgp" };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(protocol).join("tests/fixtures");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut messages = Vec::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|end| end == "hex")) {
        let text = std::fs::read_to_string(file).unwrap();
        messages.extend(text.lines().filter(|line| !line.starts_with('#')).map(octets));
    }
    messages.retain(|bytes| bytes.len() > 1);
    let body = |kind: u8| messages.iter().filter(move |m| m.get(18) == Some(&kind)).map(|m| m[19..].to_vec());
    match target {
        "open" => body(1).collect(),
        "update" => body(2).map(|body| [&[0][..], &body].concat()).collect(),
        "notification" => body(3).chain([vec![6, 2, 4, b'w', b'o', b'r', b'd']]).collect(),
        "session" => {
            let updates: Vec<Vec<u8>> = messages.into_iter().filter(|m| m.get(18) != Some(&1)).collect();
            let streams = updates.windows(3).map(|three| [&[0, 8][..], &three.concat()].concat());
            streams.collect()
        }
        _ => messages,
    }
}

fn octets(line: &str) -> Vec<u8> {
    let digits: Vec<u8> = line.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// SplitMix64: one input from one number.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }
}

fn make(number: u64, whole: &[Vec<u8>], bytes: &mut Vec<u8>) {
    let mut random = Random(number);
    bytes.clear();
    bytes.extend_from_slice(&whole[random.below(whole.len())]);
    // The flags in front of some targets' input.
    if random.below(2) == 0 && !bytes.is_empty() {
        bytes[0] = random.next() as u8;
    }
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            bytes.push(0);
        }
        let at = random.below(bytes.len());
        match random.below(8) {
            0 | 1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes[at] = [0, 1, 2, 3, 4, 5, 14, 15, 32, 33, 64, 128, 192, 129, 255][random.below(15)],
            // Most length fields have one octet or two and are small.
            3 => bytes[at] = bytes[at].wrapping_add([1, 2, 4, 255, 254, 252][random.below(6)]),
            4 => bytes.truncate(at),
            5 => bytes.insert(at, random.next() as u8),
            6 => {
                let other = &whole[random.below(whole.len())];
                bytes.extend_from_slice(&other[random.below(other.len())..]);
            }
            _ => {
                let upto = at + random.below(bytes.len() - at);
                let piece = bytes[at..upto].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, piece);
            }
        }
        bytes.truncate(8192);
    }
}

fn peak_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}
