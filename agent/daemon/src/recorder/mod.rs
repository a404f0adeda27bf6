//! The flight recorder: everything the agent is given, in two files that take turns, so that `anyvip-sim replay` can live through
//! it again.
//!
//! The loop only encodes and hands over; a thread of its own writes. What finds no room ends the segment, is counted
//! and told, and a new segment begins with a fresh checkpoint as soon as there is room: recording never holds up the loop
//! and never ends the agent.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyvip_core::Agent;
use anyvip_core::boundary::{Action, Event};
use anyvip_core::recording::{self, End, Header};
use anyvip_core::status::Warning;
use anyvip_machine::Time;

mod segments;
#[cfg(test)]
mod tests;

use segments::Segments;

/// Events of one segment, in bytes.
pub(crate) const SEGMENT: usize = 32 << 20;
/// What may wait for the disk, in bytes.
const MOST_WAITING: usize = 4 << 20;
/// Many events cost one write.
const LINGER: Duration = Duration::from_millis(50);
/// Between two tries at a disk that refused.
const PAUSE: Duration = Duration::from_secs(10);
/// How long the end of the process waits for the last records.
const PATIENCE: Duration = Duration::from_millis(500);

/// The loop's end of it.
#[derive(Debug)]
pub(crate) struct Recorder {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// What the loop has encoded and not yet handed over.
    pending: Vec<u8>,
    scratch: Vec<u8>,
    /// Events of this process so far.
    count: u64,
    /// Bytes of events in this segment.
    size: usize,
    limit: usize,
    phase: Phase,
    /// As last told.
    trouble: Option<String>,
}

#[derive(Debug)]
enum Phase {
    Recording,
    /// Events are lost until a new segment begins.
    Gap {
        not_before: Time,
    },
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

/// What lies between the loop and the thread.
#[derive(Debug, Default)]
struct Queue {
    pieces: Vec<Piece>,
    /// Of `pieces`.
    bytes: usize,
    /// The thread sleeps until somebody wakes it.
    asleep: bool,
    /// The thread writes what it took.
    writing: bool,
    /// Write all, at once.
    hurry: bool,
    /// No more comes.
    over: bool,
    /// What the disk said; nothing is written until the next segment.
    failed: Option<String>,
    /// A segment has begun since this was last looked at.
    begun: bool,
}

/// What the loop learns when it hands over.
struct Exchange {
    failed: Option<String>,
    begun: bool,
    full: bool,
}

#[derive(Debug)]
enum Piece {
    Bytes(Vec<u8>),
    Segment(Box<(Header, Agent)>),
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits, not for ever, until everything is with the operating system.
    fn flush(&self, over: bool) {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            // Whoever panics may hold it.
            if let Ok(mut queue) = self.queue.try_lock() {
                queue.hurry = true;
                queue.over |= over;
                if queue.pieces.is_empty() && !queue.writing {
                    break;
                }
            }
            self.wake.notify_one();
            std::thread::sleep(Duration::from_millis(1));
        }
        self.wake.notify_one();
    }
}

impl Recorder {
    /// Records this agent from here on; `limit` bytes of events make a segment. A folder that cannot be used is told, as
    /// everything else: it never keeps an agent from running.
    pub(crate) fn begin(folder: &Path, limit: usize, agent: &Agent) -> Recorder {
        let shared = Arc::new(Shared::default());
        let (segments, theirs) = (Segments::new(folder), shared.clone());
        let thread = std::thread::Builder::new()
            .name("recorder".to_owned())
            .stack_size(512 * 1024)
            .spawn(move || run(&theirs, segments))
            .map_err(|error| shared.lock().failed = Some(format!("no thread can be made: {error}")))
            .ok();
        let mut recorder = Recorder {
            shared,
            thread,
            pending: Vec::new(),
            scratch: Vec::new(),
            count: 0,
            size: 0,
            limit,
            phase: Phase::Recording,
            trouble: None,
        };
        recorder.new_segment(agent);
        recorder.hand_over(Time::ZERO);
        tracing::info!("recording into {}", folder.display());
        recorder
    }

    /// From here on a panic writes what is known before the process ends: the event that brought it is the last one.
    pub(crate) fn outlive_panics(&self) {
        let shared = Arc::downgrade(&self.shared);
        let former = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if let Some(shared) = shared.upgrade()
                && std::thread::current().name() != Some("recorder")
            {
                shared.flush(false);
            }
            former(panic);
        }));
    }

    /// The agent is about to be given this.
    pub(crate) fn event(&mut self, now: Time, event: &Event) {
        self.count += 1;
        if matches!(self.phase, Phase::Recording) {
            let before = self.pending.len();
            match recording::event(&mut self.pending, now, event) {
                Ok(()) => self.size += self.pending.len() - before,
                Err(error) => self.lose(now, &format!("an event cannot be written down: {error}")),
            }
            self.hand_over(now);
        }
    }

    /// It has done this in answer.
    pub(crate) fn actions(&mut self, now: Time, actions: &[Action], agent: &Agent) {
        if matches!(self.phase, Phase::Recording) {
            let before = self.pending.len();
            match recording::actions(&mut self.pending, actions, &mut self.scratch) {
                Ok(()) => self.size += self.pending.len() - before,
                Err(error) => self.lose(now, &format!("actions cannot be written down: {error}")),
            }
            self.hand_over(now);
        }
        match self.phase {
            Phase::Recording if self.size >= self.limit => {
                let _ = recording::end(&mut self.pending, End::Full);
                self.new_segment(agent);
            }
            Phase::Gap { not_before } if now >= not_before && self.is_idle() => {
                self.new_segment(agent);
            }
            _ => return,
        }
        self.hand_over(now);
    }

    /// What works against whoever wanted a recording.
    pub(crate) fn warning(&self) -> Option<Warning> {
        let text = self.trouble.clone()?;
        Some(Warning { code: "not-recorded".to_owned(), text })
    }

    /// Writes what there is, within reason: this process may not come to its end.
    pub(crate) fn flush(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        self.shared.lock().push_bytes(pending);
        self.shared.flush(false);
    }

    /// The thread has written all it was given.
    fn is_idle(&self) -> bool {
        match self.shared.queue.try_lock() {
            Ok(queue) => queue.pieces.is_empty() && !queue.writing && !queue.over,
            Err(_) => false,
        }
    }

    /// A checkpoint takes its place behind what waits.
    fn new_segment(&mut self, agent: &Agent) {
        let header = Header::of(agent, env!("CARGO_PKG_VERSION"), self.count + 1);
        let mut queue = self.shared.lock();
        if !self.pending.is_empty() {
            queue.push_bytes(std::mem::take(&mut self.pending));
        }
        queue.pieces.push(Piece::Segment(Box::new((header, agent.clone()))));
        drop(queue);
        self.size = 0;
        self.phase = Phase::Recording;
    }

    /// Gives the thread what is pending; if it holds the queue at this very moment, next time.
    fn hand_over(&mut self, now: Time) {
        let Some(Exchange { failed, begun, full }) = self.exchange() else {
            if self.pending.len() > MOST_WAITING {
                self.lose(now, "the thread that writes stands still");
            }
            return;
        };
        if begun && self.trouble.take().is_some() {
            tracing::info!("recording again, from a new checkpoint on");
        }
        if let Some(text) = failed {
            self.lose(now + PAUSE, &text);
        } else if full {
            self.lose(now, "events come faster than they can be written");
        }
    }

    fn exchange(&mut self) -> Option<Exchange> {
        let mut queue = match self.shared.queue.try_lock() {
            Ok(queue) => queue,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let failed = queue.failed.take();
        let begun = std::mem::take(&mut queue.begun);
        let full = queue.bytes + self.pending.len() > MOST_WAITING;
        if full {
            self.pending.clear();
            // The word for an end can always be written.
            let _ = recording::end(&mut self.pending, End::Gap);
        }
        if failed.is_none() && !self.pending.is_empty() {
            queue.push_bytes(std::mem::take(&mut self.pending));
        }
        let wake = !queue.pieces.is_empty() && std::mem::take(&mut queue.asleep);
        drop(queue);
        if wake {
            self.shared.wake.notify_one();
        }
        Some(Exchange { failed, begun, full })
    }

    fn lose(&mut self, not_before: Time, why: &str) {
        self.pending.clear();
        self.phase = Phase::Gap { not_before };
        let text = format!("events are not recorded: {why}");
        // Told once, not at each try.
        if self.trouble.as_ref() != Some(&text) {
            tracing::warn!("{text}; a new segment begins as soon as it can");
        }
        self.trouble = Some(text);
    }
}

impl Queue {
    fn push_bytes(&mut self, more: Vec<u8>) {
        self.bytes += more.len();
        match self.pieces.last_mut() {
            Some(Piece::Bytes(bytes)) => bytes.extend(more),
            _ => self.pieces.push(Piece::Bytes(more)),
        }
    }
}

impl Drop for Recorder {
    /// The last records are written before the end, within reason.
    fn drop(&mut self) {
        if matches!(self.phase, Phase::Recording) {
            let _ = recording::end(&mut self.pending, End::Stopped);
            let pending = std::mem::take(&mut self.pending);
            self.shared.lock().push_bytes(pending);
        }
        self.shared.flush(true);
        // A thread whose disk is stuck is left behind and ends with the process.
        if let Some(thread) = self.thread.take().filter(JoinHandle::is_finished) {
            let _ = thread.join();
        }
    }
}

/// The thread: takes what is there, writes it, and lets more gather.
fn run(shared: &Shared, mut segments: Segments) {
    loop {
        let mut queue = shared.lock();
        while queue.pieces.is_empty() && !queue.over {
            queue.asleep = true;
            queue = shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.asleep = false;
        if queue.pieces.is_empty() {
            return;
        }
        let pieces = std::mem::take(&mut queue.pieces);
        queue.bytes = 0;
        queue.writing = true;
        drop(queue);
        for piece in pieces {
            let began = matches!(piece, Piece::Segment(_));
            let written = match piece {
                Piece::Bytes(bytes) => segments.append(&bytes),
                Piece::Segment(segment) => segments.open(&segment.0, &segment.1),
            };
            let mut queue = shared.lock();
            match written {
                Ok(()) => queue.begun |= began,
                Err(text) => queue.failed = Some(text),
            }
        }
        let mut queue = shared.lock();
        queue.writing = false;
        if !std::mem::take(&mut queue.hurry) {
            drop(shared.wake.wait_timeout(queue, LINGER));
        }
    }
}
