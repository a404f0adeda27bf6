use std::time::Duration;

use super::*;
use crate::boundary::{ProbeId, ProbeOutcome, ProbeResult, Start};
use crate::state::StoredStateRead;

fn agent() -> Agent {
    let file = "config_version = 1\nrouter_id = \"10.0.1.11\"\n[bgp]\nasn = 65011\n[bgp.peer.tor]\naddress = \"10.0.1.1\"\n\
        asn = 65001\n[service.web]\nvips = [\"192.0.2.80\"]\n[[service.web.check]]\n\
        http = { port = 80, headers = { Authorization = \"Bearer hunter2\" } }\n";
    let source = crate::config::Source { name: "file".to_owned(), text: file.to_owned() };
    let config = crate::config::load(&[source], &crate::config::HostFacts::default()).unwrap().config;
    Agent::new(Start {
        config,
        state: StoredStateRead::Absent,
        boot_id: "boot".into(),
        wall_clock_ms: 9,
        seed: 7,
        inheritance: None,
    })
}

fn events() -> Vec<(Time, Event)> {
    let outcome = ProbeOutcome {
        result: ProbeResult::Fail,
        latency: Duration::from_micros(1500),
        detail: "connection refused".to_owned(),
    };
    let bytes = (0..=255).collect();
    let received = anyvip_bgp::Event::Received { connection: anyvip_bgp::ConnectionId::Accepted(3), bytes };
    let config = agent().config;
    let reload = crate::boundary::Command::Reload { config: Ok(Box::new(config)), keys: Vec::new() };
    vec![
        (Time::ZERO, Event::Started),
        (Time::from_millis(3), Event::ProbeFinished { probe: ProbeId(1), outcome }),
        (Time::from_millis(4), Event::Bgp(received)),
        (Time::from_millis(5), Event::Operator { request: crate::boundary::RequestId(1), command: reload }),
        (Time::from_secs(6), Event::DeadlineReached),
    ]
}

/// A segment with all events, and where each record begins.
fn segment() -> (Vec<u8>, Vec<usize>) {
    let mut live = agent();
    let mut out = open(&Header::of(&live, "1.2.3", 1), &live).unwrap();
    let mut starts = Vec::new();
    for (at, given) in events() {
        starts.push(out.len());
        event(&mut out, at, &given).unwrap();
        let done = live.handle(at, given);
        starts.push(out.len());
        actions(&mut out, &done, &mut Vec::new()).unwrap();
    }
    starts.push(out.len());
    end(&mut out, End::Stopped).unwrap();
    (out, starts)
}

fn read_all(bytes: &[u8]) -> Result<Vec<Record>, Unreadable> {
    let mut segment = Segment::read(bytes)?;
    segment.checkpoint()?;
    let mut records = Vec::new();
    while let Some(record) = segment.next_record()? {
        records.push(record);
    }
    Ok(records)
}

#[test]
fn what_is_read_is_what_was_written_and_a_restored_agent_does_the_same() {
    let (bytes, _) = segment();
    assert!(bytes.starts_with(b"anyvip recording 1\n"));
    let mut read = Segment::read(&bytes).unwrap();
    assert_eq!(*read.header(), Header::of(&agent(), "1.2.3", 1));
    let mut restored = read.checkpoint().unwrap();
    for (at, event) in events() {
        assert_eq!(read.next_record(), Ok(Some(Record::Event { at, event: event.clone() })));
        let hash = hash(&restored.handle(at, event)).unwrap();
        assert_eq!(read.next_record(), Ok(Some(Record::Actions { hash })));
    }
    assert_eq!(read.next_record(), Ok(Some(Record::End(End::Stopped))));
    assert_eq!(read.next_record(), Ok(None));
}

#[test]
fn no_secret_of_the_configuration_is_in_a_segment() {
    let (bytes, _) = segment();
    assert!(!bytes.windows(7).any(|part| part == b"hunter2"));
    assert!(bytes.windows(13).any(|part| part == b"Authorization"), "its name is");
}

#[test]
fn a_file_that_ends_anywhere_is_read_up_to_there_and_called_torn() {
    let (bytes, starts) = segment();
    let opening = "anyvip recording 1\n".len();
    for length in 1..bytes.len() {
        let whole =
            starts.iter().filter(|start| **start > *starts.first().unwrap() && **start <= length).count();
        match read_all(&bytes[..length]) {
            Ok(records) => {
                assert!(starts.contains(&length), "{length}");
                assert_eq!(records.len(), whole);
            }
            Err(Unreadable::Torn { offset }) => assert!(offset <= length && !starts.contains(&length)),
            Err(Unreadable::Foreign) => assert!(length < opening),
            Err(other) => panic!("{length}: {other}"),
        }
    }
    let mut hole = bytes.clone();
    hole.extend([0; 5000]);
    assert_eq!(read_all(&hole), Err(Unreadable::Torn { offset: bytes.len() }));
}

#[test]
fn a_changed_byte_is_found_in_the_record_that_holds_it() {
    let (bytes, mut starts) = segment();
    starts.push(bytes.len());
    for at in starts[0]..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        let record = *starts.iter().rfind(|start| **start <= at).unwrap();
        match read_all(&changed) {
            Err(Unreadable::Damaged { offset, .. }) => assert_eq!(offset, record, "byte {at}"),
            other => panic!("byte {at}: {other:?}"),
        }
    }
}

#[test]
fn what_is_not_ours_is_refused_by_name() {
    assert_eq!(read_all(b""), Err(Unreadable::Foreign));
    assert_eq!(read_all(b"\x7fELF and so on\n"), Err(Unreadable::Foreign));
    assert_eq!(read_all(b"anyvip recording 2\nwhatever"), Err(Unreadable::Format("2".to_owned())));
}

#[test]
fn a_record_of_another_version_is_named_with_what_it_misses() {
    let mut out = open(&Header::of(&agent(), "9.9.9", 1), &agent()).unwrap();
    let at = out.len();
    frame::append(&mut out, Kind::Event, &(Time::ZERO, "Slept")).unwrap();
    match read_all(&out) {
        Err(Unreadable::Garbled { offset, what: "event", error }) => {
            assert_eq!(offset, at);
            assert!(error.contains("Slept"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}
