//! BFD sessions on a thread of their own, with a loop of their own: a busy main loop, a large reload or a thousand checks do not
//! make a neighbour believe that this host is dead.
//!
//! Two messages are all that passes between the threads: down, what is wanted (latest wins); up, what happened ([`Heard`]).
//! Without a session the thread sleeps.

mod receivers;
mod senders;
#[cfg(test)]
mod tests;
mod thread;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc as mailbox;
use std::thread::JoinHandle;

use anyvip_bfd::{Fact, Former, SessionConfig, SessionName, SessionTable};
use anyvip_machine::{Failure, Seed, Time};
use tokio::sync::{mpsc, oneshot};

use crate::Clock;
use crate::failure::failed;

/// Reports that may wait for whoever listens; beyond that, the newest of each session do.
const MOST_WAITING: usize = 4096;

/// The thread. Dropped, it lets every session say goodbye once, and ends.
#[derive(Debug)]
pub struct Thread {
    orders: Option<mailbox::Sender<Order>>,
    /// Writing a byte wakes the thread.
    wake: UnixStream,
    worker: Option<JoinHandle<()>>,
}

/// What the thread is told.
#[derive(Debug)]
enum Order {
    Wanted(Wanted),
    /// Answer with what a program that takes over needs.
    HandOver(oneshot::Sender<BTreeMap<SessionName, Former>>),
}

/// All sessions that there shall be, and until when that counts.
#[derive(Debug)]
struct Wanted {
    sessions: BTreeMap<SessionName, SessionConfig>,
    lease: Option<Time>,
}

/// What the thread reports.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// Whether it runs before all others; told once, at the start. Without CAP_SYS_NICE it takes turns like every thread.
    RealTime(Result<(), Failure>),
    /// A port cannot be listened on (another BFD daemon has it), or, with `None`, it can.
    Listening { port: u16, failure: Option<Failure> },
    /// From the sessions.
    Fact(Fact),
}

impl Thread {
    /// Starts it in the network namespace of the calling thread, and gives the end that its reports come out of. The clock
    /// is the one that leases are counted by.
    ///
    /// # Errors
    /// When descriptors or threads have run out.
    pub fn start(clock: Clock, seed: Seed) -> Result<(Thread, mpsc::Receiver<Heard>), Failure> {
        Thread::take_over(clock, seed, BTreeMap::new())
    }

    /// The same, going on with sessions of the program that this process was before.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn take_over(
        clock: Clock,
        seed: Seed,
        former: BTreeMap<SessionName, Former>,
    ) -> Result<(Thread, mpsc::Receiver<Heard>), Failure> {
        let start = || -> io::Result<(Thread, mpsc::Receiver<Heard>)> {
            let (wake, woken) = UnixStream::pair()?;
            wake.set_nonblocking(true)?;
            woken.set_nonblocking(true)?;
            let (sender, orders) = mailbox::channel();
            let (reports, heard) = mpsc::channel(MOST_WAITING);
            let looped =
                thread::Loop::new(clock, SessionTable::taking_over(seed, former), orders, woken, reports);
            let builder = std::thread::Builder::new().name("bfd".to_owned());
            let worker = builder.spawn(move || looped.run())?;
            Ok((Thread { orders: Some(sender), wake, worker: Some(worker) }, heard))
        };
        start().map_err(|error| failed("cannot start the BFD thread", &error))
    }

    /// These sessions and no others from now on, until the lease ends. Never waits.
    pub fn want(&self, sessions: BTreeMap<SessionName, SessionConfig>, lease: Option<Time>) {
        self.order(Order::Wanted(Wanted { sessions, lease }));
    }

    /// What a program that takes over from this one needs to go on with the sessions that are Up. They go on here, too.
    pub fn hand_over(&self) -> oneshot::Receiver<BTreeMap<SessionName, Former>> {
        let (answer, handed) = oneshot::channel();
        self.order(Order::HandOver(answer));
        handed
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders
            && orders.send(order).is_ok()
        {
            // A full buffer means that a wake-up is under way.
            let _ = (&self.wake).write(&[1]);
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.orders = None;
        let _ = (&self.wake).write(&[1]);
        if let Some(worker) = self.worker.take() {
            // It sends one packet a session and is gone; what it panicked about, it has said.
            let _ = worker.join();
        }
    }
}
