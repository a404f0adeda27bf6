use super::*;

const LAB: &str = r#"
name: small
topology:
  kinds: { linux: { binds: [".:/etc/anyvip"] } }
  defaults: { kind: linux }
  nodes:
    tor:
      labels: { anyvip.role: router, anyvip.asn: 1, anyvip.hash-seed: 7, anyvip.address.eth1: 10.0.1.1/24, anyvip.address.eth2: 10.0.9.1/24 }
      exec: [anyvip-sim node --lab /x --name tor]
    h1:
      labels: { anyvip.role: agent, anyvip.asn: 2, anyvip.address.eth1: 10.0.1.11/24 }
      exec: [anyvip-sim node --lab /x --name h1]
    c:
      labels: { anyvip.role: client, anyvip.address.eth1: 10.0.9.2/24 }
      exec: [anyvip-sim node --lab /x --name c]
  links:
    - endpoints: ["tor:eth1", "h1:eth1"]
    - endpoints: ["tor:eth2", "c:eth1"]
"#;

const GOOD: &str = r#"title: t
traffic:
  dns: { from: c, to: 192.0.2.53, port: 53, protocol: udp, flows: 100 }
  web: { from: c, to: 192.0.2.53, port: 80, protocol: tcp, flows: 10, every: 50ms }
steps:
  - wait-for: { router: tor, prefix: 192.0.2.53/32, next-hops: [h1], within: 5s }
  - flows: { traffic: dns, as: before }
  - hold: { traffic: web, as: held }
  - start: { traffic: dns, as: during }
  - kill: h1
  - wait-for: { router: tor, prefix: 192.0.2.53/32, next-hops: 0 }
  - stop: during
  - release: held
  - expect: { of: during, lost-only-of: h1, before: before, lost: 7 }
  - expect: { of: held, cut: 0, other-than: h1 }
  - expect: { agent: h1, vip: 192.0.2.53, peer: tor, reason: Unhealthy }
  - silence: tor:eth1
  - loss: { router: tor, percent: 1 }
"#;

fn read(text: &str) -> (Option<Scenario>, Vec<String>) {
    let (lab, list) = Lab::read("lab", LAB);
    assert_eq!(list, []);
    let (scenario, list) = Scenario::read("s", text, &lab.unwrap());
    (scenario, list.iter().map(ToString::to_string).collect())
}

#[test]
fn a_scenario_is_read_with_its_traffic_steps_and_expectations() {
    let (scenario, list) = read(GOOD);
    assert_eq!(list, Vec::<String>::new());
    let scenario = scenario.unwrap();
    assert_eq!(scenario.steps.len(), 13);
    assert!(scenario.needs_nft());
    let Action::Expect(list) = &scenario.steps[8].action else { panic!("{:?}", scenario.steps[8]) };
    assert_eq!(list.len(), 2);
    assert_eq!(
        scenario.steps[0].action,
        Action::WaitFor(
            Condition::NextHops {
                router: "tor".into(),
                prefix: "192.0.2.53/32".parse().unwrap(),
                next_hops: NextHops::Nodes(BTreeSet::from(["h1".into()])),
            },
            Duration::from_secs(5)
        )
    );
}

#[test]
fn a_step_that_cannot_be_done_is_refused_by_name_and_place_before_anything_starts() {
    for (from, to, words) in [
        ("dns: { from: c,", "dns: { from: h1,", "s:3:16: error: traffic dns: node `h1` is no client"),
        ("- kill: h1", "- kill: h9", "s:10:5: error: step: there is no node `h9`"),
        ("- kill: h1", "- kill: c", "node `c` is no agent"),
        ("- kill: h1", "- explode: h1", "s:10:5: error: step `explode` is not known"),
        ("- kill: h1", "- delay: 10ms", "step `delay` needs netem"),
        ("next-hops: [h1]", "next-hops: [c]", "c is no neighbour of tor"),
        ("next-hops: 0", "next-hops: 2", "tor has only 1 neighbours"),
        ("of: during, lost-only-of: h1", "of: later, lost-only-of: h1", "no earlier step measures"),
        ("before: before", "before: held", "`held`: no earlier step measures such flows"),
        ("  - release: held\n", "", "`held` is never stopped or released"),
        ("  - stop: during\n", "  - stop: before\n", "`before` was not started before"),
        ("as: during", "as: before", "names an earlier measurement"),
        ("silence: tor:eth1", "silence: tor:eth5", "tor has no interface eth5"),
        ("silence: tor:eth1", "silence: [tor:eth1, c:eth3]", "c has no interface eth3"),
        ("traffic: web, as", "traffic: dns, as", "has no connections"),
        ("percent: 1", "percent: 101", "percent is 0 to 100"),
        ("flows: 100 }", "flows: 60000 }", "source ports"),
        ("protocol: udp", "protocol: sctp", "expected udp, tcp or dns"),
        ("every: 50ms", "every: 50", "no duration"),
        ("lost: 7", "list: 7", "`list` is not supported here"),
        ("lost: 7", "server-count: 2", "2 servers can never answer"),
        ("lost: 7", "servers: []", "at least one must be named"),
        ("lost: 7", "same-server-as: before, percent: 101", "more than all"),
        ("lost: 7", "shares: { h1: 60 }, points: 2", "make 60 percent together"),
        ("lost: 7", "shares: { h1: 100 }, points: x", "like 18.4"),
        ("cut: 0, other-than: h1", "cut-at-least: 11", "cut-at-least: 11 of 10 connections"),
        ("next-hops: [h1]", "weights: { c: 1 }", "c is no neighbour of tor"),
        ("next-hops: [h1]", "weights: { h1: 300 }", "1 to 256"),
        ("- kill: h1", "- reload: { agent: h1 }", "`config` is missing"),
        ("steps:", "step:", "`step` is not supported"),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let (scenario, list) = read(&GOOD.replace(from, to));
        assert!(scenario.is_none(), "{to}");
        assert!(list.iter().any(|line| line.contains(words)), "{words}: {list:#?}");
    }
}
