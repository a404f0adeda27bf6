//! What only a simulator needs: links, plain addresses, and silence.

use std::net::IpAddr;

use anyvip_machine::{Failure, FailureKind};

use super::change::{FLAG_NODAD, IFA_FLAGS, Netlink, address_message};
use super::message::{Message, Mode, kind, link_header, link_header_with};
use super::snapshot::{Link, link_of};
use crate::namespace::Namespace;

/// A veth pair as it shall be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cable {
    /// Indexes of both ends; 0: the kernel chooses. Where both happen to be the same, the kernel takes an end for a card of its own
    /// and tells a lost carrier up to a second late.
    pub indexes: [u32; 2],
    /// The MTU of both ends; 1500 unless said otherwise.
    pub mtu: Option<u32>,
}

const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;

impl Netlink {
    /// Looks an interface up by its name.
    ///
    /// # Errors
    /// `NotFound` without such an interface.
    pub async fn link(&self, name: &str) -> Result<Link, Failure> {
        let what = format!("cannot find interface {name}");
        let none = Failure::new(FailureKind::NotFound, what.clone());
        let message = Message::new(kind::GET_LINK, Mode::Get, &link_header(0)).put_name(IFLA_IFNAME, name);
        let mut link = None;
        let found = self.run(what, move |socket| {
            socket.ask(message, |payload| link = link_of(payload))?;
            Ok(link)
        });
        found.await?.ok_or(none)
    }

    /// Sets an interface administratively up.
    ///
    /// # Errors
    /// `NotFound` without such an interface.
    pub async fn set_link_up(&self, interface: u32) -> Result<(), Failure> {
        self.set_link(interface, true).await
    }

    /// Sets an interface administratively down; the other end of a veth loses its carrier.
    ///
    /// # Errors
    /// `NotFound` without such an interface.
    pub async fn set_link_down(&self, interface: u32) -> Result<(), Failure> {
        self.set_link(interface, false).await
    }

    async fn set_link(&self, interface: u32, up: bool) -> Result<(), Failure> {
        const IFF_UP: u32 = 1;
        let header = link_header_with(interface, if up { IFF_UP } else { 0 }, IFF_UP);
        let what = format!("cannot set interface {interface} {}", if up { "up" } else { "down" });
        self.change(what, Message::new(kind::SET_LINK, Mode::Existing, &header)).await
    }

    /// Makes a veth pair, each end in its own namespace from the start, both down.
    ///
    /// # Errors
    /// `AlreadyExists` if a name is taken there.
    pub async fn create_veth(
        &self,
        near: (&str, &Namespace),
        far: (&str, &Namespace),
    ) -> Result<(), Failure> {
        self.create_cable(near, far, Cable::default()).await
    }

    /// The same, with indexes and an MTU of the caller's choice.
    ///
    /// # Errors
    /// `AlreadyExists` if a name or an index is taken there.
    pub async fn create_cable(
        &self,
        (name, namespace): (&str, &Namespace),
        (peer, peer_namespace): (&str, &Namespace),
        cable: Cable,
    ) -> Result<(), Failure> {
        let [near, far] = cable.indexes;
        let mtu = |message: Message| match cable.mtu {
            Some(mtu) => message.put_u32(IFLA_MTU, mtu),
            None => message,
        };
        let message = Message::new(kind::NEW_LINK, Mode::Create, &link_header(near))
            .put_name(IFLA_IFNAME, name)
            .put(IFLA_NET_NS_FD, &namespace.raw_fd().to_ne_bytes());
        let message = mtu(message).nest(IFLA_LINKINFO, |info| {
            info.put(IFLA_INFO_KIND, b"veth").nest(IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |end| {
                    let end = end
                        .raw(&link_header(far))
                        .put_name(IFLA_IFNAME, peer)
                        .put(IFLA_NET_NS_FD, &peer_namespace.raw_fd().to_ne_bytes());
                    mtu(end)
                })
            })
        });
        // The descriptors must stay open until the kernel has looked at them.
        let keep = (namespace.clone(), peer_namespace.clone());
        self.run(format!("cannot make the veth pair {name} and {peer}"), move |socket| {
            let result = socket.change(message);
            drop(keep);
            result
        })
        .await
    }

    /// Makes a bridge, down.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is taken.
    pub async fn create_bridge(&self, name: &str) -> Result<(), Failure> {
        let message = Message::new(kind::NEW_LINK, Mode::Create, &link_header(0))
            .put_name(IFLA_IFNAME, name)
            .nest(IFLA_LINKINFO, |info| info.put(IFLA_INFO_KIND, b"bridge"));
        self.change(format!("cannot make bridge {name}"), message).await
    }

    /// Makes an interface a port of a bridge, or free again.
    ///
    /// # Errors
    /// `NotFound` without such an interface.
    pub async fn set_master(&self, interface: u32, master: Option<u32>) -> Result<(), Failure> {
        let message = Message::new(kind::SET_LINK, Mode::Existing, &link_header(interface))
            .put_u32(IFLA_MASTER, master.unwrap_or(0));
        self.change(format!("cannot set the master of interface {interface}"), message).await
    }

    /// Deletes an interface; of a veth pair, both ends.
    ///
    /// # Errors
    /// `NotFound` without such an interface.
    pub async fn delete_link(&self, interface: u32) -> Result<(), Failure> {
        let message = Message::new(kind::DELETE_LINK, Mode::Existing, &link_header(interface));
        self.change(format!("cannot delete interface {interface}"), message).await
    }

    /// Adds an ordinary address, usable at once (no duplicate address detection).
    ///
    /// # Errors
    /// `AlreadyExists`, or `NotFound` without such an interface.
    pub async fn add_address(&self, interface: u32, address: IpAddr, prefix_len: u8) -> Result<(), Failure> {
        let message = address_message(kind::NEW_ADDRESS, Mode::Create, interface, address, prefix_len, 0)
            .put_u32(IFA_FLAGS, FLAG_NODAD);
        self.change(format!("cannot add {address}/{prefix_len} to interface {interface}"), message).await
    }

    /// Silences an interface: whatever it should send is dropped (`pfifo limit 0`), while the link stays up.
    ///
    /// # Errors
    /// `NotFound` without such an interface.
    pub async fn silence(&self, interface: u32) -> Result<(), Failure> {
        const TCA_KIND: u16 = 1;
        const TCA_OPTIONS: u16 = 2;
        let message = Message::new(kind::NEW_QDISC, Mode::Replace, &root_qdisc(interface))
            .put_name(TCA_KIND, "pfifo")
            .put_u32(TCA_OPTIONS, 0);
        self.change(format!("cannot silence interface {interface}"), message).await
    }

    /// Ends the silence of an interface.
    ///
    /// # Errors
    /// `NotFound` if it is not silent.
    pub async fn end_silence(&self, interface: u32) -> Result<(), Failure> {
        let message = Message::new(kind::DELETE_QDISC, Mode::Existing, &root_qdisc(interface));
        self.change(format!("cannot end the silence of interface {interface}"), message).await
    }
}

/// `struct tcmsg`: family, 3 bytes of padding, interface, handle, parent (root), info.
fn root_qdisc(interface: u32) -> [u8; 20] {
    let mut header = [0; 20];
    header[4..8].copy_from_slice(&interface.to_ne_bytes());
    header[12..16].copy_from_slice(&u32::MAX.to_ne_bytes());
    header
}
