use std::path::PathBuf;

use anyvip_core::boundary::{ProbeId, ProbeOutcome, ProbeResult, Start};
use anyvip_core::config::{HostFacts, Source, load};
use anyvip_core::recording::{Record, Segment, Unreadable};
use anyvip_core::state::StoredStateRead;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn agent() -> Agent {
    let text = "config_version = 1\nrouter_id = \"10.0.1.11\"\n[bgp]\nasn = 65011\n[bgp.peer.tor]\naddress = \"10.0.1.1\"\n\
        asn = 65001\n[service.web]\nvips = [\"192.0.2.80\"]\n[[service.web.check]]\ntcp = { port = 80 }\n";
    let source = Source { name: "file".to_owned(), text: text.to_owned() };
    let config = load(&[source], &HostFacts::default()).unwrap().config;
    let state = StoredStateRead::Absent;
    Agent::new(Start { config, state, boot_id: "boot".into(), wall_clock_ms: 0, seed: 7, inheritance: None })
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("anyvip-recorder-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

/// An agent and its recorder, as the driver has them.
struct Flight {
    agent: Agent,
    recorder: Recorder,
    now: Time,
}

impl Flight {
    fn begin(folder: &Path, limit: usize) -> Flight {
        let agent = agent();
        let recorder = Recorder::begin(folder, limit, &agent);
        let mut flight = Flight { agent, recorder, now: Time::ZERO };
        flight.give(Event::Started);
        flight
    }

    fn give(&mut self, event: Event) {
        self.recorder.event(self.now, &event);
        let actions = self.agent.handle(self.now, event);
        self.recorder.actions(self.now, &actions, &self.agent);
    }

    fn events(&mut self, count: u64, words: usize) {
        for _ in 0..count {
            self.now += Duration::from_millis(10);
            let detail = "x".repeat(words);
            let outcome = ProbeOutcome { result: ProbeResult::Fail, latency: Duration::ZERO, detail };
            self.give(Event::ProbeFinished { probe: ProbeId(0), outcome });
        }
    }

    /// Until the thread has written all.
    fn settle(&self) {
        let until = Instant::now() + Duration::from_secs(20);
        while !self.recorder.is_idle() {
            assert!(Instant::now() < until, "the thread does not end its work");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Plays a file: numbers of its first and last event, and its end.
fn play(file: &Path) -> (u64, u64, Option<End>) {
    let bytes = std::fs::read(file).unwrap();
    let mut segment = Segment::read(&bytes).unwrap();
    let first = segment.header().first;
    let mut agent = segment.checkpoint().unwrap();
    let (mut number, mut done) = (first, Vec::new());
    loop {
        match segment.next_record() {
            Ok(Some(Record::Event { at, event })) => {
                done = agent.handle(at, event);
                number += 1;
            }
            Ok(Some(Record::Actions { hash })) => {
                assert_eq!(recording::hash(&done), Ok(hash), "event {number}")
            }
            Ok(Some(Record::End(end))) => return (first, number - 1, Some(end)),
            Ok(None) | Err(Unreadable::Torn { .. }) => return (first, number - 1, None),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn two_segments_take_turns_and_each_replays_alone() {
    let folder = folder("turns");
    let mut flight = Flight::begin(&folder, 8_000);
    for _ in 0..20 {
        flight.events(20, 10);
        flight.settle();
    }
    drop(flight);
    let (one, two) = (folder.join("anyvip-0.recording"), folder.join("anyvip-1.recording"));
    let (one_size, two_size) = (one.metadata().unwrap().len(), two.metadata().unwrap().len());
    assert!(one_size < 30_000 && two_size < 30_000, "the older one is overwritten: {one_size} {two_size}");
    let mut both = [play(&one), play(&two)];
    both.sort_by_key(|(first, ..)| *first);
    let [(first, last, end), (next, newest, newest_end)] = both;
    assert!(first > 1, "more than two segments were written");
    assert_eq!((last + 1, end), (next, Some(End::Full)), "no gap between the two");
    assert_eq!((newest, newest_end), (401, Some(End::Stopped)));
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&one), mode(&two)), (0o700, 0o600, 0o600));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_new_process_leaves_the_newest_segment_of_the_one_before() {
    let folder = folder("next");
    let mut flight = Flight::begin(&folder, 8_000);
    flight.events(100, 10);
    drop(flight);
    let newest =
        ["anyvip-0.recording", "anyvip-1.recording"].map(|name| std::fs::read(folder.join(name)).unwrap());
    drop(Flight::begin(&folder, 8_000));
    let left = ["anyvip-0.recording", "anyvip-1.recording"]
        .iter()
        .zip(&newest)
        .filter(|(name, before)| std::fs::read(folder.join(name)).unwrap() == **before)
        .map(|(name, _)| play(&folder.join(name)));
    assert_eq!(left.map(|(_, last, _)| last).collect::<Vec<_>>(), [101]);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_disk_that_stands_still_stops_nobody_and_the_gap_is_told_and_bridged() {
    let folder = folder("stuck");
    let mut flight = Flight::begin(&folder, SEGMENT);
    flight.settle();
    // The thread cannot take anything while this is held; the loop must go on all the same, and keep little.
    let shared = flight.recorder.shared.clone();
    let held = shared.lock();
    flight.events(2_000, 200);
    drop(held);
    assert_eq!(flight.recorder.warning(), None, "what waits is within bounds");
    // Now the thread is made to look busy, with all that may wait before it.
    flight.settle();
    flight.recorder.shared.lock().bytes = MOST_WAITING;
    flight.events(1, 10);
    assert_eq!(flight.recorder.warning().unwrap().code, "not-recorded");
    flight.settle();
    flight.events(3, 10);
    flight.settle();
    flight.events(1, 10);
    assert_eq!(flight.recorder.warning(), None);
    drop(flight);
    assert_eq!(play(&folder.join("anyvip-0.recording")).2, Some(End::Gap));
    let (first, last, end) = play(&folder.join("anyvip-1.recording"));
    assert!(first > 2_000 && last == 2_006 && end == Some(End::Stopped), "{first} {last} {end:?}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_folder_that_cannot_be_used_is_told_and_tried_again_every_ten_seconds() {
    let folder = folder("refused");
    std::fs::write(&folder, "a file").unwrap();
    let mut flight = Flight::begin(&folder, SEGMENT);
    flight.settle();
    flight.events(2, 10);
    let warning = flight.recorder.warning().expect("told");
    assert!(warning.text.contains("cannot"), "{}", warning.text);
    std::fs::remove_file(&folder).unwrap();
    flight.events(100, 10);
    assert!(!folder.exists(), "not before the pause is over");
    flight.now += PAUSE;
    flight.events(1, 10);
    flight.settle();
    flight.events(5, 10);
    assert_eq!(flight.recorder.warning(), None);
    drop(flight);
    let (first, last, end) = play(&folder.join("anyvip-0.recording"));
    assert!(first > 100 && last == 109 && end == Some(End::Stopped), "{first} {last} {end:?}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_panic_writes_the_event_that_brought_it_before_the_process_is_gone() {
    let folder = folder("panic");
    let mut flight = Flight::begin(&folder, SEGMENT);
    flight.recorder.outlive_panics();
    flight.events(1, 10);
    flight.settle();
    // The thread has just written and lets more gather; this event does not come back.
    flight.recorder.event(flight.now, &Event::Terminate);
    let died =
        std::thread::Builder::new().name("dies".to_owned()).spawn(|| panic!("on purpose")).unwrap().join();
    assert!(died.is_err());
    let (_, last, end) = play(&folder.join("anyvip-0.recording"));
    assert_eq!((last, end), (3, None), "it is in the file while the recorder still lives");
    drop(flight);
    std::fs::remove_dir_all(&folder).unwrap();
}
