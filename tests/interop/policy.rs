//! What routers make of the attributes, communities and words that we send, and we of theirs.

use anyvip_tests::{
    Agent, Fabric, LONG, Process, Service, VIP4, VIP6, advertised, agent_config_with, binaries, vip,
    wait_until,
};

use crate::router::{Manner, Router, Told};

/// One host behind one router. Fields drop in this order.
struct Pair<R> {
    agent: Agent,
    service: Option<Service>,
    router: R,
    /// Every change of the router's kernel table.
    routes: Process,
    fabric: Fabric,
}

impl<R: Router> Pair<R> {
    fn new(manner: &Manner, config: &str) -> Pair<R> {
        let fabric = Fabric::new(binaries!(), 1);
        let routes = {
            let log = fabric.lab.scratch().path().join("routes");
            let mut command = fabric.router.command("ip");
            command.args(["monitor", "route"]);
            Process::start("ip monitor", &mut command, &log)
        };
        let router = R::start(&fabric.lab, &fabric.router, manner);
        let service = Some(fabric.service(1));
        let agent = fabric.agent_with(1, config);
        Pair { agent, service, router, routes, fabric }
    }

    /// Waits until the router shows all of this of the VIP.
    #[track_caller]
    fn wait_shown(&self, facts: &[Told]) {
        let words: Vec<String> = facts.iter().map(R::words).collect();
        wait_until(LONG, || {
            let shown = self.router.shown(VIP4);
            match words.iter().find(|word| !shown.contains(*word)) {
                None => Ok(()),
                Some(word) => Err(format!("no {word:?} in {shown}")),
            }
        });
    }

    #[track_caller]
    fn wait_table(&self, hops: &[&str]) {
        wait_until(LONG, || {
            let seen = self.router.next_hops(&self.fabric, VIP4);
            if seen == hops { Ok(()) } else { Err(format!("{seen:?}: {}", self.router.shown(VIP4))) }
        });
    }

    #[track_caller]
    fn wait_error(&self, text: &str) {
        self.agent.wait_status(text, |status| {
            status["peers"][0]["last_error"].as_str().unwrap_or_default().contains(text)
        });
    }

    /// How often the route was gone, as far as the router lets us see it.
    fn withdrawals(&self) -> usize {
        let gone = |line: &&str| line.starts_with("Deleted") && line.contains(VIP4);
        self.routes.output().lines().filter(gone).count() + self.router.withdrawals(VIP4)
    }
}

fn config(more: &str) -> String {
    agent_config_with(1, &format!("\"{VIP4}\""), more)
}

/// With further lines for the one peer.
fn config_of_peer(lines: &str) -> String {
    config("").replace("asn = 65000\n", &format!("asn = 65000\n{lines}\n"))
}

pub(crate) fn communities_of_every_kind_arrive<R: Router>() {
    let more = "on_failure = \"depreference\"\n[service.web.announce]\n\
        communities = [\"65001:100\", \"65001:1:2\", \"rt:65001:7\"]\n\
        [service.web.announce.depreferenced]\ncommunities = [\"65001:666\"]\n";
    let mut pair = Pair::<R>::new(&Manner::default(), &config(more));
    let normal =
        [Told::Community(65001, 100), Told::LargeCommunity(65001, 1, 2), Told::RouteTarget(65001, 7)];
    pair.wait_shown(&normal);
    pair.service = None;
    pair.wait_shown(&[Told::Community(65001, 666)]);
    let shown = pair.router.shown(VIP4);
    for fact in normal {
        assert!(!shown.contains(&R::words(&fact)), "the new list replaces the old one: {fact:?} in {shown}");
    }
    assert_eq!(pair.withdrawals(), 0, "{}", pair.routes.output());
}

/// Told, replaced for an unhealthy service, and back, without a withdrawal.
fn both_states<R: Router>(normal: &str, depreferenced: &str, facts: [Told; 2]) {
    let more = format!(
        "on_failure = \"depreference\"\n[service.web.announce]\n{normal}\n\
         [service.web.announce.depreferenced]\n{depreferenced}\n"
    );
    let mut pair = Pair::<R>::new(&Manner::default(), &config(&more));
    pair.wait_shown(&facts[..1]);
    pair.service = None;
    pair.wait_shown(&facts[1..]);
    pair.agent.wait_status("depreferenced", |status| vip(status, VIP4)["standing"] == "depreferenced");
    pair.service = Some(pair.fabric.service(1));
    pair.wait_shown(&facts[..1]);
    pair.wait_table(&["10.1.1.2"]);
    assert_eq!(pair.withdrawals(), 0, "{}", pair.routes.output());
}

pub(crate) fn med_is_that_of_the_state<R: Router>() {
    both_states::<R>("med = 10", "med = 1000", [Told::Med(10), Told::Med(1000)]);
}

pub(crate) fn prepending_is_that_of_the_state<R: Router>() {
    let paths = [Told::Path(&[65001]), Told::Path(&[65001, 65001, 65001, 65001])];
    both_states::<R>("prepend = 0", "prepend = 3", paths);
}

pub(crate) fn local_pref_is_told_to_an_internal_router<R: Router>() {
    let more = "[service.web.announce]\nlocal_pref = 70\n";
    let manner = Manner { asn: 65001, ..Manner::default() };
    let pair = Pair::<R>::new(&manner, &config(more).replace("asn = 65000\n", "asn = 65001\n"));
    pair.wait_shown(&[Told::LocalPref(70), Told::Path(&[])]);
    pair.wait_table(&["10.1.1.2"]);
}

pub(crate) fn graceful_shutdown_is_honoured_while_draining<R: Router>() {
    let more = "drain_time = \"3s\"\n[service.web.announce]\ncommunities = [\"65001:100\"]\n\
        [service.web.announce.draining]\nmed = 10\n";
    let pair = Pair::<R>::new(&Manner::default(), &config(more));
    pair.wait_shown(&[Told::Community(65001, 100)]);
    pair.agent.run("drain", &["web"]);
    pair.wait_shown(&[
        Told::Community(65001, 100),
        Told::GracefulShutdown,
        Told::LocalPref(0),
        Told::Med(10),
    ]);
    let status = pair.agent.wait_status("draining", |status| vip(status, VIP4)["standing"] == "draining");
    assert_eq!(status["services"][0]["drain"]["phase"], "telling");
    assert!(status["services"][0]["drain"]["left_ms"].as_u64().unwrap() <= 3_000);
    assert_eq!(pair.withdrawals(), 0, "so far everything was a replacement:\n{}", pair.routes.output());
    pair.wait_table(&[]);
    pair.agent.wait_reason(VIP4, "Drained");
    pair.agent.run("undrain", &["web"]);
    pair.wait_table(&["10.1.1.2"]);

    let output = pair.agent.command("drain", &["web", "--wait"]);
    assert!(output.status.success(), "{output:?}");
    let status = pair.agent.status();
    assert_eq!(
        status["services"][0]["drain"]["phase"], "withdrawn",
        "--wait lasts as long as the drain time"
    );
}

pub(crate) fn a_covering_prefix_is_told_instead_of_its_vips<R: Router>() {
    let vips = format!("\"{VIP4}\", \"198.51.100.2\"");
    let more = "[service.web.announce]\nprefixes = [\"198.51.100.0/24\"]\n";
    let mut pair = Pair::<R>::new(&Manner::default(), &agent_config_with(1, &vips, more));
    let hops = |pair: &Pair<R>, prefix: &str| pair.router.next_hops(&pair.fabric, prefix);
    wait_until(LONG, || match hops(&pair, "198.51.100.0/24").as_slice() {
        [hop] if hop == "10.1.1.2" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(hops(&pair, "198.51.100.1/32").is_empty());
    if R::forwards() {
        assert_eq!(pair.fabric.answer(&pair.fabric.client, "198.51.100.2").as_deref(), Some("h1"));
    }
    let addresses = pair.fabric.host(1).run("ip", &["address"]);
    assert!(!addresses.contains("198.51.100.0"), "{addresses}");
    pair.agent.wait_status("told", |status| advertised(status, VIP4, "tor"));
    pair.service = None;
    wait_until(LONG, || match hops(&pair, "198.51.100.0/24").as_slice() {
        [] => Ok(()),
        left => Err(format!("{left:?}")),
    });
}

/// Two hosts with weights 25 and 75; what the router's kernel makes of them.
pub(crate) fn weights_become_those_of_the_kernel<R: Router>() {
    let fabric = Fabric::new(binaries!(), 2);
    let router = R::start(&fabric.lab, &fabric.router, &Manner::default());
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

pub(crate) fn words_of_a_routers_shutdown_are_shown<R: Router>() {
    let pair = Pair::<R>::new(&Manner::default(), &config(""));
    pair.wait_table(&["10.1.1.2"]);
    pair.router.shut_down("fans are replaced at nine");
    pair.wait_error("Administrative Shutdown (6/2): fans are replaced at nine");
    let events = pair.agent.run("events", &[]);
    assert!(events.contains("fans are replaced at nine"), "{events}");
}

pub(crate) fn words_of_a_shutdown_are_shown_by_the_router<R: Router>() {
    let mut pair = Pair::<R>::new(&Manner::default(), &config(""));
    pair.wait_table(&["10.1.1.2"]);
    assert_eq!(pair.agent.terminate(), Some(0));
    wait_until(LONG, || match pair.router.log() {
        text if text.contains("anyvip stops") => Ok(()),
        text => Err(text),
    });
}

pub(crate) fn roles_are_agreed_or_refused_and_routes_marked<R: Router>() {
    let start = |role: &'static str, lines: &str| {
        Pair::<R>::new(&Manner { role: Some(role), ..Manner::default() }, &config_of_peer(lines))
    };
    let marked = Told::OnlyToCustomer(65001);
    let pair = start("provider", "role = \"customer\"\nrole_strict = true");
    pair.wait_table(&["10.1.1.2"]);
    assert_eq!(pair.agent.status()["peers"][0]["role"], "provider");
    assert!(!pair.router.shown(VIP4).contains(&R::words(&marked)), "a customer's routes are not marked");
    drop(pair);

    let pair = start("provider", "role = \"peer\"");
    pair.wait_error("Role Mismatch (2/11)");
    pair.wait_error("our role is peer, so the peer has to be peer");
    drop(pair);

    let pair = start("customer", "role = \"provider\"");
    pair.wait_shown(&[marked]);
}

/// A router that tells no role, and we insist on one.
pub(crate) fn a_router_without_a_role_is_refused_where_one_is_required<R: Router>() {
    let pair = Pair::<R>::new(&Manner::default(), &config_of_peer("role = \"customer\"\nrole_strict = true"));
    pair.wait_error("the peer has to be provider, and has to say so");
}

pub(crate) fn a_wrong_as_number_is_named<R: Router>() {
    let pair = Pair::<R>::new(&Manner::default(), &config("").replace("asn = 65000\n", "asn = 64999\n"));
    pair.wait_error("Bad Peer AS (2/2): the peer is AS 65000, and its asn here is 64999");
    assert_ne!(pair.agent.status()["peers"][0]["state"], "Established");
}

pub(crate) fn a_prefix_limit_of_the_router_is_named<R: Router>() {
    let vips = format!("\"{VIP4}\", \"198.51.100.2\", \"198.51.100.3\"");
    let manner = Manner { limit: Some(1), ..Manner::default() };
    let pair = Pair::<R>::new(&manner, &agent_config_with(1, &vips, ""));
    pair.wait_error("Maximum Number of Prefixes Reached (6/1)");
}

pub(crate) fn the_name_of_the_host_is_shown<R: Router>() {
    let config = config_of_peer("host_name = \"lighthouse.example.net\"\nsoftware_version = true");
    let pair = Pair::<R>::new(&Manner::default(), &config);
    pair.wait_table(&["10.1.1.2"]);
    wait_until(LONG, || match pair.router.session() {
        text if text.contains("lighthouse") => Ok(()),
        text => Err(text),
    });
}

/// What crosses the wire after the router has asked, as hexadecimal digits, until `wanted` finds what it wants.
fn asked_again<R: Router>(wanted: impl Fn(&str) -> bool) {
    let pair = Pair::<R>::new(&Manner::default(), &config(""));
    pair.wait_table(&["10.1.1.2"]);
    let capture = pair.fabric.capture(&pair.fabric.router, "h1", "-X src 10.1.1.2 and tcp port 179");
    pair.router.ask_again();
    wait_until(LONG, || {
        let dump = capture.output();
        let octets: String = dump
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("0x")?.split_once(":  "))
            .flat_map(|(_, octets)| {
                octets.split("  ").next().unwrap_or_default().chars().filter(char::is_ascii_hexdigit)
            })
            .collect();
        if wanted(&octets) { Ok(()) } else { Err(dump) }
    });
    assert_eq!(pair.withdrawals(), 0);
    pair.wait_table(&["10.1.1.2"]);
}

/// 198.51.100.1/32 as NLRI.
const PREFIX: &str = "20c6336401";

pub(crate) fn a_router_that_asks_again_is_answered<R: Router>() {
    asked_again::<R>(|octets| octets.contains(PREFIX));
}

/// The marks of an answer: ROUTE-REFRESH (type 5), IPv4, subtypes 1 and 2, unicast; 23 octets (RFC 7313 §3.2).
pub(crate) fn a_router_that_asks_again_gets_a_marked_answer<R: Router>() {
    asked_again::<R>(|octets| {
        let places = ["00170500010101", PREFIX, "00170500010201"].map(|mark| octets.find(mark));
        places.is_sorted() && places.iter().all(Option::is_some)
    });
}

/// Our AS number towards this router alone.
pub(crate) fn one_router_can_know_us_by_another_as_number<R: Router>() {
    let pair = Pair::<R>::new(
        &Manner { host_asn: Some(64999), ..Manner::default() },
        &config_of_peer("local_asn = 64999"),
    );
    pair.wait_table(&["10.1.1.2"]);
    pair.wait_shown(&[Told::Path(&[64999])]);
}

/// Not the address that the session comes from.
pub(crate) fn the_next_hop_is_the_one_that_is_named<R: Router>() {
    let pair =
        Pair::<R>::new(&Manner::default(), &config("[service.web.announce]\nnext_hop = \"10.1.1.9\"\n"));
    pair.wait_table(&["10.1.1.9"]);
}

/// The router would take both.
pub(crate) fn only_the_families_that_are_named_are_offered<R: Router>() {
    let both = anyvip_tests::agent_config(1);
    let pair = Pair::<R>::new(
        &Manner::default(),
        &both.replace("asn = 65000\n", "asn = 65000\nfamilies = [\"ipv4\"]\n"),
    );
    pair.wait_table(&["10.1.1.2"]);
    let status = pair.agent.wait_status("the other family, and why it is not told", |status| {
        vip(status, VIP6)["peers"][0]["reason"] == "FamilyNotNegotiated"
    });
    assert_eq!(status["peers"][0]["families"], serde_json::json!(["ipv4"]), "{status}");
    assert_eq!(pair.router.next_hops(&pair.fabric, VIP6), Vec::<String>::new());
}
