//! What others can make us say, and how often: whoever reaches our port, or a peer that sends nonsense without end, must
//! neither fill the log nor push everything else out of the journal.

use std::collections::BTreeMap;
use std::time::Duration;

use anyvip_bgp::PeerName;
use anyvip_machine::Time;
use serde::{Deserialize, Serialize};

/// Notices of one source in a row.
const AT_ONCE: u32 = 5;
/// How long the count stands.
const WINDOW: Duration = Duration::from_secs(60);

/// Notices per peer; `None` are those who are no peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Notices(BTreeMap<Option<PeerName>, Window>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Window {
    began: Time,
    told: u32,
    kept_back: u64,
}

impl Notices {
    /// The words to be said now, if any: what was kept back is told of with the first notice after it.
    pub(crate) fn admit(&mut self, now: Time, source: Option<&PeerName>, text: String) -> Option<String> {
        let fresh = Window { began: now, told: 0, kept_back: 0 };
        let window = self.0.entry(source.cloned()).or_insert(fresh);
        let mut kept_back = 0;
        if now.since(window.began) >= WINDOW {
            kept_back = std::mem::take(&mut window.kept_back);
            (window.began, window.told) = (now, 0);
        }
        if window.told >= AT_ONCE {
            window.kept_back += 1;
            return None;
        }
        window.told += 1;
        Some(match (kept_back, window.told) {
            (0, AT_ONCE) => format!("{text} (more of these are only counted for a minute)"),
            (0, _) => text,
            (kept_back, _) => format!("{text} (and {kept_back} before that were not told)"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_five_times_and_then_counted_while_others_are_heard() {
        let mut notices = Notices::default();
        let tor1 = PeerName::from("tor1");
        let told = (0..200).filter_map(|n| notices.admit(Time::ZERO, None, format!("refused {n}")));
        let told: Vec<String> = told.collect();
        assert_eq!(told.len(), 5);
        assert_eq!(told[4], "refused 4 (more of these are only counted for a minute)");
        assert_eq!(notices.admit(Time::ZERO, Some(&tor1), "odd".into()).as_deref(), Some("odd"));
        assert_eq!(notices.admit(Time::from_secs(59), None, "again".into()), None);
        let after = notices.admit(Time::from_secs(60), None, "again".into());
        assert_eq!(after.as_deref(), Some("again (and 196 before that were not told)"));
        assert_eq!(notices.admit(Time::from_secs(61), None, "more".into()).as_deref(), Some("more"));
    }
}
