//! One interface: when it advertises and solicits, and whom it has heard.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::Duration;

use anyvip_machine::{Complaints, Failure, Seed, Time};
use serde::{Deserialize, Serialize};

use crate::boundary::{Action, InterfaceName};
use crate::error::Discard;
use crate::status::{InterfaceView, RouterView};
use crate::wire::{ALL_NODES, ALL_ROUTERS, Message, RouterAdvertisement, RouterSolicitation};

/// RFC 4861 §6.2.1: MaxRtrAdvInterval is at least 4 s. A router that starts anew knows this host again that soon; on a link between
/// two machines one small packet is no burden.
const MAX_INTERVAL: Duration = Duration::from_secs(4);
/// RFC 4861 §6.2.1: MinRtrAdvInterval is at least 3 s and at most three quarters of the above.
const MIN_INTERVAL: Duration = Duration::from_secs(3);
/// RFC 4861 §10: MIN_DELAY_BETWEEN_RAS.
const MIN_DELAY: Duration = Duration::from_secs(3);
/// RFC 4861 §10: MAX_RA_DELAY_TIME, before an answer to a solicitation.
const MAX_ANSWER_DELAY: Duration = Duration::from_millis(500);
/// RFC 4861 §10: MAX_RTR_SOLICITATION_DELAY, before the first question.
const MAX_SOLICITATION_DELAY: Duration = Duration::from_secs(1);
/// RFC 7559 §2: IRT.
const SOLICITATION_INTERVAL: Duration = Duration::from_secs(4);
/// RFC 7559 §2 has an hour as MRT. Somebody waits for this router: a minute.
const MAX_SOLICITATION_INTERVAL: Duration = Duration::from_secs(60);
/// A link between two machines has one router. Whoever invents more of them fills no memory.
const MOST_ROUTERS: usize = 8;

/// See the module's text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Interface {
    index: u32,
    seed: Seed,
    state: State,
    advertised: u64,
    discarded: u64,
    complaints: Complaints<Discard>,
    trouble: Option<Failure>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum State {
    /// It cannot send.
    Unready,
    Ready(Ready),
}

/// What only an interface that can send has.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Ready {
    link_local: Ipv6Addr,
    next_advertisement: Time,
    last_advertisement: Option<Time>,
    /// Until a router is heard.
    solicitation: Option<Solicitation>,
    routers: BTreeMap<Ipv6Addr, Time>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Solicitation {
    next: Time,
    interval: Duration,
}

impl Interface {
    pub(crate) fn new(index: u32, seed: Seed) -> Interface {
        let complaints = Complaints::default();
        Interface {
            index,
            seed,
            state: State::Unready,
            advertised: 0,
            discarded: 0,
            complaints,
            trouble: None,
        }
    }

    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Whether it can send, and from where. What was heard before it could not is not true any more: the cable may lead elsewhere.
    pub(crate) fn look(&mut self, now: Time, link_local: Option<Ipv6Addr>) {
        match (&mut self.state, link_local) {
            (State::Ready(ready), Some(address)) if ready.link_local == address => {}
            (_, None) => self.state = State::Unready,
            (State::Ready(ready), Some(address)) => {
                // Another address of ours: tell it soon, the routers are the same.
                ready.link_local = address;
                ready.advertise_by(now, Duration::ZERO);
            }
            (State::Unready, Some(address)) => {
                let wait = self.seed.between(Duration::ZERO, MAX_SOLICITATION_DELAY);
                self.state = State::Ready(Ready {
                    link_local: address,
                    // The next turn of time.
                    next_advertisement: now,
                    last_advertisement: None,
                    solicitation: Some(Solicitation { next: now + wait, interval: SOLICITATION_INTERVAL }),
                    routers: BTreeMap::new(),
                });
            }
        }
    }

    /// Takes a message. A router is given back when it is heard for the first time.
    pub(crate) fn hear(
        &mut self,
        now: Time,
        source: Ipv6Addr,
        message: &Message,
    ) -> Result<Option<Ipv6Addr>, Discard> {
        let seed = &mut self.seed;
        match message {
            Message::Solicitation(solicitation) => {
                // RFC 4861 §6.1.1.
                if source.is_unspecified() && solicitation.options.tells_link_layer_address() {
                    return Err(Discard::SourceOption);
                }
                if let State::Ready(ready) = &mut self.state {
                    // RFC 4861 §6.2.6: an answer to all, after a random moment.
                    ready.advertise_by(now, seed.between(Duration::ZERO, MAX_ANSWER_DELAY));
                }
                Ok(None)
            }
            Message::Advertisement(_) => {
                // RFC 4861 §6.1.2.
                if !source.is_unicast_link_local() {
                    return Err(Discard::Source);
                }
                let State::Ready(ready) = &mut self.state else { return Ok(None) };
                if source == ready.link_local {
                    return Ok(None);
                }
                ready.solicitation = None;
                let first = ready.routers.insert(source, now).is_none();
                if ready.routers.len() > MOST_ROUTERS {
                    let silent =
                        ready.routers.iter().min_by_key(|(_, heard)| **heard).map(|(router, _)| *router);
                    silent.and_then(|router| ready.routers.remove(&router));
                }
                if first {
                    // It may have come up just now and know nothing of us.
                    ready.advertise_by(now, seed.between(Duration::ZERO, MAX_ANSWER_DELAY));
                }
                Ok(first.then_some(source))
            }
        }
    }

    /// Counts a packet that was refused; whether to tell.
    pub(crate) fn refuse(&mut self, now: Time, reason: Discard) -> bool {
        self.discarded += 1;
        self.complaints.is_news(now, reason)
    }

    /// What was asked for was done or not; whether that is news.
    pub(crate) fn done(&mut self, result: &Result<(), Failure>) -> bool {
        let former = std::mem::replace(&mut self.trouble, result.as_ref().err().cloned());
        former != self.trouble
    }

    pub(crate) fn deadline_reached(&mut self, now: Time, name: &InterfaceName, actions: &mut Vec<Action>) {
        let State::Ready(ready) = &mut self.state else { return };
        let mut send = |destination, message: Message| {
            actions.push(Action::Send { interface: name.clone(), destination, bytes: message.encode() });
        };
        if ready.next_advertisement <= now {
            ready.last_advertisement = Some(now);
            ready.next_advertisement = now + self.seed.between(MIN_INTERVAL, MAX_INTERVAL);
            self.advertised += 1;
            send(ALL_NODES, Message::Advertisement(RouterAdvertisement::of_a_host()));
        }
        if let Some(solicitation) =
            ready.solicitation.as_mut().filter(|solicitation| solicitation.next <= now)
        {
            // RFC 7559 §2.1: twice as long each time, a tenth more or less.
            let (least, most) = (solicitation.interval * 9 / 10, solicitation.interval * 11 / 10);
            solicitation.next = now + self.seed.between(least, most);
            solicitation.interval = (solicitation.interval * 2).min(MAX_SOLICITATION_INTERVAL);
            send(ALL_ROUTERS, Message::Solicitation(RouterSolicitation::default()));
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let State::Ready(ready) = &self.state else { return None };
        let solicitation = ready.solicitation.as_ref().map(|solicitation| solicitation.next);
        [Some(ready.next_advertisement), solicitation].into_iter().flatten().min()
    }

    pub(crate) fn view(&self) -> InterfaceView {
        let ready = match &self.state {
            State::Unready => None,
            State::Ready(ready) => Some(ready),
        };
        let routers = ready.into_iter().flat_map(|ready| &ready.routers);
        InterfaceView {
            ready: ready.is_some(),
            routers: routers
                .map(|(address, heard)| RouterView { address: *address, heard: *heard })
                .collect(),
            advertised: self.advertised,
            discarded: self.discarded,
            trouble: self.trouble.clone(),
        }
    }
}

impl Ready {
    /// No later than after `wait`, but RFC 4861 §6.2.6: never two within MIN_DELAY_BETWEEN_RAS.
    fn advertise_by(&mut self, now: Time, wait: Duration) {
        let earliest = self.last_advertisement.map_or(now, |last| last + MIN_DELAY);
        self.next_advertisement = self.next_advertisement.min((now + wait).max(earliest));
    }
}
