//! Health checks from afar: each server is asked as a client would ask it.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use anyvip_machine::Time;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::order::{Rotation, Server};
use crate::clock;
use crate::compare::flows::PORT;
use crate::compare::plan::Checks;

/// Who is in, shared by checks, operator and whoever acts on it.
#[derive(Clone)]
pub(super) struct Watched {
    pub(super) rotation: Rc<RefCell<Rotation>>,
    /// Rung at each change.
    pub(super) changed: Rc<Notify>,
}

impl Watched {
    pub(super) fn new(count: usize) -> Watched {
        Watched { rotation: Rc::new(RefCell::new(Rotation::new(count))), changed: Rc::new(Notify::new()) }
    }

    pub(super) fn ready(&self) -> Vec<usize> {
        self.rotation.borrow().ready()
    }

    pub(super) fn want(&self, server: usize, wanted: bool) {
        self.rotation.borrow_mut().set_wanted(server, wanted);
        self.changed.notify_one();
    }

    /// Checks every server from this moment on, until dropped.
    pub(super) fn check(&self, servers: &[Server], checks: Checks, begin: Time) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for (number, server) in servers.iter().enumerate() {
            tasks.spawn_local(watch(self.clone(), number, *server, checks, begin));
        }
        tasks
    }
}

async fn watch(watched: Watched, number: usize, server: Server, checks: Checks, begin: Time) {
    let (mut up, mut against) = (true, 0);
    let mut next = begin + server.phase;
    loop {
        sleep_until(next).await;
        // What was missed while this stood still is not made up for.
        next = (next + checks.interval).max(clock::now());
        if answers(server.address, checks.timeout).await == up {
            against = 0;
            continue;
        }
        against += 1;
        if against >= if up { checks.fall } else { checks.rise } {
            (up, against) = (!up, 0);
            watched.rotation.borrow_mut().set_well(number, up);
            watched.changed.notify_one();
        }
    }
}

async fn answers(address: Ipv4Addr, timeout: Duration) -> bool {
    let ask = async {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        socket.connect(SocketAddr::from((address, PORT))).await?;
        socket.send(b"well?").await?;
        socket.recv(&mut [0; 256]).await
    };
    matches!(tokio::time::timeout(timeout, ask).await, Ok(Ok(_)))
}

/// Sleeps by the clock of all processes.
pub(super) async fn sleep_until(at: Time) {
    let now = clock::now();
    if at > now {
        tokio::time::sleep(at.since(now)).await;
    }
}
