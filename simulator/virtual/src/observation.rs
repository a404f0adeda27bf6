//! What was seen while a scenario ran, and what expectations make of it. Times are nanoseconds of one clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use anyvip_machine::Time;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::lab::NodeName;
use crate::prediction::Agreement;
use crate::scenario::Expectation;

/// One question on one flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Source port: the flow.
    pub port: u16,
    /// When it was sent.
    pub at: Time,
    /// What came of it.
    pub outcome: Outcome,
    /// Microseconds from the question to the answer, where both have their time: not in virtual labs.
    #[serde(default)]
    pub latency_us: Option<u32>,
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// This server answered.
    Server(NodeName),
    /// Nobody answered in time.
    Silent,
    /// Refused, by ICMP or a reset.
    Refused,
}

/// The flows of one measurement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flows {
    /// Every question, in the order of sending.
    pub asks: Vec<Ask>,
}

/// A connection that was kept open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Source port.
    pub port: u16,
    /// Who accepted it; `None` if nobody did.
    pub server: Option<NodeName>,
    /// How and when it ended before it was released.
    pub end: Option<(Time, End)>,
}

/// How a held connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// The server closed it in order.
    Closed,
    /// It was reset.
    Reset,
    /// No answer in time.
    Stalled,
}

/// The kernel of a router changed its mind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteChange {
    /// Which router.
    pub router: NodeName,
    /// Which prefix.
    pub prefix: IpNet,
    /// Where to, from now on, sorted; empty when the route is gone.
    pub next_hops: Vec<IpAddr>,
    /// When.
    pub at: Time,
}

/// Everything that was seen so far.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// Measurements of flows, by name, with the service address asked.
    pub flows: BTreeMap<String, (IpAddr, Flows)>,
    /// Held connections, by name.
    pub held: BTreeMap<String, Vec<Held>>,
    /// Who answered an ARP request, as hardware addresses, by name.
    pub answers: BTreeMap<String, Vec<String>>,
    /// Changes of kernel routes, oldest first.
    pub routes: Vec<RouteChange>,
    /// What the twin of the kernel says of a measurement of flows.
    pub agreements: BTreeMap<String, Agreement>,
    /// Source ports of held connections that the twin sends to another server at the end than at the beginning.
    pub rerouted: BTreeMap<String, BTreeSet<u16>>,
}

/// What an expectation came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether it was met.
    pub met: bool,
    /// What was expected and what was seen, in one line.
    pub text: String,
}

impl Flows {
    /// Answers per server.
    pub fn per_server(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for ask in &self.asks {
            if let Outcome::Server(server) = &ask.outcome {
                *counts.entry(server.as_str()).or_insert(0) += 1;
            }
        }
        counts
    }

    /// Questions without an answer.
    pub fn lost(&self) -> impl Iterator<Item = &Ask> {
        self.asks.iter().filter(|ask| !matches!(ask.outcome, Outcome::Server(_)))
    }

    /// The server of each flow, by its last answer.
    pub fn server_of(&self) -> BTreeMap<u16, &str> {
        let mut servers = BTreeMap::new();
        for ask in &self.asks {
            if let Outcome::Server(server) = &ask.outcome {
                servers.insert(ask.port, server.as_str());
            }
        }
        servers
    }

    /// Of the flows answered in both measurements: how many have another server now, how many there are, and the
    /// same among those whose former server still answers somebody.
    pub fn moved_since(&self, before: &Flows) -> Moved {
        let (now, then) = (self.server_of(), before.server_of());
        let alive: BTreeSet<&str> = now.values().copied().collect();
        let mut moved = Moved::default();
        for (port, server) in &now {
            let Some(former) = then.get(port) else { continue };
            moved.flows += 1;
            moved.moved += usize::from(former != server);
            if alive.contains(former) {
                moved.of_survivors += 1;
                moved.moved_of_survivors += usize::from(former != server);
            }
        }
        moved
    }
}

/// Flows compared between two measurements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Flows answered in both.
    pub flows: usize,
    /// Those with another server.
    pub moved: usize,
    /// Flows whose former server still answers.
    pub of_survivors: usize,
    /// Those with another server although their own is still there.
    pub moved_of_survivors: usize,
}

/// A share in tenths of a percent, rounded half up; nothing of nothing is nothing.
pub fn permille(part: usize, whole: usize) -> usize {
    (part * 2000 + whole).checked_div(2 * whole).unwrap_or(0)
}

/// `33.3 %`.
pub fn percent(part: usize, whole: usize) -> String {
    let permille = permille(part, whole);
    format!("{}.{} %", permille / 10, permille % 10)
}

/// `18.4`
fn tenths(permille: u32) -> String {
    format!("{}.{}", permille / 10, permille % 10)
}

impl Observation {
    /// Judges what can be judged by what was seen; `None` for a condition, which only the moment can answer.
    pub fn judge(&self, expectation: &Expectation) -> Option<Verdict> {
        let none = Flows::default();
        let flows = |name: &str| self.flows.get(name).map_or(&none, |(_, flows)| flows);
        let (met, text) = match expectation {
            Expectation::Holds(_) => return None,
            Expectation::Spread { of, points } => spread(of, flows(of), *points),
            Expectation::Lost { of, at_most } => {
                let (lost, all) = (flows(of).lost().count(), flows(of).asks.len());
                let met = lost as u64 <= *at_most && all > 0;
                (met, format!("{of}: {lost} of {all} flows lost (at most {at_most})"))
            }
            Expectation::LostOnlyOf { of, server, before } => {
                let former = flows(before).server_of();
                let (mut own, mut others) = (0, 0);
                for ask in flows(of).lost() {
                    match former.get(&ask.port) {
                        Some(former) if former == server => own += 1,
                        _ => others += 1,
                    }
                }
                let met = others == 0 && !flows(of).asks.is_empty();
                (met, format!("{of}: {own} lost that were {server}'s, {others} of other servers (none)"))
            }
            Expectation::LostAfterRouteChange { of, at_most } => self.lost_after_change(of, *at_most),
            Expectation::SameServer { of, before, percent: wanted } => {
                let moved = flows(of).moved_since(flows(before));
                let same = moved.flows - moved.moved;
                let met = moved.flows > 0 && same * 100 >= moved.flows * *wanted as usize;
                let share = percent(same, moved.flows);
                (
                    met,
                    format!(
                        "{of}: {same} of {} flows have the server of {before}, {share} (at least {wanted} %)",
                        moved.flows
                    ),
                )
            }
            Expectation::Moved { of, before, at_most } => {
                let moved = flows(of).moved_since(flows(before));
                let met = moved.of_survivors > 0
                    && moved.moved_of_survivors * 100 <= moved.of_survivors * *at_most as usize;
                (
                    met,
                    format!(
                        "{of}: {} of the {} flows whose server is still there moved since {before}, {} (at most {at_most} %)",
                        moved.moved_of_survivors,
                        moved.of_survivors,
                        percent(moved.moved_of_survivors, moved.of_survivors)
                    ),
                )
            }
            Expectation::MovedShare { of, before, permille: wanted, slack } => {
                let moved = flows(of).moved_since(flows(before));
                let share = permille(moved.moved_of_survivors, moved.of_survivors) as u32;
                let met = moved.of_survivors > 0 && share.abs_diff(*wanted) <= *slack;
                (
                    met,
                    format!(
                        "{of}: {} of the {} flows whose server is still there moved since {before}, {} ({} % give or take {} points)",
                        moved.moved_of_survivors,
                        moved.of_survivors,
                        percent(moved.moved_of_survivors, moved.of_survivors),
                        tenths(*wanted),
                        tenths(*slack)
                    ),
                )
            }
            Expectation::Predicted { of } => {
                let none = Agreement::default();
                let Agreement { compared, equal, unknown, first_difference } =
                    self.agreements.get(of).unwrap_or(&none);
                let met = *compared > 0 && compared == equal && unknown.is_empty();
                let mut text =
                    format!("{of}: {equal} of {compared} answered flows went where the twin says (all)");
                if let Some((port, predicted, seen)) = first_difference {
                    text.push_str(&format!("; port {port} should have gone to {predicted}, went to {seen}"));
                }
                for why in unknown {
                    text.push_str(&format!("; not predictable: {why}"));
                }
                (met, text)
            }
            Expectation::Shares { of, shares, slack } => {
                let counts = flows(of).per_server();
                let all: usize = counts.values().sum();
                let near = |(server, wanted): (&NodeName, &u32)| {
                    let share = permille(counts.get(server.as_str()).copied().unwrap_or(0), all) as u32;
                    share.abs_diff(*wanted) <= *slack
                };
                let known = counts.keys().all(|server| shares.contains_key(*server));
                let met = all > 0 && known && shares.iter().all(near);
                let seen: Vec<String> = counts
                    .iter()
                    .map(|(server, count)| format!("{server} {}", percent(*count, all)))
                    .collect();
                let wanted: Vec<String> =
                    shares.iter().map(|(server, share)| format!("{server} {} %", tenths(*share))).collect();
                (
                    met,
                    format!(
                        "{of}: {} ({}, give or take {} points)",
                        seen.join(", "),
                        wanted.join(", "),
                        tenths(*slack)
                    ),
                )
            }
            Expectation::LostFor { of, at_most } => {
                let mut times = flows(of).lost().map(|ask| ask.at);
                let first = times.next();
                let lasted = first.map_or(Duration::ZERO, |first| times.last().unwrap_or(first).since(first));
                let met = lasted <= *at_most && !flows(of).asks.is_empty();
                let (lasted, at_most) = (lasted.as_millis(), at_most.as_millis());
                (met, format!("{of}: questions were lost for {lasted} ms (at most {at_most} ms)"))
            }
            Expectation::Servers { of, servers } => {
                let seen: BTreeSet<&str> = flows(of).per_server().into_keys().collect();
                let wanted: BTreeSet<&str> = servers.iter().map(String::as_str).collect();
                (seen == wanted, format!("{of}: answered by {} (just {})", list(&seen), list(&wanted)))
            }
            Expectation::ServerCount { of, count } => {
                let seen = flows(of).per_server().len();
                (
                    seen == *count,
                    format!(
                        "{of}: {seen} server{} answered (just {count})",
                        if seen == 1 { "" } else { "s" }
                    ),
                )
            }
            Expectation::Cut { of, at_most } => {
                let held = self.held.get(of).map_or(&[][..], Vec::as_slice);
                let cut = held.iter().filter(|held| held.end.is_some() || held.server.is_none()).count();
                let met = cut as u64 <= *at_most && !held.is_empty();
                (met, format!("{of}: {cut} of {} connections cut (at most {at_most})", held.len()))
            }
            Expectation::CutAtLeast { of, at_least } => {
                let held = self.held.get(of).map_or(&[][..], Vec::as_slice);
                let cut = held.iter().filter(|held| held.end.is_some()).count();
                (
                    cut as u64 >= *at_least,
                    format!("{of}: {cut} of {} connections cut (at least {at_least})", held.len()),
                )
            }
            Expectation::Stalled { of, at_most } => {
                let held = self.held.get(of).map_or(&[][..], Vec::as_slice);
                let stalled = held.iter().filter(|held| matches!(held.end, Some((_, End::Stalled)))).count();
                let met = stalled as u64 <= *at_most && !held.is_empty();
                (met, format!("{of}: {stalled} of {} connections stalled (at most {at_most})", held.len()))
            }
            Expectation::CutAsPredicted { of } => self.cut_as_predicted(of),
            Expectation::CutOfOthers { of, server, at_most } => {
                let held = self.held.get(of).map_or(&[][..], Vec::as_slice);
                let others: Vec<&Held> =
                    held.iter().filter(|held| held.server.as_ref() != Some(server)).collect();
                let cut = others.iter().filter(|held| held.end.is_some()).count();
                let met = cut as u64 <= *at_most && !others.is_empty();
                (
                    met,
                    format!(
                        "{of}: {cut} of the {} connections of servers other than {server} cut (at most {at_most})",
                        others.len()
                    ),
                )
            }
            Expectation::Answers { of, answers } => {
                let seen = self.answers.get(of).map_or(0, Vec::len);
                (seen == *answers, format!("{of}: {seen} stations answered (just {answers})"))
            }
        };
        Some(Verdict { met, text })
    }

    fn cut_as_predicted(&self, of: &str) -> (bool, String) {
        let held = self.held.get(of).map_or(&[][..], Vec::as_slice);
        let none = BTreeSet::new();
        let predicted = self.rerouted.get(of);
        let rerouted = predicted.unwrap_or(&none);
        let cut: BTreeSet<u16> =
            held.iter().filter(|held| held.end.is_some()).map(|held| held.port).collect();
        let met = predicted.is_some() && !held.is_empty() && cut == *rerouted;
        let both = cut.intersection(rerouted).count();
        let text = format!(
            "{of}: {} of {} connections cut; the twin sends {} of them to another server, {both} are the same (all)",
            cut.len(),
            held.len(),
            rerouted.len()
        );
        (met, text)
    }

    fn lost_after_change(&self, of: &str, at_most: u64) -> (bool, String) {
        let Some((to, flows)) = self.flows.get(of) else { return (false, format!("{of}: not measured")) };
        let (Some(first), Some(last)) = (flows.asks.first(), flows.asks.last()) else {
            return (false, format!("{of}: nothing asked"));
        };
        let change = self
            .routes
            .iter()
            .rev()
            .find(|change| change.prefix.addr() == *to && (first.at..=last.at).contains(&change.at));
        let Some(change) = change else {
            return (false, format!("{of}: no route to {to} changed meanwhile"));
        };
        let after = flows.lost().filter(|ask| ask.at > change.at).count();
        (
            after as u64 <= at_most,
            format!("{of}: {after} lost of those asked after the route had changed (at most {at_most})"),
        )
    }
}

fn spread(of: &str, flows: &Flows, points: u32) -> (bool, String) {
    let counts = flows.per_server();
    let all: usize = counts.values().sum();
    if counts.is_empty() {
        return (false, format!("{of}: nobody answered"));
    }
    let fair = 1000 / counts.len();
    let shares: Vec<usize> = counts.values().map(|count| permille(*count, all)).collect();
    let (least, most) =
        (shares.iter().min().copied().unwrap_or(0), shares.iter().max().copied().unwrap_or(0));
    let slack = points as usize * 10;
    let met = least + slack >= fair && most <= fair + 1 + slack;
    let text = format!(
        "{of}: {} servers took {}.{} to {}.{} % each (a fair share is {}.{} %, give or take {points} points)",
        counts.len(),
        least / 10,
        least % 10,
        most / 10,
        most % 10,
        fair / 10,
        fair % 10
    );
    (met, text)
}

fn list(names: &BTreeSet<&str>) -> String {
    if names.is_empty() { "nobody".to_owned() } else { names.iter().copied().collect::<Vec<_>>().join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flows(servers: &[(&str, u16)]) -> Flows {
        let mut asks = Vec::new();
        for (server, count) in servers {
            for _ in 0..*count {
                let outcome =
                    if *server == "-" { Outcome::Silent } else { Outcome::Server((*server).into()) };
                let port = 10_000 + asks.len() as u16;
                asks.push(Ask { port, at: Time::from_millis(u64::from(port)), outcome, latency_us: None });
            }
        }
        Flows { asks }
    }

    fn seen(list: &[(&str, Flows)]) -> Observation {
        let to: IpAddr = "192.0.2.53".parse().unwrap();
        let flows = list.iter().map(|(name, flows)| ((*name).to_owned(), (to, flows.clone()))).collect();
        Observation { flows, ..Observation::default() }
    }

    #[test]
    fn a_spread_is_met_within_its_points_and_not_beyond() {
        let seen =
            seen(&[("a", flows(&[("h1", 270), ("h2", 230), ("h3", 250), ("h4", 250)])), ("b", flows(&[]))]);
        let of = |of: &str, points| seen.judge(&Expectation::Spread { of: of.into(), points }).unwrap();
        assert!(of("a", 2).met);
        assert!(!of("a", 1).met, "{}", of("a", 1).text);
        assert!(!of("b", 50).met);
    }

    #[test]
    fn lost_flows_are_blamed_on_the_server_they_had_before() {
        let before = flows(&[("h1", 3), ("h2", 3)]);
        let seen = seen(&[
            ("before", before),
            ("good", flows(&[("-", 3), ("h2", 3)])),
            ("bad", flows(&[("-", 4), ("h2", 2)])),
        ]);
        let of = |of: &str| {
            seen.judge(&Expectation::LostOnlyOf {
                of: of.into(),
                server: "h1".into(),
                before: "before".into(),
            })
        };
        assert!(of("good").unwrap().met);
        assert!(!of("bad").unwrap().met);
    }

    #[test]
    fn moved_flows_are_counted_apart_for_servers_that_are_still_there() {
        let before = flows(&[("h1", 4), ("h2", 4), ("h3", 4)]);
        let after = flows(&[("h2", 4), ("h2", 3), ("h3", 1), ("h3", 4)]);
        let moved = after.moved_since(&before);
        assert_eq!(moved, Moved { flows: 12, moved: 5, of_survivors: 8, moved_of_survivors: 1 });
        let seen = seen(&[("a", before), ("b", after)]);
        let judge = |at_most| {
            seen.judge(&Expectation::Moved { of: "b".into(), before: "a".into(), at_most }).unwrap().met
        };
        assert!(judge(13));
        assert!(!judge(12));
        let same = |percent| {
            seen.judge(&Expectation::SameServer { of: "b".into(), before: "a".into(), percent }).unwrap().met
        };
        assert!(same(58));
        assert!(!same(59));
    }

    #[test]
    fn what_is_lost_after_the_route_changed_is_told_from_what_was_lost_before() {
        let mut seen = seen(&[("x", flows(&[("-", 5), ("h2", 5)]))]);
        let judge = |seen: &Observation| {
            seen.judge(&Expectation::LostAfterRouteChange { of: "x".into(), at_most: 0 }).unwrap().met
        };
        assert!(!judge(&seen), "without a change of the route there is no after");
        let change = |at| RouteChange {
            router: "tor".into(),
            prefix: "192.0.2.53/32".parse().unwrap(),
            next_hops: Vec::new(),
            at: Time::from_millis(at),
        };
        seen.routes.push(change(10_002));
        assert!(!judge(&seen));
        seen.routes.push(change(10_004));
        assert!(judge(&seen));
    }

    #[test]
    fn cut_connections_of_the_killed_server_are_told_from_those_of_others() {
        let held = |server: &str, end| Held { port: 1, server: Some(server.into()), end };
        let mut seen = Observation::default();
        seen.held.insert(
            "x".into(),
            vec![
                held("h1", Some((Time::ZERO, End::Closed))),
                held("h2", None),
                held("h3", Some((Time::ZERO, End::Reset))),
            ],
        );
        let others = |at_most| {
            seen.judge(&Expectation::CutOfOthers { of: "x".into(), server: "h1".into(), at_most })
                .unwrap()
                .met
        };
        assert!(others(1));
        assert!(!others(0));
        assert!(!seen.judge(&Expectation::Cut { of: "x".into(), at_most: 1 }).unwrap().met);
        assert!(
            !seen.judge(&Expectation::Cut { of: "y".into(), at_most: 1 }).unwrap().met,
            "nothing was held"
        );
    }
}
