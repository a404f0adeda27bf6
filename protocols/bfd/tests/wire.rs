//! What foreign daemons really send, and what we make of it. `ANYVIP_REFRESH=1` writes the expectations anew.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(
    clippy::disallowed_methods,
    reason = "fixtures are files, and refreshing them is asked for by a variable"
)]

use std::fmt::Write;
use std::{env, fs};

use anyvip_bfd::State;
use anyvip_bfd::wire::ControlPacket;

mod fixtures;

#[test]
fn foreign_packets_mean_what_they_meant_when_captured() {
    let refresh = env::var("ANYVIP_REFRESH").is_ok_and(|value| value == "1");
    let fixtures = fixtures::all();
    for daemon in ["bird", "frr"] {
        assert!(fixtures.iter().any(|fixture| fixture.name.starts_with(daemon)), "nothing from {daemon}");
    }
    for fixture in fixtures {
        let mut text = String::new();
        for packet in &fixture.packets {
            let packet =
                ControlPacket::decode(packet).unwrap_or_else(|why| panic!("{}: {why}", fixture.name));
            writeln!(text, "{}", serde_json::to_string(&packet).unwrap()).unwrap();
        }
        if refresh {
            fs::write(&fixture.expected, text).unwrap();
        } else {
            let expected = fs::read_to_string(&fixture.expected).unwrap();
            assert_eq!(text, expected, "{}", fixture.name);
        }
    }
}

#[test]
fn what_we_write_of_a_foreign_packet_is_the_same_octet_for_octet() {
    for fixture in fixtures::all() {
        for packet in &fixture.packets {
            assert_eq!(&ControlPacket::decode(packet).unwrap().encode(), packet, "{}", fixture.name);
        }
    }
}

/// The captures hold a whole life: three states, both bits, and FRR's `shutdown`.
#[test]
fn the_captures_show_the_handshake_polls_and_admin_down() {
    let fixtures = fixtures::all();
    let read = |name: &str| -> Vec<ControlPacket> {
        let fixture = fixtures.iter().find(|fixture| fixture.name == name).unwrap();
        fixture.packets.iter().map(|packet| ControlPacket::decode(packet).unwrap()).collect()
    };
    let frr = read("frr-single-hop");
    assert!(frr.iter().any(|packet| packet.poll) && frr.iter().any(|packet| packet.final_));
    assert_eq!(frr.last().map(|packet| packet.state), Some(State::AdminDown));
    let bird = read("bird-meticulous-keyed-sha1");
    let states: Vec<State> = bird.iter().map(|packet| packet.state).collect();
    assert_eq!(states[..3], [State::Down, State::Init, State::Up]);
}
