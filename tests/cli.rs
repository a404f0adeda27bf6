//! The command line as scripts see it: exit codes, where text goes, and errors of the configuration. Needs no privilege.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyvip_tests::{Scratch, agent_config};

/// `anyvip` with socket and state directory in a folder of the test's own.
fn anyvip(scratch: &Scratch, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_anyvip-under-test"))
        .args(args)
        .arg("--socket")
        .arg(scratch.path().join("anyvip.sock"))
        .arg("--state-dir")
        .arg(scratch.path().join("state"))
        .output()
        .expect("run anyvip")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Ten mistakes of the kinds that people make.
const MISTAKES: &str = r#"config_version = 1
router_id = "10.0.1.11"
colour = "blue"
[host]
stop_time = 2
[bgp]
asn = 65011
[bgp.peer.tor1]
address = "10.0.1.1"
[bgp.peer.tor2]
address = "10.0.2.1"
asn = 65001
bfd = 3
password_file = 7
weight = 3
[check.web]
http = { port = 80 }
[service.web]
vips = ["192.0.2.0/33", "192.0.2.80"]
checks = ["web"]
[service.other]
vips = ["192.0.2.80"]
checks = ["wbe"]
"#;

/// What must be named, and in which line.
const PLACES: &[(&str, usize)] = &[
    ("colour", 3),
    ("host.stop_time", 5),
    ("bgp.peer.tor1", 8),
    ("bgp.peer.tor2.bfd", 13),
    ("bgp.peer.tor2.password_file", 14),
    ("bgp.peer.tor2.weight", 15),
    ("service.web.vips[0]", 19),
    ("192.0.2.80", 22),
    ("wbe", 23),
];

#[test]
fn validate_lists_all_errors_each_with_its_place() {
    let scratch = Scratch::new();
    let file = scratch.write("config.toml", MISTAKES);
    let output = anyvip(&scratch, &["validate", "-c", file.to_str().unwrap()]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for (word, line) in PLACES {
        assert!(said.contains(word), "{word} is not named:\n{said}");
        // As the place of an error, or as a second place that one error speaks of.
        let shown = said.contains(&format!("config.toml:{line}:")) || said.contains(&format!("\n{line} | "));
        assert!(shown, "line {line} is not shown:\n{said}");
    }
    assert!(said.contains('^'), "a caret shows the place:\n{said}");
    assert!(said.contains("not supported by this version"), "{said}");
}

#[test]
fn run_refuses_with_the_same_words() {
    let scratch = Scratch::new();
    let file = scratch.write("config.toml", MISTAKES);
    let file = file.to_str().unwrap();
    let validate = anyvip(&scratch, &["validate", "-c", file]);
    let run = anyvip(&scratch, &["run", "-c", file]);
    assert_eq!(run.status.code(), Some(1), "{}", text(&run.stderr));
    assert!(text(&run.stderr).contains(text(&validate.stderr).trim()), "{}", text(&run.stderr));
    assert!(!scratch.path().join("state/state.json").exists(), "nothing was touched");
}

#[test]
fn a_good_file_validates_and_can_be_shown_whole() {
    let scratch = Scratch::new();
    let file = scratch.write("config.toml", &agent_config(1));
    let file = file.to_str().unwrap();
    let output = anyvip(&scratch, &["validate", "-c", file]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let shown = anyvip(&scratch, &["validate", "-c", file, "--show"]);
    assert_eq!(shown.status.code(), Some(0));
    assert!(text(&shown.stdout).contains("hold_time"), "defaults are filled in: {}", text(&shown.stdout));
    // What is shown is a configuration that means the same.
    let again = scratch.write("shown.toml", &text(&shown.stdout));
    let again = anyvip(&scratch, &["validate", "-c", again.to_str().unwrap(), "--show"]);
    assert_eq!(text(&again.stdout), text(&shown.stdout), "{}", text(&again.stderr));
}

#[test]
fn an_error_in_an_included_file_is_shown_there() {
    let scratch = Scratch::new();
    scratch.write(
        "conf.d/10-web.toml",
        "[service.web]\nvips = [\"192.0.2.80\"]\nchecks = \"none\"\nweight = 3\n",
    );
    let main = "config_version = 1\nrouter_id = \"10.0.1.11\"\ninclude = [\"conf.d/*.toml\"]\n[bgp]\nasn = 65011\n\
                [bgp.peer.tor]\naddress = \"10.0.1.1\"\nasn = 65001\n";
    let file = scratch.write("config.toml", main);
    let output = anyvip(&scratch, &["validate", "-c", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("10-web.toml:4:"), "{}", text(&output.stderr));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let scratch = Scratch::new();
    let output = anyvip(&scratch, &["validate", "-c", "/nowhere/config.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("/nowhere/config.toml"), "{}", text(&output.stderr));
}

#[test]
fn every_command_that_needs_a_daemon_says_so_with_exit_3() {
    let scratch = Scratch::new();
    for args in [
        &["status"][..],
        &["status", "--json"],
        &["status", "--check"],
        &["explain", "web"],
        &["events"],
        &["reload"],
        &["plan"],
    ] {
        let output = anyvip(&scratch, args);
        // A command that this version does not have is a usage error, and then it says so.
        let expected = if args == ["plan"] && output.status.code() == Some(2) { 2 } else { 3 };
        assert_eq!(output.status.code(), Some(expected), "{args:?}: {}", text(&output.stderr));
        assert!(!output.stderr.is_empty(), "{args:?} says why");
        assert!(output.stdout.is_empty(), "{args:?}: errors are not for stdout: {}", text(&output.stdout));
    }
}

#[test]
fn drain_without_a_daemon_writes_the_state_and_undrain_takes_it_back() {
    let scratch = Scratch::new();
    let state = scratch.path().join("state/state.json");
    let output = anyvip(&scratch, &["drain", "web", "--reason", "moving racks"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&[output.stdout, output.stderr].concat());
    assert!(said.contains("no agent is running"), "{said}");
    let written = fs::read_to_string(&state).unwrap();
    assert!(written.contains("web") && written.contains("moving racks"), "{written}");
    let output = anyvip(&scratch, &["undrain", "web"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(!fs::read_to_string(&state).unwrap().contains("moving racks"));
}

#[test]
fn drains_without_a_daemon_at_the_same_time_are_all_written_down() {
    let scratch = Scratch::new();
    std::thread::scope(|scope| {
        let all: Vec<_> = ["a", "b", "c", "d"]
            .map(|name| scope.spawn(|| anyvip(&scratch, &["drain", name])))
            .into_iter()
            .map(|drain| drain.join().unwrap())
            .collect();
        for output in all {
            assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        }
    });
    let written = fs::read_to_string(scratch.path().join("state/state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&written).unwrap();
    assert_eq!(state["drained"].as_object().unwrap().len(), 4, "{written}");
}

#[test]
fn drain_never_overwrites_a_state_that_it_cannot_read() {
    let scratch = Scratch::new();
    let state = scratch.write("state/state.json", "{ half a file");
    let output = anyvip(&scratch, &["drain", "web"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert_eq!(fs::read_to_string(state).unwrap(), "{ half a file");
}

#[test]
fn a_usage_error_is_exit_2_and_help_and_version_are_0() {
    let scratch = Scratch::new();
    for args in [&["frobnicate"][..], &["drain"], &["explain"], &["status", "--colour"], &["validate", "-c"]]
    {
        let output = anyvip(&scratch, args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output.stderr));
    }
    for args in [&["--help"][..], &["--version"], &["run", "--help"], &["drain", "--help"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_anyvip-under-test")).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(!output.stdout.is_empty(), "{args:?}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_anyvip-under-test")).arg("--version").output().unwrap();
    assert!(text(&output.stdout).contains(env!("CARGO_PKG_VERSION")), "{}", text(&output.stdout));
}

#[test]
fn every_configuration_in_the_documents_is_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let scratch = Scratch::new();
    let mut pages = vec![root.join("README.md")];
    pages.extend(fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path()));
    let mut seen = 0;
    for page in pages.iter().filter(|page| page.extension().is_some_and(|end| end == "md") && page.exists()) {
        let text = fs::read_to_string(page).unwrap();
        for block in text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            // Fragments show single keys; a whole file says its version or has a peer and a service.
            if !(block.contains("[service.") && block.contains("[bgp.peer.")) {
                continue;
            }
            seen += 1;
            let whole = if block.contains("router_id") {
                block.to_owned()
            } else {
                format!("router_id = \"10.255.255.254\"\n{block}")
            };
            let file = scratch.write("config.toml", &whole);
            let output = anyvip(&scratch, &["validate", "-c", file.to_str().unwrap()]);
            assert_eq!(output.status.code(), Some(0), "{}:\n{}", page.display(), self::text(&output.stderr));
        }
    }
    assert!(seen > 0, "the documents show a configuration");
}

fn sweep(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anyvip-sim-under-test"));
    command.args(["sweep", "--jobs", "2", "--time", "2m"]).args(args).output().expect("run anyvip-sim")
}

#[test]
fn a_sweep_that_finds_something_names_seed_invariant_last_events_smallest_plan_and_how_to_see_it_again() {
    let well = sweep(&["--first", "1", "--seeds", "2"]);
    let said = text(&well.stdout);
    assert_eq!(well.status.code(), Some(0), "{said}");
    // What it did to flows, by design: flows, packets, unanswered, lost, reset, moved, needlessly.
    let rows = said.lines().skip_while(|line| !line.trim_start().starts_with("install ")).skip(1);
    let rows: Vec<Vec<&str>> = rows.map(|line| line.split_whitespace().collect()).collect();
    assert!(!rows.is_empty(), "{said}");
    for row in rows {
        assert!(["plain", "group", "resilient", "slots"].contains(&row[0]), "{said}");
        let count = |at: usize| row[at].parse::<u64>().expect(&said);
        assert!(count(1) > 0 && count(2) > count(1) * 60, "{said}");
        assert!(count(6) >= count(7) && count(7) >= count(8), "{said}");
    }

    let found = sweep(&["--first", "1", "--seeds", "50", "--hosts", "3", "--broken", "passes-all"]);
    let said = text(&found.stdout);
    assert_eq!(found.status.code(), Some(1), "{said}");
    let again = said.lines().last().unwrap_or_default();
    let seed = again.split_whitespace().skip_while(|word| *word != "--replay").nth(1).expect(&said);
    assert!(said.contains(&format!("seed {seed} failed: ")), "{said}");
    for part in [
        "the last events before that:",
        "the smallest plan that still fails",
        "--hosts 3",
        "--broken passes-all",
    ] {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }

    // What it says to run does what it says.
    let scratch = Scratch::new();
    let trace = scratch.path().join("trace");
    let trace = trace.to_str().unwrap();
    let words = again.split_once("anyvip-sim sweep ").expect(&said).1.replace("FILE", trace);
    let again = Command::new(env!("CARGO_BIN_EXE_anyvip-sim-under-test"))
        .arg("sweep")
        .args(words.split_whitespace())
        .output()
        .expect("run anyvip-sim");
    assert_eq!(again.status.code(), Some(1), "{}", text(&again.stdout));
    assert!(text(&again.stdout).contains("failed: "), "{}", text(&again.stdout));
    assert!(fs::read_to_string(trace).unwrap().lines().count() > 100, "every event is in the trace");
}

#[test]
fn a_machine_that_panics_in_a_sweep_names_its_seed() {
    let output = sweep(&["--first", "1", "--seeds", "50", "--hosts", "3", "--broken", "panics"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("broken on purpose"), "{said}");
    let named = said.lines().find(|line| line.contains(" panicked; to see all of it: ")).expect(&said);
    let seed = named.split_whitespace().skip_while(|word| *word != "seed").nth(1).unwrap();
    assert!(named.contains(&format!("--replay {seed} --hosts 3 --time 120s --broken panics")), "{named}");
}
