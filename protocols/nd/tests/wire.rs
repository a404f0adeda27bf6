//! What real routers send, and what we make of it.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::Duration;

use anyvip_nd::wire::Message;

mod fixtures;

#[test]
fn advertisements_of_frr_and_bird_are_read_and_written_the_same() {
    for (name, octets, lifetime) in fixtures::ALL {
        let octets = fixtures::octets(octets);
        let Ok(Message::Advertisement(read)) = Message::decode(&octets) else { panic!("{name} is not read") };
        assert_eq!(read.router_lifetime, Duration::from_secs(*lifetime), "{name}");
        assert!(read.options.tells_link_layer_address() || name.starts_with("bird"), "{name}");
        // But for the checksum, which the kernel fills in.
        let mut expected = octets.clone();
        expected[2..4].fill(0);
        assert_eq!(Message::Advertisement(read).encode(), expected, "{name}");
    }
}
