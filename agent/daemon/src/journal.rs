//! What changed, in order: a bounded ring for `anyvip events`, and the one place that writes changes to the log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyvip_core::Fact;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::wording::{self, Weight, Worded};

/// Entries kept.
pub(crate) const KEPT: usize = 1000;
/// Bytes kept of a text.
const LONGEST: usize = 2048;
/// Entries a follower may lag behind before it is dropped.
const LAG: usize = 256;
/// Followers at the same time.
const FOLLOWERS: usize = 16;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Grows by one with each entry since the agent started.
    pub(crate) number: u64,
    /// Wall clock, ms since 1970.
    pub(crate) at_ms: u64,
    #[serde(flatten)]
    pub(crate) worded: Worded,
}

/// The ring and those who follow it.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    entries: VecDeque<Arc<Entry>>,
    next: u64,
    followers: Vec<Follower>,
}

#[derive(Debug)]
struct Follower {
    queue: mpsc::Sender<Arc<Entry>>,
    dropped: Arc<AtomicBool>,
}

/// The reading end of a follower.
#[derive(Debug)]
pub(crate) struct Following {
    pub(crate) queue: mpsc::Receiver<Arc<Entry>>,
    /// Set when the follower was too slow; the queue ends then.
    pub(crate) dropped: Arc<AtomicBool>,
}

impl Journal {
    /// Logs the fact, keeps it, tells the followers. Never waits.
    pub(crate) fn record(&mut self, at_ms: u64, fact: &Fact) {
        let mut worded = wording::fact(fact);
        log(&worded);
        shorten(&mut worded.text);
        if let Some(reason) = &mut worded.reason {
            shorten(reason);
        }
        let entry = Arc::new(Entry { number: self.next, at_ms, worded });
        self.next += 1;
        if self.entries.len() >= KEPT {
            self.entries.pop_front();
        }
        self.entries.push_back(entry.clone());
        self.followers.retain(|follower| match follower.queue.try_send(entry.clone()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(_)) => {
                follower.dropped.store(true, Ordering::Relaxed);
                tracing::info!("a follower of the events read too slowly and was dropped");
                false
            }
        });
    }

    /// What is kept, oldest first.
    pub(crate) fn entries(&self) -> Vec<Arc<Entry>> {
        self.entries.iter().cloned().collect()
    }

    /// What is kept, and what comes from here on; `None` when there are too many followers.
    pub(crate) fn follow(&mut self) -> Option<(Vec<Arc<Entry>>, Following)> {
        self.followers.retain(|follower| !follower.queue.is_closed());
        if self.followers.len() >= FOLLOWERS {
            return None;
        }
        let (queue, receiver) = mpsc::channel(LAG);
        let dropped = Arc::new(AtomicBool::new(false));
        self.followers.push(Follower { queue, dropped: dropped.clone() });
        Some((self.entries(), Following { queue: receiver, dropped }))
    }
}

/// The ring is bounded in bytes, too: what `validate` says of a large file, or a peer's shutdown text, may be long.
fn shorten(text: &mut String) {
    if text.len() > LONGEST {
        text.truncate(text.floor_char_boundary(LONGEST));
        text.push('…');
    }
}

fn log(worded: &Worded) {
    macro_rules! say {
        ($level:ident) => {
            tracing::$level!(
                kind = worded.kind,
                service = worded.service,
                check = worded.check,
                vip = worded.vip.map(tracing::field::display),
                peer = worded.peer,
                interface = worded.interface,
                from = worded.from,
                to = worded.to,
                reason = worded.reason,
                after_ms = worded.after_ms,
                "{}",
                worded.text
            )
        };
    }
    match worded.weight {
        Weight::Detail => say!(debug),
        Weight::Change => say!(info),
        Weight::Trouble => say!(warn),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(journal: &mut Journal, text: &str) {
        journal.record(1_000, &Fact::Lifecycle { text: text.to_owned() });
    }

    #[test]
    fn the_ring_forgets_the_oldest() {
        let mut journal = Journal::default();
        for number in 0..KEPT + 5 {
            say(&mut journal, &number.to_string());
        }
        let entries = journal.entries();
        assert_eq!(entries.len(), KEPT);
        assert_eq!(entries.first().map(|entry| entry.worded.text.as_str()), Some("5"));
        assert_eq!(entries.last().map(|entry| entry.number), Some(KEPT as u64 + 4));
    }

    #[test]
    fn a_long_text_is_kept_in_part() {
        let mut journal = Journal::default();
        say(&mut journal, &"ä".repeat(100_000));
        let entries = journal.entries();
        let text = &entries[0].worded.text;
        assert!(text.len() <= LONGEST + 3 && text.ends_with("ä…"), "{}", text.len());
    }

    #[tokio::test]
    async fn a_follower_gets_what_was_and_what_comes_without_a_gap() {
        let mut journal = Journal::default();
        say(&mut journal, "before");
        let (kept, mut following) = journal.follow().unwrap();
        say(&mut journal, "after");
        assert_eq!(kept.iter().map(|entry| entry.number).collect::<Vec<_>>(), [0]);
        assert_eq!(following.queue.recv().await.unwrap().number, 1);
    }

    #[tokio::test]
    async fn a_slow_follower_is_dropped_and_told_so_while_others_go_on() {
        let mut journal = Journal::default();
        let (_, mut slow) = journal.follow().unwrap();
        for _ in 0..=LAG {
            say(&mut journal, "x");
        }
        assert!(slow.dropped.load(Ordering::Relaxed));
        for _ in 0..LAG {
            assert!(slow.queue.recv().await.is_some());
        }
        assert!(slow.queue.recv().await.is_none(), "the queue ends after what fitted");
        assert!(journal.follow().is_some());
    }

    #[test]
    fn followers_are_limited_and_gone_ones_make_room() {
        let mut journal = Journal::default();
        let mut held: Vec<_> = (0..FOLLOWERS).map(|_| journal.follow().unwrap()).collect();
        assert!(journal.follow().is_none());
        held.pop();
        assert!(journal.follow().is_some());
    }
}
