//! Every lab under `topology/` runs as it is, meets its own expectations, and leaves nothing behind.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};

use anyvip_tests::{LONG, Need, Scratch, met, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Two labs at once would make each other's flows late.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn topology(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("topology").join(name)
}

fn simulator() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anyvip-sim-under-test"));
    command.stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> Output {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Nodes, agents and services of a lab name its folder in their command lines.
    let folder = format!("-{}/", child.id());
    let output = child.wait_with_output().unwrap();
    assert_eq!(of_lab(&folder), Vec::<String>::new(), "processes are left");
    output
}

/// Command lines of processes of the lab in this folder.
fn of_lab(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.contains("anyvip-sim/") && line.contains(folder)).collect()
}

/// Plays a lab and gives back what it wrote for programs.
fn play(lab: &str, more: &[&str]) -> Value {
    let scratch = Scratch::new();
    let json = scratch.path().join("out.json");
    let output = run(simulator()
        .args(["run", topology(lab).to_str().unwrap(), "--agent", env!("CARGO_BIN_EXE_anyvip-under-test")])
        .args(["--json", json.to_str().unwrap()])
        .args(more));
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{lab}: {}\n{}", output.status, String::from_utf8_lossy(&said));
    serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap()
}

#[test]
fn quickstart_meets_its_expectations() {
    if met(&[Need::Root]) {
        let journal = play("quickstart.clab.yml", &[]);
        let verdicts = journal["verdicts"].as_array().expect("verdicts in the JSON");
        assert!(verdicts.len() >= 20, "{verdicts:?}");
        assert!(verdicts.iter().all(|verdict| verdict["met"] == true), "{verdicts:?}");
    }
}

#[test]
fn a_flow_keeps_its_server_also_when_packets_are_lost() {
    if met(&[Need::Root, Need::Program("nft")]) {
        let scenario = topology("quickstart-loss.scenario.yml");
        play("quickstart.clab.yml", &["--scenario", scenario.to_str().unwrap()]);
    }
}

#[test]
fn a_vip_that_somebody_deletes_is_back_at_once_until_it_is_contested() {
    if met(&[Need::Root]) {
        let scenario = topology("quickstart-vip.scenario.yml");
        play("quickstart.clab.yml", &["--scenario", scenario.to_str().unwrap()]);
    }
}

#[test]
fn an_upgrade_loses_no_flow_and_cuts_no_connection() {
    if met(&[Need::Root]) {
        let scenario = topology("upgrade.scenario.yml");
        play("quickstart.clab.yml", &["--scenario", scenario.to_str().unwrap()]);
    }
}

#[test]
fn lan_arp_meets_its_expectations() {
    if met(&[Need::Root]) {
        play("lan-arp.clab.yml", &[]);
    }
}

#[test]
fn two_tor_meets_its_expectations() {
    if met(&[Need::Root]) {
        play("two-tor.clab.yml", &[]);
    }
}

/// The verdicts of this measurement, all met, and the number of them.
fn predicted(journal: &Value, least: usize) {
    let measured = journal["measurements"].as_object().unwrap();
    let counts =
        measured.values().map(|one| (one["twin"]["compared"].as_u64(), one["twin"]["equal"].as_u64()));
    let exact = counts.filter(|(compared, equal)| *compared >= Some(1000) && compared == equal).count();
    assert!(exact >= least, "the twin was right in {exact} of {} measurements", measured.len());
}

#[test]
fn membership_moves_what_the_formula_says_and_every_flow_goes_where_the_twin_says() {
    if met(&[Need::Root]) {
        predicted(&play("membership.clab.yml", &[]), 20);
    }
}

#[test]
fn every_ipv6_flow_goes_where_the_twin_says_under_all_ways_to_install_routes() {
    if met(&[Need::Root]) {
        let scenario = topology("membership-v6.scenario.yml");
        predicted(&play("membership.clab.yml", &["--scenario", scenario.to_str().unwrap()]), 20);
    }
}

#[test]
fn two_tiers_that_hash_alike_leave_servers_idle_until_one_gets_another_seed() {
    if met(&[Need::Root]) {
        predicted(&play("two-tier.clab.yml", &[]), 4);
    }
}

#[test]
fn dns_queries_are_lost_only_until_the_route_of_their_server_is_gone() {
    if met(&[Need::Root]) {
        let scenario = topology("udp-dns.scenario.yml");
        predicted(&play("quickstart.clab.yml", &["--scenario", scenario.to_str().unwrap()]), 2);
    }
}

#[test]
fn connections_survive_the_loss_of_a_router_if_its_neighbour_hashes_alike() {
    if met(&[Need::Root]) {
        predicted(&play("router-loss.clab.yml", &[]), 4);
    }
}

#[test]
fn weights_move_flows_of_a_group_at_once_and_none_of_buckets_in_use() {
    if met(&[Need::Root]) {
        predicted(&play("ramp.clab.yml", &[]), 10);
    }
}

#[test]
fn the_fields_of_the_hash_decide_about_one_client_fragments_and_path_mtu_discovery() {
    if met(&[Need::Root]) {
        let journal = play("hash-fields.clab.yml", &[]);
        predicted(&journal, 4);
        // Its page compares the same flows with each other, and nothing else.
        for moves in journal["moves"].as_array().unwrap() {
            assert!(moves["flows"].as_u64().unwrap() + moves["unanswered"].as_u64().unwrap() > 0, "{moves}");
        }
    }
}

#[test]
fn a_site_is_emptied_without_a_lost_question_and_lost_with_few() {
    if met(&[Need::Root]) {
        predicted(&play("two-sites.clab.yml", &[]), 4);
    }
}

#[test]
fn frr_and_bird_do_in_a_lab_what_the_embedded_router_does() {
    if met(&[Need::Root, Need::Frr, Need::Bird]) {
        predicted(&play("frr-bird.clab.yml", &[]), 9);
    }
}

#[test]
fn what_has_no_need_of_a_kernel_is_the_same_in_virtual_time() {
    for lab in ["two-tier", "router-loss", "ramp", "two-sites"] {
        predicted(&play(&format!("{lab}.clab.yml"), &["--backend", "virtual"]), 4);
    }
}

#[test]
fn membership_is_the_same_in_virtual_time() {
    predicted(&play("membership.clab.yml", &["--backend", "virtual"]), 20);
    let scenario = topology("membership-v6.scenario.yml");
    let more = ["--backend", "virtual", "--scenario", scenario.to_str().unwrap()];
    predicted(&play("membership.clab.yml", &more), 20);
}

#[test]
fn a_lab_runs_without_root_too() {
    if met(&[Need::Root, Need::Program("setpriv")]) {
        let scratch = Scratch::new();
        // Somewhere nobody may read and run: the build folder may be closed to others.
        let copy = |from: &str, name: &str| {
            let to = scratch.path().join(name);
            std::fs::copy(from, &to).unwrap();
            to
        };
        let simulator = copy(env!("CARGO_BIN_EXE_anyvip-sim-under-test"), "anyvip-sim");
        copy(env!("CARGO_BIN_EXE_anyvip-under-test"), "anyvip");
        let folder = scratch.path().join("topology");
        let status = Command::new("cp").arg("-r").arg(topology("")).arg(&folder).status().unwrap();
        assert!(status.success());
        let status = Command::new("chmod").args(["-R", "a+rX"]).arg(scratch.path()).status().unwrap();
        assert!(status.success());
        let output = run(Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--"])
            .arg(&simulator)
            .args(["run", folder.join("quickstart.clab.yml").to_str().unwrap()])
            .stdin(Stdio::null()));
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{}\n{said}", output.status);
        assert!(said.contains("rootless"), "{said}");

        // And it can be left running, looked into, and ended.
        let name = format!("nobody{}", std::process::id());
        let text = std::fs::read_to_string(folder.join("quickstart.clab.yml")).unwrap();
        let lab = folder.join(format!("{name}.clab.yml"));
        std::fs::write(&lab, text.replace("name: quickstart\n", &format!("name: {name}\n"))).unwrap();
        let nobody = |arguments: &[&str]| {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--"]);
            let output = command.arg(&simulator).args(arguments).stdin(Stdio::null()).output().unwrap();
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(output.status.success(), "{arguments:?}: {said}");
            said
        };
        nobody(&["up", lab.to_str().unwrap()]);
        let said =
            nobody(&["exec", "h1", "--lab", &name, "--", "ip", "-brief", "address", "show", "dev", "eth1"]);
        assert!(said.contains("10.0.1.11/24"), "{said}");
        assert_eq!(nobody(&["down", &name]), format!("{name} is down\n"));
        assert_eq!(of_lab(&format!("/{name}/")), Vec::<String>::new(), "processes are left");
    }
}

/// Plays a plan in namespaces, and gives what was said and what was written.
fn compare(plan: &Path, more: &[&str]) -> (String, Value) {
    let scratch = Scratch::new();
    let json = scratch.path().join("out.json");
    let output = run(simulator()
        .args(["compare", plan.to_str().unwrap(), "--backend", "netns", "--json", json.to_str().unwrap()])
        .args(["--agent", env!("CARGO_BIN_EXE_anyvip-under-test")])
        .args(more));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{}\n{said}", output.status);
    (said, serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap())
}

#[test]
fn designs_that_are_measured_do_what_the_model_says_within_stated_bounds() {
    if !met(&[Need::Root, Need::Program("nft")]) {
        return;
    }
    let scratch = Scratch::new();
    let page = scratch.path().join("out.html");
    let (said, json) = compare(&topology("kernel.compare.yml"), &["--report", page.to_str().unwrap()]);
    let results = json["results"].as_array().unwrap();
    // The page says of each row where it comes from.
    let page = std::fs::read_to_string(page).unwrap();
    // What no measurement is of the real thing is said where it is shown.
    for text in [&said, &page] {
        assert!(text.contains("The balancer itself stands for one that knows them all"), "{text}");
    }
    for one in results {
        let (design, by) = (one["design"].as_str().unwrap(), one["by"].as_str().unwrap());
        let row = format!("data-design=\"{design}\" data-by=\"{by}\" data-lost=\"{}\"", one["lost"]);
        assert!(page.contains(&row), "{row}");
    }
    let of = |by: &str| -> Vec<&Value> { results.iter().filter(|one| one["by"] == by).collect() };
    let (kernels, models) = (of("kernel"), of("model"));
    assert_eq!((kernels.len(), models.len()), (11, 12), "only Maglev's table is a model's alone");
    let rate = 200.0;
    let number = |one: &Value, what: &str| one[what].as_u64().unwrap_or_else(|| panic!("{what}: {one}"));
    let list = |one: &Value, what: &str| -> Vec<u64> { serde_json::from_value(one[what].clone()).unwrap() };
    for kernel in kernels {
        let name = kernel["design"].as_str().unwrap();
        let model = models.iter().find(|model| model["design"] == kernel["design"]).unwrap();
        let pair = |what: &str| (number(kernel, what), number(model, what));
        let near = |what: &str, (measured, played): (u64, u64), bound: f64| {
            let apart = measured.abs_diff(played) as f64;
            assert!(
                apart <= bound,
                "{name}: {what} {measured}, by the model {played}, bound {bound}\n{said}"
            );
        };
        let hurt = |one: &Value| number(one, "lost") + number(one, "late");
        let hurts = (hurt(kernel), hurt(model));
        assert_eq!(pair("asked").0, pair("asked").1, "{name}");
        let cells = said.lines().find(|line| line.starts_with(&format!("| {name} "))).unwrap();
        let cells: Vec<&str> = cells.split('|').map(str::trim).collect();
        assert!(cells[2..9].iter().all(|cell| cell.ends_with(" k")), "{cells:?}");
        if name.starts_with("anycast") {
            // The same flows, the same hash, tables made alike: nothing is left to chance but when a check comes round.
            assert_eq!(pair("cut_needlessly").0, pair("cut_needlessly").1, "{name}\n{said}");
            assert_eq!(pair("cut_with_server").0, pair("cut_with_server").1, "{name}\n{said}");
            // Whoever was asked twice on a busy machine may be another's.
            let early: u64 = list(kernel, "hurt_each_second")[..4].iter().sum();
            for (measured, played) in
                list(kernel, "per_server_before").iter().zip(list(model, "per_server_before"))
            {
                near("answers before anything happens", (*measured, played), early as f64);
            }
            // A check may come an interval earlier or later, a hold time ends up to a third earlier; of that a server's share.
            let lost_host = if name.ends_with("without BFD") { 3.0 } else { 0.9 };
            near("lost or late", hurts, rate * 0.35 * (0.5 + lost_host / 3.0 + 0.3));
        } else if name.starts_with("DNS") {
            near("lost or late", hurts, 20.0 + 0.1 * hurts.1 as f64);
            assert_eq!(pair("cut_needlessly"), (0, 0), "{name}");
            assert_eq!(pair("cut_with_server").0, pair("cut_with_server").1, "{name}");
        } else {
            // Servers are drawn by lot, in both.
            near("lost or late", hurts, 40.0 + 0.15 * hurts.1 as f64);
            near("packets", pair("balancer_packets"), 0.2 * pair("balancer_packets").1 as f64);
            let needless = number(kernel, "cut_needlessly");
            let left = number(kernel, "connections") - number(kernel, "cut_with_server");
            if name.ends_with("synced") {
                assert_eq!(needless, 0, "{name}");
            } else if !name.ends_with("table") {
                // A standby that chooses anew hits the same server once in four times.
                assert!(
                    needless * 100 >= left * 50 && needless * 100 <= left * 95,
                    "{name}: {needless} of {left}"
                );
            }
        }
        let recover = (number(kernel, "recover_ms"), number(model, "recover_ms"));
        near("time to recover", recover, 1500.0);
    }
    let packets = |name: &str| {
        number(
            results.iter().find(|one| one["design"] == name && one["by"] == "kernel").unwrap(),
            "balancer_packets",
        )
    };
    let (both, one) = (packets("NAT balancer"), packets("DSR balancer"));
    assert!((17..23).contains(&(both * 10 / one)), "NAT carries both ways: {both}, direct return one: {one}");
}

/// Every kind of network, for two seconds.
const SHORT: &str = "title: short
servers: 2
duration: 2s
requests: { clients: 10, rate: 50, timeout: 500ms }
connections: { count: 10, every: 500ms, patience: 2s }
happens:
  - { at: 1s, drain: s2 }
designs:
  - { name: group, anycast: group, interval: 200ms, lost-host: 300ms }
  - { name: names, dns: health, interval: 500ms }
  - { name: nat, balancer: nat, interval: 500ms }
  - { name: direct, balancer: dsr, interval: 500ms }
";

#[test]
fn a_comparison_runs_without_root_too() {
    if met(&[Need::Root, Need::Program("setpriv"), Need::Program("nft")]) {
        let scratch = Scratch::new();
        for (from, name) in [
            (env!("CARGO_BIN_EXE_anyvip-sim-under-test"), "anyvip-sim"),
            (env!("CARGO_BIN_EXE_anyvip-under-test"), "anyvip"),
        ] {
            std::fs::copy(from, scratch.path().join(name)).unwrap();
        }
        let plan = scratch.write("short.compare.yml", SHORT);
        assert!(Command::new("chmod").args(["-R", "a+rX"]).arg(scratch.path()).status().unwrap().success());
        let output = run(Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--"])
            .arg(scratch.path().join("anyvip-sim"))
            .args(["compare", plan.to_str().unwrap(), "--backend", "netns"])
            .stdin(Stdio::null()));
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{}\n{said}", output.status);
        assert!(said.contains("rootless"), "{said}");
        for name in ["group", "names", "nat", "direct"] {
            let line = said.lines().find(|line| line.starts_with(&format!("| {name} "))).unwrap();
            assert_eq!(line.split('|').nth(2).map(str::trim), Some("0 k"), "a drain loses nothing: {line}");
        }
    }
}

/// A comparison whose agents run, and its folder.
fn comparing(plan: &Path) -> (Child, PathBuf) {
    let child = simulator()
        .args(["compare", plan.to_str().unwrap(), "--backend", "netns"])
        .args(["--agent", env!("CARGO_BIN_EXE_anyvip-under-test")])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let left = Path::new("/run/anyvip-sim").join(format!("compare-{}", child.id()));
    wait_until(LONG, || {
        if left.join("1-s1/state").is_dir() { Ok(()) } else { Err("no agent has begun".to_owned()) }
    });
    (child, left)
}

#[test]
fn a_comparison_that_is_interrupted_removes_everything_and_ends_as_a_shell_would_report_it() {
    if !met(&[Need::Root, Need::Program("nft")]) {
        return;
    }
    let scratch = Scratch::new();
    let long = scratch.write("long.compare.yml", &SHORT.replace("duration: 2s", "duration: 100s"));
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (child, left) = comparing(&long);
    let id = child.id();
    kill(Pid::from_raw(id as i32), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("stopped; everything is removed"), "{said}");
    assert!(!left.exists());
    gone(&format!("/compare-{id}/"));
}

#[test]
fn a_comparison_that_was_killed_leaves_nothing_running_and_the_next_one_removes_its_folder() {
    if !met(&[Need::Root, Need::Program("nft")]) {
        return;
    }
    let scratch = Scratch::new();
    let long = scratch.write("long.compare.yml", &SHORT.replace("duration: 2s", "duration: 100s"));
    let left = {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut child, left) = comparing(&long);
        child.kill().unwrap();
        child.wait().unwrap();
        gone(&format!("/compare-{}/", child.id()));
        assert!(left.is_dir());
        left
    };
    compare(&scratch.write("short.compare.yml", SHORT), &[]);
    assert!(!left.exists());
}

#[test]
fn a_plan_that_cannot_be_played_is_refused_before_anything_starts() {
    let scratch = Scratch::new();
    for (plan, more, word) in [
        (SHORT.replace("servers: 2", "servers: 65"), "netns", "in namespaces there may be 64"),
        (
            SHORT.replace("drain: s2 }", "balancer: dies }\n  - { at: 1500ms, balancer: dies }"),
            "netns",
            "dies more than once",
        ),
        (SHORT.to_owned(), "clouds", "there is no backend `clouds` (model, netns)"),
        (
            SHORT.replace("kill", "x").replace("drain: s2", "drain: s3"),
            "netns",
            "bad.compare.yml:7:22: error: drain: `s3`: servers are s1 to s2",
        ),
    ] {
        let plan = scratch.write("bad.compare.yml", &plan);
        let output = run(simulator()
            .args(["compare", plan.to_str().unwrap(), "--backend", more])
            .args(["--agent", env!("CARGO_BIN_EXE_anyvip-under-test")]));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[test]
fn what_a_lab_cannot_do_is_refused_by_name_before_anything_starts() {
    let scratch = Scratch::new();
    let lab = topology("quickstart.clab.yml");
    for (steps, word) in [
        ("  - delay: { link: router, by: 5ms }\n", "delay"),
        ("  - kill: h9\n", "h9"),
        ("  - teleport: h1\n", "teleport"),
    ] {
        let scenario = scratch.write("bad.scenario.yml", &format!("title: bad\nsteps:\n{steps}"));
        let output = run(simulator()
            .args(["run", lab.to_str().unwrap(), "--agent", env!("CARGO_BIN_EXE_anyvip-under-test")])
            .args(["--scenario", scenario.to_str().unwrap()]));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("bad.scenario.yml:3:") && said.contains(word), "{said}");
    }
}

/// A copy of the quickstart lab under a name of its own.
fn renamed(scratch: &Scratch, name: &str) -> PathBuf {
    let folder = scratch.path().join("topology");
    assert!(Command::new("cp").arg("-r").arg(topology("")).arg(&folder).status().unwrap().success());
    let text = std::fs::read_to_string(folder.join("quickstart.clab.yml")).unwrap();
    let text = text.replace("name: quickstart\n", &format!("name: {name}\n"));
    let lab = folder.join(format!("{name}.clab.yml"));
    std::fs::write(&lab, text).unwrap();
    let scenario =
        "title: waits\nsteps:\n  - wait-for: { router: router, prefix: 192.0.2.53/32, next-hops: 4 }\n";
    std::fs::write(folder.join(format!("{name}.scenario.yml")), scenario).unwrap();
    lab
}

fn gone(folder: &str) {
    wait_until(LONG, || match of_lab(folder) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("processes are left: {left:?}")),
    });
}

#[test]
fn a_lab_that_was_killed_is_cleaned_by_the_next_down_and_by_the_next_run() {
    if !met(&[Need::Root]) {
        return;
    }
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let scratch = Scratch::new();
    let name = format!("killed{}", std::process::id());
    let lab = renamed(&scratch, &name);
    let agent = ["--agent", env!("CARGO_BIN_EXE_anyvip-under-test")];
    let said = |arguments: &[&str]| {
        let output = simulator().args(arguments).output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    };
    let (base, lab) = (Path::new("/run/anyvip-sim"), lab.to_str().unwrap());
    let kill = |pid: i64| {
        let pid = Pid::from_raw(i32::try_from(pid).unwrap());
        kill(pid, Signal::SIGKILL).unwrap();
    };

    // Left running, its holder killed, ended by name. Waits for the end of both outputs: the lab keeps neither open.
    let (up, text) = said(&["up", lab, agent[0], agent[1]]);
    assert!(up && text.starts_with(&format!("{name} is up. Look inside: anyvip-sim exec client")), "{text}");
    let held: Value =
        serde_json::from_slice(&std::fs::read(base.join(&name).join("lab.json")).unwrap()).unwrap();
    kill(held["holder"].as_i64().unwrap());
    gone(&format!("/{name}/"));
    assert!(base.join(&name).is_dir());
    let (down, text) = said(&["down", &name]);
    assert!(down && text.contains("was killed"), "{text}");
    assert!(!base.join(&name).exists());
    let (again, text) = said(&["down", &name]);
    assert!(!again && text.contains("no lab"), "{text}");

    // Played and killed in the middle, then played again.
    let mut child = simulator().args(["run", lab, agent[0], agent[1]]).stdout(Stdio::null()).spawn().unwrap();
    let left = base.join(format!("{name}-{}", child.id()));
    wait_until(LONG, || {
        if left.join("h1/state").is_dir() { Ok(()) } else { Err("no agent has begun".to_owned()) }
    });
    child.kill().unwrap();
    child.wait().unwrap();
    gone(&format!("/{name}-{}/", child.id()));
    assert!(left.is_dir());
    let (run, text) = said(&["run", lab, agent[0], agent[1]]);
    assert!(run, "{text}");
    assert!(!left.exists());
}

/// Containers start their roles so: in a namespace that somebody else made, by their own `exec`, and `docker exec` waits for the end of its outputs.
#[test]
fn a_node_that_is_started_inside_a_container_runs_on_and_keeps_no_output_open() {
    if !met(&[Need::Root]) {
        return;
    }
    let scratch = Scratch::new();
    let configuration = scratch.write(
        "config.toml",
        "router_id = \"10.0.1.11\"\n[bgp]\nasn = 65011\n[bgp.peer.router]\naddress = \"10.0.1.1\"\nasn = 65001\n\
         [service.web]\nvips = [\"192.0.2.53\"]\n[[service.web.check]]\nhttp = { port = 8080, path = \"/\" }\ninterval = \"100ms\"\n",
    );
    let text = "name: boxed\ntopology:\n  defaults: { kind: linux, exec: [anyvip-sim node --lab /lab --name __clabNodeName__ --detach] }\n  nodes:\n    \
                router: { labels: { anyvip.role: router, anyvip.asn: 65001, anyvip.address.eth1: 10.0.1.1/24 } }\n    \
                h1:\n      binds: [\"config.toml:CONFIG\"]\n      labels: { anyvip.role: agent, anyvip.asn: 65011, anyvip.service.http: 8080, \
                anyvip.address.eth1: 10.0.1.11/24, anyvip.config: CONFIG }\n  links: [ { endpoints: [\"router:eth1\", \"h1:eth1\"] } ]\n";
    let lab = scratch.write("boxed.clab.yml", &text.replace("CONFIG", configuration.to_str().unwrap()));
    let (lab, agent) = (lab.to_str().unwrap(), env!("CARGO_BIN_EXE_anyvip-under-test"));
    // Folders of its own, as a container has; both ends of the cable, as nobody is at the other.
    let inside = "set -e; for folder in /run /var/lib /var/log; do mount -t tmpfs none $folder; done; ip link set lo up
                  ip link add eth1 type veth peer name eth2; ip link set eth1 up; ip link set eth2 up; exec \"$@\"";
    let node = |name: &str| {
        let mut command = Command::new("unshare");
        command.args([
            "--net",
            "--mount",
            "sh",
            "-c",
            inside,
            "sh",
            env!("CARGO_BIN_EXE_anyvip-sim-under-test"),
        ]);
        command.args(["node", "--lab", lab, "--name", name, "--agent", agent, "--detach"]);
        command.stdin(Stdio::null()).output().unwrap()
    };
    let wrong = node("h2");
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert_eq!(wrong.status.code(), Some(1), "{said}");
    assert!(said.contains("the node ended at once: anyvip-sim node: the lab has no node `h2`"), "{said}");

    let output = node("h1");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let line = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let running: Vec<i32> = pids.filter(|pid| line(pid).contains(lab)).collect();
    let [pid] = running[..] else { panic!("one node: {running:?}") };
    let status = || {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--mount", "-t", &pid.to_string(), agent, "status", "--json"]);
        let said = command.output().unwrap();
        String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned()
    };
    let up = || match status() {
        text if text.replace(' ', "").contains("\"health\":\"up\"") => Ok(()),
        text => Err(text),
    };
    wait_until(LONG, up);
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    wait_until(LONG, || match line(&pid) {
        text if text.is_empty() => Ok(()),
        text => Err(text),
    });
}

/// Seconds that nobody else sleeps.
const SLOW: &str = "61.0711";

/// Command lines of processes that are just this.
fn commands(line: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    lines.filter(|found| found == line).collect()
}

/// A lab that is being built for a minute, and its folder.
fn building(scratch: &Scratch, name: &str) -> (Child, PathBuf) {
    let lab = renamed(scratch, name);
    let text = std::fs::read_to_string(&lab).unwrap();
    let (role, slow) = ("      exec:\n", format!("      exec:\n        - sleep {SLOW}\n"));
    assert!(text.contains(role));
    std::fs::write(&lab, text.replacen(role, &slow, 1)).unwrap();
    let child = simulator()
        .args(["up", lab.to_str().unwrap(), "--agent", env!("CARGO_BIN_EXE_anyvip-under-test")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let folder = Path::new("/run/anyvip-sim").join(name);
    wait_until(LONG, || match commands(&format!("sleep\0{SLOW}\0")).len() {
        0 => Err("not begun".to_owned()),
        _ => Ok(()),
    });
    (child, folder)
}

#[test]
fn a_lab_that_is_interrupted_while_it_is_built_leaves_nothing_and_ends_as_a_shell_would_report_it() {
    if !met(&[Need::Root]) {
        return;
    }
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for (signal, code) in [(Some(Signal::SIGINT), 130), (Some(Signal::SIGTERM), 143), (None, 143)] {
        let scratch = Scratch::new();
        let name = format!("early{code}{}", std::process::id());
        let (child, folder) = building(&scratch, &name);
        match signal {
            Some(signal) => kill(Pid::from_raw(child.id() as i32), signal).unwrap(),
            None => {
                let down = simulator().args(["down", &name]).output().unwrap();
                let said = String::from_utf8_lossy(&[down.stdout, down.stderr].concat()).into_owned();
                assert!(down.status.success(), "{said}");
                assert_eq!(said, format!("{name} is down\n"));
            }
        }
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert_eq!(said, "anyvip-sim: stopped; everything is removed\n");
        assert!(!folder.exists());
        assert_eq!(of_lab(&format!("/{name}/")), Vec::<String>::new(), "processes are left");
        // Not even the command that was running, which would keep its namespace.
        wait_until(LONG, || match commands(&format!("sleep\0{SLOW}\0")) {
            left if left.is_empty() => Ok(()),
            left => Err(format!("left: {left:?}")),
        });
    }
}

#[test]
fn everything_wrong_with_a_lab_and_its_scenario_is_said_at_once_and_nothing_is_made() {
    let scratch = Scratch::new();
    let lab = scratch.write(
        "bad.clab.yml",
        r#"name: bad
topology:
  defaults:
    kind: linux
    binds: [".:/etc/anyvip"]
    exec: [anyvip-sim node --lab /x --name __clabNodeName__]
  nodes:
    tor:
      labels: { anyvip.role: router, anyvip.asn: 1, anyvip.address.eth1: 10.0.1.1/24, anyvip.address.eth2: 10.0.2.1/24 }
    h1:
      labels: { anyvip.role: agent, anyvip.asn: 2, anyvip.address.eth1: 10.0.1.11/24 }
    h2:
      labels: { anyvip.role: agent, anyvip.asn: 3, anyvip.address.eth1: 10.0.1.11/24 }
    h3:
      kind: srl
  links:
    - endpoints: ["tor:eth1", "h1:eth1"]
    - endpoints: ["tor:eth1", "h2:eth1"]
    - endpoints: ["tor:eth2", "h4:eth1"]
"#,
    );
    let scenario = scratch.write(
        "bad.scenario.yml",
        "title: bad\nsteps:\n  - kill: h5\n  - kill: h3\n  - wait-for: { router: tor, prefix: 192.0.2.1/32, next-hops: 9 }\n  \
         - expect: { of: nothing, server-count: 7 }\n",
    );
    let output = run(simulator()
        .args(["run", lab.to_str().unwrap(), "--agent", env!("CARGO_BIN_EXE_anyvip-under-test")])
        .args(["--scenario", scenario.to_str().unwrap()]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("bad.clab.yml:10:5: error: node h1: its configuration, "), "{said}");
    for line in [
        "bad.clab.yml:15:13: error: node h3: kind `srl` is not supported",
        "bad.clab.yml:13:73: error: node h2: 10.0.1.11 is already the address of h1:eth1",
        "bad.clab.yml:18:7: error: link: tor:eth1 is an end of another link too",
        "bad.clab.yml:19:7: error: link: there is no node `h4`",
        "bad.scenario.yml:3:5: error: step: there is no node `h5`",
        "bad.scenario.yml:5:5: error: 9 next hops: tor has only 2 neighbours",
        "bad.scenario.yml:6:5: error: `nothing`: no earlier step measures",
        "bad.scenario.yml:6:5: error: 7 servers can never answer: the lab has 3",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    assert!(!said.contains("`h3`"), "one error a mistake: {said}");
    assert!(said.contains("nothing was started"), "{said}");
}
