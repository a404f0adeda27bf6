use super::*;
use crate::compare::plan::Plan;

const PLAN: &str = "title: t
servers: 4
duration: 60s
requests: { clients: 200, rate: 500, timeout: 1s, tries: 1 }
connections: { count: 200, every: 500ms, patience: 5s }
dns: { resolvers: 20, ttl: 10s }
happens:
  - { at: 20s, HAPPENS }
designs:
  - { name: plain, anycast: plain, interval: 1s, check-timeout: 500ms, fall: 2, rise: 2, tell: 20ms, lost-host: 900ms }
  - { name: resilient, anycast: \"resilient:128\", interval: 1s, check-timeout: 500ms, fall: 2, tell: 20ms, lost-host: 900ms }
  - { name: rr, dns: plain }
  - { name: dns, dns: health, interval: 2s, check-timeout: 1s, fall: 3, rise: 2 }
  - { name: nat, balancer: nat, interval: 1s, fall: 2, rise: 2, failover: 2s }
  - { name: nat-sync, balancer: nat, interval: 1s, fall: 2, rise: 2, failover: 2s, sync: true }
  - { name: dsr, balancer: dsr, interval: 1s, fall: 2, rise: 2, table: false }
  - { name: flood, flooding: plain, converge: 3s }
  - { name: flood-checked, flooding: health, converge: 3s, interval: 1s, fall: 2, rise: 2 }
  - { name: redirect, redirect: http, interval: 1s, fall: 2, rise: 2, failover: 2s }
";

fn results(happens: &str, change: impl Fn(String) -> String) -> BTreeMap<String, Outcome> {
    let text = change(PLAN.replace("HAPPENS", happens));
    let (plan, list) = Plan::read("p", &text);
    assert_eq!(list, []);
    let plan = plan.unwrap();
    plan.designs.iter().map(|design| (design.name.clone(), play(&plan, design).unwrap())).collect()
}

fn same(text: String) -> String {
    text
}

#[test]
fn nothing_happens_to_anybody_while_all_is_well() {
    // A server that comes back without having been away changes nothing.
    let results = results("return: s1", same);
    for (name, result) in &results {
        assert_eq!((result.asked, result.lost, result.late), (30_000, 0, 0), "{name}");
        assert_eq!(
            (result.cut_needlessly, result.cut_with_server, result.recover_ms),
            (0, 0, None),
            "{name}"
        );
        assert_eq!(result.per_server.iter().sum::<u64>(), 30_000, "{name}");
    }
    let packets = |name: &str| results[name].balancer_packets;
    // 30,000 requests, and 200 connections that ask 120 times: each way, or to the server alone.
    assert_eq!((packets("nat"), packets("dsr"), packets("plain"), packets("dns")), (108_000, 54_000, 0, 0));
    // A front answers each request, and has nothing to do with connections.
    assert_eq!((packets("redirect"), packets("flood")), (60_000, 0));
    // Three of four servers drop each packet.
    assert_eq!((results["flood"].flooded_packets, results["nat"].flooded_packets), (54_000 * 3, 0));
}

#[test]
fn a_killed_service_costs_a_share_of_requests_until_its_design_has_learned_of_it() {
    let results = results("kill: s2", same);
    let share = |name: &str| results[name].lost;
    // 500 a second, a quarter of them: at most fall checks and the way to the router.
    let at_most = |time_ms: u64| 500 * time_ms / 1000 / 4 * 13 / 10;
    for name in ["plain", "resilient", "nat", "dsr", "flood-checked", "redirect"] {
        let result = &results[name];
        let recover = result.recover_ms.unwrap();
        assert!((900..=2020).contains(&recover), "{name}: {recover}");
        assert!(
            result.lost > 0 && result.lost <= at_most(recover),
            "{name}: {} in {recover} ms",
            result.lost
        );
    }
    // Of names, the check is only the beginning: caches live on.
    let dns = results["dns"].recover_ms.unwrap();
    assert!((4000..=16_000).contains(&dns) && dns > results["nat"].recover_ms.unwrap(), "{dns}");
    // And where nobody checks, it never ends: a quarter of 40 seconds.
    assert!((4000..6000).contains(&share("rr")), "{}", share("rr"));
    assert!(results["rr"].recover_ms.unwrap() > 39_000);
    // Hosts that only notice each other go on sending clients to a dead service.
    assert!((4000..6000).contains(&share("flood")), "{}", share("flood"));
}

#[test]
fn connections_of_the_dead_are_cut_everywhere_and_those_of_others_only_where_nobody_remembers_them() {
    let results = results("kill: s2", same);
    for (name, result) in &results {
        assert!((30..=70).contains(&result.cut_with_server), "{name}: {}", result.cut_with_server);
    }
    let needless = |name: &str| results[name].cut_needlessly;
    // The second of four leaves: 11.1 % of the survivors' flows move (its docs call it the closed formula).
    assert!((5..=35).contains(&needless("plain")), "{}", needless("plain"));
    // A hash that is scaled to what is left moves as much as a multipath route.
    assert!((5..=35).contains(&needless("dsr")), "{}", needless("dsr"));
    for name in ["resilient", "rr", "dns", "nat", "nat-sync", "flood", "flood-checked", "redirect"] {
        assert_eq!(needless(name), 0, "{name}");
    }
}

#[test]
fn a_drain_cuts_connections_only_where_the_network_remembers_none() {
    let results = results("drain: s2", same);
    for (name, result) in &results {
        assert_eq!((result.lost, result.late), (0, 0), "{name}");
    }
    assert!(results["plain"].cut_needlessly > 40 && results["resilient"].cut_needlessly > 30);
    for name in ["dns", "nat", "flood", "flood-checked", "redirect"] {
        assert_eq!(results[name].cut_needlessly, 0, "{name}");
    }
}

#[test]
fn a_host_that_is_gone_is_known_by_its_session_and_not_by_its_checks() {
    let results = results("crash: s2", same);
    let recover = results["plain"].recover_ms.unwrap();
    assert!((800..=900).contains(&recover), "{recover}");
    assert!(results["nat"].recover_ms.unwrap() > recover);
    for name in ["flood", "flood-checked"] {
        let result = &results[name];
        let recover = result.recover_ms.unwrap();
        assert!((2900..=3000).contains(&recover), "{name}: {recover}");
        assert!((30..=70).contains(&result.cut_with_server) && result.cut_needlessly == 0, "{name}");
    }
}

#[test]
fn a_host_that_floods_gets_its_share_again_when_the_others_have_seen_it() {
    let results =
        results("crash: s2", |text| text.replace("designs:", "  - { at: 30s, return: s2 }\ndesigns:"));
    let share = |name: &str| results[name].per_server[1];
    // A quarter of 500 a second, but for ten seconds of 60, and three until it is noticed.
    for name in ["flood", "flood-checked"] {
        assert!((5300..6300).contains(&share(name)), "{name}: {}", share(name));
    }
    assert!(share("flood") < share("flood-checked"), "rise is two checks, to converge takes three seconds");
}

#[test]
fn a_balancer_that_dies_stops_everything_until_the_standby_is_there_and_what_it_does_not_know_is_cut() {
    let results = results("balancer: dies", same);
    let lost = |name: &str| results[name].lost;
    assert_eq!((lost("plain"), lost("dns")), (0, 0), "there is none");
    assert!((990..=1010).contains(&lost("nat")), "two seconds of 500: {}", lost("nat"));
    // The standby chooses anew, and a quarter of the time the same server.
    assert!((130..=170).contains(&results["nat"].cut_needlessly), "{}", results["nat"].cut_needlessly);
    assert_eq!(results["nat-sync"].cut_needlessly, 0);
    assert!((990..=1010).contains(&lost("redirect")), "{}", lost("redirect"));
    assert_eq!((results["redirect"].cut_needlessly, results["redirect"].cut_with_server), (0, 0));
    assert_eq!(lost("flood"), 0);
}

#[test]
fn a_second_try_saves_requests_and_makes_them_late() {
    let once = results("kill: s2", same);
    let twice = results("kill: s2", |text| text.replace("tries: 1", "tries: 3, retry: next"));
    for name in ["rr", "plain", "nat"] {
        assert!(twice[name].lost < once[name].lost / 5, "{name}: {} {}", twice[name].lost, once[name].lost);
        assert!(twice[name].late > 0, "{name}");
    }
    let stubborn = results("kill: s2", |text| text.replace("tries: 1", "tries: 3, retry: same"));
    assert_eq!(stubborn["rr"].lost, once["rr"].lost, "the same address again and again");
}

#[test]
fn few_resolvers_load_servers_unevenly_and_a_longer_ttl_makes_failures_longer() {
    let two = |text: String| text.replace("resolvers: 20, ttl: 10s", "resolvers: 2, ttl: 1000s");
    let few = results("kill: s2", two);
    assert!(few["rr"].fullest_permille >= 1500, "{}", few["rr"].fullest_permille);
    assert!(few["plain"].fullest_permille < 1100, "{}", few["plain"].fullest_permille);
    let turned =
        results("kill: s2", |text| two(text).replace("resolvers: 2,", "resolvers: 2, rotate: true,"));
    assert!(turned["rr"].fullest_permille < 1100, "{}", turned["rr"].fullest_permille);
    let short = results("kill: s2", same);
    let long = results("kill: s2", |text| text.replace("ttl: 10s", "ttl: 1s, at-least: 25s"));
    assert!(long["dns"].recover_ms > short["dns"].recover_ms);
}

#[test]
fn the_same_seed_gives_the_same_letters_and_another_one_others() {
    let write = |results: BTreeMap<String, Outcome>| serde_json::to_string(&results).unwrap();
    let first = write(results("kill: s2", same));
    assert_eq!(first, write(results("kill: s2", same)));
    assert_ne!(first, write(results("kill: s2", |text| text.replace("title: t", "title: t\nseed: 2"))));
}

#[test]
fn every_mistake_of_a_plan_is_named_with_its_place_and_all_at_once() {
    let text = PLAN
        .replace("HAPPENS", "kill: s9")
        .replace("servers: 4", "servers: 4\ncolour: blue")
        .replace("ttl: 10s", "ttl: soon")
        .replace("dns: plain", "dns: fast")
        .replace("anycast: plain", "anycast: fancy")
        .replace("name: nat-sync", "name: nat")
        .replace("tries: 1", "tries: 0")
        .replace("failover: 2s, sync: true", "failover: 2s, sync: maybe");
    let (plan, list) = Plan::read("p.yml", &text);
    assert!(plan.is_none());
    let list: Vec<String> = list.iter().map(ToString::to_string).collect();
    for words in [
        "p.yml:3:1: error: plan: `colour` is not known here",
        "p.yml:5:58: error: requests: tries must be 1 to 10",
        "`soon` is no duration",
        "p.yml:9:22: error: kill: `s9`: servers are s1 to s4",
        "`fancy`: there are plain, group",
        "dns: `fast` is not known",
        "a design `nat` is there already",
        "sync: `maybe`: there are true, false",
    ] {
        assert!(list.iter().any(|line| line.contains(words)), "{words}: {list:#?}");
    }
    assert_eq!(list.len(), 8, "one error a mistake: {list:#?}");
}

#[test]
fn what_has_no_table_has_nothing_to_sync() {
    let (name, text) = ("name: nat-sync, balancer: nat", PLAN.replace("HAPPENS", "kill: s2"));
    assert!(text.contains(name));
    let (plan, list) = Plan::read("p.yml", &text.replace(name, "name: x, balancer: dsr, table: no"));
    assert!(plan.is_none());
    assert!(list[0].text.contains("without a table there is nothing to sync"), "{list:?}");
}
