//! `anyvip events`

use clap::Args;

use super::{DONE, Ended, Global, terminal};
use crate::journal::Entry;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Go on with what comes
    #[arg(short = 'f', long)]
    follow: bool,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(global: &Global, arguments: &Arguments) -> Ended {
    let query = if arguments.follow { "?follow" } else { "" };
    let mut events = global.client().events(query).await?;
    while let Some(entry) = events.next().await? {
        if !terminal::say_line(&line(&entry, arguments.json)) {
            break;
        }
    }
    DONE
}

fn line(entry: &Entry, json: bool) -> String {
    if json {
        return serde_json::to_string(entry).unwrap_or_default();
    }
    format!("{}  {}", anyvip_core::utc(entry.at_ms), entry.worded.text.replace('\n', "\n    "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wording;
    use anyvip_core::Fact;

    #[test]
    fn an_event_is_a_line_for_people_or_an_object_for_machines() {
        let worded =
            wording::fact(&Fact::AdminChanged { service: "dns".into(), drained: false, reason: None });
        let entry = Entry { number: 4, at_ms: 1_795_228_746_123, worded };
        assert_eq!(line(&entry, false), "2026-11-21T02:39:06.123Z  dns: put back by an operator");
        let value: serde_json::Value = serde_json::from_str(&line(&entry, true)).unwrap();
        assert_eq!((value["number"].as_u64(), value["kind"].as_str()), (Some(4), Some("admin_changed")));
        assert_eq!(value["service"], "dns");
    }
}
