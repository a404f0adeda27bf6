//! A running comparison: its network, its roles, its clients, from nothing to the moment before the beginning.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyvip_machine::Time;
use ipnet::{IpNet, Ipv4Net};
use tokio::task::JoinSet;

use super::client::Traffic;
use super::lab::{self, Addresses, Guard};
use super::order::{Server, Task};
use super::{balancer, names};
use crate::bench::Bench;
use crate::clock;
use crate::compare::flows::{self, CLIENTS, CLIENTS_PREFIX, SERVICE};
use crate::compare::plan::{Design, Kind, Plan};
use crate::control::{Answer, Message, Order, ServiceOrder};

/// Until all routes, sessions and connections are there.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a server is, as far as this process has made it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Serving,
    Killed,
    Hung,
    Crashed,
}

/// A running comparison.
pub(super) struct Stage<'a> {
    pub(super) plan: &'a Plan,
    /// Those that the kernel plays, by number.
    pub(super) designs: &'a [usize],
    bench: &'a mut Bench,
    /// Since when a server is how, in order of time.
    pub(super) truth: BTreeMap<(usize, usize), Vec<(Time, State)>>,
    /// Of each router: how often it had no route to the service, and how many next hops it has.
    routes: BTreeMap<String, (u32, usize)>,
    pub(super) trouble: Vec<String>,
}

impl<'a> Stage<'a> {
    pub(super) fn new(plan: &'a Plan, designs: &'a [usize], bench: &'a mut Bench) -> Stage<'a> {
        Stage { plan, designs, bench, truth: BTreeMap::new(), routes: BTreeMap::new(), trouble: Vec::new() }
    }

    pub(super) fn design(&self, number: usize) -> Option<&Design> {
        self.plan.designs.get(number)
    }

    pub(super) fn kind(&self, number: usize) -> Option<&Kind> {
        self.design(number).map(|design| &design.kind)
    }

    /// Gives orders, all at the same time, and waits for the answers.
    pub(super) async fn order(
        &mut self,
        orders: Vec<(String, Order)>,
    ) -> Result<Vec<(Time, Answer)>, String> {
        let mut answers = JoinSet::new();
        for (number, (node, order)) in orders.into_iter().enumerate() {
            let answer = self.bench.order(&node, order);
            answers.spawn_local(async move { (number, answer.await) });
        }
        let mut all = answers.join_all().await;
        all.sort_by_key(|(number, _)| *number);
        self.hear_all();
        all.into_iter().map(|(_, answer)| answer).collect()
    }

    /// A task for each node that this names, in every design.
    pub(super) async fn all(
        &mut self,
        tasks: impl Fn(usize, &Stage<'_>) -> Vec<(String, Task)>,
    ) -> Result<Vec<(Time, Answer)>, String> {
        let tasks = self.designs.iter().flat_map(|design| tasks(*design, self));
        let orders = tasks.map(|(node, task)| (node, Order::Compare(task))).collect();
        self.order(orders).await
    }

    fn hear_all(&mut self) {
        while let Some((node, message)) = self.bench.try_message() {
            self.hear(&node, message);
        }
    }

    fn hear(&mut self, node: &str, message: Message) {
        match message {
            Message::Trouble { text } => self.trouble.push(format!("{node}: {text}")),
            Message::Installed { prefix, next_hops, .. } if prefix.addr() == IpAddr::V4(SERVICE) => {
                let (emptied, count) = self.routes.entry(node.to_owned()).or_default();
                *emptied += u32::from(next_hops.is_empty());
                *count = next_hops.len();
            }
            _ => {}
        }
    }

    /// Goes on hearing nodes until then.
    pub(super) async fn wait_until(&mut self, at: Time) {
        let end = tokio::time::Instant::now() + at.since(clock::now().min(at));
        while let Ok((node, message)) = tokio::time::timeout_at(end, self.bench.next_message()).await {
            self.hear(&node, message);
        }
    }

    /// Nodes of a design for which there is a beginning.
    pub(super) fn players(&self, design: usize) -> Vec<String> {
        let mut players = vec![lab::node(design, "client")];
        match self.kind(design) {
            Some(Kind::Dns) => players.push(lab::node(design, "ns")),
            Some(Kind::Balancer { .. }) => players.extend(["lb1", "lb2"].map(|name| lab::node(design, name))),
            _ => {}
        }
        players
    }

    /// Routers, then services, with agents where they announce.
    pub(super) async fn begin_roles(&mut self) -> Result<(), String> {
        let edges = |stage: &Stage<'_>| -> Vec<String> {
            let routed =
                |number: &&usize| !matches!(stage.kind(**number), Some(Kind::Balancer { dsr: false, .. }));
            stage.designs.iter().filter(routed).map(|number| lab::node(*number, "edge")).collect()
        };
        let routers = edges(self).into_iter().map(|edge| (edge, Order::Begin)).collect();
        self.order(routers).await?;
        let mut orders = Vec::new();
        for design in self.designs {
            let announces = matches!(self.kind(*design), Some(Kind::Anycast { .. }));
            for server in 0..usize::from(self.plan.servers) {
                let order = if announces { Order::Begin } else { Order::Service(ServiceOrder::Start) };
                orders.push((lab::server(*design, server), order));
            }
        }
        self.order(orders).await?;
        self.all(Stage::network).await.map(drop)
    }

    /// What a design's network needs that lab files have no word for.
    fn network(design: usize, stage: &Stage<'_>) -> Vec<(String, Task)> {
        let at = Addresses::of(design);
        let clients = IpNet::V4(Ipv4Net::new_assert(CLIENTS, CLIENTS_PREFIX));
        let service = IpNet::V4(Ipv4Net::new_assert(SERVICE, 32));
        let lo = |net| Task::Address { interface: "lo".to_owned(), net };
        let route = |to: IpNet, via: Ipv4Addr, interface: &str| Task::Route {
            to: to.trunc(),
            via: IpAddr::V4(via),
            interface: interface.to_owned(),
        };
        let mut tasks = vec![(lab::node(design, "client"), lo(clients))];
        let to_client = |interface: &str| route(clients, at.client(), interface);
        let servers = |address: &dyn Fn(u8) -> Ipv4Addr, interval: Duration| -> Vec<Server> {
            let phases = flows::phases_of_checks(stage.plan.seed, stage.plan.servers, interval);
            (0..).zip(phases).map(|(number, phase)| Server { address: address(number), phase }).collect()
        };
        let Some(described) = stage.design(design) else { return tasks };
        let interval = described.checks.map_or(Duration::ZERO, |checks| checks.interval);
        match (&described.kind, described.checks) {
            (Kind::Anycast { .. }, _) => tasks.push((lab::node(design, "edge"), to_client("client"))),
            (Kind::Dns, checks) => {
                tasks.push((lab::node(design, "edge"), to_client("client")));
                let config = names::Config {
                    servers: servers(&|number| at.server(number), interval),
                    ttl: stage.plan.dns.ttl,
                    answers: stage.plan.dns.answers,
                    checks,
                };
                tasks.push((lab::node(design, "ns"), Task::Names(config)));
            }
            (Kind::Balancer { dsr, table, .. }, Some(checks)) => {
                let way = if *dsr {
                    let kept = &stage.plan.connections;
                    let remember = kept.patience + kept.every * 2 + Duration::from_secs(60);
                    balancer::Way::Direct { remember: table.then_some(remember) }
                } else {
                    balancer::Way::Nat
                };
                let config =
                    balancer::Config { servers: servers(&|number| at.on_lan(number), interval), checks, way };
                for name in ["lb1", "lb2"] {
                    tasks.push((lab::node(design, name), Task::Balance(config.clone())));
                    if !dsr {
                        tasks.push((lab::node(design, name), to_client("eth1")));
                    }
                }
                if *dsr {
                    let edge = lab::node(design, "edge");
                    tasks.push((edge.clone(), to_client("client")));
                    tasks.push((edge, route(service, at.balancer(), "lan")));
                    for server in 0..usize::from(stage.plan.servers) {
                        tasks.push((lab::server(design, server), lo(service)));
                    }
                }
            }
            (Kind::Balancer { .. }, None) | (Kind::Flooding { .. } | Kind::Redirect { .. }, _) => {}
        }
        tasks
    }

    /// Waits until every router has all servers in its kernel, and BFD guards them.
    pub(super) async fn routes(&mut self) -> Result<(), String> {
        let anycast = |stage: &Stage<'_>| -> Vec<usize> {
            let all = stage.designs.iter().copied();
            all.filter(|number| matches!(stage.kind(*number), Some(Kind::Anycast { .. }))).collect()
        };
        let edges: Vec<String> = anycast(self).into_iter().map(|number| lab::node(number, "edge")).collect();
        self.all_announced(&edges, 0).await?;
        // A table that has grown with each arrival is another one each time: all begin with one made for all servers.
        self.order(edges.iter().map(|edge| (edge.clone(), Order::Afresh)).collect()).await?;
        self.all_announced(&edges, 1).await?;
        let mut orders = Vec::new();
        for number in anycast(self) {
            let Some(Kind::Anycast { lost_host, .. }) = self.kind(number) else { continue };
            let Guard::Bfd(interval) = Guard::of(*lost_host) else { continue };
            let at = Addresses::of(number);
            let peers = (0..self.plan.servers).map(|server| {
                let address = at.server(u8::try_from(server).unwrap_or(u8::MAX));
                (lab::server(number, server.into()), IpAddr::V4(address))
            });
            let (peers, multiplier) = (peers.collect(), lab::BFD_MULTIPLIER);
            orders.push((lab::node(number, "edge"), Order::Bfd { peers, interval, multiplier }));
        }
        self.order(orders).await.map(drop)
    }

    /// Waits until these routers have all servers in their kernels, after they had no route this many times.
    async fn all_announced(&mut self, edges: &[String], emptied: u32) -> Result<(), String> {
        let servers = usize::from(self.plan.servers);
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            self.hear_all();
            let seen = |edge: &String| self.routes.get(edge).copied().unwrap_or_default();
            let missing: Vec<String> = edges
                .iter()
                .filter(|edge| seen(edge).0 < emptied || seen(edge).1 != servers)
                .map(|edge| format!("{edge}: {} of {servers}", seen(edge).1))
                .collect();
            if missing.is_empty() {
                return Ok(());
            }
            match tokio::time::timeout_at(end, self.bench.next_message()).await {
                Ok((node, message)) => self.hear(&node, message),
                Err(_) => {
                    return Err(format!(
                        "not all servers are announced after {PATIENCE:?}: {}\n{}",
                        missing.join(", "),
                        self.trouble.join("\n")
                    ));
                }
            }
        }
    }

    pub(super) async fn open(&mut self) -> Result<(), String> {
        self.all(|design, stage| {
            let plan = stage.plan;
            let names = matches!(stage.kind(design), Some(Kind::Dns))
                .then(|| (Addresses::of(design).name_server(), plan.dns.clone()));
            let traffic = Traffic {
                seed: plan.seed,
                duration: plan.duration,
                requests: plan.requests.clone(),
                connections: plan.connections.clone(),
                names,
            };
            vec![(lab::node(design, "client"), Task::Open(traffic))]
        })
        .await
        .map(drop)
    }
}
