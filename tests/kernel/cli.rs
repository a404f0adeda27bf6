//! `anyvip-sim hash`, as a person calls it.

use std::process::{Command, Output};

use serde_json::Value;

use crate::world::possible;

fn hash(line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_anyvip-sim-under-test"))
        .arg("hash")
        .args(line.split(' '))
        .output()
        .unwrap()
}

#[track_caller]
fn json(line: &str) -> Value {
    let output = hash(&format!("{line} --json"));
    assert_eq!(output.status.code(), Some(0), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

const FLOW: &str = "--seed 0x1092 --src 10.0.0.2 --dst 10.99.0.1 --proto tcp --sport 40000 --dport 80";

#[test]
fn a_prediction_is_what_the_kernel_was_measured_to_do() {
    let answer = json(&format!("predict {FLOW} --policy 3 --fields 0x37 --members 8"));
    assert_eq!(answer["hash31"], 0x4d0b_8b3b);
    assert_eq!(answer["member"], 0x4d0b_8b3b_u32 >> 28);
    assert_eq!(answer["bucket"], Value::Null);
    let answer = json(&format!("predict {FLOW} --policy 1 --members 8 --install plain"));
    assert_eq!(answer["hash31"], 0x44c8_0d92);
    let answer = json(&format!("predict {FLOW} --weights 1,2,3 --install resilient:128"));
    assert_eq!(answer["bucket"], 0x4d0b_8b3b % 128);
    // With the first three dead, and the next one failed.
    let answer = json(&format!("predict {FLOW} --members 8 --dead 5,6,7 --failed 2"));
    assert_eq!(answer["member"], 3);
    let six = "--seed 0x1092 --src fd00::2 --dst fd99::1 --sport 40000 --dport 443";
    assert_eq!(json(&format!("predict {six}"))["hash31"], 0x2f38_e5f3);
}

#[test]
fn arguments_that_make_no_sense_end_with_2_and_say_what_would() {
    for (line, remedy) in [
        ("predict --src 10.0.0.2 --dst fd99::1", "two of one"),
        ("predict --src 10.0.0.2 --dst 10.99.0.1 --seed 0", "fib_multipath_hash_seed"),
        ("predict --src 10.0.0.2 --dst 10.99.0.1 --policy 4", "0..=3"),
        ("predict --src 10.0.0.2 --dst 10.99.0.1 --fields 0x1000", "0xfff"),
        ("predict --src 10.0.0.2 --dst 10.99.0.1 --install fancy", "rendezvous"),
        ("predict --src 10.0.0.2 --dst 10.99.0.1 --members 0", "1..=65000"),
        ("predict --src 10.0.0.2 --dst 10.99.0.1 --members 2 --weights 1,2", "--weights"),
        ("predict --src 10.0.0.2 --dst 10.99.0.1 --failed 8", "0 to 7"),
        ("predict --src 10.0.0.2 --dst 10.99.0.1 --flow-label 5", "leave it out"),
        ("predict --src 10.0.0.2 --dst 10.99.0.1 --install modulo --verify", "plain, group"),
        ("predict --src 10.0.0.2 --dst 10.99.0.1 --proto 89 --verify", "tcp, udp and icmp"),
        ("spread --src 2001:db8::/32", "two of one"),
        ("change", "--leave"),
        ("change --leave 8", "0 to 7"),
        ("change --leave 0 --join", "--join"),
        ("change --to-weights 1,2", "one for each"),
    ] {
        let output = hash(line);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {text}");
        assert!(text.contains(remedy), "{line}: {text}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn the_kernel_agrees_with_every_prediction_it_can_be_asked_about() {
    if !possible() {
        return;
    }
    for line in [
        "--policy 3 --install plain",
        "--policy 3 --install group --weights 3,1,256",
        "--policy 0 --install resilient:1000",
        "--policy 1 --install slots:64",
    ] {
        let answer = json(&format!("predict {FLOW} {line} --verify"));
        assert_eq!(answer["kernel"]["agrees"], true, "{line}: {answer}");
        assert_eq!(answer["kernel"]["member"], answer["member"], "{line}: {answer}");
    }
    let answer =
        json("spread --count 3000 --members 1000 --policy 1 --proto udp --dst 2001:db8::53 --verify");
    assert_eq!(answer["verified"]["asked"], 3000);
    assert_eq!(answer["verified"]["differ"], 0);
}

#[test]
fn a_change_is_the_kernels_under_every_install_it_knows() {
    if !possible() {
        return;
    }
    for line in ["--leave 3", "--join", "--join 0 --dst 2001:db8::53", "--to-weights 1,2,3,4,5,6,7,8"] {
        let answer = json(&format!("change --count 4000 {line} --verify"));
        let installs = answer["installs"].as_array().unwrap();
        assert_eq!(installs.len(), 9);
        let verified: Vec<&Value> = installs.iter().filter(|one| !one["verified"].is_null()).collect();
        assert_eq!(verified.len(), 5, "{answer}");
        for one in verified {
            assert_eq!(one["verified"]["differ"], 0, "{line}: {one}");
            assert!(one["verified"]["asked"].as_u64() >= Some(8000), "{line}: {one}");
        }
    }
}

#[test]
fn a_spread_and_a_change_print_lines_for_people() {
    let output = hash("spread --weights 1,3 --count 1000");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("75.00 % by weight") && text.contains("flows/s on one core"), "{text}");
    let output = hash("change --leave 3 --count 1000 --install group,slots:64");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("server 3 of 8 leaves") && text.contains("by the closed formula: 18.37 %"),
        "{text}"
    );
    let slots = text.lines().find(|line| line.trim_start().starts_with("slots:64")).unwrap();
    assert!(slots.contains("0.00 %"), "{text}");
}
