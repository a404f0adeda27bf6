//! What routers make of the attributes, communities and words that we send, and we of theirs.

use anyvip_tests::{
    Agent, Fabric, LONG, Process, Service, VIP4, advertised, agent_config_with, binaries, vip, wait_until,
};

use crate::stories::Upstream;

/// How a router shows what it was told.
pub(crate) struct Words {
    /// Normal: communities of all kinds and MED 10, the path of one AS.
    pub(crate) normal: &'static [&'static str],
    /// MED 1000, prepended three times.
    pub(crate) depreferenced: &'static [&'static str],
    /// GRACEFUL_SHUTDOWN, honoured.
    pub(crate) draining: &'static [&'static str],
}

const POLICY: &str = r#"on_failure = "depreference"
drain_time = "3s"
[service.web.announce]
communities = ["65001:100", "65001:1:2", "rt:65001:7"]
med = 10
[service.web.announce.depreferenced]
med = 1000
prepend = 3
"#;

/// One host behind one router. Fields drop in this order.
struct Pair<R> {
    agent: Agent,
    service: Option<Service>,
    router: R,
    /// Every change of the router's kernel table.
    routes: Process,
    fabric: Fabric,
}

impl<R: Upstream> Pair<R> {
    fn new(replaced: &[(&str, &str)], config: &str) -> Pair<R> {
        let fabric = Fabric::new(binaries!(), 1);
        let routes = {
            let log = fabric.lab.scratch().path().join("routes");
            let mut command = fabric.router.command("ip");
            command.args(["monitor", "route"]);
            Process::start("ip monitor", &mut command, &log)
        };
        let router = R::start_with(&fabric.lab, &fabric.router, replaced);
        let service = Some(fabric.service(1));
        let agent = fabric.agent_with(1, config);
        Pair { agent, service, router, routes, fabric }
    }

    /// Waits until the router shows all of this of the VIP.
    #[track_caller]
    fn wait_shown(&self, words: &[&str]) {
        wait_until(LONG, || {
            let shown = self.router.shown(VIP4);
            match words.iter().find(|word| !shown.contains(**word)) {
                None => Ok(()),
                Some(word) => Err(format!("no {word:?} in {shown}")),
            }
        });
    }

    #[track_caller]
    fn wait_table(&self, hops: &[&str]) {
        wait_until(LONG, || {
            let seen = self.fabric.router.next_hops(VIP4);
            if seen == hops { Ok(()) } else { Err(format!("{seen:?}: {}", self.router.shown(VIP4))) }
        });
    }

    fn withdrawals(&self) -> usize {
        let gone = |line: &&str| line.starts_with("Deleted") && line.contains(VIP4);
        self.routes.output().lines().filter(gone).count()
    }
}

pub(crate) fn each_state_is_told_and_replaces_the_one_before<R: Upstream>(
    replaced: &[(&str, &str)],
    words: &Words,
) {
    let vips = format!("\"{VIP4}\"");
    let mut pair = Pair::<R>::new(replaced, &agent_config_with(1, &vips, POLICY));
    pair.wait_shown(words.normal);
    pair.service = None;
    pair.wait_shown(words.depreferenced);
    pair.agent.wait_status("depreferenced", |status| vip(status, VIP4)["standing"] == "depreferenced");
    pair.service = Some(pair.fabric.service(1));
    pair.wait_shown(words.normal);
    pair.wait_table(&["10.1.1.2"]);

    pair.agent.run("drain", &["web"]);
    pair.wait_shown(words.draining);
    let status = pair.agent.wait_status("draining", |status| vip(status, VIP4)["standing"] == "draining");
    assert_eq!(status["services"][0]["drain"]["phase"], "telling");
    assert!(status["services"][0]["drain"]["left_ms"].as_u64().unwrap() <= 3_000);
    assert_eq!(pair.withdrawals(), 0, "so far everything was a replacement:\n{}", pair.routes.output());
    pair.wait_table(&[]);
    pair.agent.wait_reason(VIP4, "Drained");
    pair.agent.run("undrain", &["web"]);
    pair.wait_shown(words.normal);

    let output = pair.agent.command("drain", &["web", "--wait"]);
    assert!(output.status.success(), "{output:?}");
    let status = pair.agent.status();
    assert_eq!(
        status["services"][0]["drain"]["phase"], "withdrawn",
        "--wait lasts as long as the drain time"
    );
}

pub(crate) fn a_covering_prefix_is_told_instead_of_its_vips<R: Upstream>() {
    let vips = format!("\"{VIP4}\", \"198.51.100.2\"");
    let more = "[service.web.announce]\nprefixes = [\"198.51.100.0/24\"]\n";
    let mut pair = Pair::<R>::new(&[], &agent_config_with(1, &vips, more));
    let hops = |prefix: &str| pair.fabric.router.next_hops(prefix);
    wait_until(LONG, || match (hops("198.51.100.0/24").as_slice(), hops("198.51.100.1/32").as_slice()) {
        ([hop], []) if hop == "10.1.1.2" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(pair.fabric.answer(&pair.fabric.client, "198.51.100.2").as_deref(), Some("h1"));
    let addresses = pair.fabric.host(1).run("ip", &["address"]);
    assert!(!addresses.contains("198.51.100.0"), "{addresses}");
    assert!(advertised(&pair.agent.status(), VIP4, "tor"));
    pair.service = None;
    wait_until(LONG, || match pair.fabric.router.next_hops("198.51.100.0/24").as_slice() {
        [] => Ok(()),
        left => Err(format!("{left:?}")),
    });
}

/// Two hosts with weights 25 and 75; what the router's kernel makes of them.
pub(crate) fn weights_become_those_of_the_kernel<R: Upstream>(replaced: &[(&str, &str)]) {
    let fabric = Fabric::new(binaries!(), 2);
    let router = R::start_with(&fabric.lab, &fabric.router, replaced);
    let _services = [fabric.service(1), fabric.service(2)];
    let _agents = [25, 75].into_iter().enumerate().map(|(n, weight)| {
        let more = format!("[service.web.announce]\nweight = {weight}\n");
        fabric.agent_with(n + 1, &agent_config_with(n + 1, &format!("\"{VIP4}\""), &more))
    });
    let _agents: Vec<Agent> = _agents.collect();
    wait_until(LONG, || {
        let routes = fabric.router.ip_json(&format!("route show {VIP4}"));
        let hops: Vec<_> = routes
            .iter()
            .flat_map(|route| route["nexthops"].as_array().cloned().unwrap_or_default())
            .collect();
        let mut weights: Vec<(String, u64)> = hops
            .iter()
            .map(|hop| {
                (hop["gateway"].as_str().unwrap_or_default().to_owned(), hop["weight"].as_u64().unwrap_or(0))
            })
            .collect();
        weights.sort();
        match weights.as_slice() {
            [(one, low), (two, high)] if one == "10.1.1.2" && two == "10.1.2.2" && low * 3 == *high => Ok(()),
            other => Err(format!("{other:?}\n{}", router.shown(VIP4))),
        }
    });
}

/// `say` makes the router close the session with these words.
pub(crate) fn words_of_a_shutdown_are_shown_on_both_sides<R: Upstream>(
    say: impl FnOnce(&R, &str),
    log: impl Fn(&R) -> String,
) {
    let vips = format!("\"{VIP4}\"");
    let pair = Pair::<R>::new(&[], &agent_config_with(1, &vips, ""));
    pair.wait_table(&["10.1.1.2"]);
    say(&pair.router, "fans are replaced at nine");
    let status = pair.agent.wait_status("the router's words", |status| {
        let error = status["peers"][0]["last_error"].as_str().unwrap_or_default();
        error.contains("Administrative Shutdown (6/2): fans are replaced at nine")
    });
    assert_ne!(status["peers"][0]["state"], "Established");
    let events = pair.agent.run("events", &[]);
    assert!(events.contains("fans are replaced at nine"), "{events}");
    drop(pair);

    let mut pair = Pair::<R>::new(&[], &agent_config_with(1, &vips, ""));
    pair.wait_table(&["10.1.1.2"]);
    assert_eq!(pair.agent.terminate(), Some(0));
    wait_until(LONG, || match log(&pair.router) {
        text if text.contains("anyvip stops") => Ok(()),
        text => Err(text),
    });
}

/// `with_role` gives the router's configuration for its role.
pub(crate) fn roles_are_agreed_or_refused_and_routes_marked<R: Upstream>(
    with_role: impl Fn(&str) -> [(String, String); 1],
    marked: &str,
) {
    let vips = format!("\"{VIP4}\"");
    let config = |lines: &str| {
        agent_config_with(1, &vips, "").replace("asn = 65000\n", &format!("asn = 65000\n{lines}\n"))
    };
    let start = |role: &str, lines: &str| {
        let replaced = with_role(role);
        let replaced: Vec<(&str, &str)> = replaced.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        Pair::<R>::new(&replaced, &config(lines))
    };
    let pair = start("provider", "role = \"customer\"\nrole_strict = true");
    pair.wait_table(&["10.1.1.2"]);
    assert_eq!(pair.agent.status()["peers"][0]["role"], "provider");
    assert!(!pair.router.shown(VIP4).contains(marked), "a customer's routes are not marked");
    drop(pair);

    let pair = start("provider", "role = \"peer\"");
    pair.agent.wait_status("a role mismatch", |status| {
        let error = status["peers"][0]["last_error"].as_str().unwrap_or_default();
        error.contains("Role Mismatch (2/11)")
            && error.contains("our role is peer, so the peer has to be peer")
    });
    drop(pair);

    let pair = start("customer", "role = \"provider\"");
    pair.wait_shown(&[marked]);
}

/// A router that tells no role, and we insist on one.
pub(crate) fn a_router_without_a_role_is_refused_where_one_is_required<R: Upstream>() {
    let config = agent_config_with(1, &format!("\"{VIP4}\""), "")
        .replace("asn = 65000\n", "asn = 65000\nrole = \"customer\"\nrole_strict = true\n");
    let pair = Pair::<R>::new(&[], &config);
    pair.agent.wait_status("a role mismatch", |status| {
        let error = status["peers"][0]["last_error"].as_str().unwrap_or_default();
        error.contains("the peer has to be provider, and has to say so")
    });
}

/// `ask` makes the router ask for all routes again; `known` is what it shows of us.
pub(crate) fn a_router_that_asks_again_is_answered_and_knows_our_name<R: Upstream>(
    ask: impl Fn(&R),
    known: impl Fn(&R) -> String,
    words: &[&str],
) {
    let config = agent_config_with(1, &format!("\"{VIP4}\""), "")
        .replace("asn = 65000\n", "asn = 65000\nhost_name = \"h1.example.net\"\nsoftware_version = true\n");
    let pair = Pair::<R>::new(&[], &config);
    pair.wait_table(&["10.1.1.2"]);
    wait_until(LONG, || {
        let text = known(&pair.router);
        match words.iter().find(|word| !text.contains(**word)) {
            None => Ok(()),
            Some(word) => Err(format!("no {word:?} in {text}")),
        }
    });
    let capture = pair.fabric.capture(&pair.fabric.router, "h1", "-X tcp port 179");
    ask(&pair.router);
    // The end of a marked answer: ROUTE-REFRESH (type 5), IPv4, subtype 2, unicast; 23 octets (RFC 7313 §3.2).
    wait_until(LONG, || {
        let dump = capture.output();
        let octets: String = dump
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("0x")?.split_once(":  "))
            .flat_map(|(_, octets)| {
                octets.split("  ").next().unwrap_or_default().chars().filter(char::is_ascii_hexdigit)
            })
            .collect();
        let (begin, end) = (octets.find("00170500010101"), octets.find("00170500010201"));
        match (begin, end) {
            (Some(begin), Some(end)) if begin < end => Ok(()),
            other => Err(format!("{other:?} in {dump}")),
        }
    });
    assert_eq!(pair.withdrawals(), 0);
    pair.wait_table(&["10.1.1.2"]);
}

/// Our AS number towards this router alone.
pub(crate) fn one_router_can_know_us_by_another_as_number<R: Upstream>(path: &str) {
    let config = agent_config_with(1, &format!("\"{VIP4}\""), "")
        .replace("asn = 65000\n", "asn = 65000\nlocal_asn = 64999\n");
    let pair = Pair::<R>::new(&[], &config);
    pair.wait_table(&["10.1.1.2"]);
    pair.wait_shown(&[path]);
}
