//! One ARP request, and everybody who answers it.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyvip_virtual::lab::Node;
use nix::sys::socket::{AddressFamily, LinkAddr, SockaddrLike};
use socket2::{Domain, Protocol, Socket, Type};

const ETH_P_ARP: u16 = 0x0806;
/// Answers come within a millisecond; a busy machine gets more.
const PATIENCE: Duration = Duration::from_millis(300);

/// Asks from the first interface with an IPv4 address who has `address`, and gives the hardware addresses that answer.
pub(super) async fn ask(node: &Node, address: Ipv4Addr) -> Result<Vec<String>, String> {
    let own = node.addresses.iter().find_map(|(interface, nets)| {
        nets.iter().find_map(|net| match net.addr() {
            IpAddr::V4(address) => Some((interface.clone(), address)),
            IpAddr::V6(_) => None,
        })
    });
    let (interface, sender) = own.ok_or("this node has no IPv4 address")?;
    let work =
        move || ask_on(&interface, sender, address).map_err(|error| format!("ARP on {interface}: {error}"));
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
}

fn ask_on(interface: &str, sender: Ipv4Addr, address: Ipv4Addr) -> io::Result<Vec<String>> {
    let link = link_address(interface)?;
    let mac = link.addr().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let protocol = Protocol::from(i32::from(ETH_P_ARP.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
    nix::sys::socket::bind(socket.as_raw_fd(), &link)?;
    socket.send(&request(mac, sender, address))?;
    let (mut stations, end) = (Vec::new(), Instant::now() + PATIENCE);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            stations.sort();
            return Ok(stations);
        }
        socket.set_read_timeout(Some(left))?;
        let mut frame = [0; 128];
        match (&socket).read(&mut frame) {
            Ok(length) => {
                if let Some(station) = answer(&frame[..length], address)
                    && !stations.contains(&station)
                {
                    stations.push(station);
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Tells all neighbours on this interface that the address is here now (a gratuitous request, RFC 5227 §3).
pub(crate) async fn claim(interface: String, address: Ipv4Addr) -> Result<(), String> {
    let work = move || {
        let claim = || {
            let link = link_address(&interface)?;
            let mac = link.addr().ok_or(io::ErrorKind::AddrNotAvailable)?;
            let protocol = Protocol::from(i32::from(ETH_P_ARP.to_be()));
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
            nix::sys::socket::bind(socket.as_raw_fd(), &link)?;
            socket.send(&request(mac, address, address)).map(drop)
        };
        claim().map_err(|error: io::Error| format!("ARP on {interface}: {error}"))
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
}

fn link_address(interface: &str) -> io::Result<LinkAddr> {
    let mut all = nix::ifaddrs::getifaddrs()?;
    all.find_map(|found| {
        let address = found.address.filter(|_| found.interface_name == interface)?;
        (address.family() == Some(AddressFamily::Packet)).then(|| address.as_link_addr().copied())?
    })
    .ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// An Ethernet broadcast with an ARP request (RFC 826).
fn request(mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac);
    frame.extend(ETH_P_ARP.to_be_bytes());
    // Ethernet, IPv4, their lengths, request.
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

/// The sender's hardware address, if this is a reply for `address`.
fn answer(frame: &[u8], address: Ipv4Addr) -> Option<String> {
    let arp = frame.get(14..42)?;
    let is_reply = frame.get(12..14)? == ETH_P_ARP.to_be_bytes() && arp[..8] == [0, 1, 8, 0, 6, 4, 0, 2];
    let of_target = arp[14..18] == address.octets();
    let hex = |byte: &u8| format!("{byte:02x}");
    (is_reply && of_target).then(|| arp[8..14].iter().map(hex).collect::<Vec<_>>().join(":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_reply_for_the_address_asked_counts_as_an_answer() {
        let (target, mac) = (Ipv4Addr::new(192, 0, 2, 53), [2, 0, 0, 0, 0, 7]);
        let asked = request(mac, target, Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(answer(&asked, target), None, "a request is no reply");
        let mut reply = asked.clone();
        reply[21] = 2;
        assert_eq!(answer(&reply, target).as_deref(), Some("02:00:00:00:00:07"));
        assert_eq!(answer(&reply, Ipv4Addr::new(192, 0, 2, 54)), None);
        assert_eq!(answer(&reply[..30], target), None);
    }
}
