//! What foreign daemons really send, and what we make of it. `ANYVIP_REFRESH=1` writes the expectations anew.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(
    clippy::disallowed_methods,
    reason = "fixtures are files, and refreshing them is asked for by a variable"
)]

use std::fmt::Write;
use std::{env, fs};

use anyvip_bgp::wire::{Framer, Message, Notification};

mod fixtures;

#[test]
fn foreign_messages_mean_what_they_meant_when_captured() {
    let refresh = env::var("ANYVIP_REFRESH").is_ok_and(|value| value == "1");
    let fixtures = fixtures::all();
    for daemon in ["bird", "exabgp", "frr", "gobgp", "openbgpd"] {
        assert!(fixtures.iter().any(|fixture| fixture.name.starts_with(daemon)), "nothing from {daemon}");
    }
    for fixture in fixtures {
        let mut text = String::new();
        for message in &fixture.messages {
            match Message::decode(message, &fixture.codec) {
                Ok(message) => writeln!(text, "{}", serde_json::to_string(&message).unwrap()).unwrap(),
                Err(notification) => writeln!(text, "answered with {notification}").unwrap(),
            }
        }
        if refresh {
            fs::write(&fixture.expected, text).unwrap();
        } else {
            let expected = fs::read_to_string(&fixture.expected).unwrap();
            for (number, (read, expected)) in text.lines().zip(expected.lines()).enumerate() {
                assert_eq!(read, expected, "{} message {}", fixture.name, number + 1);
            }
            assert_eq!(text.lines().count(), expected.lines().count(), "{}", fixture.name);
        }
    }
}

#[test]
fn no_captured_message_is_malformed() {
    for fixture in fixtures::all() {
        for message in &fixture.messages {
            match Message::decode(message, &fixture.codec) {
                Ok(Message::Update(update)) => assert_eq!(update.errors, [], "{}", fixture.name),
                Ok(_) => {}
                Err(notification) => panic!("{}: {notification}", fixture.name),
            }
        }
    }
}

#[test]
fn what_we_write_of_a_foreign_message_means_the_same() {
    for fixture in fixtures::all() {
        for message in &fixture.messages {
            let message = Message::decode(message, &fixture.codec).unwrap();
            let again = decode_stream(&message.encode(&fixture.codec), &fixture);
            match message {
                Message::Update(update) => {
                    let again = again.into_iter().map(|message| match message {
                        Message::Update(update) => update,
                        other => panic!("{other:?}"),
                    });
                    let again = fixtures::as_meant(again.collect());
                    assert_eq!(again, fixtures::as_meant(vec![update]), "{}", fixture.name);
                }
                message => assert_eq!(again, [message], "{}", fixture.name),
            }
        }
    }
}

fn decode_stream(bytes: &[u8], fixture: &fixtures::Fixture) -> Vec<Message> {
    let mut framer = Framer::default();
    framer.push(bytes);
    let mut messages = Vec::new();
    while let Some(frame) = framer.next_frame() {
        messages.push(Message::decode(&frame.unwrap(), &fixture.codec).unwrap());
    }
    assert_eq!(framer.pending(), 0);
    messages
}

/// RFC 9003, as the daemons that have a command for it send it.
#[test]
fn shutdown_messages_of_foreign_daemons_are_read() {
    for daemon in ["bird", "frr", "openbgpd"] {
        let fixtures = fixtures::all();
        let fixture = fixtures.iter().find(|fixture| fixture.name == format!("{daemon}-two-octet")).unwrap();
        let last = Message::decode(fixture.messages.last().unwrap(), &fixture.codec).unwrap();
        let Message::Notification(notification) = last else { panic!("{daemon}: {last:?}") };
        assert!(notification.is_cease(Notification::ADMINISTRATIVE_SHUTDOWN), "{daemon}: {notification}");
        let text = notification.shutdown_text().unwrap();
        assert!(text.starts_with("maintenance tonight, back at 04:00"), "{daemon}: {text}");
    }
}
