//! A node's side of the network: sysctls, addresses, routes, and what disturbs them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyvip_io::netlink::{Link, Netlink};
use anyvip_machine::FailureKind;
use anyvip_virtual::lab::{Lab, Node, Role};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tokio::io::AsyncWriteExt;

/// Ids of next-hop objects of this module; the router's begin elsewhere.
const GATEWAY_IDS: u32 = 0x5100_0000;
const GATEWAY_GROUPS: u32 = 0x5200_0000;
/// RTPROT_STATIC.
const STATIC: u8 = 4;

/// The network of one node.
pub(crate) struct Network<'a> {
    pub(crate) netlink: &'a Netlink,
    pub(crate) lab: &'a Lab,
    pub(crate) name: &'a str,
    pub(crate) node: &'a Node,
}

impl Network<'_> {
    /// Everything the lab file says of this node's network.
    pub(crate) async fn configure(&self) -> Result<(), String> {
        let interfaces = self.lab.interfaces(self.name);
        for interface in &interfaces {
            self.wait_for(interface, |_| true).await?;
        }
        for (key, value) in self.sysctls() {
            // What `all` and `default` set must be there before interfaces come up.
            set_sysctl(&key, &value)?;
        }
        self.up("lo").await?;
        for interface in &interfaces {
            self.up(interface).await?;
        }
        // The kernel takes no next hop on a link without carrier, and the other ends are only just coming up.
        for interface in &interfaces {
            self.wait_for(interface, |link| link.carrier).await?;
        }
        self.gateways().await
    }

    /// Interface up, its addresses on it.
    pub(crate) async fn up(&self, interface: &str) -> Result<(), String> {
        let link = self.netlink.link(interface).await.map_err(|failure| failure.to_string())?;
        self.netlink.set_link_up(link.index).await.map_err(|failure| failure.to_string())?;
        for net in self.node.addresses.get(interface).into_iter().flatten() {
            match self.netlink.add_address(link.index, net.addr(), net.prefix_len()).await {
                Ok(()) => {}
                Err(failure) if failure.kind == FailureKind::AlreadyExists => {}
                Err(failure) => return Err(failure.to_string()),
            }
        }
        Ok(())
    }

    pub(crate) async fn down(&self, interface: &str) -> Result<(), String> {
        let link = self.netlink.link(interface).await.map_err(|failure| failure.to_string())?;
        self.netlink.set_link_down(link.index).await.map_err(|failure| failure.to_string())
    }

    /// Default routes: one gateway a family, or several as a group.
    pub(crate) async fn gateways(&self) -> Result<(), String> {
        let everything: [IpNet; 2] = [
            Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0).into(),
            Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0).into(),
        ];
        for (family, destination) in everything.into_iter().enumerate() {
            let mut members = Vec::new();
            let gateways = self.node.gateways.iter().filter(|gateway| gateway.is_ipv4() == (family == 0));
            for (number, gateway) in gateways.enumerate() {
                let interface = self.interface_towards(*gateway)?;
                let link = self.netlink.link(&interface).await.map_err(|failure| failure.to_string())?;
                let id = GATEWAY_IDS + (family as u32) * 0x1_0000 + number as u32;
                // The kernel forgets a next hop whose link goes down; it is left out until the link comes back.
                if link.carrier {
                    let added = self.netlink.replace_nexthop(id, *gateway, link.index).await;
                    added.map_err(|failure| failure.to_string())?;
                    members.push((id, 1));
                }
            }
            if members.is_empty() {
                continue;
            }
            let group = GATEWAY_GROUPS + family as u32;
            let step = async {
                self.netlink.replace_nexthop_group(group, &members).await?;
                self.netlink.replace_route_via_nexthop(destination, group, STATIC).await
            };
            step.await.map_err(|failure| failure.to_string())?;
        }
        Ok(())
    }

    fn interface_towards(&self, gateway: IpAddr) -> Result<String, String> {
        let mut all = self.node.addresses.iter();
        all.find(|(_, nets)| nets.iter().any(|net| net.contains(&gateway)))
            .map(|(interface, _)| interface.clone())
            .ok_or_else(|| format!("{gateway} is in no subnet"))
    }

    /// In a container, links are plugged in after its start.
    async fn wait_for(&self, interface: &str, good: fn(&Link) -> bool) -> Result<(), String> {
        const PATIENCE: Duration = Duration::from_secs(10);
        let wait = async {
            while !self.netlink.link(interface).await.is_ok_and(|link| good(&link)) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let late = |_| format!("interface {interface} did not come up within {PATIENCE:?}");
        tokio::time::timeout(PATIENCE, wait).await.map_err(late)
    }

    /// What every node of this role needs, then what the lab file says.
    fn sysctls(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        let mut set = |key: &str, value: &str| {
            all.insert(key.to_owned(), value.to_owned());
        };
        for scope in ["all", "default"] {
            set(&format!("net.ipv4.conf.{scope}.rp_filter"), "0");
            set(&format!("net.ipv6.conf.{scope}.disable_ipv6"), "0");
            set(&format!("net.ipv6.conf.{scope}.accept_ra"), "0");
            // Without a checked link-local address a router asks no neighbour for two seconds.
            set(&format!("net.ipv6.conf.{scope}.accept_dad"), "0");
            // A link that bounces keeps its addresses.
            set(&format!("net.ipv6.conf.{scope}.keep_addr_on_down"), "1");
        }
        // Interfaces that exist already have copied the values of before.
        for interface in self.lab.interfaces(self.name) {
            set(&format!("net.ipv4.conf.{interface}.rp_filter"), "0");
            set(&format!("net.ipv6.conf.{interface}.disable_ipv6"), "0");
            set(&format!("net.ipv6.conf.{interface}.accept_ra"), "0");
            set(&format!("net.ipv6.conf.{interface}.accept_dad"), "0");
            set(&format!("net.ipv6.conf.{interface}.keep_addr_on_down"), "1");
        }
        match &self.node.role {
            Role::Router(router) => {
                set("net.ipv4.ip_forward", "1");
                set("net.ipv6.conf.all.forwarding", "1");
                // Only policy 3 is a 5-tuple hash for what comes from a socket behind veth: with policy 1 the kernel
                // takes a random number that the socket has put on the packet. 0x37: addresses, protocol, ports.
                set("net.ipv4.fib_multipath_hash_policy", "3");
                set("net.ipv4.fib_multipath_hash_fields", "55");
                set("net.ipv6.fib_multipath_hash_policy", "3");
                set("net.ipv6.fib_multipath_hash_fields", "55");
                // Covers IPv6 too. 0 would be one value shared by all namespaces.
                set("net.ipv4.fib_multipath_hash_seed", &router.hash_seed.to_string());
            }
            Role::Client => set("net.ipv4.ip_local_port_range", "61000 65535"),
            Role::Agent(_) | Role::Bridge => {}
        }
        all.extend(self.node.sysctls.clone());
        all
    }
}

/// Writes a sysctl of this process's network namespace.
pub(crate) fn set_sysctl(key: &str, value: &str) -> Result<(), String> {
    // An interface may have a dot in its name; written with slashes it is one word.
    let path = if key.contains('/') { key.to_owned() } else { key.replace('.', "/") };
    let path: PathBuf = ["/proc/sys", &path].iter().collect();
    std::fs::write(&path, value).map_err(|error| format!("sysctl {key}={value}: {error}"))
}

/// Random loss among what this node forwards, by nftables; 0 ends it.
pub(crate) async fn set_loss(permille: u16) -> Result<(), String> {
    const TABLE: &str = "anyvip_sim_loss";
    // Added first, so that deleting it never fails.
    let mut rules = format!("add table inet {TABLE}\ndelete table inet {TABLE}\n");
    if permille > 0 {
        let hook = "type filter hook forward priority 0;";
        let rule = format!("numgen random mod 1000 < {permille} drop");
        rules.push_str(&format!("table inet {TABLE} {{\nchain forward {{\n{hook}\n{rule}\n}}\n}}\n"));
    }
    let mut child = tokio::process::Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("nft: {error}"))?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(rules.as_bytes()).await.map_err(|error| format!("nft: {error}"))?;
    }
    let output = child.wait_with_output().await.map_err(|error| format!("nft: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("nft: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
