//! What came of a plan under one design, counted alike for models and kernels.

use std::time::Duration;

use serde::Serialize;

use super::plan::{Design, Plan};

/// Where a cell of the table comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Source {
    /// Measured in network namespaces, in real time.
    Kernel,
    /// Played in virtual time.
    Model,
}

impl Source {
    /// How a cell says it.
    pub(crate) fn letter(self) -> char {
        match self {
            Source::Kernel => 'k',
            Source::Model => 'm',
        }
    }
}

/// What came of a design.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) design: String,
    pub(crate) about: String,
    /// Where its cells come from, each of them.
    pub(crate) by: Source,
    /// The same in words.
    pub(crate) how: String,
    pub(crate) asked: u64,
    /// No try was answered.
    pub(crate) lost: u64,
    /// Answered, but not at the first try.
    pub(crate) late: u64,
    /// From a happening to the last request that was lost or late because of it (before the next one): the longest of all.
    pub(crate) recover_ms: Option<u64>,
    pub(crate) connections: u64,
    /// Cut although their server was well.
    pub(crate) cut_needlessly: u64,
    /// Cut because their server was not.
    pub(crate) cut_with_server: u64,
    /// Requests and answers that went through a balancer, or a front.
    pub(crate) balancer_packets: u64,
    /// Packets that servers got and dropped, as they were another's: of designs that flood.
    pub(crate) flooded_packets: u64,
    /// The fullest server's share of what was answered before anything happened, against the mean, in permille.
    pub(crate) fullest_permille: u64,
    pub(crate) per_server: Vec<u64>,
    /// Of these, what was asked before anything happened.
    pub(crate) per_server_before: Vec<u64>,
    /// Lost or late by the second they were asked in.
    pub(crate) hurt_each_second: Vec<u64>,
    pub(crate) happenings: Vec<Hurt>,
    /// When anything happens first.
    #[serde(skip)]
    quiet_until: Option<Duration>,
}

/// What one happening cost.
#[derive(Debug, Serialize)]
pub(crate) struct Hurt {
    pub(crate) at_ms: u64,
    pub(crate) what: String,
    pub(crate) lost: u64,
    pub(crate) late: u64,
    pub(crate) cut: u64,
    /// Until the last request that was lost or late.
    pub(crate) recover_ms: Option<u64>,
}

impl Outcome {
    /// Nothing counted yet.
    pub(crate) fn new(plan: &Plan, design: &Design, by: Source, how: String) -> Outcome {
        let count = usize::from(plan.servers);
        let happening = |one: &super::plan::Happening| Hurt {
            at_ms: ms(one.at),
            what: one.what.to_string(),
            lost: 0,
            late: 0,
            cut: 0,
            recover_ms: None,
        };
        Outcome {
            design: design.name.clone(),
            about: design.to_string(),
            by,
            how,
            asked: 0,
            lost: 0,
            late: 0,
            recover_ms: None,
            connections: u64::from(plan.connections.count),
            cut_needlessly: 0,
            cut_with_server: 0,
            balancer_packets: 0,
            flooded_packets: 0,
            fullest_permille: 0,
            per_server: vec![0; count],
            per_server_before: vec![0; count],
            hurt_each_second: vec![0; usize::try_from(plan.duration.as_secs()).unwrap_or(0) + 1],
            happenings: plan.happens.iter().map(happening).collect(),
            quiet_until: plan.happens.first().map(|first| first.at),
        }
    }

    /// A request of this moment was answered by this server, after so many tries.
    pub(crate) fn answered(&mut self, asked: Duration, server: usize, tries: u32) {
        self.asked += 1;
        if let Some(count) = self.per_server.get_mut(server) {
            *count += 1;
        }
        let quiet = self.quiet_until.is_none_or(|first| asked < first);
        if let Some(count) = self.per_server_before.get_mut(server).filter(|_| quiet) {
            *count += 1;
        }
        if tries > 1 {
            self.late += 1;
            self.hurt(asked, |hurt| hurt.late += 1);
        }
    }

    /// A request of this moment was never answered.
    pub(crate) fn lost(&mut self, asked: Duration) {
        self.asked += 1;
        self.lost += 1;
        self.hurt(asked, |hurt| hurt.lost += 1);
    }

    /// Written down for the last thing that happened before this.
    fn hurt(&mut self, asked: Duration, write: impl FnOnce(&mut Hurt)) {
        let asked = ms(asked);
        if let Some(count) = self.hurt_each_second.get_mut(usize::try_from(asked / 1000).unwrap_or(0)) {
            *count += 1;
        }
        if let Some(hurt) = self.happenings.iter_mut().rev().find(|hurt| hurt.at_ms <= asked) {
            write(hurt);
            hurt.recover_ms = hurt.recover_ms.max(Some(asked - hurt.at_ms));
        }
    }

    /// A connection was cut at this moment; whether its server was well.
    pub(crate) fn cut(&mut self, at: Duration, well: bool) {
        *(if well { &mut self.cut_needlessly } else { &mut self.cut_with_server }) += 1;
        let at = ms(at);
        if let Some(hurt) = self.happenings.iter_mut().rev().find(|hurt| hurt.at_ms <= at) {
            hurt.cut += 1;
        }
    }

    /// What follows from what was counted.
    pub(crate) fn finish(mut self) -> Outcome {
        self.recover_ms = self.happenings.iter().filter_map(|hurt| hurt.recover_ms).max();
        let before = &self.per_server_before;
        let (sum, most) = (before.iter().sum(), before.iter().max().copied().unwrap_or(0));
        self.fullest_permille = (most * before.len() as u64 * 1000).checked_div(sum).unwrap_or(0);
        self
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
