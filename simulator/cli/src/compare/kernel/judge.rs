//! From what clients and balancers tell to what came of each design.

use std::collections::BTreeMap;
use std::time::Duration;

use anyvip_machine::Time;

use super::client::{Connection, Told};
use super::lab;
use super::order::{Brought, Task};
use super::stage::{Stage, State};
use crate::compare::outcome::{Outcome, Source};
use crate::compare::plan::Kind;
use crate::control::{Answer, Order};

impl Stage<'_> {
    /// What came of each design, and the latest that its requests were asked after their time.
    pub(super) async fn finish(
        &mut self,
        begin: Time,
    ) -> Result<BTreeMap<usize, (Outcome, Duration)>, String> {
        let told = self.all(|design, _| vec![(lab::node(design, "client"), Task::Finish)]).await?;
        let mut outcomes = BTreeMap::new();
        let designs = self.designs;
        for (design, (_, answer)) in designs.iter().copied().zip(told) {
            let Answer::Compare(Brought::Told(told)) = answer else {
                return Err("clients reported nothing".to_owned());
            };
            let mut packets = 0;
            if matches!(self.kind(design), Some(Kind::Balancer { .. })) {
                let count = |name| (lab::node(design, name), Order::Compare(Task::Count));
                for (_, answer) in self.order(vec![count("lb1"), count("lb2")]).await? {
                    if let Answer::Compare(Brought::Packets(more)) = answer {
                        packets += more;
                    }
                }
            }
            let behind = told.behind;
            if let Some(outcome) = self.judge(design, begin, told, packets) {
                outcomes.insert(design, (outcome, behind));
            }
        }
        Ok(outcomes)
    }

    fn judge(&self, number: usize, begin: Time, told: Told, packets: u64) -> Option<Outcome> {
        let design = self.design(number)?;
        let mut outcome = Outcome::new(self.plan, design, Source::Kernel, how(&design.kind));
        for request in &told.requests {
            let asked = Duration::from_micros(request.asked_us);
            match request.server {
                Some(server) => outcome.answered(asked, server.into(), request.tries),
                None => outcome.lost(asked),
            }
        }
        for connection in &told.connections {
            if let Some(cut) = connection.cut {
                outcome.cut(cut.since(begin.min(cut)), self.was_well(number, connection, cut));
            }
        }
        outcome.balancer_packets = packets;
        Some(outcome.finish())
    }

    /// Whether the server of a connection served all the time from its last answer to the cut.
    fn was_well(&self, design: usize, connection: &Connection, cut: Time) -> bool {
        let Some(truth) = self.truth.get(&(design, connection.server.into())) else { return true };
        let mut last = State::Serving;
        for (at, state) in truth {
            if *at > cut {
                break;
            }
            if *at > connection.answered && *state != State::Serving {
                return false;
            }
            last = *state;
        }
        last == State::Serving
    }
}

/// Which parts of the kernel, and of ours, were measured.
fn how(kind: &Kind) -> String {
    let what = match kind {
        Kind::Anycast { .. } => "the agent, the embedded router, the kernel's multipath",
        Kind::Dns => "a name server and resolvers of ours",
        Kind::Balancer { dsr: false, sync: false, .. } => "nftables, dnat and connection tracking",
        Kind::Balancer { dsr: false, sync: true, .. } => {
            "nftables, dnat and connection tracking; the standby is stood for by the balancer itself after its silence"
        }
        Kind::Balancer { dsr: true, sync: true, .. } => {
            "nftables, fwd with a map of flows; the standby is stood for by the balancer itself after its silence"
        }
        Kind::Balancer { dsr: true, table: true, .. } => "nftables, fwd with a map of flows",
        Kind::Balancer { dsr: true, table: false, .. } => "nftables, fwd by jhash",
        Kind::Flooding { .. } | Kind::Redirect { .. } => "nothing; only the model plays it",
    };
    format!("measured in namespaces: {what}")
}
