//! The changes that the agent makes: VIPs and the ARP guard.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyvip_machine::{Failure, FailureKind};

use super::message::{AF_INET, Message, Mode, family, kind, link_header};
use super::socket::{Refusal, RequestSocket};
use crate::failure::failed;

/// The IFA_PROTO mark of the addresses that anyvip puts in place, and the protocol number of its routes.
pub const VIP_PROTOCOL: u8 = 201;

/// Numbers of `net.ipv4.conf.*` values in `linux/ip.h`.
pub(super) const RP_FILTER: u16 = 8;
pub(super) const ARP_ANNOUNCE: u16 = 18;
pub(super) const ARP_IGNORE: u16 = 19;

pub(super) const SCOPE_HOST: u8 = 254;
pub(super) const FLAG_NODAD: u32 = 0x02;

/// A way to change the network namespace in which it was opened. Copies share one socket; changes happen one after
/// another, on tokio's blocking threads. A dropped change may still happen.
#[derive(Clone, Debug)]
pub struct Netlink {
    socket: Arc<Mutex<RequestSocket>>,
}

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When descriptors have run out, or netlink is not permitted here.
    pub fn open() -> Result<Netlink, Failure> {
        let socket = RequestSocket::open().map_err(|error| failed("cannot open a netlink socket", &error))?;
        Ok(Netlink { socket: Arc::new(Mutex::new(socket)) })
    }

    /// Puts a VIP onto an interface: /32 or /128, marked with [`VIP_PROTOCOL`], of host scope (IPv4), without a route, without
    /// duplicate address detection, and with a preferred lifetime of zero so that it never becomes a source address.
    ///
    /// # Errors
    /// `AlreadyExists` if the address is there (its marks are not touched), `NotFound` without such an interface.
    pub async fn add_vip(&self, interface: u32, address: IpAddr) -> Result<(), Failure> {
        const NOPREFIXROUTE: u32 = 0x200;
        const IFA_CACHEINFO: u16 = 6;
        const IFA_PROTO: u16 = 11;
        // struct ifa_cacheinfo: preferred, valid, created, updated. Never preferred, valid for ever.
        let mut lifetimes = [0; 16];
        lifetimes[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
        let message = address_message(
            kind::NEW_ADDRESS,
            Mode::Create,
            interface,
            address,
            host_bits(address),
            SCOPE_HOST,
        )
        .put_u32(IFA_FLAGS, NOPREFIXROUTE | FLAG_NODAD)
        .put(IFA_CACHEINFO, &lifetimes)
        .put(IFA_PROTO, &[VIP_PROTOCOL]);
        self.change(format!("cannot add {address} to interface {interface}"), message).await
    }

    /// Removes a /32 or /128 from an interface, whoever put it there.
    ///
    /// # Errors
    /// `NotFound` without such an interface, `AddressNotAvailable` without such an address.
    pub async fn remove_address(&self, interface: u32, address: IpAddr) -> Result<(), Failure> {
        let message =
            address_message(kind::DELETE_ADDRESS, Mode::Existing, interface, address, host_bits(address), 0);
        self.change(format!("cannot remove {address} from interface {interface}"), message).await
    }

    /// Sets `arp_ignore` and `arp_announce` of an interface, also back to 0.
    ///
    /// # Errors
    /// `NotFound` without such an interface.
    pub async fn set_arp(&self, interface: u32, ignore: u32, announce: u32) -> Result<(), Failure> {
        let what = format!(
            "cannot set arp_ignore to {ignore} and arp_announce to {announce} on interface {interface}"
        );
        let settings = [(ARP_IGNORE, ignore), (ARP_ANNOUNCE, announce)];
        self.change(what, settings_message(interface, &settings)).await
    }

    /// Sets `rp_filter` of an interface.
    ///
    /// # Errors
    /// `NotFound` without such an interface.
    pub async fn set_rp_filter(&self, interface: u32, value: u32) -> Result<(), Failure> {
        let what = format!("cannot set rp_filter to {value} on interface {interface}");
        self.change(what, settings_message(interface, &[(RP_FILTER, value)])).await
    }

    /// Carries out one change; `what` begins the sentence if it fails.
    pub(super) async fn change(&self, what: String, message: Message) -> Result<(), Failure> {
        self.run(what, |socket| socket.change(message)).await
    }

    pub(super) async fn run<T: Send + 'static>(
        &self,
        what: String,
        request: impl FnOnce(&mut RequestSocket) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Failure> {
        let socket = Arc::clone(&self.socket);
        let done = tokio::task::spawn_blocking(move || {
            request(&mut socket.lock().unwrap_or_else(PoisonError::into_inner))
        });
        match done.await {
            Ok(result) => result.map_err(|refusal| refusal.failure(&what)),
            Err(ended) => Err(Failure::new(FailureKind::Other, format!("{what}: {ended}"))),
        }
    }
}

pub(super) const IFA_FLAGS: u16 = 8;

/// `struct ifaddrmsg` and the address itself.
pub(super) fn address_message(
    kind: u16,
    mode: Mode,
    interface: u32,
    address: IpAddr,
    prefix_len: u8,
    scope: u8,
) -> Message {
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    // IPv6 works out the scope by itself.
    let scope = if address.is_ipv4() { scope } else { 0 };
    let mut header = [family(address), prefix_len, 0, scope, 0, 0, 0, 0];
    header[4..].copy_from_slice(&interface.to_ne_bytes());
    Message::new(kind, mode, &header).put_ip(IFA_LOCAL, address).put_ip(IFA_ADDRESS, address)
}

/// The kernel takes these inside IFLA_AF_SPEC → AF_INET → IFLA_INET_CONF; `conf/all` has no such way.
fn settings_message(interface: u32, settings: &[(u16, u32)]) -> Message {
    const IFLA_AF_SPEC: u16 = 26;
    const IFLA_INET_CONF: u16 = 1;
    Message::new(kind::SET_LINK, Mode::Existing, &link_header(interface)).nest(IFLA_AF_SPEC, |spec| {
        spec.nest(AF_INET.into(), |inet| {
            inet.nest(IFLA_INET_CONF, |conf| {
                settings.iter().fold(conf, |conf, (number, value)| conf.put_u32(*number, *value))
            })
        })
    })
}

fn host_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}
