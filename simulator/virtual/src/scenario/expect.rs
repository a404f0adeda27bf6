//! Conditions and expectations as written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use super::read::Fields;
use super::{Condition, Expectation, NextHops};
use crate::diagnostic::Diagnostics;
use crate::yaml::{Value, Yaml};

/// Reads `{router, prefix, next-hops}`, `{router, prefix, weights}`, `{agent, health}`, `{agent, vip, announced}` or `{agent, vip, reason}`.
pub(super) fn condition(fields: &mut Fields<'_>) -> Option<Condition> {
    if let Some(router) = fields.parse::<String>("router") {
        let prefix = fields.need::<IpNet>("prefix");
        if let Some(weights) = fields.take("weights") {
            let weights = numbers(weights, "weights", fields.diagnostics);
            return Some(Condition::Weights { router, prefix: prefix?, weights });
        }
        let next_hops = match fields.take("next-hops") {
            Some(value) => match &value.value {
                Value::Scalar(_) => value.parse("next-hops", fields.diagnostics).map(NextHops::Count),
                _ => Some(NextHops::Nodes(names(value, "next-hops", fields.diagnostics))),
            },
            None => {
                fields.error("`next-hops` (a number, or a list of nodes) or `weights` is missing");
                None
            }
        };
        return Some(Condition::NextHops { router, prefix: prefix?, next_hops: next_hops? });
    }
    let Some(agent) = fields.parse::<String>("agent") else {
        fields.error("expected `router` or `agent`");
        return None;
    };
    if let Some(health) = fields.parse::<String>("health") {
        if !["up", "down", "unknown", "error"].contains(&health.as_str()) {
            fields.error("health is up, down, unknown or error");
        }
        return Some(Condition::Health { agent, service: fields.parse("service"), health });
    }
    let vip = fields.need::<IpAddr>("vip");
    let peer = fields.parse("peer");
    if let Some(announced) = fields.parse("announced") {
        return Some(Condition::Announced { agent, vip: vip?, peer, announced });
    }
    if let Some(reason) = fields.parse("reason") {
        return Some(Condition::Withheld { agent, vip: vip?, peer, reason });
    }
    fields.error("expected `health`, `announced` or `reason`");
    None
}

/// Reads one `expect` map: a condition, or `of` and one or more things to judge.
pub(super) fn expectations(value: &Yaml, diagnostics: &mut Diagnostics) -> Vec<Expectation> {
    let mut fields = Fields::of(value, "expect", diagnostics);
    let mut list = Vec::new();
    let Some(of) = fields.parse::<String>("of") else {
        list.extend(condition(&mut fields).map(Expectation::Holds));
        fields.refuse_rest();
        return list;
    };
    if let Some(points) = fields.parse("spread") {
        list.push(Expectation::Spread { of: of.clone(), points });
    }
    if let Some(at_most) = fields.parse("lost") {
        list.push(Expectation::Lost { of: of.clone(), at_most });
    }
    if let Some(at_most) = fields.parse("lost-after-route-change") {
        list.push(Expectation::LostAfterRouteChange { of: of.clone(), at_most });
    }
    if let Some(server) = fields.parse("lost-only-of")
        && let Some(before) = fields.need("before")
    {
        list.push(Expectation::LostOnlyOf { of: of.clone(), server, before });
    }
    if let Some(before) = fields.parse("same-server-as") {
        let percent = fields.parse("percent").unwrap_or(100);
        list.push(Expectation::SameServer { of: of.clone(), before, percent });
    }
    if let Some(before) = fields.parse("moved-since") {
        if let Some(permille) = permille(&mut fields, "percent") {
            let slack = permille_needed(&mut fields, "points");
            list.extend(slack.map(|slack| Expectation::MovedShare {
                of: of.clone(),
                before,
                permille,
                slack,
            }));
        } else if let Some(at_most) = fields.need("at-most") {
            list.push(Expectation::Moved { of: of.clone(), before, at_most });
        }
    }
    if let Some(shares) = fields.take("shares") {
        let shares = numbers::<Tenths>(shares, "shares", fields.diagnostics);
        let shares = shares.into_iter().map(|(name, Tenths(share))| (name, share)).collect();
        let slack = permille_needed(&mut fields, "points");
        list.extend(slack.map(|slack| Expectation::Shares { of: of.clone(), shares, slack }));
    }
    if let Some(at_most) = fields.duration("lost-for") {
        list.push(Expectation::LostFor { of: of.clone(), at_most });
    }
    if fields.is("as-predicted") {
        list.push(Expectation::Predicted { of: of.clone() });
    }
    if fields.is("cut-as-predicted") {
        list.push(Expectation::CutAsPredicted { of: of.clone() });
    }
    if let Some(at_least) = fields.parse("cut-at-least") {
        list.push(Expectation::CutAtLeast { of: of.clone(), at_least });
    }
    if let Some(at_most) = fields.parse("stalled") {
        list.push(Expectation::Stalled { of: of.clone(), at_most });
    }
    if let Some(servers) = fields.take("servers") {
        let servers = names(servers, "servers", fields.diagnostics);
        list.push(Expectation::Servers { of: of.clone(), servers });
    }
    if let Some(count) = fields.parse("server-count") {
        list.push(Expectation::ServerCount { of: of.clone(), count });
    }
    if let Some(at_most) = fields.parse("cut") {
        list.push(match fields.parse("other-than") {
            Some(server) => Expectation::CutOfOthers { of: of.clone(), server, at_most },
            None => Expectation::Cut { of: of.clone(), at_most },
        });
    }
    if let Some(answers) = fields.parse("answers") {
        list.push(Expectation::Answers { of: of.clone(), answers });
    }
    if list.is_empty() {
        fields.error("nothing to judge (spread, lost, lost-only-of, lost-after-route-change, same-server-as, moved-since, shares, lost-for, as-predicted, servers, server-count, cut, cut-at-least, cut-as-predicted, stalled, answers)");
    }
    fields.refuse_rest();
    list
}

/// A number with at most one decimal, in tenths.
struct Tenths(u32);

impl FromStr for Tenths {
    type Err = String;

    fn from_str(text: &str) -> Result<Tenths, String> {
        let bad = || "expected a number with at most one decimal, like 18.4".to_owned();
        let (whole, tenth) = text.split_once('.').unwrap_or((text, "0"));
        let tenth = Some(tenth).filter(|tenth| tenth.len() == 1).ok_or_else(bad)?;
        let number = |text: &str| text.parse::<u16>().map_err(|_| bad());
        Ok(Tenths(u32::from(number(whole)?) * 10 + u32::from(number(tenth)?)))
    }
}

fn permille(fields: &mut Fields<'_>, name: &str) -> Option<u32> {
    fields.parse::<Tenths>(name).map(|Tenths(tenths)| tenths)
}

fn permille_needed(fields: &mut Fields<'_>, name: &str) -> Option<u32> {
    fields.need::<Tenths>(name).map(|Tenths(tenths)| tenths)
}

/// `NODE: NUMBER` for each.
fn numbers<T: FromStr<Err: fmt::Display>>(
    value: &Yaml,
    what: &str,
    diagnostics: &mut Diagnostics,
) -> BTreeMap<String, T> {
    let mut found = BTreeMap::new();
    for (key, value) in value.entries(what, diagnostics) {
        if let Some(number) = value.parse(&format!("{what}: {}", key.text), diagnostics) {
            found.insert(key.text.clone(), number);
        }
    }
    found
}

fn names(value: &Yaml, what: &str, diagnostics: &mut Diagnostics) -> BTreeSet<String> {
    if let Value::Scalar(text) = &value.value {
        return BTreeSet::from([text.clone()]);
    }
    value.items(what, diagnostics).iter().filter_map(|item| item.text(what, diagnostics)).collect()
}
