//! `anyvip-sim node`: one node's role inside a network namespace or a container.

use std::collections::VecDeque;
use std::io::Write as _;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyvip_io::netlink::Netlink;
use anyvip_virtual::lab::{DaemonRole, Exec, Lab, Node, Role, RouterRole};
use anyvip_virtual::router::RouterConfig;
use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;

use crate::clock;
use crate::compare::kernel::order::Part;
use crate::control::{AgentOrder, Answer, Message, Order, Request, ServiceOrder};
use crate::folder;
use crate::process::{self, Process};
use crate::traffic::{self, Client};

pub(crate) mod arp;
mod bfd;
pub(crate) mod daemon;
mod fib;
pub(crate) mod network;
mod router;

use network::Network;

/// The configuration of an agent that will get another one: a link in the node's folder to a file beside the lab.
const CONFIG: &str = "config.toml";

/// How a node is started.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The lab file.
    pub(crate) lab: PathBuf,
    /// Which of its nodes.
    pub(crate) name: String,
    /// Make a network namespace first.
    pub(crate) own_namespace: bool,
    /// Take orders on standard input and end with it; otherwise begin at once and run until told by a signal.
    pub(crate) orders: bool,
    /// Folder for sockets, state and logs; without one the agent's own defaults hold.
    pub(crate) run_dir: Option<PathBuf>,
    /// The agent will get other configurations.
    pub(crate) reloadable: bool,
    /// The agent's program.
    pub(crate) agent: Option<PathBuf>,
}

/// Says things to the lab (or, without one, to a person).
#[derive(Clone)]
pub(crate) struct Outbox {
    sender: mpsc::UnboundedSender<Message>,
}

impl Outbox {
    pub(crate) fn say(&self, message: Message) {
        // The receiver lives as long as the node.
        let _ = self.sender.send(message);
    }
}

/// Runs the role to its end.
pub(crate) fn main(options: Options) -> ExitCode {
    match start(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("anyvip-sim node: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(options: Options) -> Result<(), String> {
    if options.orders {
        process::die_with_parent()?;
    }
    if options.own_namespace {
        // Before any thread is started, so that all of them are inside.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
            .map_err(|error| format!("cannot make a network namespace: {error}"))?;
    }
    crate::raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("runtime: {error}"))?;
    tokio::task::LocalSet::new().block_on(&runtime, run(options))
}

async fn run(options: Options) -> Result<(), String> {
    let text = std::fs::read_to_string(&options.lab)
        .map_err(|error| format!("{}: {error}", options.lab.display()))?;
    let (lab, diagnostics) = Lab::read(&options.lab.to_string_lossy(), &text);
    let Some(lab) = lab else {
        return Err(diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    };
    let node = lab.nodes.get(&options.name).cloned();
    let node = node.ok_or_else(|| format!("the lab has no node `{}`", options.name))?;
    if let Some(run) = &options.run_dir {
        // What agents keep is nobody else's; a foreign daemon makes its folder what its user needs.
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(run);
        made.map_err(|error| format!("{}: {error}", run.display()))?;
    }
    let (sender, receiver) = mpsc::unbounded_channel();
    let mut running = Running {
        netlink: Netlink::open().map_err(|failure| failure.to_string())?,
        outbox: Outbox { sender },
        client: Client::default(),
        part: Part::default(),
        router: None,
        guard: None,
        service: None,
        agent: None,
        agent_runs: 0,
        _daemons: None,
        lab,
        node,
        options,
    };
    if running.options.orders { running.obey(receiver).await } else { running.alone(receiver).await }
}

struct Running {
    options: Options,
    lab: Lab,
    node: Node,
    netlink: Netlink,
    outbox: Outbox,
    client: Client,
    /// Its part in a comparison of designs.
    part: Part,
    router: Option<mpsc::UnboundedSender<router::Told>>,
    guard: Option<bfd::Guard>,
    service: Option<Process>,
    agent: Option<Process>,
    agent_runs: u32,
    _daemons: Option<daemon::Daemons>,
}

impl Running {
    /// Orders from standard input, one after the other; ends with it.
    async fn obey(&mut self, mut messages: mpsc::UnboundedReceiver<Message>) -> Result<(), String> {
        let pipe = |error: std::io::Error| format!("orders: {error}");
        let input = std::io::stdin().as_fd().try_clone_to_owned().map_err(pipe)?;
        let output = std::io::stdout().as_fd().try_clone_to_owned().map_err(pipe)?;
        let input = tokio::net::unix::pipe::Receiver::from_owned_fd(input).map_err(pipe)?;
        let mut output = tokio::net::unix::pipe::Sender::from_owned_fd(output).map_err(pipe)?;
        let writer = tokio::task::spawn_local(async move {
            while let Some(message) = messages.recv().await {
                let mut line = serde_json::to_vec(&message).unwrap_or_default();
                line.push(b'\n');
                if output.write_all(&line).await.is_err() {
                    break;
                }
            }
        });
        self.outbox.say(Message::Hello { pid: std::process::id() });
        let mut lines = BufReader::new(input).lines();
        let (outbox, mut waiting) = (self.outbox.clone(), VecDeque::new());
        'orders: loop {
            let line = match waiting.pop_front() {
                Some(line) => line,
                None => match lines.next_line().await {
                    Ok(Some(line)) => line,
                    _ => break,
                },
            };
            let request: Request = serde_json::from_str(&line).map_err(|error| format!("order: {error}"))?;
            // Taken before: a reaction may come sooner than the reply.
            let at = clock::now();
            let mut work = std::pin::pin!(self.carry_out(request.order));
            let result = loop {
                tokio::select! {
                    biased;
                    result = &mut work => break result,
                    // The end of the lab does not wait for what takes long, like a command that hangs.
                    line = lines.next_line() => match line {
                        Ok(Some(line)) => waiting.push_back(line),
                        _ => break 'orders,
                    },
                }
            };
            outbox.say(Message::Reply { id: request.id, at, result });
        }
        writer.abort();
        Ok(())
    }

    /// Without a lab around: begin, and run until a signal.
    async fn alone(&mut self, mut messages: mpsc::UnboundedReceiver<Message>) -> Result<(), String> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
        Network { netlink: &self.netlink, lab: &self.lab, name: &self.options.name, node: &self.node }
            .configure()
            .await?;
        self.begin().await?;
        // Whoever started this node may have gone: saying something to nobody is no reason to end.
        let say = |text: String| drop(writeln!(std::io::stdout(), "{text}"));
        say(format!("node {} runs", self.options.name));
        loop {
            tokio::select! {
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                Some(message) = messages.recv() => {
                    say(serde_json::to_string(&message).unwrap_or_default());
                }
            }
        }
    }

    async fn carry_out(&mut self, order: Order) -> Result<Answer, String> {
        let network =
            Network { netlink: &self.netlink, lab: &self.lab, name: &self.options.name, node: &self.node };
        match order {
            Order::Configure => {
                network.configure().await?;
                self.run_commands().await?;
            }
            Order::Begin => self.begin().await?,
            Order::Service(order) => self.order_service(order).await?,
            Order::Agent(order) => self.order_agent(order).await?,
            Order::AgentSays(arguments) => return self.agent_says(&arguments).await.map(Answer::Text),
            Order::Link { interface, up: true } => {
                network.up(&interface).await?;
                network.gateways().await?;
            }
            Order::Gateways => network.gateways().await?,
            Order::Link { interface, up: false } => network.down(&interface).await?,
            Order::Silence { interface, silent } => {
                let link = self.netlink.link(&interface).await.map_err(|failure| failure.to_string())?;
                let done = if silent {
                    self.netlink.silence(link.index).await
                } else {
                    self.netlink.end_silence(link.index).await
                };
                done.map_err(|failure| failure.to_string())?;
            }
            Order::Loss { permille } => network::set_loss(permille).await?,
            Order::DeleteAddress { address } => {
                let link = self.netlink.link("lo").await.map_err(|failure| failure.to_string())?;
                self.netlink
                    .remove_address(link.index, address)
                    .await
                    .map_err(|failure| failure.to_string())?;
            }
            Order::Reload { config } => {
                let Some(run) = &self.options.run_dir else { return Err("no lab around".to_owned()) };
                self.place_config(run, &self.beside(&config))?;
                return self.agent_says(&["reload".to_owned()]).await.map(Answer::Text);
            }
            Order::Sysctl { key, value } => network::set_sysctl(&key, &value)?,
            Order::Flows { traffic } => return Ok(Answer::Flows(traffic::ask_all(traffic).await)),
            Order::Start { name, traffic, tell } => {
                let outbox = tell.then(|| self.outbox.clone());
                self.client.start(name, traffic, outbox);
            }
            Order::Stop { name } => return self.client.stop(&name).await.map(Answer::Flows),
            Order::Hold { name, traffic } => self.client.hold(name, traffic).await,
            Order::Release { name } => return self.client.release(&name).await.map(Answer::Held),
            Order::AskArp { address } => {
                return arp::ask(&self.node, address).await.map(Answer::Stations);
            }
            Order::Bfd { peers, interval, multiplier } => {
                let router = self.router.clone().ok_or("no router here")?;
                self.guard = Some(bfd::Guard::start(&peers, interval, multiplier, router).await?);
            }
            Order::Afresh => {
                let router = self.router.as_ref().ok_or("no router here")?;
                router.send(router::Told::Afresh).map_err(|_| "the router ended")?;
            }
            Order::Compare(task) => {
                return self.part.carry_out(task, &self.netlink).await.map(Answer::Compare);
            }
        }
        Ok(Answer::Done)
    }

    /// The commands of `exec` that are not the role.
    async fn run_commands(&self) -> Result<(), String> {
        for exec in &self.node.exec {
            let Exec::Command(argv) = exec else { continue };
            let Some((program, arguments)) = argv.split_first() else { continue };
            // It dies with this node, or would keep the namespace.
            let output = process::command(Path::new(program))?
                .args(arguments)
                .envs(&self.node.env)
                .output()
                .await
                .map_err(|error| format!("exec `{}`: {error}", argv.join(" ")))?;
            if !output.status.success() {
                let error = String::from_utf8_lossy(&output.stderr);
                return Err(format!("exec `{}`: {}: {}", argv.join(" "), output.status, error.trim()));
            }
        }
        Ok(())
    }

    async fn begin(&mut self) -> Result<(), String> {
        match self.node.role.clone() {
            Role::Router(role) if role.daemon.is_some() => self.begin_daemon(&role).await,
            Role::Router(role) => {
                let config = RouterConfig::of(&self.lab, &self.options.name, &role);
                let seed = u64::from(role.hash_seed);
                self.router = Some(router::run(config, seed, role.install, self.outbox.clone()).await?);
                Ok(())
            }
            Role::Agent(_) => {
                self.order_service(ServiceOrder::Start).await?;
                self.order_agent(AgentOrder::Start).await
            }
            Role::Client => Ok(()),
            Role::Bridge => Err("a bridge runs nothing".to_owned()),
        }
    }

    /// In a container the image has started it already.
    async fn begin_daemon(&mut self, role: &RouterRole) -> Result<(), String> {
        let Some(DaemonRole { kind, config, watch }) = &role.daemon else { return Ok(()) };
        router::watch(watch.clone(), self.outbox.clone())?;
        let (Some(run), Some(outside)) = (&self.options.run_dir, self.node.outside(config)) else {
            return Ok(());
        };
        let lab = run.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        let name = folder::frr_instance(&lab, &self.options.name);
        let outbox = self.outbox.clone();
        let trouble = move |text| outbox.say(Message::Trouble { text });
        let config = std::fs::canonicalize(self.beside(&outside))
            .map_err(|error| format!("{}: {error}", self.beside(&outside).display()))?;
        self._daemons = Some(daemon::start(*kind, &name, &config, run, trouble).await?);
        Ok(())
    }

    async fn order_service(&mut self, order: ServiceOrder) -> Result<(), String> {
        let Role::Agent(role) = &self.node.role else { return Err("no service here".to_owned()) };
        let signal = match order {
            ServiceOrder::Start => {
                if self.service.as_ref().is_some_and(|service| !service.has_ended()) {
                    return Err("the service is running already".to_owned());
                }
                let mut command = process::command(&process::own_program()?)?;
                command.args(["service", "--name", &self.options.name]).envs(&self.node.env);
                let service = role.service;
                let ports = [
                    ("--http", service.http),
                    ("--tcp", service.tcp),
                    ("--udp", service.udp),
                    ("--dns", service.dns),
                ];
                for (flag, port) in ports {
                    if let Some(port) = port {
                        command.args([flag, &port.to_string()]);
                    }
                }
                command.stdout(Stdio::null()).stderr(Stdio::inherit());
                self.service = Some(self.watch(command, "service")?);
                return Ok(());
            }
            ServiceOrder::Kill => Signal::SIGKILL,
            ServiceOrder::Hang => Signal::SIGSTOP,
            ServiceOrder::Resume => Signal::SIGCONT,
        };
        let service = self.service.as_mut().ok_or("the service was never started")?;
        service.signal(signal).map_err(|error| format!("service: {error}"))?;
        if signal == Signal::SIGKILL && !service.wait(Duration::from_secs(5)).await {
            return Err("the service does not end".to_owned());
        }
        Ok(())
    }

    async fn order_agent(&mut self, order: AgentOrder) -> Result<(), String> {
        let Role::Agent(role) = &self.node.role else { return Err("no agent here".to_owned()) };
        let signal = match order {
            AgentOrder::Start => {
                if self.agent.as_ref().is_some_and(|agent| !agent.has_ended()) {
                    return Err("the agent is running already".to_owned());
                }
                let config = self.config_path(&role.config)?;
                let mut command = process::command(&self.agent_program()?)?;
                command.arg("run").arg("-c").arg(config).args(self.agent_flags()).envs(&self.node.env);
                match &self.options.run_dir {
                    Some(run) => {
                        let log = self.agent_log(run)?;
                        let copy = log.try_clone().map_err(|error| error.to_string())?;
                        command.stdout(log).stderr(copy);
                    }
                    None => {
                        command.stdout(Stdio::inherit()).stderr(Stdio::inherit());
                    }
                }
                self.agent_runs += 1;
                self.agent = Some(self.watch(command, "agent")?);
                return Ok(());
            }
            AgentOrder::Kill => Signal::SIGKILL,
            AgentOrder::Stop => Signal::SIGTERM,
        };
        let agent = self.agent.as_mut().ok_or("the agent was never started")?;
        agent.signal(signal).map_err(|error| format!("agent: {error}"))?;
        match agent.wait(Duration::from_secs(30)).await {
            true => Ok(()),
            false => Err("the agent does not end".to_owned()),
        }
    }

    fn watch(&self, command: tokio::process::Command, what: &'static str) -> Result<Process, String> {
        let outbox = self.outbox.clone();
        let log = self.options.run_dir.as_ref().filter(|_| what == "agent").map(|run| run.join("agent.log"));
        Process::start(command, what, move |text| {
            let last = log.as_deref().map(last_lines).unwrap_or_default();
            outbox.say(Message::Trouble { text: format!("{text}{last}") });
        })
    }

    /// Under namespaces, the file outside that the bind puts inside; in a container, the file inside.
    fn config_path(&self, inside: &str) -> Result<PathBuf, String> {
        match (&self.options.run_dir, self.node.outside(inside)) {
            (Some(run), Some(outside)) if self.options.reloadable => {
                let path = run.join(CONFIG);
                if !path.is_symlink() {
                    self.place_config(run, &self.beside(&outside))?;
                }
                Ok(path)
            }
            (Some(_), Some(outside)) => Ok(self.beside(&outside)),
            _ => Ok(PathBuf::from(inside)),
        }
    }

    /// A file beside the lab.
    fn beside(&self, file: &str) -> PathBuf {
        self.options.lab.parent().unwrap_or(Path::new("")).join(file)
    }

    /// Lets the agent's configuration be this file from now on. What it includes is looked for beside the link.
    fn place_config(&self, run: &Path, file: &Path) -> Result<(), String> {
        let text = |error: std::io::Error| format!("{}: {error}", file.display());
        let target = std::fs::canonicalize(file).map_err(text)?;
        std::fs::create_dir_all(run).map_err(text)?;
        let (path, new) = (run.join(CONFIG), run.join("new.toml"));
        // Never without one.
        std::os::unix::fs::symlink(target, &new).and_then(|()| std::fs::rename(&new, path)).map_err(text)
    }

    fn agent_program(&self) -> Result<PathBuf, String> {
        let given = self.options.agent.clone();
        given.or_else(|| process::find_program("anyvip")).ok_or_else(|| "cannot find `anyvip`".to_owned())
    }

    fn agent_flags(&self) -> Vec<PathBuf> {
        let Some(run) = &self.options.run_dir else { return Vec::new() };
        vec!["--socket".into(), run.join("anyvip.sock"), "--state-dir".into(), run.join("state")]
    }

    fn agent_log(&self, run: &Path) -> Result<std::fs::File, String> {
        let path = run.join("agent.log");
        let open = || {
            std::fs::create_dir_all(run.join("state"))?;
            std::fs::OpenOptions::new().create(true).append(true).open(&path)
        };
        open().map_err(|error: std::io::Error| format!("{}: {error}", path.display()))
    }

    async fn agent_says(&self, arguments: &[String]) -> Result<String, String> {
        let output = tokio::process::Command::new(self.agent_program()?)
            .args(arguments)
            .args(self.agent_flags())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|error| format!("anyvip {}: {error}", arguments.join(" ")))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let error = String::from_utf8_lossy(&output.stderr);
        Err(format!("anyvip {}: {}", arguments.join(" "), error.trim()))
    }
}

/// The end of a log, to be appended to a message.
fn last_lines(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(8)..];
    last.iter().map(|line| format!("\n    {line}")).collect()
}

/// Starts this command again without `--detach` and returns when the role has begun: for `exec` of containerlab, which
/// waits for each command.
pub(crate) fn detach(options: &Options) -> ExitCode {
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::CommandExt;
    // Nothing that goes on running keeps an output of ours open: whoever waits for the end of them (`docker exec` does) would wait forever.
    let log = PathBuf::from(format!("/var/log/anyvip-sim-{}.log", options.name));
    let open = || std::fs::OpenOptions::new().create(true).append(true).open(&log);
    let start = || -> Result<(), String> {
        let before = std::fs::metadata(&log).map_or(0, |found| found.len());
        let mut command = std::process::Command::new(process::own_program()?);
        command.args(["node", "--lab"]).arg(&options.lab).args(["--name", &options.name]);
        if let Some(agent) = &options.agent {
            command.arg("--agent").arg(agent);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        command.stderr(open().map_or(Stdio::null(), Stdio::from));
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let mut first = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut first).map_err(|error| error.to_string())?;
        }
        match first.is_empty() {
            true => {
                let said = std::fs::read(&log).unwrap_or_default();
                let said = said.get(usize::try_from(before).unwrap_or(0)..).unwrap_or_default();
                Err(format!("the node ended at once: {}", String::from_utf8_lossy(said).trim()))
            }
            false => Ok(()),
        }
    };
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("anyvip-sim node: {error}");
            ExitCode::FAILURE
        }
    }
}
