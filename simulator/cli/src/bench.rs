//! A lab built out of network namespaces: one child a node, cables between them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use anyvip_io::Namespace;
use anyvip_io::netlink::{Cable, Netlink};
use anyvip_machine::Time;
use anyvip_virtual::lab::{Lab, NodeName, Role};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::control::{Answer, Message, Order, Request};
use crate::folder::Folder;
use crate::process;

/// How long a node may take for its first word, and to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Index of the first end of the first cable; what the kernel numbers itself begins far below.
const FIRST_INDEX: u32 = 10_000;

type Reply = Result<(Time, Answer), String>;

/// A running lab. Must be ended with [`Bench::end`]; what is dropped instead is killed.
pub(crate) struct Bench {
    nodes: BTreeMap<NodeName, Station>,
    messages: mpsc::UnboundedReceiver<(NodeName, Message)>,
    sender: mpsc::UnboundedSender<(NodeName, Message)>,
    folder: Folder,
}

/// A node's child as the lab sees it.
#[derive(Clone)]
struct Station {
    pid: u32,
    inner: Rc<RefCell<Inner>>,
    orders: mpsc::UnboundedSender<Request>,
}

struct Inner {
    child: Child,
    pending: BTreeMap<u64, oneshot::Sender<Reply>>,
    next: u64,
    gone: bool,
}

impl Bench {
    /// Nothing yet.
    pub(crate) fn new(folder: Folder) -> Bench {
        let (sender, messages) = mpsc::unbounded_channel();
        Bench { nodes: BTreeMap::new(), messages, sender, folder }
    }

    /// Builds the lab and begins all roles, routers first. `reloadable` are the agents that will get other configurations. Whatever comes of it, [`Bench::end`] must follow.
    pub(crate) async fn build(
        &mut self,
        lab: &Lab,
        lab_file: &Path,
        agent: &Path,
        reloadable: &BTreeSet<NodeName>,
    ) -> Result<(), String> {
        self.raise(lab, lab_file, agent, reloadable).await?;
        self.order_all(lab, Order::Begin, Role::is_router).await?;
        self.order_all(lab, Order::Begin, |role| !role.is_router() && *role != Role::Bridge).await
    }

    /// Nodes, cables and addresses, and no role begun.
    pub(crate) async fn prepare(&mut self, lab: &Lab, lab_file: &Path, agent: &Path) -> Result<(), String> {
        self.raise(lab, lab_file, agent, &BTreeSet::new()).await
    }

    async fn raise(
        &mut self,
        lab: &Lab,
        lab_file: &Path,
        agent: &Path,
        reloadable: &BTreeSet<NodeName>,
    ) -> Result<(), String> {
        for (name, node) in &lab.nodes {
            if node.role == Role::Bridge {
                continue;
            }
            let mut command = std::process::Command::new(process::own_program()?);
            command
                .args(["node", "--own-namespace", "--orders", "--lab"])
                .arg(lab_file)
                .args(["--name", name]);
            command.arg("--run-dir").arg(self.folder.path().join(name));
            command.arg("--agent").arg(agent);
            if reloadable.contains(name) {
                command.arg("--reloadable");
            }
            // A group of its own: Ctrl-C is for the lab, which then ends its nodes in order.
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
            let mut command = tokio::process::Command::from(command);
            let child =
                command.kill_on_drop(true).spawn().map_err(|error| format!("node {name}: {error}"))?;
            let station = Station::new(name.clone(), child, self.sender.clone())?;
            self.nodes.insert(name.clone(), station);
        }
        self.hear_all().await?;
        self.connect(lab).await?;
        self.order_all(lab, Order::Configure, |_| true).await
    }

    /// Every node's first word says that its namespace is there.
    async fn hear_all(&mut self) -> Result<(), String> {
        let mut missing: Vec<NodeName> = self.nodes.keys().cloned().collect();
        let hear = async {
            while !missing.is_empty() {
                match self.messages.recv().await {
                    Some((name, Message::Hello { .. })) => missing.retain(|other| *other != name),
                    Some((name, Message::Trouble { text })) => return Err(format!("node {name}: {text}")),
                    Some(_) => {}
                    None => return Err("all nodes ended".to_owned()),
                }
            }
            Ok(())
        };
        match tokio::time::timeout(PATIENCE, hear).await {
            Ok(heard) => heard,
            Err(_) => Err(format!("nodes did not start within {PATIENCE:?}: {}", missing.join(", "))),
        }
    }

    /// Bridges and cable ends at bridges live in the namespace of the lab itself.
    async fn connect(&self, lab: &Lab) -> Result<(), String> {
        let text = |failure: anyvip_machine::Failure| failure.to_string();
        let netlink = Netlink::open().map_err(text)?;
        let here = Namespace::current().map_err(text)?;
        let mut bridges = BTreeMap::new();
        for name in lab.names(|role| *role == Role::Bridge) {
            let interface = format!("br{}", bridges.len());
            netlink.create_bridge(&interface).await.map_err(text)?;
            let link = netlink.link(&interface).await.map_err(text)?;
            netlink.set_link_up(link.index).await.map_err(text)?;
            bridges.insert(name, link.index);
        }
        for (number, link) in lab.links.iter().enumerate() {
            let mut ends = Vec::new();
            for (side, port) in link.ends.iter().enumerate() {
                ends.push(match self.nodes.get(&port.node) {
                    Some(station) => {
                        let path = format!("/proc/{}/ns/net", station.pid);
                        (port.interface.clone(), Namespace::open(path).map_err(text)?)
                    }
                    None => (format!("p{number}.{side}"), here.clone()),
                });
            }
            let [(a, a_space), (b, b_space)] =
                <[_; 2]>::try_from(ends).map_err(|_| "a link has two ends".to_owned())?;
            // Numbers of no other end: where both ends of a cable have the same, a lost carrier is told late.
            let first = FIRST_INDEX + 2 * u32::try_from(number).unwrap_or(0);
            let cable = Cable { indexes: [first, first + 1], mtu: link.mtu };
            netlink.create_cable((&a, &a_space), (&b, &b_space), cable).await.map_err(text)?;
            for (port, name) in link.ends.iter().zip([a, b]) {
                if let Some(bridge) = bridges.get(&port.node) {
                    let end = netlink.link(&name).await.map_err(text)?;
                    netlink.set_master(end.index, Some(*bridge)).await.map_err(text)?;
                    netlink.set_link_up(end.index).await.map_err(text)?;
                }
            }
        }
        Ok(())
    }

    async fn order_all(&self, lab: &Lab, order: Order, wanted: fn(&Role) -> bool) -> Result<(), String> {
        let mut answers = JoinSet::new();
        for name in lab.names(wanted) {
            let Some(station) = self.nodes.get(&name).cloned() else { continue };
            let order = order.clone();
            answers.spawn_local(async move {
                let answer = station.ask(order).await;
                answer.map_err(|error| format!("node {name}: {error}"))
            });
        }
        for answer in answers.join_all().await {
            answer?;
        }
        Ok(())
    }

    /// Gives an order; the answer comes with the moment at which the node began to carry it out.
    pub(crate) fn order(&self, node: &str, order: Order) -> impl Future<Output = Reply> + use<> {
        let station = self.nodes.get(node).cloned();
        let name = node.to_owned();
        async move {
            let station = station.ok_or_else(|| format!("node {name} does not run"))?;
            station.ask(order).await.map_err(|error| format!("node {name}: {error}"))
        }
    }

    /// What a node said unasked. Cancel-safe.
    pub(crate) async fn next_message(&mut self) -> (NodeName, Message) {
        match self.messages.recv().await {
            Some(message) => message,
            None => std::future::pending().await,
        }
    }

    /// What has been said already, without waiting.
    pub(crate) fn try_message(&mut self) -> Option<(NodeName, Message)> {
        self.messages.try_recv().ok()
    }

    /// Process ids of the nodes.
    pub(crate) fn pids(&self) -> BTreeMap<NodeName, u32> {
        self.nodes.iter().map(|(name, station)| (name.clone(), station.pid)).collect()
    }

    /// The lab's private folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends all nodes and waits for them: their namespaces go with them.
    pub(crate) async fn end(self) {
        let mut ends = JoinSet::new();
        for (_, station) in self.nodes {
            let Station { inner, orders, .. } = station;
            // The end of its orders is the end of a node.
            drop(orders);
            ends.spawn_local(async move {
                let ended = tokio::time::timeout(
                    PATIENCE,
                    std::future::poll_fn(|context| {
                        let mut inner = inner.borrow_mut();
                        let wait = std::pin::pin!(inner.child.wait());
                        wait.poll(context)
                    }),
                );
                if ended.await.is_err() {
                    let _ = inner.borrow_mut().child.start_kill();
                }
            });
        }
        ends.join_all().await;
    }
}

impl Station {
    fn new(
        name: NodeName,
        mut child: Child,
        sender: mpsc::UnboundedSender<(NodeName, Message)>,
    ) -> Result<Station, String> {
        let pid = child.id().ok_or_else(|| format!("node {name} ended at once"))?;
        let input = child.stdin.take().ok_or("a node without input")?;
        let output = child.stdout.take().ok_or("a node without output")?;
        let (orders, waiting) = mpsc::unbounded_channel();
        tokio::task::spawn_local(write_orders(input, waiting));
        let inner = Rc::new(RefCell::new(Inner { child, pending: BTreeMap::new(), next: 1, gone: false }));
        let (shared, mut lines) = (inner.clone(), BufReader::new(output).lines());
        tokio::task::spawn_local(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                match serde_json::from_str(&line) {
                    Ok(Message::Reply { id, at, result }) => {
                        if let Some(waiting) = shared.borrow_mut().pending.remove(&id) {
                            let _ = waiting.send(result.map(|answer| (at, answer)));
                        }
                    }
                    Ok(message) => {
                        let _ = sender.send((name.clone(), message));
                    }
                    Err(error) => {
                        let text = format!("unreadable word of the node: {error}");
                        let _ = sender.send((name.clone(), Message::Trouble { text }));
                    }
                }
            }
            let mut inner = shared.borrow_mut();
            inner.gone = true;
            inner.pending.clear();
            let _ = sender.send((name, Message::Trouble { text: "the node ended".to_owned() }));
        });
        Ok(Station { pid, inner, orders })
    }

    async fn ask(&self, order: Order) -> Reply {
        let (sender, answer) = oneshot::channel();
        let id = {
            let mut inner = self.inner.borrow_mut();
            if inner.gone {
                return Err("it ended".to_owned());
            }
            let id = inner.next;
            inner.next += 1;
            inner.pending.insert(id, sender);
            id
        };
        let _ = self.orders.send(Request { id, order });
        answer.await.unwrap_or_else(|_| Err("it ended".to_owned()))
    }
}

async fn write_orders(mut input: ChildStdin, mut waiting: mpsc::UnboundedReceiver<Request>) {
    while let Some(request) = waiting.recv().await {
        let mut line = serde_json::to_vec(&request).unwrap_or_default();
        line.push(b'\n');
        if input.write_all(&line).await.is_err() {
            return;
        }
    }
}
