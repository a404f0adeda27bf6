//! Connections that somebody made to us and that were turned away: how many, who came last, and what helps.
//!
//! Whoever reaches our port can make as many as he likes, so events of them are rationed (`notices`), and what is kept of them is one.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyvip_bgp::Rejection;
use anyvip_machine::Time;
use serde::{Deserialize, Serialize};

use crate::agent::Agent;
use crate::boundary::{Action, Fact};
use crate::status::TurnedAwayStatus;

/// For so long after the last one `status` warns.
const REMEMBERED: Duration = Duration::from_secs(600);

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Strangers {
    connections: u64,
    last: Option<(Time, String)>,
}

impl Strangers {
    pub(crate) fn status(&self, now: Time) -> Option<TurnedAwayStatus> {
        let (at, text) = self.last.as_ref()?;
        let last_for_ms = u64::try_from(now.since(*at).as_millis()).unwrap_or(u64::MAX);
        Some(TurnedAwayStatus { connections: self.connections, last: text.clone(), last_for_ms })
    }

    /// For whom it is not too long ago.
    pub(crate) fn warning(&self, now: Time) -> Option<String> {
        let (at, text) = self.last.as_ref().filter(|(at, _)| now.since(*at) < REMEMBERED)?;
        let ago = now.since(*at).as_secs();
        Some(match self.connections {
            1 => format!("{text}; {ago} s ago"),
            many => format!("{text}; {ago} s ago, {many} connections turned away so far"),
        })
    }
}

impl Agent {
    /// A connection was not kept.
    pub(crate) fn turned_away(
        &mut self,
        now: Time,
        remote: SocketAddr,
        why: &Rejection,
        out: &mut Vec<Action>,
    ) {
        let text = format!("connection from {} refused: {}", self.place(remote), self.words(remote, why));
        // A peer that calls again, or calls while we go, is no stranger.
        if !matches!(why, Rejection::Established | Rejection::Stopped) {
            self.strangers.connections += 1;
            self.strangers.last = Some((now, text.clone()));
        }
        if let Some(text) = self.notices.admit(now, None, text) {
            out.push(Action::Record(Fact::PeerNotice { peer: None, text }));
        }
    }

    /// An address, with its interface where it means nothing without. The port says nothing: it is another each time.
    fn place(&self, remote: SocketAddr) -> String {
        let address = remote.ip().to_canonical();
        match self.link_of(remote) {
            Some(interface) => format!("{address}%{interface}"),
            None => address.to_string(),
        }
    }

    /// The interface that a link-local address belongs to.
    fn link_of(&self, remote: SocketAddr) -> Option<&str> {
        let SocketAddr::V6(remote) = remote else { return None };
        let links = &self.view.as_ref().filter(|_| remote.ip().is_unicast_link_local())?.links;
        links.get(&remote.scope_id()).map(|link| link.name.as_str())
    }

    fn words(&self, remote: SocketAddr, why: &Rejection) -> String {
        match why {
            Rejection::Stopped => "this agent stops".to_owned(),
            Rejection::Established => why.to_string(),
            Rejection::OtherInterface { wanted, .. } => format!(
                "{why}; has a cable or VLAN been exchanged, or is `interface` wrong? If it may call there too, remove \
                 interface = {wanted:?} of the peer"
            ),
            Rejection::Unsigned => {
                format!("{why}, and only the address that this agent has called itself there can be checked")
            }
            Rejection::NoSuchPeer => self.words_of_stranger(remote),
        }
    }

    fn words_of_stranger(&self, remote: SocketAddr) -> String {
        let address = remote.ip().to_canonical();
        let link = self.link_of(remote);
        if let Some(link) = link {
            let on_links = || {
                let peers = self.config.bgp.peers.keys();
                peers.filter_map(|name| Some((name, self.remote_of(name)?))).filter_map(|(name, at)| {
                    let own = at.address().filter(|own| is_link_local(*own))?;
                    Some((name, own, at.interface()?.to_owned()))
                })
            };
            if let Some((name, _, elsewhere)) = on_links().find(|(_, own, _)| *own == address) {
                return format!(
                    "{name} has this address, but on {elsewhere}; has a cable or VLAN been exchanged, or is `interface` of {name} wrong?"
                );
            }
            if let Some((name, own, _)) = on_links().find(|(_, _, at)| at == link) {
                return format!("{name} on {link} is {own}, and a link between two machines has one router");
            }
        }
        format!(
            "no peer has this address; if it is a router of this host, write [bgp.peer.NAME] with address = \"{address}\"{}, else keep it \
             away from bgp.listen",
            link.map(|link| format!(" and interface = {link:?}")).unwrap_or_default()
        )
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}
