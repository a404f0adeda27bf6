//! `lab-addresses`: all addresses of this namespace as a JSON list, read by a netlink dump of its own, because the `ip` of many
//! distributions does not show IFA_PROTO. An independent witness: nothing of the project is used.
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd as _;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use serde_json::{Value, json};

const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLMSG_DONE: u16 = 3;
/// NLM_F_REQUEST | NLM_F_DUMP
const REQUEST_DUMP: u16 = 0x301;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_PROTO: u16 = 11;

/// Preferred lifetime 0; with an endless valid lifetime IPv4 shows it by this flag alone.
const IFA_F_DEPRECATED: u32 = 0x20;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;

fn main() -> ExitCode {
    match dump() {
        Ok(list) => {
            println!("{}", Value::Array(list));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("lab-addresses: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dump() -> Result<Vec<Value>, Errno> {
    let socket =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    let mut request = Vec::new();
    request.extend(24_u32.to_ne_bytes());
    request.extend(RTM_GETADDR.to_ne_bytes());
    request.extend(REQUEST_DUMP.to_ne_bytes());
    request.extend([0; 16]);
    sendto(socket.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut list = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..length];
        while rest.len() >= 16 {
            let length = (u32_at(rest, 0) as usize).clamp(16, rest.len());
            match u16_at(rest, 4) {
                NLMSG_DONE => return Ok(list),
                RTM_NEWADDR => list.push(address(&rest[16..length])),
                _ => {}
            }
            rest = &rest[rest.len().min(length.next_multiple_of(4))..];
        }
    }
}

/// struct ifaddrmsg: family, prefix length, flags, scope, index; then attributes.
fn address(message: &[u8]) -> Value {
    let mut value = json!({
        "prefix_len": message[1],
        "scope": message[3],
        "interface": u32_at(message, 4),
        "proto": 0,
    });
    let mut rest = &message[8..];
    let mut local = None;
    while rest.len() >= 4 {
        let length = usize::from(u16_at(rest, 0)).clamp(4, rest.len());
        let body = &rest[4..length];
        match u16_at(rest, 2) & 0x3fff {
            IFA_ADDRESS if local.is_none() => local = text(body),
            IFA_LOCAL => local = text(body),
            IFA_FLAGS => {
                let flags = u32_at(body, 0);
                value["noprefixroute"] = json!(flags & IFA_F_NOPREFIXROUTE != 0);
                value["deprecated"] = json!(flags & IFA_F_DEPRECATED != 0);
            }
            IFA_PROTO => value["proto"] = json!(body[0]),
            _ => {}
        }
        rest = &rest[rest.len().min(length.next_multiple_of(4))..];
    }
    value["address"] = json!(local);
    value
}

fn text(bytes: &[u8]) -> Option<String> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(four).to_string());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|six| Ipv6Addr::from(six).to_string())
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
