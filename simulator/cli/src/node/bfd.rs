//! BFD beside the embedded router: what fails ends the session that it guards.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use anyvip_bfd::{Fact, Hops, Path, Role, SessionConfig, SessionName, State, Wish};
use anyvip_bgp::PeerName;
use anyvip_io::Clock;
use anyvip_io::bfd::{Heard, Thread};
use anyvip_machine::Seed;
use tokio::sync::mpsc;

use super::router::Told;

/// Sessions begin slowly (RFC 5880 §6.8.3: a packet a second until Up).
const PATIENCE: Duration = Duration::from_secs(15);

/// The sessions of one router, until dropped.
pub(super) struct Guard {
    _thread: Thread,
    task: tokio::task::JoinHandle<()>,
}

impl Guard {
    /// Begins, and waits until all are Up.
    pub(super) async fn start(
        peers: &[(String, IpAddr)],
        interval: Duration,
        multiplier: u8,
        router: mpsc::UnboundedSender<Told>,
    ) -> Result<Guard, String> {
        let session = |address: IpAddr| SessionConfig {
            path: Path { remote: address, local: None, interface: None, hops: Hops::Single },
            role: Role::Active,
            wish: Wish::Up,
            carries_health: false,
            desired_min_tx: interval,
            required_min_rx: interval,
            multiplier,
            authentication: None,
        };
        // Discriminators need not be secret here, only different.
        let seed = Seed::new(u64::from(std::process::id())).child("bfd");
        let (thread, mut heard) =
            Thread::start(Clock::start(), seed).map_err(|failure| failure.to_string())?;
        let sessions: BTreeMap<SessionName, SessionConfig> =
            peers.iter().map(|(peer, address)| (SessionName(peer.clone()), session(*address))).collect();
        let mut missing: BTreeSet<SessionName> = sessions.keys().cloned().collect();
        thread.want(sessions, None);
        let all = async {
            while !missing.is_empty() {
                match heard.recv().await {
                    Some(Heard::Fact(Fact::StateChanged(change))) if change.to == State::Up => {
                        missing.remove(&change.session);
                    }
                    Some(Heard::Listening { port, failure: Some(failure) }) => {
                        return Err(format!("BFD on port {port}: {failure}"));
                    }
                    Some(_) => {}
                    None => return Err("the BFD thread ended".to_owned()),
                }
            }
            Ok(())
        };
        let waited = tokio::time::timeout(PATIENCE, all).await;
        waited.unwrap_or_else(|_| Err(format!("BFD is not Up after {PATIENCE:?}")))?;
        let task = tokio::task::spawn_local(async move {
            while let Some(heard) = heard.recv().await {
                if let Heard::Fact(Fact::StateChanged(change)) = heard
                    && change.is_failure()
                {
                    let peer = PeerName(change.session.0);
                    let _ = router.send(Told::PathDown(peer));
                }
            }
        });
        Ok(Guard { _thread: thread, task })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.task.abort();
    }
}
