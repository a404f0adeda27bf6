//! What a reload would change: two effective files, compared key by key and classed by the key table.

use std::collections::BTreeSet;
use std::fmt;

use anyvip_bgp::PeerName;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::document::join;
use super::keys::{Class, class_of, holds_names};
use super::{Config, show};
use crate::boundary::ServiceName;

/// One key that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Path of the key; of the whole table where a peer, service or check comes or goes.
    pub key: String,
    /// What it does to what is announced.
    pub class: Class,
    /// Peers whose sessions or routes are concerned; none for [`Class::Live`].
    pub peers: BTreeSet<PeerName>,
    /// As in the effective file; `None`: it was not there.
    pub from: Option<String>,
    /// As in the effective file; `None`: it goes.
    pub to: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.from, &self.to) {
            (Some(from), Some(to)) => write!(f, "{}: {from} -> {to}", self.key)?,
            (None, Some(to)) if to.is_empty() => write!(f, "{}: added", self.key)?,
            (None, Some(to)) => write!(f, "{}: added, {to}", self.key)?,
            _ => write!(f, "{}: removed", self.key)?,
        }
        let effect = match self.class {
            _ if self.peers.is_empty() => return Ok(()),
            Class::Live => return Ok(()),
            Class::Readvertise => "routes told again to",
            Class::ResetSession => "session reset with",
        };
        let peers: Vec<&str> = self.peers.iter().map(|peer| peer.0.as_str()).collect();
        write!(f, " ({effect} {})", peers.join(", "))
    }
}

/// Every key whose effective value differs: sessions first, then routes, then the rest.
#[must_use]
pub fn diff(old: &Config, new: &Config) -> Vec<Change> {
    let mut changes = Vec::new();
    compare(&show::digested(old), &show::digested(new), &mut Vec::new(), &mut |path, from, to| {
        let class = class_of(path);
        changes.push(Change {
            key: path.iter().fold(String::new(), |joined, word| join(&joined, word)),
            class,
            peers: peers_concerned(path, class, old, new),
            from: from.map(text),
            to: to.map(text),
        });
    });
    // The sort is stable: keys stay in order within a class.
    changes.sort_by_key(|change| std::cmp::Reverse(change.class));
    changes
}

type Report<'r> = dyn FnMut(&[&str], Option<&Value>, Option<&Value>) + 'r;

fn compare<'a>(old: &'a Table, new: &'a Table, path: &mut Vec<&'a str>, report: &mut Report<'_>) {
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for key in keys {
        let by_name = holds_names(path);
        path.push(key);
        match (old.get(key), new.get(key)) {
            (Some(Value::Table(old)), Some(Value::Table(new))) => compare(old, new, path, report),
            (from, to) if from == to => {}
            // A peer, service or check that comes or goes is one change; other tables are compared key by key.
            (Some(Value::Table(old)), None) if !by_name => {
                compare(old, &Table::new(), &mut path.clone(), report)
            }
            (None, Some(Value::Table(new))) if !by_name => {
                compare(&Table::new(), new, &mut path.clone(), report)
            }
            (from, to) => report(path, from, to),
        }
        path.pop();
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Table(_) => String::new(),
        Value::Array(items) if items.iter().any(Value::is_table) => match items.len() {
            1 => "1 check".to_owned(),
            count => format!("{count} checks"),
        },
        value => value.to_string(),
    }
}

fn peers_concerned(path: &[&str], class: Class, old: &Config, new: &Config) -> BTreeSet<PeerName> {
    let all = || old.bgp.peers.keys().chain(new.bgp.peers.keys()).cloned().collect();
    match path {
        _ if class == Class::Live => BTreeSet::new(),
        ["bgp", "peer", name, ..] => BTreeSet::from([PeerName::from(*name)]),
        ["service", name, key @ ..] => {
            let name = ServiceName::from(*name);
            let told = |config: &Config| {
                config.services.get(&name).map(|service| service.peers.clone()).unwrap_or_default()
            };
            let (old, new) = (told(old), told(new));
            if key == ["peers"] { &old ^ &new } else { &old | &new }
        }
        _ => all(),
    }
}
