use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::Time;

/// The deadlines of many children, in order; each child has at most one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<(Time, K)>", into = "Vec<(Time, K)>", bound(serialize = "K: Ord + Clone + Serialize"))]
#[serde(bound(deserialize = "K: Ord + Clone + Deserialize<'de>"))]
pub struct Agenda<K> {
    by_time: BTreeSet<(Time, K)>,
    by_key: BTreeMap<K, Time>,
}

impl<K> Default for Agenda<K> {
    fn default() -> Self {
        Agenda { by_time: BTreeSet::new(), by_key: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Agenda<K> {
    /// An agenda with nothing on it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `key` at `deadline`, wherever it was before; `None` takes it off.
    pub fn set(&mut self, key: K, deadline: Option<Time>) {
        match (self.by_key.get_mut(&key), deadline) {
            (None, None) => {}
            (Some(known), Some(time)) if *known == time => {}
            (Some(known), Some(time)) => {
                let former = (std::mem::replace(known, time), key);
                self.by_time.remove(&former);
                self.by_time.insert((time, former.1));
            }
            (Some(known), None) => {
                let former = (*known, key);
                self.by_key.remove(&former.1);
                self.by_time.remove(&former);
            }
            (None, Some(time)) => {
                self.by_key.insert(key.clone(), time);
                self.by_time.insert((time, key));
            }
        }
    }

    /// The earliest deadline.
    pub fn first(&self) -> Option<Time> {
        self.by_time.first().map(|(time, _)| *time)
    }

    /// When `key` is due, if it is on the agenda.
    pub fn deadline(&self, key: &K) -> Option<Time> {
        self.by_key.get(key).copied()
    }

    /// Takes the first child that is due at `now` off the agenda. Call until `None`.
    pub fn due(&mut self, now: Time) -> Option<K> {
        if self.first()? > now {
            return None;
        }
        let (_, key) = self.by_time.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }

    /// How many children have a deadline.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether no child has a deadline.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

impl<K: Ord + Clone> From<Vec<(Time, K)>> for Agenda<K> {
    fn from(entries: Vec<(Time, K)>) -> Self {
        let mut agenda = Agenda::new();
        for (time, key) in entries {
            agenda.set(key, Some(time));
        }
        agenda
    }
}

impl<K: Ord + Clone> From<Agenda<K>> for Vec<(Time, K)> {
    fn from(agenda: Agenda<K>) -> Self {
        agenda.by_time.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_come_due_in_order_of_time_and_a_later_set_replaces_the_former() {
        let mut agenda = Agenda::new();
        agenda.set("b", Some(Time::from_secs(2)));
        agenda.set("a", Some(Time::from_secs(3)));
        agenda.set("c", Some(Time::from_secs(9)));
        agenda.set("a", Some(Time::from_secs(1)));
        agenda.set("c", None);
        assert_eq!(agenda.first(), Some(Time::from_secs(1)));
        assert_eq!(agenda.deadline(&"b"), Some(Time::from_secs(2)));
        assert_eq!(agenda.due(Time::from_millis(500)), None);
        assert_eq!(agenda.due(Time::from_secs(5)), Some("a"));
        assert_eq!(agenda.due(Time::from_secs(5)), Some("b"));
        assert_eq!(agenda.due(Time::from_secs(5)), None);
        assert!(agenda.is_empty());
    }

    #[test]
    fn an_agenda_survives_being_written_down() {
        let mut agenda = Agenda::new();
        agenda.set("x".to_owned(), Some(Time::from_secs(1)));
        let text = serde_json::to_string(&agenda).unwrap();
        let mut back: Agenda<String> = serde_json::from_str(&text).unwrap();
        assert_eq!(back, agenda);
        assert_eq!(back.due(Time::from_secs(1)), Some("x".to_owned()));
        assert_eq!(back.deadline(&"x".to_owned()), None);
    }
}
