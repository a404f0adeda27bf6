//! What a person at a terminal sees while a lab runs, and what is left on the screen afterwards.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use anyvip_tests::{LONG, Need, Scratch, met, wait_until};

const SCENARIO: &str = "title: seen at a terminal
traffic:
  steady: { from: client, to: 192.0.2.53, port: 5300, protocol: udp, flows: 2000, rate: 2000, timeout: 200ms }
steps:
  - wait-for: { router: router, prefix: 192.0.2.53/32, next-hops: [h1, h2, h3, h4] }
  - start: steady
  - sleep: TIME
  - stop: steady
  - expect: { of: steady, lost: 0 }
";

fn topology(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("topology").join(name)
}

/// Runs the quickstart in a terminal of `script`; presses Ctrl-C when this is seen.
fn at_a_terminal(
    time: &str,
    environment: &[(&str, &str)],
    interrupt_at: Option<&str>,
) -> (String, ExitStatus) {
    let scratch = Scratch::new();
    let scenario = scratch.write("seen.scenario.yml", &SCENARIO.replace("TIME", time));
    let line = format!(
        "stty rows 24 cols 80; exec '{}' run '{}' --agent '{}' --scenario '{}'",
        env!("CARGO_BIN_EXE_anyvip-sim-under-test"),
        topology("quickstart.clab.yml").display(),
        env!("CARGO_BIN_EXE_anyvip-under-test"),
        scenario.display()
    );
    let mut command = Command::new("setpriv");
    command.args([
        "--pdeathsig",
        "KILL",
        "script",
        "--quiet",
        "--return",
        "--flush",
        "--command",
        &line,
        "/dev/null",
    ]);
    command.env("TERM", "xterm").env_remove("NO_COLOR").envs(environment.iter().copied());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("run script");
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let writer = seen.clone();
    let reader = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = output.read(&mut buffer) {
            writer.lock().unwrap().extend_from_slice(&buffer[..read]);
        }
    });
    let text = || String::from_utf8_lossy(&seen.lock().unwrap()).into_owned();
    if let Some(word) = interrupt_at {
        wait_until(LONG, || if text().contains(word) { Ok(()) } else { Err(text()) });
        input.write_all(b"\x03").expect("press Ctrl-C");
    }
    let status = child.wait().expect("script ends");
    drop(input);
    reader.join().unwrap();
    (text(), status)
}

/// What stands on the screen at the end: as much of a terminal as is used here.
fn screen(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut row = 0;
    let mut column = 0;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\r' => column = 0,
            '\n' => {
                row += 1;
                if row == lines.len() {
                    lines.push(String::new());
                }
            }
            '\x1b' => {
                assert_eq!(
                    letters.next(),
                    Some('['),
                    "another escape sequence than those of a plain terminal"
                );
                let mut number = String::new();
                let last = loop {
                    match letters.next().expect("the end of a sequence") {
                        digit if digit.is_ascii_digit() || digit == ';' => number.push(digit),
                        last => break last,
                    }
                };
                match last {
                    'm' => {}
                    'F' => {
                        row -= number.parse::<usize>().unwrap();
                        column = 0;
                    }
                    'J' => {
                        lines.truncate(row + 1);
                        let kept: String = lines[row].chars().take(column).collect();
                        lines[row] = kept;
                    }
                    other => panic!("ESC [ {number} {other}: a terminal would be in another mode"),
                }
            }
            letter => {
                let mut line: Vec<char> = lines[row].chars().collect();
                line.resize(line.len().max(column + 1), ' ');
                line[column] = letter;
                lines[row] = line.into_iter().collect();
                column += 1;
            }
        }
    }
    lines
}

#[test]
fn a_terminal_shows_steps_and_flows_per_server_while_they_happen_and_keeps_only_what_stays() {
    if !met(&[Need::Root, Need::Program("script")]) {
        return;
    }
    let (text, status) = at_a_terminal("1200ms", &[], None);
    assert!(status.success(), "{text}");
    assert!(text.contains("step 3 of 5  sleep 1.2s"), "{text}");
    for server in ["h1", "h2", "h3", "h4"] {
        let bar =
            text.split('\n').any(|line| line.contains(server) && line.contains('█') && line.contains("/s"));
        assert!(bar, "no bar of {server} meanwhile: {text}");
    }
    assert!(text.contains("\x1b[32m"), "in colour");
    let end = screen(&text);
    assert!(end.iter().any(|line| line.contains("all 1 expectations met")), "{end:#?}");
    assert!(
        !end.iter().any(|line| line.contains("step ") || line.contains("/s")),
        "lower lines are left: {end:#?}"
    );
    let width = |line: &&String| line.chars().count();
    assert!(end.iter().max_by_key(width).is_some_and(|line| !line.contains('\x1b')));
}

#[test]
fn without_colour_there_is_the_same_view_in_the_terminals_own() {
    if !met(&[Need::Root, Need::Program("script")]) {
        return;
    }
    let (text, status) = at_a_terminal("400ms", &[("NO_COLOR", "1")], None);
    assert!(status.success(), "{text}");
    assert!(text.contains("step 3 of 5"), "{text}");
    let coloured = text
        .split("\x1b[")
        .skip(1)
        .any(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').starts_with('m'));
    assert!(!coloured, "{text:?}");
}

#[test]
fn a_dumb_terminal_gets_plain_lines() {
    if !met(&[Need::Root, Need::Program("script")]) {
        return;
    }
    let (text, status) = at_a_terminal("100ms", &[("TERM", "dumb"), ("NO_COLOR", "1")], None);
    assert!(status.success(), "{text}");
    assert!(!text.contains('\x1b') && !text.contains("step 3 of 5"), "{text:?}");
}

#[test]
fn ctrl_c_ends_the_lab_and_leaves_the_terminal_as_it_was() {
    if !met(&[Need::Root, Need::Program("script")]) {
        return;
    }
    let (text, status) = at_a_terminal("60s", &[], Some("step 3 of 5"));
    assert_eq!(status.code(), Some(130), "{text}");
    // The terminal itself echoes the key.
    let end = screen(&text.replace("^C", ""));
    assert!(end.iter().any(|line| line.contains("stopped; everything is removed")), "{end:#?}");
    assert!(!end.iter().any(|line| line.contains("step 3")), "lower lines are left: {end:#?}");
}
