//! Files as people write them.

use std::collections::BTreeSet;
use std::time::Duration;

use anyvip_bgp::PeerName;
use anyvip_bgp::wire::{Community, Family};

use super::*;
use crate::boundary::{CheckName, ServiceName};

const MINIMAL: &str = r#"[bgp]
asn = 65011
[bgp.peer.tor1]
address = "10.0.1.1"
asn = 65001
[service.web]
vips = ["192.0.2.80"]
[[service.web.check]]
http = { port = 8080, path = "/healthz" }
"#;

fn source(name: &str, text: &str) -> Source {
    Source { name: name.to_owned(), text: text.to_owned() }
}

/// A host with one uplink.
fn facts() -> HostFacts {
    let at = |interface: &str, address: &str, prefix_len| InterfaceAddress {
        interface: interface.to_owned(),
        address: address.parse().unwrap(),
        prefix_len,
    };
    HostFacts {
        stored_router_id: None,
        addresses: vec![
            at("lo", "127.0.0.1", 8),
            at("lo", "192.0.2.80", 32),
            at("eth0", "169.254.7.7", 16),
            at("eth0", "10.0.1.11", 24),
            at("docker0", "10.0.0.1", 24),
        ],
        default_uplinks: BTreeSet::new(),
    }
}

fn loaded(text: &str) -> Loaded {
    match load(&[source("config.toml", text)], &facts()) {
        Ok(loaded) => loaded,
        Err(found) => panic!("{}", lines(&found)),
    }
}

fn lines(found: &[Diagnostic]) -> String {
    found.iter().map(|found| format!("{found}\n")).collect()
}

fn refused(text: &str) -> String {
    match load(&[source("c", text)], &facts()) {
        Ok(loaded) => panic!("taken: {loaded:?}"),
        Err(found) => lines(&found),
    }
}

#[test]
fn a_file_of_ten_lines_is_enough() {
    assert!(MINIMAL.lines().count() <= 10);
    let Loaded { config, warnings } = loaded(MINIMAL);
    assert_eq!(lines(&warnings), "");
    assert_eq!(config.router_id.to_string(), "10.0.1.11");
    let peer = &config.bgp.peers[&PeerName::from("tor1")];
    assert_eq!((peer.remote.port(), peer.ttl, peer.connect), (179, Some(1), true));
    assert_eq!((peer.hold_time, peer.connect_retry), (Some(Duration::from_secs(9)), Duration::from_secs(1)));
    assert_eq!(peer.families, BTreeSet::from([Family::Ipv4]));
    let web = &config.services[&ServiceName::from("web")];
    assert_eq!(web.peers, BTreeSet::from([PeerName::from("tor1")]));
    let [check] = web.checks.as_slice() else { panic!("{:?}", web.checks) };
    assert_eq!(check.name, CheckName::from("web/1"));
    assert!(check.on_vip);
    assert_eq!((check.interval, check.timeout), (Duration::from_secs(1), Duration::from_millis(500)));
    assert_eq!((check.rise, check.fall), (2, 2));
    let CheckKind::Http(http) = &check.kind else { panic!("{check:?}") };
    assert_eq!((http.port, http.path.as_str(), http.address), (8080, "/healthz", None));
    assert_eq!(http.expect_status, [(200, 299)]);
    assert_eq!(config.host.vip_interface, "lo");
    assert_eq!(config.host.stop_time, Duration::from_secs(2));
}

#[test]
fn a_missing_number_is_told_with_its_place_and_remedy() {
    let text = MINIMAL.replace("asn = 65001\n", "");
    let found = refused(&text);
    assert_eq!(
        found,
        "c:3:11: bgp.peer.tor1.asn: missing; write asn = …, the AS number of the router, here or in [bgp.defaults]\n"
    );
}

#[test]
fn included_files_grow_together_and_a_key_set_twice_names_both_places() {
    let main = source("config.toml", &format!("include = [\"conf.d/*.toml\"]\n{MINIMAL}"));
    let (patterns, found) = includes(&main);
    assert_eq!(patterns.iter().map(|at| at.value.as_str()).collect::<Vec<_>>(), ["conf.d/*.toml"]);
    assert_eq!(lines(&found), "");
    let more = source(
        "conf.d/dns.toml",
        "[service.dns]\nvips = [\"192.0.2.53\"]\nchecks = \"none\"\n[service.web]\non_error = \"fail\"\n",
    );
    let config = load(&[main.clone(), more.clone()], &facts()).unwrap().config;
    assert_eq!(config.services.len(), 2);
    assert_eq!(config.services[&ServiceName::from("web")].on_error, OnError::Fail);

    let twice = source(
        "conf.d/z.toml",
        "include = []\nrouter_id = \"10.0.0.1\"\n[service.dns]\nchecks = []\n[bgp.peer]\ntor1 = 5\n",
    );
    let found = load(&[main, more, twice], &facts()).unwrap_err();
    assert_eq!(
        lines(&found),
        "conf.d/z.toml:1:1: include: set twice (first at config.toml:1:1); remove one of the two\n\
         conf.d/z.toml:4:1: service.dns.checks: set twice (first at conf.d/dns.toml:3:1); remove one of the two\n\
         conf.d/z.toml:6:1: bgp.peer.tor1: set twice (first at config.toml:4:11); remove one of the two\n"
    );
    let alone = [source("a", MINIMAL), source("b", "include = [\"*.toml\"]")];
    assert!(
        lines(&load(&alone, &facts()).unwrap_err())
            .starts_with("b:1:1: include: only the main file may include")
    );
}

#[test]
fn toml_that_cannot_be_parsed_is_told_and_hides_neither_other_errors_nor_invents_some() {
    let text = MINIMAL.replace("asn = 65001", "asn = = 65001").replace("192.0.2.80", "192.0.2.0/24");
    let found = refused(&text);
    assert!(found.contains("c:5:"), "{found}");
    assert!(found.contains("c:7:9: service.web.vips[0]: a VIP is one address, not a /24 network"), "{found}");
    assert!(!found.contains("missing"), "{found}");
    assert!(refused("").contains("c:1:1: bgp: missing"));
    assert!(lines(&load(&[], &facts()).unwrap_err()).contains("configuration:1:1: bgp: missing"));
}

#[test]
fn the_router_id_is_written_else_stored_else_the_lowest_address_of_an_uplink() {
    let id = |text: &str, facts: &HostFacts| {
        load(&[source("c", text)], facts)
            .map(|loaded| loaded.config.router_id.to_string())
            .map_err(|found| lines(&found))
    };
    let mut facts = facts();
    assert_eq!(id(MINIMAL, &facts).unwrap(), "10.0.1.11");
    // docker0 holds a lower one, and counts once it is an uplink.
    facts.default_uplinks.insert("docker0".to_owned());
    assert_eq!(id(MINIMAL, &facts).unwrap(), "10.0.0.1");
    assert_eq!(id(&format!("{MINIMAL}[host]\nuplinks = [\"eth0\"]"), &facts).unwrap(), "10.0.1.11");
    facts.stored_router_id = Some(Ipv4Addr::new(10, 9, 9, 9));
    assert_eq!(id(MINIMAL, &facts).unwrap(), "10.9.9.9");
    assert_eq!(id(&format!("router_id = \"10.8.8.8\"\n{MINIMAL}"), &facts).unwrap(), "10.8.8.8");
    // A stored one that has become a VIP is not unique any more.
    facts.stored_router_id = Some(Ipv4Addr::new(192, 0, 2, 80));
    assert_eq!(id(MINIMAL, &facts).unwrap(), "10.0.0.1");
    let nothing = id(MINIMAL, &HostFacts::default()).unwrap_err();
    assert!(nothing.contains("router_id: no uplink has a global IPv4 address"), "{nothing}");
    assert!(nothing.contains("write router_id ="), "{nothing}");
}

#[test]
fn peers_take_defaults_and_sane_ttls_and_families() {
    let Loaded { config, .. } = loaded(
        r#"
        [bgp]
        asn = 65011
        listen = "127.0.0.1:1179"
        [bgp.defaults]
        asn = 65001
        hold_time = "30s"
        [bgp.peer.external]
        address = "10.0.1.1"
        [bgp.peer.internal]
        address = "10.0.1.2"
        asn = 65011
        hold_time = "0s"
        [bgp.peer.local]
        address = "127.0.0.1"
        port = 1790
        passive = true
        [bgp.peer.far]
        address = "2001:db8::1"
        ttl = 5
        families = ["ipv6"]
        [service.four]
        vips = ["192.0.2.1/32"]
        checks = "none"
        peers = ["external", "internal"]
        [service.six]
        vips = ["2001:db8::53"]
        checks = "none"
        peers = ["internal", "far"]
        "#,
    );
    let peer = |name: &str| &config.bgp.peers[&PeerName::from(name)];
    let ttls: Vec<_> = ["external", "internal", "local", "far"].map(|name| peer(name).ttl).into();
    assert_eq!(ttls, [Some(1), None, None, Some(5)]);
    assert_eq!(peer("external").families, BTreeSet::from([Family::Ipv4]));
    assert_eq!(peer("internal").families, BTreeSet::from([Family::Ipv4, Family::Ipv6]));
    assert_eq!(peer("internal").hold_time, None);
    assert_eq!(peer("external").hold_time, Some(Duration::from_secs(30)));
    assert_eq!((peer("local").connect, peer("local").remote.port()), (false, 1790));
    // Nobody uses the local one.
    assert_eq!(peer("local").families, BTreeSet::from([Family::Ipv4]));
}

/// A file with every key of this version; each of the lines marked `#?` may be left out by itself.
const RICH: &str = r#"
config_version = 1 #?
router_id = "10.0.1.11" #?
[host]
vip_interface = "dummy0" #?
uplinks = ["eth1", "eth0"] #?
return_path = "warn" #?
stop_time = "1500ms" #?
stop_removes_vip = true #?
[bgp]
asn = 65011
listen = "[::]:1179" #?
install_default = true #?
[bgp.defaults]
asn = 65001
hold_time = "0s" #?
connect_retry = "2m" #?
[bgp.peer.tor1]
address = "10.0.1.1"
interface = "eth0" #?
ttl = 3 #?
bfd = { interval = "50ms", multiplier = 5, strict = true, min_ttl = 250, authentication = "keyed-sha1", key_id = 7, key_file = "/k" } #?
[responder]
listen = "0.0.0.0:8080"
[static.peer.rtr]
address = "10.0.2.1"
interface = "eth1" #?
interval = "10ms" #?
multiplier = 10 #?
min_ttl = 254 #?
authentication = "simple"
key_id = 0 #?
key_file = "/etc/anyvip/bfd.key"
[bgp.peer."tor.2"]
address = "2001:db8::1"
asn = 65011 #?
port = 1790 #?
hold_time = "90s" #?
ttl_security = 2 #?
add_path = true #?
extended_messages = true #?
heard_limit = 500 #?
families = ["ipv6", "ipv4"] #?
local_asn = 65099 #?
source_address = "2001:db8::11" #?
password_file = "/etc/anyvip/tor2.key" #?
role = "rs-client" #?
role_strict = true #?
host_name = "h1.example.net" #?
software_version = true #?
[check.port]
tcp = { address = "::1", port = 53, send = "a\r\n", expect = "\"b\"" }
interval = "15ms" #?
[check.script]
exec = { command = ["/bin/true", "--flag", "with space"] }
target = "vip" #?
timeout = "1s" #?
rise = 1 #?
[service.dns]
vips = ["2001:db8::53", "192.0.2.53/32"]
checks = ["script", "port"]
peers = ["tor.2"] #?
static = ["rtr"] #?
responder = "[::]:8053" #?
on_error = "fail" #?
on_failure = "depreference"
drain_time = "5s" #?
[service.dns.announce]
med = 4294967295 #?
local_pref = 0 #?
prepend = 3 #?
communities = ["no-export", "65001:100", "4200000000:1:2", "rt:65001:7"] #?
next_hop = ["10.0.1.11", "2001:db8::11"] #?
weight = 25 #?
prefixes = ["2001:db8::/48", "192.0.2.0/24", "192.0.2.53"] #?
[service.dns.announce.depreferenced]
prepend = 6
[service.dns.announce.draining]
communities = ["graceful-shutdown"] #?
med = 9 #?
[service.dns.announce.peer."tor.2"]
med = 5 #?
[service.dns.announce.peer."tor.2".depreferenced]
weight = 1 #?
[[service.dns.check]]
http = { url = "https://[::1]:8443/x?y=z", tls = { ca_file = "/ca.pem", server_name = "a.example" }, headers = { Accept = "text/plain", X-A = "" } }
fall = 9 #?
[[service.dns.check]]
http = { port = 8080, method = "HEAD", host = "a.example:8080", expect_status = [204, "300-399"] }
[[service.dns.check]]
http = { tls = { insecure = true }, expect_status = 200, expect_body = "ok" }
[service.web]
vips = ["192.0.2.80"]
checks = "none"
"#;

/// RICH without the optional lines that `keep` does not keep.
fn variant(keep: impl Fn(usize) -> bool) -> String {
    let mut optional = 0..;
    let kept = RICH.lines().filter(|line| !line.ends_with("#?") || optional.next().is_some_and(&keep));
    kept.map(|line| format!("{line}\n")).collect()
}

fn optional_lines() -> usize {
    RICH.matches("#?").count()
}

proptest::proptest! {
    #[test]
    fn the_shown_file_loads_to_the_same_configuration(keep in proptest::collection::vec(proptest::bool::ANY, optional_lines())) {
        let config = loaded(&variant(|line| keep[line])).config;
        let shown = show(&config);
        // On any host: nothing is left to be found out.
        let again = load(&[source("shown", &shown)], &HostFacts::default());
        match again {
            Ok(again) => assert_eq!(again.config, config, "{shown}"),
            Err(found) => panic!("{}\n{shown}", lines(&found)),
        }
        assert_eq!(diff(&config, &config), []);
    }

    #[test]
    fn no_damaged_file_panics_and_spans_stay_inside(
        edits in proptest::collection::vec((0..RICH.len(), proptest::num::u8::ANY, 0..3_u8), 1..6),
    ) {
        let mut bytes = RICH.as_bytes().to_vec();
        for (at, byte, kind) in edits {
            let at = at.min(bytes.len() - 1);
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, b"\"[]{}=.\n#-0"[usize::from(byte) % 11]),
                _ => { bytes.remove(at); }
            }
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let sources = [source("main", &text), source("more", RICH)];
        for sources in [&sources[..1], &sources[..]] {
            let found = load(sources, &facts()).map_or_else(|found| found, |loaded| loaded.warnings);
            for found in found {
                assert!(sources[found.source].text.get(found.span.clone()).is_some(), "{found}");
                for related in &found.related {
                    assert!(sources[related.source].text.get(related.span.clone()).is_some(), "{found}");
                }
            }
        }
    }
}

#[test]
fn every_key_of_the_table_is_in_the_shown_file_of_a_full_configuration() {
    let config = loaded(&variant(|_| true)).config;
    let dns = &config.services[&ServiceName::from("dns")];
    let names: Vec<&str> = dns.checks.iter().map(|check| check.name.0.as_str()).collect();
    assert_eq!(names, ["script", "port", "dns/1", "dns/2", "dns/3"]);
    assert_eq!(
        dns.checks.iter().map(|check| check.on_vip).collect::<Vec<_>>(),
        [true, false, false, true, true]
    );
    assert_eq!(dns.checks[1].timeout, Duration::from_millis(7));
    let CheckKind::Http(http) = &dns.checks[4].kind else { panic!() };
    assert_eq!((http.port, http.tls.as_ref().map(|tls| tls.insecure)), (443, Some(true)));
    let communities = dns.announce.all.always.communities.clone().unwrap();
    assert_eq!(communities.standard, BTreeSet::from([Community::NO_EXPORT, Community(65001 << 16 | 100)]));
    assert_eq!((communities.large.len(), communities.extended.len()), (1, 1));
    let shown = show(&config);
    for key in all_keys(keys::ROOT).into_iter().filter(|key| !["include", "defaults"].contains(key)) {
        assert!(shown.contains(key), "{key} is not in\n{shown}");
    }
}

fn all_keys(section: &keys::Section) -> Vec<&'static str> {
    let mut names = Vec::new();
    for key in section.keys {
        names.push(key.name);
        match (key.nesting)() {
            read::Nesting::Leaf => {}
            read::Nesting::Table(below) | read::Nesting::Named(below) | read::Nesting::Array(below) => {
                names.extend(all_keys(below));
            }
        }
    }
    names
}

#[test]
fn a_reload_tells_sessions_first_then_routes_then_the_rest() {
    let old = loaded(RICH).config;
    let changed = RICH
        .replace("hold_time = \"90s\"", "hold_time = \"30s\"")
        .replace("prepend = 3", "prepend = 4")
        .replace("rise = 1", "rise = 5")
        .replace("stop_time = \"1500ms\"", "stop_time = \"3s\"")
        + "[service.new]\nvips = [\"192.0.2.1\"]\nchecks = \"none\"\npeers = [\"tor1\"]\n";
    let new = loaded(&changed).config;
    let told: Vec<String> = diff(&old, &new).iter().map(Change::to_string).collect();
    assert_eq!(
        told,
        [
            "bgp.peer.\"tor.2\".hold_time: \"90s\" -> \"30s\" (session reset with tor.2)",
            "service.dns.announce.prepend: 3 -> 4 (routes told again to tor.2)",
            "service.new: added (routes told again to tor1)",
            "check.script.rise: 1 -> 5",
            "host.stop_time: \"1500ms\" -> \"3s\"",
        ]
    );
}

#[test]
fn a_new_family_or_number_resets_sessions_and_a_moved_service_concerns_who_gains_and_who_loses() {
    let two = format!("{MINIMAL}[bgp.peer.tor2]\naddress = \"10.0.1.2\"\nasn = 65002\n");
    let (old, new) = (loaded(MINIMAL).config, loaded(&two).config);
    let added = diff(&old, &new);
    let concerned = |changes: &[Change]| -> Vec<(String, Class, String)> {
        let peers =
            |change: &Change| change.peers.iter().map(|peer| peer.0.clone()).collect::<Vec<_>>().join(" ");
        changes.iter().map(|change| (change.key.clone(), change.class, peers(change))).collect()
    };
    assert_eq!(
        concerned(&added),
        [
            ("bgp.peer.tor2".to_owned(), Class::ResetSession, "tor2".to_owned()),
            ("service.web.peers".to_owned(), Class::Readvertise, "tor2".to_owned()),
        ]
    );
    let six = MINIMAL.replace("\"192.0.2.80\"", "\"192.0.2.80\", \"2001:db8::80\"");
    assert_eq!(
        concerned(&diff(&old, &loaded(&six).config)),
        [
            ("bgp.peer.tor1.families".to_owned(), Class::ResetSession, "tor1".to_owned()),
            ("service.web.vips".to_owned(), Class::Readvertise, "tor1".to_owned()),
        ]
    );
    let renumbered = loaded(&two.replace("65011", "65012")).config;
    assert_eq!(
        concerned(&diff(&new, &renumbered)),
        [("bgp.asn".to_owned(), Class::ResetSession, "tor1 tor2".to_owned())]
    );
}

#[test]
fn a_service_may_be_told_to_no_bgp_peer_where_routers_follow_it_with_static_routes() {
    let nobody = "[service.dns]\nvips = [\"192.0.2.53\"]\npeers = []\nchecks = \"none\"\n";
    assert!(refused(&format!("{MINIMAL}{nobody}")).contains("empty: nobody would be told"));
    let follower = "[static.peer.rtr]\naddress = \"10.0.1.1\"\n";
    let config = loaded(&format!("{MINIMAL}{nobody}static = [\"rtr\"]\n{follower}")).config;
    let dns = &config.services[&ServiceName::from("dns")];
    assert!(dns.peers.is_empty() && dns.statics.contains(&"rtr".into()));
    assert_eq!(config.services[&ServiceName::from("web")].peers.len(), 1);
}

#[test]
fn routers_that_probe_may_be_all_that_there_are_and_each_port_gives_one_answer() {
    let alone = "config_version = 1\n[responder]\nlisten = \"0.0.0.0:8080\"\n[service.dns]\nvips = [\"192.0.2.53\"]\n\
                 checks = \"none\"\nresponder = \"[::]:8053\"\n";
    let config = loaded(alone).config;
    assert!(config.bgp.is_none());
    assert_eq!(config.responder.listen, Some("0.0.0.0:8080".parse().unwrap()));
    assert_eq!(config.responder.ports[&ServiceName::from("dns")], "[::]:8053".parse().unwrap());
    assert_eq!(loaded(&show(&config)).config, config);

    let nobody = "[service.dns]\nvips = [\"192.0.2.53\"]\npeers = []\nchecks = \"none\"\n";
    loaded(&format!("{MINIMAL}{nobody}responder = \"0.0.0.0:8053\"\n"));
    assert!(
        refused(&alone.replace("[::]:8053", "0.0.0.0:8080")).contains("0.0.0.0:8080 is listened on already")
    );
    assert!(refused(&alone.replace("[::]:8053", "192.0.2.53:8053")).contains("192.0.2.53 is a VIP"));
    assert!(refused(&alone.replace("[::]:8053", "8053")).contains("\"8053\" is no address with a port"));
    assert!(refused(&alone.replace("[::]:8053", "[::]:0")).contains("port 0 is no port"));
    let empty = alone.replace("listen = \"0.0.0.0:8080\"\n", "");
    assert!(refused(&empty).contains("responder.listen: missing"));
}

#[test]
fn what_nothing_uses_is_taken_with_a_warning() {
    let text = MINIMAL.replace(
        "vips = [\"192.0.2.80\"]",
        "vips = [\"192.0.2.80\"]\npeers = [\"tor1\"]\nannounce.local_pref = 200",
    ) + "[check.spare]\ntcp = { port = 1 }\n[bgp.peer.tor2]\naddress = \"10.0.1.2\"\nasn = 1\n";
    let warnings = loaded(&text).warnings;
    assert!(warnings.iter().all(|found| found.severity == Severity::Warning));
    assert_eq!(
        lines(&warnings),
        "config.toml:9:23: warning: service.web.announce.local_pref: has no effect: none of the service's peers is internal; \
         for external peers write med, prepend or communities\n\
         config.toml:12:8: warning: check.spare: no service uses this check; write checks = [\"spare\"] in a service, or remove it\n\
         config.toml:14:11: warning: bgp.peer.tor2: no service is told to this peer; name \"tor2\" in the peers of a service, or remove it\n"
    );
    assert!(
        lines(
            &loaded(
                "router_id = \"10.0.0.1\"\n[bgp]\nasn = 1\n[bgp.peer.a]\naddress = \"10.0.0.2\"\nasn = 2"
            )
            .warnings
        )
        .contains("service: there is no service")
    );
}

#[test]
fn every_known_name_of_a_community_is_one() {
    let names =
        ["no-export", "no-advertise", "no-export-subconfed", "nopeer", "blackhole", "graceful-shutdown"];
    for name in names {
        let text = format!("{MINIMAL}[service.web.announce]\ncommunities = [{name:?}]\n");
        let config = loaded(&text).config;
        let always = &config.services[&ServiceName::from("web")].announce.all.always;
        let communities = always.communities.clone().unwrap();
        assert_eq!(communities.standard.iter().map(Community::to_string).collect::<Vec<_>>(), [name]);
    }
}

#[test]
fn what_toml_refuses_has_a_place_and_a_remedy_once() {
    let first = |text: &str| {
        refused(text)
            .lines()
            .find(|line| !line.contains("missing") && !line.contains("warning"))
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(
        first("[bgp]\nasn = 1\nasn = 2\n"),
        "c:3:1: set twice (first at c:2:1); remove one of the two"
    );
    assert_eq!(
        first("[bgp]\n# \n[bgp] # again\n"),
        "c:3:2: set twice (first at c:1:1); remove one of the two"
    );
    assert_eq!(first("x = 10.0.0.1"), "c:1:9: invalid float; put text, addresses and durations in quotes");
    assert_eq!(first("[bgp"), "c:1:5: unclosed table, expected `]`; the file must be TOML (https://toml.io)");
    assert_eq!(refused("x = { a = 1, b = }").matches("c:1:18").count(), 1);
}

#[test]
fn a_vip_that_cannot_do_its_work_is_warned_of() {
    let on_uplink = MINIMAL.replace("192.0.2.80", "10.0.1.11");
    let text = format!("router_id = \"10.0.0.1\"\n{on_uplink}");
    assert_eq!(
        lines(&loaded(&text).warnings),
        "config.toml:8:9: warning: service.web.vips[0]: 10.0.1.11 is an address of eth0, where the LAN asks for it by ARP; \
         remove it from eth0: `ip address del 10.0.1.11/24 dev eth0`\n"
    );
    let text = MINIMAL.replace("asn = 65001", "asn = 65001\nfamilies = [\"ipv6\"]");
    assert_eq!(
        lines(&loaded(&text).warnings),
        "config.toml:6:12: warning: bgp.peer.tor1.families: 192.0.2.80 cannot be told without ipv4; add \"ipv4\", or leave this key out\n"
    );
}

#[test]
fn what_a_reload_changes_is_told_without_secrets() {
    let file = |token: &str| {
        format!(
            "config_version = 1\nrouter_id = \"10.0.1.11\"\n[bgp]\nasn = 65011\n[bgp.peer.tor]\naddress = \"10.0.1.1\"\n\
             asn = 65001\n[service.web]\nvips = [\"192.0.2.80\"]\n[[service.web.check]]\n\
             http = {{ port = 80, headers = {{ Authorization = \"Bearer {token}\" }} }}\n\
             [[service.web.check]]\ntcp = {{ port = 6379, send = \"AUTH {token}\" }}\n"
        )
    };
    let (old, new) = (loaded(&file("hunter2")).config, loaded(&file("hunter3")).config);
    assert!(!diff(&old, &new).is_empty(), "the change itself is told");
    let told = format!("{:?} {} {old:?}", diff(&old, &new), serde_json::to_string(&new).unwrap());
    assert!(!told.contains("hunter"), "{told}");
    assert!(show(&new).contains("hunter3"), "whoever may read the file gets it whole");
}
