//! ORIGIN, AS_PATH, AGGREGATOR, and how a two-octet session carries four-octet AS numbers (RFC 6793).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};

use super::Few;
use crate::error::ParseError;
use crate::wire::AS_TRANS;
use crate::wire::octets::Octets;

/// ORIGIN, in order of preference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Origin {
    /// 0.
    #[default]
    Igp,
    /// 1.
    Egp,
    /// 2.
    Incomplete,
}

impl Origin {
    pub(super) fn from_octet(octet: u8) -> Option<Origin> {
        [Origin::Igp, Origin::Egp, Origin::Incomplete].into_iter().find(|origin| *origin as u8 == octet)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Origin::Igp => "igp",
            Origin::Egp => "egp",
            Origin::Incomplete => "incomplete",
        })
    }
}

/// AS_PATH.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AsPath {
    /// Segments, nearest AS first.
    pub segments: SmallVec<[AsSegment; 1]>,
}

/// One segment of an AS_PATH, never empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AsSegment {
    /// Ordered or not.
    pub kind: AsSegmentKind,
    /// 1 to 255 AS numbers.
    pub asns: Few<u32>,
}

/// RFC 4271 §4.3: AS_SET is 1, AS_SEQUENCE is 2. (Confederation segments, RFC 5065, are malformed here.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AsSegmentKind {
    /// Type 1, counts as one hop.
    Set,
    /// Type 2, each AS counts.
    Sequence,
}

/// The count of a segment is one octet.
const MAX_SEGMENT_LEN: usize = 255;

impl AsPath {
    /// A path of one sequence; the empty path for no AS numbers.
    pub fn sequence(asns: impl IntoIterator<Item = u32>) -> AsPath {
        let asns: Vec<u32> = asns.into_iter().collect();
        let segment = |asns: &[u32]| AsSegment { kind: AsSegmentKind::Sequence, asns: asns.into() };
        AsPath { segments: asns.chunks(MAX_SEGMENT_LEN).map(segment).collect() }
    }

    /// Length for the decision process (RFC 4271 §9.1.2.2 a): a set counts one.
    pub fn hop_count(&self) -> usize {
        self.segments.iter().map(AsSegment::hop_count).sum()
    }

    /// Whether `asn` is anywhere in the path (RFC 4271 §9.1.2: a loop if it is ours).
    pub fn contains(&self, asn: u32) -> bool {
        self.segments.iter().any(|segment| segment.asns.contains(&asn))
    }

    /// The AS next to us, if the path begins with a sequence (RFC 4271 §9.1.2.2 c, §6.3).
    pub fn neighbor(&self) -> Option<u32> {
        let first = self.segments.first()?;
        if first.kind == AsSegmentKind::Sequence { first.asns.first().copied() } else { None }
    }

    /// Puts `asn` in front, `times` times (RFC 4271 §5.1.2 b): into the first sequence while it has room.
    pub fn prepend(&mut self, asn: u32, times: usize) {
        for _ in 0..times {
            match self.segments.first_mut() {
                Some(AsSegment { kind: AsSegmentKind::Sequence, asns }) if asns.len() < MAX_SEGMENT_LEN => {
                    asns.insert(0, asn);
                }
                _ => {
                    let segment = AsSegment { kind: AsSegmentKind::Sequence, asns: smallvec![asn] };
                    self.segments.insert(0, segment);
                }
            }
        }
    }

    /// Whether some number does not fit into two octets.
    pub(super) fn needs_four_octets(&self) -> bool {
        self.segments.iter().flat_map(|segment| &segment.asns).any(|asn| u16::try_from(*asn).is_err())
    }

    /// Octets of the value that `write` writes.
    pub(super) fn size(&self, four_octet_as: bool) -> usize {
        let lengths = self.segments.iter().map(|segment| segment.asns.len());
        lengths.map(|length| 2 * length.div_ceil(MAX_SEGMENT_LEN) + length * asn_size(four_octet_as)).sum()
    }

    pub(super) fn write(&self, four_octet_as: bool, out: &mut Vec<u8>) {
        for segment in &self.segments {
            for asns in segment.asns.chunks(MAX_SEGMENT_LEN) {
                out.push(match segment.kind {
                    AsSegmentKind::Set => 1,
                    AsSegmentKind::Sequence => 2,
                });
                out.push(u8::try_from(asns.len()).unwrap_or_default());
                for asn in asns {
                    write_asn(*asn, four_octet_as, out);
                }
            }
        }
    }

    /// RFC 7606 §7.2: malformed on an unknown segment type, an empty segment, or one that is cut short.
    /// RFC 7607 §2: and with AS 0 anywhere.
    ///
    /// Inlined: to hand the result over would cost more than to read it.
    #[inline(always)]
    pub(super) fn decode(value: &[u8], four_octet_as: bool) -> Result<AsPath, String> {
        let mut octets = Octets::new(value);
        let mut segments = SmallVec::new();
        while let Some(kind) = octets.u8() {
            let kind = match kind {
                1 => AsSegmentKind::Set,
                2 => AsSegmentKind::Sequence,
                other => return Err(format!("segment type {other}")),
            };
            let count = match octets.u8() {
                Some(0) => return Err("an empty segment".to_owned()),
                Some(count) => usize::from(count),
                None => return Err("one octet left over".to_owned()),
            };
            let numbers = octets.take(count * asn_size(four_octet_as)).ok_or("a segment is cut short")?;
            let asns: Few<u32> = if four_octet_as {
                numbers.as_chunks().0.iter().map(|octets| u32::from_be_bytes(*octets)).collect()
            } else {
                numbers.as_chunks().0.iter().map(|octets| u16::from_be_bytes(*octets).into()).collect()
            };
            if asns.contains(&0) {
                return Err("AS 0 in the path".to_owned());
            }
            segments.push(AsSegment { kind, asns });
        }
        Ok(AsPath { segments })
    }

    /// RFC 6793 §6: AS4_PATH is malformed like AS_PATH is, but confederation segments in it are just left out.
    pub(super) fn decode_as4(value: &[u8]) -> Result<AsPath, String> {
        let mut kept = Vec::new();
        let mut octets = Octets::new(value);
        while let Some(kind) = octets.u8() {
            let count = octets.u8().ok_or("one octet left over")?;
            let numbers = octets.take(usize::from(count) * 4).ok_or("a segment is cut short")?;
            if count == 0 {
                return Err("an empty segment".to_owned());
            }
            if !matches!(kind, 3 | 4) {
                kept.extend([kind, count]);
                kept.extend_from_slice(numbers);
            }
        }
        AsPath::decode(&kept, true)
    }

    /// RFC 6793 §4.2.3: AS4_PATH with as many leading hops of AS_PATH as it lacks; AS_PATH itself where it is the
    /// shorter one.
    pub(super) fn merge_as4(&self, as4: AsPath) -> AsPath {
        let Some(mut lacking) = self.hop_count().checked_sub(as4.hop_count()) else {
            return self.clone();
        };
        let mut segments: SmallVec<[AsSegment; 1]> = SmallVec::new();
        for segment in &self.segments {
            if lacking == 0 {
                break;
            }
            let asns = match segment.kind {
                AsSegmentKind::Set => segment.asns.clone(),
                AsSegmentKind::Sequence => segment.asns.iter().copied().take(lacking).collect(),
            };
            lacking -= segment.hop_count().min(lacking);
            segments.push(AsSegment { kind: segment.kind, asns });
        }
        for segment in as4.segments {
            match segments.last_mut() {
                Some(AsSegment { kind: AsSegmentKind::Sequence, asns })
                    if segment.kind == AsSegmentKind::Sequence
                        && asns.len() + segment.asns.len() <= MAX_SEGMENT_LEN =>
                {
                    asns.extend(segment.asns);
                }
                _ => segments.push(segment),
            }
        }
        AsPath { segments }
    }
}

impl AsSegment {
    fn hop_count(&self) -> usize {
        match self.kind {
            AsSegmentKind::Set => usize::from(!self.asns.is_empty()),
            AsSegmentKind::Sequence => self.asns.len(),
        }
    }
}

/// In two octets, AS_TRANS stands for what does not fit (RFC 6793 §4.2.2).
pub(super) fn write_asn(asn: u32, four_octet_as: bool, out: &mut Vec<u8>) {
    if four_octet_as {
        out.extend_from_slice(&asn.to_be_bytes());
    } else {
        out.extend_from_slice(&u16::try_from(asn).unwrap_or(AS_TRANS).to_be_bytes());
    }
}

/// Octets of one AS number.
pub(super) fn asn_size(four_octet_as: bool) -> usize {
    if four_octet_as { 4 } else { 2 }
}

/// As routers show it: `65001 65002 {64512,64513}`.
impl fmt::Display for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.segments.iter().enumerate() {
            let asns: Vec<String> = segment.asns.iter().map(u32::to_string).collect();
            let gap = if index == 0 { "" } else { " " };
            match segment.kind {
                AsSegmentKind::Sequence => write!(f, "{gap}{}", asns.join(" "))?,
                AsSegmentKind::Set => write!(f, "{gap}{{{}}}", asns.join(","))?,
            }
        }
        Ok(())
    }
}

impl FromStr for AsPath {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<AsPath, ParseError> {
        let error = || {
            ParseError::new("an AS path", text, "AS numbers and {sets}, as in \"65001 65002 {64512,64513}\"")
        };
        let number = |text: &str| text.parse::<u32>().ok().filter(|asn| *asn != 0).ok_or_else(error);
        let mut segments = SmallVec::new();
        let mut sequence = Vec::new();
        for word in text.split_whitespace() {
            match word.strip_prefix('{') {
                Some(set) => {
                    segments.extend(AsPath::sequence(sequence.drain(..)).segments);
                    let set = set.strip_suffix('}').ok_or_else(error)?;
                    let asns: Few<u32> = set.split(',').map(number).collect::<Result<_, _>>()?;
                    if asns.len() > MAX_SEGMENT_LEN {
                        return Err(error());
                    }
                    segments.push(AsSegment { kind: AsSegmentKind::Set, asns });
                }
                None => sequence.push(number(word)?),
            }
        }
        segments.extend(AsPath::sequence(sequence).segments);
        Ok(AsPath { segments })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> AsPath {
        text.parse().unwrap()
    }

    #[test]
    fn a_path_reads_as_it_is_shown() {
        for text in ["", "65001", "65001 4200000000", "65001 {64512,64513} 65002"] {
            assert_eq!(path(text).to_string(), text);
        }
        for text in ["0", "65001 {", "{}", "{1", "4294967296", "a"] {
            assert!(text.parse::<AsPath>().is_err(), "{text}");
        }
    }

    /// RFC 4271 §9.1.2.2 a.
    #[test]
    fn a_set_counts_as_one_hop() {
        assert_eq!(path("1 2 {3,4,5}").hop_count(), 3);
    }

    #[test]
    fn prepending_opens_a_new_segment_where_the_first_is_full_or_a_set() {
        let mut set = path("{3,4}");
        set.prepend(7, 2);
        assert_eq!(set.to_string(), "7 7 {3,4}");
        let mut long = AsPath::sequence(std::iter::repeat_n(1, 255));
        long.prepend(2, 1);
        assert_eq!(long.segments.len(), 2);
        assert_eq!(long.neighbor(), Some(2));
    }

    /// RFC 6793 §4.2.3.
    #[test]
    fn as4_path_replaces_the_tail_of_as_path() {
        let merged = |as_path: &str, as4: &str| path(as_path).merge_as4(path(as4)).to_string();
        assert_eq!(merged("65001 23456 23456", "4200000001 4200000002"), "65001 4200000001 4200000002");
        assert_eq!(merged("23456 {1,2}", "4200000001 {1,2}"), "4200000001 {1,2}");
        assert_eq!(merged("{7,8} 23456", "4200000001"), "{7,8} 4200000001");
        assert_eq!(merged("65001", "4200000001 4200000002"), "65001");
    }
}
