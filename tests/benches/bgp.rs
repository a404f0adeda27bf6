//! What reading and writing an UPDATE costs, beside two other libraries in the same run; how long 1,000 VIPs take to the wire; how
//! long a withdrawal takes into the kernel of a router; how soon each end finds the other frozen by BFD. `scripts/bench.sh` runs it; all
//! but the first needs root, and the routers that it names.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyvip_bgp::wire::{
    AsPath, Codec, Community, Family, Message, NextHop, PathAttributes, Reach, Update, pack_announcements,
};
use anyvip_tests::{
    Agent, AgentFiles, Binaries, Bird, Fabric, Frr, LONG, Need, Process, Scratch, VIP4, agent_config_with,
    binaries, met, wait_until,
};
use netgauze_bgp_pkt::BgpMessage as NetgauzeMessage;
use netgauze_bgp_pkt::wire::deserializer::BgpParsingContext;
use netgauze_parse_utils::WritablePdu;
use netgauze_parse_utils::reader::SliceReader;
use netgauze_parse_utils::traits::ParseFromWithOneInput;
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};
use zettabgp::message::update::BgpUpdateMessage;
use zettabgp::prelude::*;

fn main() {
    codec();
    if met(&[Need::Root]) {
        many_vips();
    }
    let scratch = Scratch::new();
    let agents = [("with CAP_SYS_NICE", binaries!().agent), ("without it", without_priority(&scratch))];
    if met(&[Need::Root, Need::Bird]) {
        withdrawals();
        for agent in agents {
            frozen::<Bird>("BIRD", 150, agent);
        }
    }
    if met(&[Need::Root, Need::Frr, Need::Bfdd]) {
        for agent in agents {
            frozen::<Frr>("FRR", 210, agent);
        }
    }
}

fn row(what: &str, must_reach: &str, measured: &str) {
    println!("{what:<62} {must_reach:<24} {measured}");
}

/// The best of seven runs of a tenth of a second, in time of the processor: what it costs whatever else the machine does.
fn nanoseconds(mut work: impl FnMut()) -> f64 {
    let clock = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
    let mut best = f64::MAX;
    for _ in 0..7 {
        let (begun, mut times) = (clock(), 0_u32);
        while clock() - begun < Duration::from_millis(100) {
            for _ in 0..256 {
                work();
            }
            times += 256;
        }
        best = best.min((clock() - begun).as_nanos() as f64 / f64::from(times));
    }
    best
}

fn codec() {
    let codec =
        Codec { families: [Family::Ipv4, Family::Ipv6].into(), four_octet_as: true, ..Codec::before_open() };
    let attributes = PathAttributes {
        as_path: AsPath::sequence([65001]),
        med: Some(10),
        communities: [Community(0xfde9_0064)].into_iter().collect(),
        ..PathAttributes::default()
    };
    let next_hop = NextHop::V4(Ipv4Addr::new(10, 0, 0, 1));
    for (count, must_reach) in [(1_u32, "≤ 300 ns"), (500, "≤ 10 µs")] {
        let prefixes: Vec<_> = (0..count)
            .map(|n| ipnet::IpNet::V4(ipnet::Ipv4Net::new(Ipv4Addr::from(0xc633_6400 + n), 32).unwrap()))
            .collect();
        let mut frame = Vec::new();
        pack_announcements(&codec, &attributes, &next_hop, Family::Ipv4, &prefixes, &mut frame).unwrap();
        let ours = nanoseconds(|| {
            let message = Message::decode(black_box(&frame), &codec).unwrap();
            assert_eq!(black_box(message.encode(&codec)).len(), frame.len());
        });
        let netgauze = nanoseconds(|| {
            let mut context =
                BgpParsingContext::new(true, HashMap::new(), HashMap::new(), true, true, true, true);
            let mut reader = SliceReader::new(black_box(&frame));
            let message = NetgauzeMessage::parse(&mut reader, &mut context).unwrap();
            let mut written = Vec::with_capacity(frame.len());
            message.write(&mut written).unwrap();
            assert_eq!(black_box(written).len(), frame.len());
        });
        let mut session =
            BgpSessionParams::new(65001, 9, BgpTransportMode::IPv4, Ipv4Addr::new(10, 0, 0, 1), Vec::new());
        session.fuzzy_pathid = false;
        session.has_as32bit = true;
        let mut room = vec![0; 8192];
        let zettabgp = nanoseconds(|| {
            let mut update = BgpUpdateMessage::new();
            update.decode_from(&session, black_box(&frame[19..])).unwrap();
            assert!(black_box(update.encode_to(&session, &mut room).unwrap()) > 0);
        });
        row(
            &format!("decode + encode one UPDATE of {count} prefixes"),
            must_reach,
            &format!("{ours:.0} ns (netgauze {netgauze:.0} ns, zettabgp {zettabgp:.0} ns)"),
        );
        let update = Update {
            reach: vec![Reach { family: Family::Ipv4, next_hop, prefixes }],
            attributes: attributes.clone(),
            ..Update::default()
        };
        assert_eq!(Message::decode(&frame, &codec), Ok(Message::Update(update)));
    }
}

/// All on the wire, from the event that makes the session Established to the return of the write, as the agent itself counts it.
fn many_vips() {
    let fabric = Fabric::new(binaries!(), 1);
    let vips: Vec<String> = (0..1000).map(|n| format!("\"198.18.{}.{}\"", n / 250, n % 250 + 1)).collect();
    let config =
        agent_config_with(1, &vips.join(", "), "").replace("checks = [\"web\"]", "checks = \"none\"");
    let check = config.find("[check.web]").unwrap()..config.find("[service.web]").unwrap();
    let config = config.replace(&config[check], "");
    let files = AgentFiles::new(&fabric.lab, "h1", &config);
    let agent = Agent::start(&fabric.lab, fabric.host(1), files);
    agent.wait_status("all but the session", |status| {
        let vips = status["services"][0]["vips"].as_array().unwrap();
        vips.iter().all(|vip| vip["wanted"] == true)
    });
    let speaker = fabric.speaker(1, "plain");
    let status = agent.wait_status("all advertised", |status| {
        status["peers"][0]["advertised"].as_array().is_some_and(|told| told.len() == 1000)
    });
    row(
        "1,000 VIPs on the wire after Established",
        "< 50 ms",
        &format!(
            "{:.2} ms in {} UPDATEs",
            status["decision_to_wire_us"]["max"].as_f64().unwrap() / 1000.0,
            speaker.count("update")
        ),
    );
    row("resident memory with 1,000 VIPs", "< 16384 kB", &format!("{} kB", agent.process.resident()));
}

const BIRD: &str = "router id 10.9.0.1;\nprotocol device { scan time 60; }\n\
    protocol kernel k4 { scan time 60; ipv4 { import none; export where source = RTS_BGP; }; }\n\
    protocol bgp h1 { local as 65000; neighbor 10.1.1.2 as 65001; passive on; ipv4 { import all; export none; }; }\n";

/// From the moment of the verdict in the agent's journal to that of the kernel's message about the route, by the clock of the machine.
fn withdrawals() {
    let fabric = Fabric::new(binaries!(), 1);
    let _bird = Bird::with(&fabric.lab, &fabric.router, BIRD);
    let _service = fabric.service(1);
    let agent = fabric.agent_with(1, &agent_config_with(1, &format!("\"{VIP4}\""), ""));
    let monitor = monitor(&fabric);
    let mut took = Vec::new();
    for _ in 0..21 {
        agent.wait_advertised(VIP4, "tor");
        wait_next_hops(&fabric, 1);
        agent.run("drain", &["web"]);
        wait_next_hops(&fabric, 0);
        let told = last_moment(&agent.run("events", &["--json"]), "withheld");
        let gone = moment_of_deletion(&monitor.output());
        took.push((gone - told).max(0.0));
        agent.run("undrain", &["web"]);
    }
    took.sort_by(f64::total_cmp);
    row(
        "decided → withdrawn from the table of BIRD's kernel (21 times)",
        "median ≤ 10 ms",
        &format!("median {:.0} ms, max {:.0} ms", took[took.len() / 2], took[took.len() - 1]),
    );
}

/// A router that follows host 1 by BFD.
trait Follower {
    fn start(fabric: &Fabric) -> Self;
    fn what_speaks_bfd(&mut self) -> &mut Process;
}

impl Follower for Bird {
    fn start(fabric: &Fabric) -> Bird {
        let bfd = "protocol bfd { interface \"*\" { interval 50 ms; multiplier 3; }; }\n";
        let guarded = "passive on; bfd on; error wait time 1, 2; error forget time 5;";
        Bird::with(&fabric.lab, &fabric.router, &(BIRD.replace("passive on;", guarded) + bfd))
    }

    fn what_speaks_bfd(&mut self) -> &mut Process {
        self.process()
    }
}

impl Follower for Frr {
    fn start(fabric: &Fabric) -> Frr {
        let config = "frr defaults datacenter\nservice integrated-vtysh-config\nbfd\n profile fast\n  \
            transmit-interval 50\n  receive-interval 50\n  detect-multiplier 3\n exit\nexit\nrouter bgp 65000\n \
            bgp router-id 10.9.0.1\n no bgp ebgp-requires-policy\n coalesce-time 10\n neighbor HOSTS peer-group\n \
            neighbor HOSTS remote-as external\n neighbor HOSTS bfd profile fast\n \
            bgp listen range 10.1.0.0/16 peer-group HOSTS\n address-family ipv4 unicast\n  \
            neighbor HOSTS activate\n exit-address-family\n address-family ipv6 unicast\n  \
            neighbor HOSTS activate\n exit-address-family\nexit\n";
        Frr::with(&fabric.lab, &fabric.router, config)
    }

    fn what_speaks_bfd(&mut self) -> &mut Process {
        self.bfdd()
    }
}

/// BFD at 3 × 50 ms, seven times each way: the router is frozen until the agent's journal says Down; the agent is frozen until its route
/// is out of the router's kernel.
fn frozen<R: Follower>(router_name: &str, kernel_ms: u64, (right, binary): (&str, &'static str)) {
    let fabric = Fabric::new(Binaries { agent: binary, ..binaries!() }, 1);
    let mut router = R::start(&fabric);
    let config = agent_config_with(1, &format!("\"{VIP4}\""), "")
        .replace("asn = 65000", "asn = 65000\nbfd = { interval = \"50ms\" }");
    let _service = fabric.service(1);
    let mut agent = fabric.agent_with(1, &config);
    let monitor = monitor(&fabric);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let settled = |agent: &Agent| {
        agent.wait_status("fast BFD", |status| status["peers"][0]["bfd"]["detection_us"] == 150_000);
        wait_next_hops(&fabric, 1);
    };
    for _ in 0..7 {
        settled(&agent);
        let begun = anyvip_io::clock::wall_clock_millis();
        router.what_speaks_bfd().signal(Signal::SIGSTOP);
        agent.wait_status("Down", |status| status["peers"][0]["bfd"]["state"] == "Down");
        router.what_speaks_bfd().signal(Signal::SIGCONT);
        ours.push(last_moment(&agent.run("events", &["--json"]), " is Down") - (begun % DAY) as f64);
        settled(&agent);
        let begun = anyvip_io::clock::wall_clock_millis();
        agent.process.signal(Signal::SIGSTOP);
        wait_next_hops(&fabric, 0);
        agent.process.signal(Signal::SIGCONT);
        theirs.push(moment_of_deletion(&monitor.output()) - (begun % DAY) as f64);
    }
    for (what, most, took) in [
        (format!("BFD 3 × 50 ms, {router_name} frozen → we say Down, {right}"), 200, &mut ours),
        (format!("host frozen → out of the kernel of {router_name}, {right}"), kernel_ms + 50, &mut theirs),
    ] {
        took.sort_by(f64::total_cmp);
        row(&what, &format!("≤ {most} ms"), &format!("median {:.0} ms, max {:.0} ms of 7", took[3], took[6]));
    }
}

/// The agent without CAP_SYS_NICE: a script that takes it away.
fn without_priority(scratch: &Scratch) -> &'static str {
    let script = scratch.write(
        "anyvip",
        &format!(
            "#!/bin/sh\nexec setpriv --bounding-set -sys_nice --inh-caps -sys_nice {} \"$@\"\n",
            binaries!().agent
        ),
    );
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    script.display().to_string().leak()
}

const DAY: u64 = 86_400_000;

/// What happens to routes of the router's kernel, and when.
fn monitor(fabric: &Fabric) -> Process {
    let log = fabric.lab.scratch().path().join("routes");
    let mut command = fabric.router.command("ip");
    Process::start("ip monitor", command.args(["-ts", "monitor", "route"]).env("TZ", "UTC"), &log)
}

fn wait_next_hops(fabric: &Fabric, wanted: usize) {
    wait_until(LONG, || match fabric.router.next_hops(VIP4) {
        hops if hops.len() == wanted => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// Milliseconds of the day of the last event with this word.
fn last_moment(events: &str, word: &str) -> f64 {
    let event = events.lines().rfind(|line| line.contains(word)).expect("such an event");
    let event: serde_json::Value = serde_json::from_str(event).unwrap();
    event["at_ms"].as_f64().unwrap() % DAY as f64
}

/// The same of the last deletion of the VIP's route: `[2026-11-21T09:00:00.123456] Deleted …`.
fn moment_of_deletion(log: &str) -> f64 {
    let line = log.lines().rfind(|line| line.contains("Deleted") && line.contains(VIP4)).expect("a deletion");
    let clock = line.split(['T', ']']).nth(1).expect("a time");
    let parts: Vec<f64> = clock.split(':').map(|part| part.parse().unwrap()).collect();
    ((parts[0] * 60.0 + parts[1]) * 60.0 + parts[2]) * 1000.0
}
