//! The thread that runs the BFD sessions, as the loop sees it: started when the first session is wanted, told what is wanted,
//! listened to.

use std::collections::{BTreeMap, VecDeque};

use anyvip_bfd::{Former, SessionConfig, SessionName};
use anyvip_core::status::Warning;
use anyvip_io::bfd::{Heard, Thread};
use anyvip_io::clock::{Clock, wall_clock_millis};
use anyvip_machine::{Seed, Time};
use tokio::sync::{mpsc, oneshot};

/// See the module's text.
pub(crate) struct Bfd {
    clock: Clock,
    running: Option<Running>,
    /// Why it could not be started; tried again at the next wish.
    refused: Option<String>,
    /// Ports that cannot be listened on, and why.
    deaf: BTreeMap<u16, String>,
    /// Sessions of the program that this process was before.
    former: BTreeMap<SessionName, Former>,
}

struct Running {
    thread: Thread,
    heard: mpsc::Receiver<Heard>,
}

impl Bfd {
    pub(crate) fn new(clock: Clock, former: BTreeMap<SessionName, Former>) -> Bfd {
        Bfd { clock, running: None, refused: None, deaf: BTreeMap::new(), former }
    }

    /// What a program that takes over needs to go on with the sessions; `None` without any.
    pub(crate) fn hand_over(&self) -> Option<oneshot::Receiver<BTreeMap<SessionName, Former>>> {
        self.running.as_ref().map(|running| running.thread.hand_over())
    }

    /// Hands over what is wanted. A text is news for the operator.
    pub(crate) fn want(
        &mut self,
        sessions: BTreeMap<SessionName, SessionConfig>,
        lease: Option<Time>,
    ) -> Option<String> {
        if self.running.is_none() && !sessions.is_empty() {
            // Sequence numbers and discriminators of two lives of one host must differ.
            let seed = wall_clock_millis().rotate_left(20) ^ u64::from(std::process::id());
            match Thread::take_over(self.clock, Seed::new(seed), std::mem::take(&mut self.former)) {
                Ok((thread, heard)) => {
                    self.running = Some(Running { thread, heard });
                    self.refused = None;
                }
                Err(failure) => {
                    let news = self.refused.as_ref() != Some(&failure.text);
                    self.refused = Some(failure.text.clone());
                    return news.then_some(failure.text);
                }
            }
        }
        if let Some(running) = &self.running {
            running.thread.want(sessions, lease);
        }
        None
    }

    /// The next report; never ends without sessions.
    pub(crate) async fn next(&mut self) -> Heard {
        if let Some(running) = &mut self.running
            && let Some(heard) = running.heard.recv().await
        {
            return heard;
        }
        // A thread that ended would be a bug; the next wish starts another.
        self.running = None;
        std::future::pending().await
    }

    /// What has been reported already.
    pub(crate) fn drain(&mut self) -> VecDeque<Heard> {
        let heard = self.running.as_mut().map(|running| &mut running.heard);
        heard.map(|heard| std::iter::from_fn(|| heard.try_recv().ok()).collect()).unwrap_or_default()
    }

    /// Keeps what concerns the thread itself. A text is news for the operator.
    pub(crate) fn note(&mut self, heard: &Heard) -> Option<String> {
        match heard {
            Heard::Fact(_) | Heard::RealTime(Ok(())) => None,
            Heard::RealTime(Err(failure)) => {
                tracing::info!("{failure}; with CAP_SYS_NICE it would go first");
                None
            }
            Heard::Listening { port, failure: None } => {
                self.deaf.remove(port);
                Some(format!("BFD: listening on UDP port {port}"))
            }
            Heard::Listening { port, failure: Some(failure) } => {
                self.deaf.insert(*port, failure.text.clone());
                Some(format!("BFD: {failure}"))
            }
        }
    }

    pub(crate) fn warnings(&self) -> Vec<Warning> {
        let deaf = self.deaf.values().map(|text| {
            let text = format!("{text}: no BFD session comes up; does another BFD daemon run here?");
            Warning { code: "bfd-not-listening".to_owned(), text }
        });
        let refused = self
            .refused
            .iter()
            .map(|text| Warning { code: "bfd-not-running".to_owned(), text: text.clone() });
        deaf.chain(refused).collect()
    }
}
