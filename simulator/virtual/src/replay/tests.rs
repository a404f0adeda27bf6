use anyvip_core::boundary::{ProbeId, ProbeOutcome, ProbeResult, Start};
use anyvip_core::config::{HostFacts, Source, load};
use anyvip_core::kernel::KernelView;
use anyvip_core::state::StoredStateRead;
use std::time::Duration;

use super::*;

fn agent() -> Agent {
    let text = "config_version = 1\nrouter_id = \"10.0.1.11\"\n[bgp]\nasn = 65011\n[bgp.peer.tor]\naddress = \"10.0.1.1\"\n\
        asn = 65001\n[service.web]\nvips = [\"192.0.2.80\"]\n[[service.web.check]]\ntcp = { port = 80 }\n";
    let source = Source { name: "file".to_owned(), text: text.to_owned() };
    let config = load(&[source], &HostFacts::default()).unwrap().config;
    let state = StoredStateRead::Absent;
    Agent::new(Start { config, state, boot_id: "boot".into(), wall_clock_ms: 0, seed: 7, inheritance: None })
}

fn story() -> Vec<(Time, Event)> {
    let outcome =
        ProbeOutcome { result: ProbeResult::Pass, latency: Duration::ZERO, detail: "fine".to_owned() };
    vec![
        (Time::ZERO, Event::Started),
        (Time::from_millis(1), Event::KernelView(KernelView::default())),
        (Time::from_millis(20), Event::ProbeFinished { probe: ProbeId(0), outcome }),
        (Time::from_secs(4), Event::DeadlineReached),
        (Time::from_secs(5), Event::Terminate),
    ]
}

/// The story as it would be recorded, with an event of its own choice at one place; the last `left_out` records missing.
fn recorded(lie_at: Option<usize>, left_out: usize) -> Vec<u8> {
    let mut live = agent();
    let mut records = Vec::new();
    for (number, (at, given)) in story().into_iter().enumerate() {
        let mut record = Vec::new();
        let written = if lie_at == Some(number) { Event::Terminate } else { given.clone() };
        recording::event(&mut record, at, &written).unwrap();
        records.push(std::mem::take(&mut record));
        recording::actions(&mut record, &live.handle(at, given), &mut Vec::new()).unwrap();
        records.push(record);
    }
    let mut end = Vec::new();
    recording::end(&mut end, End::Stopped).unwrap();
    records.push(end);
    records.truncate(records.len() - left_out);
    let start = agent();
    let opening = recording::open(&Header::of(&start, "0.0.0", 1), &start).unwrap();
    [opening, records.concat()].concat()
}

/// Plays to the end or to the first difference: how many were the same, and how it ended.
fn play(bytes: &[u8]) -> Result<(u64, Option<Upcoming>, Option<Over>), Unreadable> {
    let mut replay = Replay::begin(bytes)?;
    let mut same = 0;
    loop {
        match replay.upcoming()? {
            Next::Over(over) => return Ok((same, None, Some(over))),
            Next::Event(upcoming) => {
                if !replay.give((*upcoming).clone()).same {
                    return Ok((same, Some(*upcoming), None));
                }
                same += 1;
            }
        }
    }
}

#[test]
fn the_same_events_bring_the_same_actions() {
    assert_eq!(play(&recorded(None, 0)), Ok((5, None, Some(Over::Closed(End::Stopped)))));
}

#[test]
fn the_first_event_that_brings_something_else_is_named() {
    let (same, differs, _) = play(&recorded(Some(2), 0)).unwrap();
    let differs = differs.unwrap();
    assert_eq!((same, differs.number, differs.at), (2, 3, Time::from_millis(20)));
    assert_eq!(differs.event, Event::Terminate);
}

#[test]
fn the_event_that_an_agent_did_not_survive_is_played_too() {
    let bytes = recorded(None, 2);
    let mut replay = Replay::begin(&bytes).unwrap();
    for number in 1..=5 {
        let Next::Event(upcoming) = replay.upcoming().unwrap() else { panic!("{number}") };
        assert_eq!(upcoming.number, number);
        assert_eq!(upcoming.did.is_none(), number == 5);
        assert!(replay.give(*upcoming).same);
    }
    assert_eq!(replay.upcoming(), Ok(Next::Over(Over::Cut)));
}

#[test]
fn a_cut_file_is_played_to_the_cut_and_a_damaged_one_to_the_damage() {
    let bytes = recorded(None, 0);
    assert_eq!(play(&bytes[..bytes.len() - 3]), Ok((5, None, Some(Over::Cut))));
    let mut damaged = bytes.clone();
    let last = damaged.len() - 3;
    damaged[last] ^= 1;
    assert!(matches!(play(&damaged), Err(Unreadable::Damaged { .. })));
}

#[test]
fn every_event_and_action_is_one_line_of_words() {
    let mut live = agent();
    let mut lines = Vec::new();
    for (at, given) in story() {
        lines.push(event(&given));
        lines.extend(live.handle(at, given).iter().map(action));
    }
    assert!(lines.iter().all(|line| !line.contains('\n') && line.len() < 200), "{lines:#?}");
    for expected in [
        "started",
        "watch routes to 10.0.1.1",
        "connect to tor at 10.0.1.1 port 179 as connection 1",
        "probe 0: pass after 0ns: fine",
        "told to end",
    ] {
        assert!(lines.iter().any(|line| line == expected), "{expected} in {lines:#?}");
    }
}

#[test]
fn wall_clock_times_are_those_of_the_calendar() {
    assert_eq!(utc(0), "1970-01-01T00:00:00.000Z");
    assert_eq!(utc(1_709_210_096_789), "2024-02-29T12:34:56.789Z");
}
