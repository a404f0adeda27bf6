//! Who asks when and from where: one answer for models and kernels, so that both play the same flows.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyvip_machine::Seed;

/// The address that all servers share.
pub(crate) const SERVICE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);
/// Where it listens, UDP and TCP.
pub(crate) const PORT: u16 = 53;
/// Clients have the addresses from here on (RFC 2544 gave this network to measurements).
pub(crate) const CLIENTS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// The network of all clients.
pub(crate) const CLIENTS_PREFIX: u8 = 15;

/// The address of a client.
pub(crate) fn client(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(CLIENTS) + number)
}

/// When each request is asked, and by whom.
pub(crate) fn requests(
    seed: u64,
    clients: u32,
    rate: u32,
    duration: Duration,
) -> impl Iterator<Item = (Duration, u32)> {
    let gap = Duration::from_secs(1) / rate.max(1);
    let mut chance = of(seed).child("clients");
    let times = std::iter::successors(Some(Duration::ZERO), move |at| Some(*at + gap));
    times.take_while(move |at| *at < duration).map(move |at| {
        let client = u32::try_from(chance.below(clients.into())).unwrap_or(0);
        (at, client)
    })
}

/// The source port of a try. Each try has a socket of its own.
pub(crate) fn port_of_try(seed: u64, request: u32, number: u32) -> u16 {
    // SplitMix64: one multiplication more than a counter, and as good as random.
    let mut bits = (seed ^ (u64::from(request) << 8) ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    1024 + u16::try_from(bits % 64_512).unwrap_or(0)
}

/// Client and source port of a connection.
pub(crate) fn connection(number: u32, clients: u32) -> (u32, u16) {
    let clients = clients.max(1);
    (number % clients, 32_768 + u16::try_from(number / clients % 16_384).unwrap_or(0))
}

/// When a connection asks for the first time.
pub(crate) fn phase_of_connection(number: u32, count: u32, every: Duration) -> Duration {
    every * number / count.max(1)
}

/// When each server is checked for the first time.
pub(crate) fn phases_of_checks(seed: u64, servers: u16, interval: Duration) -> Vec<Duration> {
    let mut phases = of(seed).child("checks");
    let most = interval.saturating_sub(Duration::from_nanos(1));
    (0..servers).map(|_| phases.between(Duration::ZERO, most)).collect()
}

/// How long what a resolver has when all begins is still good: resolvers did not all begin to ask at that moment.
pub(crate) fn first_expiry(seed: u64, resolver: u32, keep: Duration) -> Duration {
    of(seed).child(&format!("resolver {resolver}")).between(Duration::ZERO, keep)
}

/// Everything random of a plan comes from here.
pub(crate) fn of(seed: u64) -> Seed {
    Seed::new(seed).child("compare")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_tries_are_spread_over_all_that_a_client_may_use() {
        let ports: Vec<u16> = (0..10_000).map(|request| port_of_try(1, request, 0)).collect();
        assert!(ports.iter().all(|port| *port >= 1024));
        let low = ports.iter().filter(|port| **port < 1024 + 32_256).count();
        assert!((4800..5200).contains(&low), "{low}");
        let distinct: std::collections::BTreeSet<&u16> = ports.iter().collect();
        assert!(distinct.len() > 9000, "{}", distinct.len());
        assert_ne!(port_of_try(1, 7, 0), port_of_try(1, 7, 1), "a new socket has a new port");
    }

    #[test]
    fn requests_come_at_their_rate_and_from_everybody() {
        let asked: Vec<(Duration, u32)> = requests(1, 10, 100, Duration::from_secs(10)).collect();
        assert_eq!(asked.len(), 1000);
        assert_eq!(asked[100].0, Duration::from_secs(1));
        for client in 0..10 {
            let count = asked.iter().filter(|(_, one)| *one == client).count();
            assert!((60..140).contains(&count), "{client}: {count}");
        }
    }
}
