//! How a router puts several next hops into its kernel.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::duration;

/// The most slots: what Linux takes in one route.
const MOST_SLOTS: u16 = 1024;

/// How next hops are installed. Written `plain`, `group`, `resilient:BUCKETS,IDLE,UNBALANCED` or `slots:N`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Install {
    /// A multipath route, as FRR and BIRD make it.
    Plain,
    /// A hash-threshold next-hop group.
    #[default]
    Group,
    /// A resilient next-hop group.
    Resilient {
        /// So many buckets.
        buckets: u16,
        /// A bucket unused for so long may move to another member.
        idle: Duration,
        /// A table out of balance for so long is balanced by moving busy buckets too; zero: never.
        unbalanced: Duration,
    },
    /// Consistent hashing without any state in the kernel: so many equal next hops, each neighbour named many times.
    Slots(u16),
}

impl FromStr for Install {
    type Err = String;

    fn from_str(text: &str) -> Result<Install, String> {
        let bad = |why: String| format!("`{text}`: {why}");
        let (name, rest) = match text.split_once(':') {
            Some((name, rest)) => (name, Some(rest)),
            None => (text, None),
        };
        let number = |word: &str, most: u16| match word.trim().parse::<u16>() {
            Ok(number) if (1..=most).contains(&number) => Ok(number),
            _ => Err(bad(format!("a number from 1 to {most} is wanted, not `{word}`"))),
        };
        match (name, rest) {
            ("plain", None) => Ok(Install::Plain),
            ("group", None) => Ok(Install::Group),
            ("slots", None) => Ok(Install::Slots(256)),
            ("slots", Some(slots)) => Ok(Install::Slots(number(slots, MOST_SLOTS)?)),
            ("resilient", rest) => {
                let words: Vec<&str> = rest.into_iter().flat_map(|rest| rest.split(',')).collect();
                if words.len() > 3 {
                    return Err(bad("`resilient:BUCKETS,IDLE,UNBALANCED` is all there is".to_owned()));
                }
                let time = |at: usize, default: Duration| match words.get(at) {
                    Some(word) => duration::parse(word).map_err(&bad),
                    None => Ok(default),
                };
                // The kernel's own defaults, but for the number of buckets, which has none.
                Ok(Install::Resilient {
                    buckets: words.first().map_or(Ok(128), |word| number(word, u16::MAX))?,
                    idle: time(1, Duration::from_secs(120))?,
                    unbalanced: time(2, Duration::ZERO)?,
                })
            }
            ("plain" | "group", Some(_)) => Err(bad("nothing may follow here".to_owned())),
            _ => Err(bad(
                "there are plain, group, resilient[:BUCKETS[,IDLE[,UNBALANCED]]], slots[:N]".to_owned()
            )),
        }
    }
}

impl fmt::Display for Install {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Install::Plain => f.write_str("plain"),
            Install::Group => f.write_str("group"),
            Install::Resilient { buckets, idle, unbalanced } => {
                write!(f, "resilient:{buckets},{}ms,{}ms", idle.as_millis(), unbalanced.as_millis())
            }
            Install::Slots(slots) => write!(f, "slots:{slots}"),
        }
    }
}

impl From<Install> for String {
    fn from(install: Install) -> String {
        install.to_string()
    }
}

impl TryFrom<String> for Install {
    type Error = String;

    fn try_from(text: String) -> Result<Install, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_install_reads_back_as_it_is_written_and_may_be_short() {
        let resilient = |buckets, idle, unbalanced| Install::Resilient {
            buckets,
            idle: Duration::from_secs(idle),
            unbalanced: Duration::from_secs(unbalanced),
        };
        for (text, install) in [
            ("plain", Install::Plain),
            ("group", Install::Group),
            ("slots", Install::Slots(256)),
            ("slots:64", Install::Slots(64)),
            ("resilient", resilient(128, 120, 0)),
            ("resilient:1000", resilient(1000, 120, 0)),
            ("resilient:128,0s", resilient(128, 0, 0)),
            ("resilient:128, 2s, 1m", resilient(128, 2, 60)),
        ] {
            assert_eq!(text.parse(), Ok(install), "{text}");
            assert_eq!(install.to_string().parse(), Ok(install));
        }
    }

    #[test]
    fn a_word_that_is_no_install_is_refused_with_the_reason() {
        for bad in [
            "",
            "ecmp",
            "plain:3",
            "slots:0",
            "slots:1025",
            "resilient:0",
            "resilient:8,2",
            "resilient:1,2s,3s,4s",
        ] {
            let error = bad.parse::<Install>().unwrap_err();
            assert!(error.contains(&format!("`{bad}`")) || error.contains("no duration"), "{error}");
        }
    }
}
