//! All checks of all services: when they run, and what they make of each VIP.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use anyvip_machine::{Agenda, Seed, Time};
use serde::{Deserialize, Serialize};

use crate::boundary::{
    Action, CheckName, Fact, HealthState, ProbeId, ProbeOutcome, ProbeResult, ServiceName, Target,
};
use crate::config::{Check, OnError, Service};
use crate::health::{Change, HealthFsm};
use crate::restored::RestoredCheck;
use crate::schedule::{Due, Schedule};

/// What is kept of a probe's words, in bytes.
const LONGEST_DETAIL: usize = 240;

/// Probes in flight at once. What is due beyond that waits its turn here, where no guard runs: waiting is not failing.
pub(crate) const MOST_AT_ONCE: usize = 64;

/// Where a new check begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heritage {
    /// Where others stand that know the same addresses.
    Stands(HealthState),
    /// Where it stood this long ago, in a former process.
    Handed(HealthState, Duration),
}

/// One check against one target.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CheckRun {
    pub(crate) service: ServiceName,
    pub(crate) check: Check,
    pub(crate) target: Target,
    pub(crate) health: HealthFsm,
    schedule: Schedule,
    /// Since when its VIP has been away.
    away_since: Option<Time>,
}

/// Every [`CheckRun`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Checks {
    runs: BTreeMap<u64, CheckRun>,
    by_service: BTreeMap<ServiceName, Vec<u64>>,
    probes: BTreeMap<ProbeId, u64>,
    agenda: Agenda<u64>,
    /// Due, and waiting for one of the places.
    waiting: VecDeque<u64>,
    next_run: u64,
    next_probe: u64,
    seed: Seed,
    /// Probes that the driver never answered: each is a bug.
    pub(crate) unanswered: u64,
}

/// What all checks that gate one VIP say together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum VipHealth {
    /// All are up.
    Up,
    /// None is down, and these are not decided.
    Unknown(String),
    /// This one failed `fall` times.
    Down(String),
    /// This one could not be made `fall` times in a row, and `on_error = "fail"`.
    Error(String),
}

impl VipHealth {
    /// Without the words.
    pub(crate) fn state(&self) -> HealthState {
        match self {
            VipHealth::Up => HealthState::Up,
            VipHealth::Unknown(_) => HealthState::Unknown,
            VipHealth::Down(_) | VipHealth::Error(_) => HealthState::Down,
        }
    }
}

impl Checks {
    /// None yet.
    pub(crate) fn new(seed: Seed) -> Checks {
        Checks {
            runs: BTreeMap::new(),
            by_service: BTreeMap::new(),
            probes: BTreeMap::new(),
            agenda: Agenda::new(),
            waiting: VecDeque::new(),
            next_run: 0,
            next_probe: 0,
            seed,
            unanswered: 0,
        }
    }

    /// The checks that shall run from now on. A known one keeps its state; a new one begins in the state it inherits.
    pub(crate) fn configure(
        &mut self,
        now: Time,
        services: &BTreeMap<ServiceName, Service>,
        inherited: impl Fn(&ServiceName, &CheckName, Target) -> Heritage,
        out: &mut Vec<Action>,
    ) {
        let mut known: BTreeMap<(ServiceName, CheckName, Target), u64> = BTreeMap::new();
        for (id, run) in &self.runs {
            known.insert((run.service.clone(), run.check.name.clone(), run.target), *id);
        }
        self.by_service.clear();
        for (name, service) in services {
            for check in &service.checks {
                let targets: Vec<Target> = match check.on_vip {
                    true => service.vips.iter().map(|vip| Target::Vip(*vip)).collect(),
                    false => vec![Target::Own],
                };
                for target in targets {
                    let id = match known.remove(&(name.clone(), check.name.clone(), target)) {
                        Some(id) => {
                            self.edit(now, id, check, out);
                            id
                        }
                        None => self.begin(now, name, check, target, inherited(name, &check.name, target)),
                    };
                    self.by_service.entry(name.clone()).or_default().push(id);
                }
            }
        }
        for id in known.into_values() {
            self.cancel(id, out);
            self.runs.remove(&id);
            self.agenda.set(id, None);
        }
        self.start_waiting(now, out);
    }

    fn begin(
        &mut self,
        now: Time,
        service: &ServiceName,
        check: &Check,
        target: Target,
        heritage: Heritage,
    ) -> u64 {
        let id = self.next_run;
        self.next_run += 1;
        let seed = self.seed.child(&format!("{service} {} {target:?}", check.name));
        let mut schedule = Schedule::new(check.interval, check.timeout, seed);
        if target == Target::Own {
            schedule.begin(now);
        }
        self.agenda.set(id, schedule.deadline());
        let run = CheckRun {
            service: service.clone(),
            check: check.clone(),
            target,
            health: match heritage {
                Heritage::Stands(state) => HealthFsm::new(now, state, check.rise, check.fall),
                Heritage::Handed(state, age) => HealthFsm::inherit(now, state, age, check.rise, check.fall),
            },
            schedule,
            away_since: None,
        };
        self.runs.insert(id, run);
        id
    }

    fn edit(&mut self, now: Time, id: u64, check: &Check, out: &mut Vec<Action>) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        if run.check == *check {
            return;
        }
        let asks_else = run.check.kind != check.kind;
        if asks_else || (run.check.rise, run.check.fall) != (check.rise, check.fall) {
            run.health.retune(check.rise, check.fall);
        }
        run.schedule.retune(now, check.interval, check.timeout);
        run.check = check.clone();
        if asks_else
            && self.cancel(id, out)
            && let Some(run) = self.runs.get_mut(&id)
        {
            run.schedule.begin(now);
            self.agenda.set(id, run.schedule.deadline());
        } else if let Some(run) = self.runs.get(&id) {
            self.agenda.set(id, run.schedule.deadline());
        }
    }

    /// True if a probe ran.
    fn cancel(&mut self, id: u64, out: &mut Vec<Action>) -> bool {
        let Some(run) = self.runs.get_mut(&id) else { return false };
        let Some(probe) = run.schedule.in_flight() else { return false };
        run.schedule.pause();
        self.probes.remove(&probe);
        out.push(Action::CancelProbe { probe });
        true
    }

    /// A VIP came or went. Its checks pause while it is away: a probe would reach another server that has it. What was
    /// known is forgotten if that lasted longer than an interval. True if a gate may have changed.
    pub(crate) fn vip_is(&mut self, now: Time, vip: IpAddr, present: bool, out: &mut Vec<Action>) -> bool {
        let mut matters = false;
        let ids: Vec<u64> =
            self.runs.iter().filter(|(_, run)| run.target == Target::Vip(vip)).map(|(id, _)| *id).collect();
        for id in ids {
            if !present {
                self.cancel(id, out);
            }
            let Some(run) = self.runs.get_mut(&id) else { continue };
            if present && run.schedule.paused() {
                let away = run.away_since.take().map(|since| now.since(since));
                if away.is_some_and(|away| away > run.check.interval) {
                    let change = run.health.forget(now);
                    matters |= change.matters;
                    tell(run, &change, "the VIP was away", out);
                }
                run.schedule.begin(now);
            } else if !present {
                run.schedule.pause();
                run.away_since = run.away_since.or(Some(now));
            }
            self.agenda.set(id, run.schedule.deadline());
        }
        self.start_waiting(now, out);
        matters
    }

    /// Its next moment.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.agenda.first()
    }

    /// The process stood still until now: probes in flight had no chance to be answered.
    pub(crate) fn forgive(&mut self, now: Time) {
        for id in self.probes.values() {
            if let Some(run) = self.runs.get_mut(id) {
                run.schedule.forgive(now);
                self.agenda.set(*id, run.schedule.deadline());
            }
        }
    }

    /// Lets time act: starts what is due. True if a gate may have changed.
    pub(crate) fn expire(&mut self, now: Time, out: &mut Vec<Action>) -> bool {
        let mut matters = false;
        while let Some(id) = self.agenda.due(now) {
            let Some(run) = self.runs.get_mut(&id) else { continue };
            match run.schedule.due(now) {
                Some(Due::Start) => {
                    self.waiting.push_back(id);
                    continue;
                }
                Some(Due::Unanswered(probe)) => {
                    self.unanswered += 1;
                    out.push(Action::CancelProbe { probe });
                    let outcome = ProbeOutcome {
                        result: ProbeResult::Error,
                        latency: run.check.timeout,
                        detail: "the probe was never answered (a bug)".to_owned(),
                    };
                    matters |= self.judge(now, probe, outcome, out);
                    continue;
                }
                None => {}
            }
            if let Some(run) = self.runs.get(&id) {
                self.agenda.set(id, run.schedule.deadline());
            }
        }
        self.start_waiting(now, out);
        matters
    }

    /// A probe ended. True if a gate may have changed; stale ids change nothing.
    pub(crate) fn finished(
        &mut self,
        now: Time,
        probe: ProbeId,
        outcome: ProbeOutcome,
        out: &mut Vec<Action>,
    ) -> bool {
        let matters = self.judge(now, probe, outcome, out);
        self.start_waiting(now, out);
        matters
    }

    /// Gives free places to those that have waited longest.
    fn start_waiting(&mut self, now: Time, out: &mut Vec<Action>) {
        while self.probes.len() < MOST_AT_ONCE
            && let Some(id) = self.waiting.pop_front()
        {
            // It may have been paused, edited or removed meanwhile.
            let Some(run) = self.runs.get_mut(&id) else { continue };
            if run.schedule.due(now) != Some(Due::Start) {
                continue;
            }
            let probe = ProbeId(self.next_probe);
            self.next_probe += 1;
            run.schedule.started(now, probe);
            self.agenda.set(id, run.schedule.deadline());
            self.probes.insert(probe, id);
            out.push(Action::StartProbe {
                probe,
                service: run.service.clone(),
                check: run.check.name.clone(),
                target: run.target,
                kind: run.check.kind.clone(),
                timeout: run.check.timeout,
            });
        }
    }

    fn judge(&mut self, now: Time, probe: ProbeId, outcome: ProbeOutcome, out: &mut Vec<Action>) -> bool {
        let Some(id) = self.probes.remove(&probe) else { return false };
        let Some(run) = self.runs.get_mut(&id) else { return false };
        if !run.schedule.finished(now, probe) {
            return false;
        }
        self.agenda.set(id, run.schedule.deadline());
        let mut outcome = outcome;
        outcome.detail.truncate(outcome.detail.floor_char_boundary(LONGEST_DETAIL));
        let change = run.health.take(now, outcome);
        if change.state.is_some() || change.errors.is_some() {
            let detail = run.health.last().map_or("", |last| last.detail.as_str());
            tell(run, &change, detail, out);
        }
        change.matters
    }

    /// All checks of a service.
    pub(crate) fn of<'a>(&'a self, service: &ServiceName) -> impl Iterator<Item = &'a CheckRun> + use<'a> {
        self.by_service.get(service).into_iter().flatten().filter_map(|id| self.runs.get(id))
    }

    /// Whether any check of a service stands only where a former process left it.
    pub(crate) fn undecided(&self, service: &ServiceName) -> bool {
        self.of(service).any(|run| run.health.inherited(Time::ZERO).is_some())
    }

    /// Whether a former process left this service up.
    pub(crate) fn inherited_up(&self, service: &ServiceName) -> bool {
        self.undecided(service) && self.of(service).all(|run| run.health.state() == HealthState::Up)
    }

    /// Where the checks of a service stand, for a process that takes over.
    pub(crate) fn handed_down(&self, now: Time, service: &ServiceName) -> Vec<RestoredCheck> {
        let check = |run: &CheckRun| {
            let decided = run.health.state() != HealthState::Unknown;
            let age = run.health.heard(now).filter(|_| decided)?;
            Some(RestoredCheck {
                name: run.check.name.clone(),
                target: run.target,
                state: run.health.state(),
                age,
            })
        };
        self.of(service).filter_map(check).collect()
    }

    /// What the checks of a service say of one VIP: up if all are up, down if any is down.
    pub(crate) fn of_vip(&self, service: &ServiceName, vip: IpAddr, on_error: OnError) -> VipHealth {
        let mine =
            || self.of(service).filter(|run| run.target == Target::Own || run.target == Target::Vip(vip));
        let words = |run: &CheckRun| {
            let said = run.health.last().map_or("", |last| last.detail.as_str());
            format!("{}: {said}", run.check.name)
        };
        if let Some(run) = mine().find(|run| run.health.state() == HealthState::Down) {
            return VipHealth::Down(words(run));
        }
        if on_error == OnError::Fail
            && let Some(run) = mine().find(|run| run.health.failed_by_errors())
        {
            return VipHealth::Error(words(run));
        }
        let open: Vec<String> = mine()
            .filter(|run| run.health.state() == HealthState::Unknown)
            .map(|run| run.check.name.to_string())
            .collect();
        if open.is_empty() { VipHealth::Up } else { VipHealth::Unknown(open.join(", ")) }
    }
}

fn tell(run: &CheckRun, change: &Change, detail: &str, out: &mut Vec<Action>) {
    if let Some((from, to, after)) = change.state {
        out.push(Action::Record(Fact::CheckChanged {
            service: run.service.clone(),
            check: run.check.name.clone(),
            target: run.target,
            from,
            to,
            after: Duration::from_millis(u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
            detail: detail.to_owned(),
        }));
    }
    if let Some(began) = change.errors {
        out.push(Action::Record(Fact::CheckError {
            service: run.service.clone(),
            check: run.check.name.clone(),
            target: run.target,
            detail: began.then(|| detail.to_owned()),
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Announce, CheckKind, TcpCheck};

    fn services(count: u8) -> BTreeMap<ServiceName, Service> {
        let tcp = TcpCheck { address: None, port: 80, send: None, expect: None };
        let check = Check {
            name: "tcp".into(),
            kind: CheckKind::Tcp(tcp),
            on_vip: true,
            interval: Duration::from_secs(1),
            timeout: Duration::from_millis(500),
            rise: 1,
            fall: 1,
        };
        let service = Service {
            vips: (0..count).map(|n| IpAddr::from([192, 0, 2, n])).collect(),
            checks: vec![check],
            peers: std::collections::BTreeSet::new(),
            statics: std::collections::BTreeSet::new(),
            announce: Announce::default(),
            on_failure: crate::config::OnFailure::Withdraw,
            drain_time: Duration::ZERO,
            on_error: OnError::Hold,
        };
        BTreeMap::from([("web".into(), service)])
    }

    fn started(out: &mut Vec<Action>) -> Vec<ProbeId> {
        let ids = out.drain(..).filter_map(|action| match action {
            Action::StartProbe { probe, .. } => Some(probe),
            _ => None,
        });
        ids.collect()
    }

    #[test]
    fn at_most_64_probes_run_and_those_that_wait_are_neither_guarded_nor_forgotten() {
        let (mut checks, mut out) = (Checks::new(Seed::new(1)), Vec::new());
        let services = services(200);
        checks.configure(Time::ZERO, &services, |_, _, _| Heritage::Stands(HealthState::Unknown), &mut out);
        for vip in &services.values().next().unwrap().vips {
            checks.vip_is(Time::ZERO, *vip, true, &mut out);
        }
        let now = Time::from_secs(1);
        checks.expire(now, &mut out);
        let mut running = started(&mut out);
        assert_eq!(running.len(), MOST_AT_ONCE);
        assert!(checks.deadline().unwrap() > now, "progress: those that wait are not due");

        // Each probe that ends makes room for one, long after the guard of a waiting one would have run out.
        let mut total = running.len();
        for step in 0..136 {
            let now = now + Duration::from_millis(20 * step);
            let probe = running.remove(0);
            let outcome =
                ProbeOutcome { result: ProbeResult::Fail, latency: Duration::ZERO, detail: String::new() };
            checks.finished(now, probe, outcome, &mut out);
            let more = started(&mut out);
            assert_eq!(more.len(), 1);
            total += more.len();
            running.extend(more);
        }
        assert_eq!(total, 200, "everyone had its turn");
        assert_eq!(checks.unanswered, 0);
    }
}
