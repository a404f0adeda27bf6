//! What happens in a plan, done to nodes, services and agents.

use std::time::Duration;

use anyvip_machine::Time;
use ipnet::{IpNet, Ipv4Net};

use super::lab::{self, Addresses};
use super::order::Task;
use super::stage::{Stage, State};
use crate::compare::plan::{Kind, What};
use crate::control::{AgentOrder, Order, ServiceOrder};

impl Stage<'_> {
    /// Does what the plan says, when it says it.
    pub(super) async fn happen(&mut self, begin: Time) -> Result<(), String> {
        let plan = self.plan;
        let mut due: Vec<(Duration, What, bool)> = Vec::new();
        for happening in &plan.happens {
            due.push((happening.at, happening.what, false));
        }
        // Standbys take over at their own times.
        let mut takeovers: Vec<(Duration, usize)> = Vec::new();
        for happening in plan.happens.iter().filter(|one| one.what == What::BalancerDies) {
            for design in self.designs {
                if let Some(Kind::Balancer { failover, .. }) = self.kind(*design) {
                    takeovers.push((happening.at + *failover, *design));
                }
            }
        }
        let mut moments: Vec<Duration> =
            due.iter().map(|(at, ..)| *at).chain(takeovers.iter().map(|(at, _)| *at)).collect();
        moments.sort();
        moments.dedup();
        for at in moments.into_iter().filter(|at| *at < plan.duration) {
            self.wait_until(begin + at).await;
            for (_, what, _) in due.clone().iter().filter(|(when, ..)| *when == at) {
                self.act(*what).await?;
            }
            let now: Vec<usize> =
                takeovers.iter().filter(|(when, _)| *when == at).map(|(_, design)| *design).collect();
            let tasks = now.into_iter().flat_map(|design| self.takeover(design));
            let orders = tasks.map(|(node, task)| (node, Order::Compare(task))).collect();
            self.order(orders).await?;
        }
        self.wait_until(begin + plan.duration).await;
        Ok(())
    }

    async fn act(&mut self, what: What) -> Result<(), String> {
        // What one design needs more steps for than another is done step by step in all of them.
        let mut steps: Vec<Vec<(String, Order)>> = Vec::new();
        let mut add = |orders: Vec<(String, Order)>| {
            for (number, order) in orders.into_iter().enumerate() {
                if steps.len() <= number {
                    steps.push(Vec::new());
                }
                if let Some(step) = steps.get_mut(number) {
                    step.push(order);
                }
            }
        };
        let (mut now, mut of) = (None, None);
        for design in self.designs {
            let at_server = |server: u16, order| (lab::server(*design, server.into()), order);
            let announces = matches!(self.kind(*design), Some(Kind::Anycast { .. }));
            let silence =
                |server, silent| at_server(server, Order::Silence { interface: "eth1".to_owned(), silent });
            let service = |server, order| at_server(server, Order::Service(order));
            let agent = |server, order| at_server(server, Order::Agent(order));
            let state = |server: u16| {
                let known = self.truth.get(&(*design, usize::from(server)));
                known.and_then(|known| known.last()).map_or(State::Serving, |(_, state)| *state)
            };
            let mut orders = Vec::new();
            match what {
                What::Kill(server) => {
                    (now, of) = (Some(State::Killed), Some(server));
                    orders.push(service(server, ServiceOrder::Kill));
                }
                What::Hang(server) => {
                    (now, of) = (Some(State::Hung), Some(server));
                    orders.push(service(server, ServiceOrder::Hang));
                }
                What::Crash(server) => {
                    (now, of) = (Some(State::Crashed), Some(server));
                    // Nothing it says while it ends is heard.
                    orders.push(silence(server, true));
                    if announces {
                        orders.push(agent(server, AgentOrder::Kill));
                    }
                    orders.push(service(server, ServiceOrder::Kill));
                }
                What::Return(server) => {
                    (now, of) = (Some(State::Serving), Some(server));
                    match state(server) {
                        State::Serving => {}
                        State::Killed => orders.push(service(server, ServiceOrder::Start)),
                        State::Hung => orders.push(service(server, ServiceOrder::Resume)),
                        State::Crashed => {
                            orders.push(service(server, ServiceOrder::Start));
                            orders.push(silence(server, false));
                            if announces {
                                orders.push(agent(server, AgentOrder::Start));
                            }
                        }
                    }
                }
                What::Drain(server) | What::Undrain(server) => {
                    let wanted = matches!(what, What::Undrain(_));
                    if announces {
                        let word = if wanted { "undrain" } else { "drain" };
                        let says = Order::AgentSays(vec![word.to_owned(), "--all".to_owned()]);
                        orders.push(at_server(server, says));
                    } else {
                        let task = || Task::Wanted { server: server.into(), wanted };
                        let deciding = self.players(*design).into_iter().skip(1);
                        orders.extend(deciding.map(|node| (node, Order::Compare(task()))));
                    }
                }
                What::BalancerDies => match self.kind(*design) {
                    Some(Kind::Balancer { sync: true, .. }) => {
                        orders.push((lab::node(*design, "lb1"), Order::Compare(Task::Pause(true))));
                    }
                    Some(Kind::Balancer { dsr, .. }) => {
                        let links = if *dsr { &["eth1"][..] } else { &["eth1", "eth2"] };
                        let down = |name: &&str| Order::Link { interface: (*name).to_owned(), up: false };
                        orders.extend(links.iter().map(|link| (lab::node(*design, "lb1"), down(link))));
                    }
                    _ => {}
                },
            }
            add(orders);
        }
        for (number, orders) in steps.into_iter().enumerate() {
            let nodes: Vec<String> = orders.iter().map(|(node, _)| node.clone()).collect();
            let answers = self.order(orders).await?;
            let (Some(state), Some(server), 0) = (now, of, number) else { continue };
            for design in self.designs {
                let own = lab::server(*design, server.into());
                let answered = nodes.iter().zip(&answers).find(|(node, _)| **node == own);
                if let Some((_, (at, _))) = answered {
                    self.truth.entry((*design, server.into())).or_default().push((*at, state));
                }
            }
        }
        Ok(())
    }

    /// The standby is there.
    fn takeover(&self, design: usize) -> Vec<(String, Task)> {
        let at = Addresses::of(design);
        let own = |interface: &str, address| Task::TakeOver {
            interface: interface.to_owned(),
            net: IpNet::V4(Ipv4Net::new_assert(address, 24)),
        };
        let standby = lab::node(design, "lb2");
        match self.kind(design) {
            // Who knows the table might as well be the one who had it.
            Some(Kind::Balancer { sync: true, .. }) => vec![(lab::node(design, "lb1"), Task::Pause(false))],
            Some(Kind::Balancer { dsr: true, .. }) => vec![(standby, own("eth1", at.balancer()))],
            Some(Kind::Balancer { dsr: false, .. }) => {
                vec![(standby.clone(), own("eth2", at.balancer())), (standby, own("eth1", at.gateway()))]
            }
            _ => Vec::new(),
        }
    }
}
