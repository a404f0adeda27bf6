//! Operators: what they ask of an agent, and what they have been promised.

use std::sync::Arc;
use std::time::Duration;

use anyvip_core::boundary::Command;
use anyvip_core::state::Drained;
use anyvip_core::{Event, Reply, RequestId, ServiceName};
use anyvip_machine::Time;
use serde::{Deserialize, Serialize};

use super::process::Letter;
use super::{NodeId, NoteKind, World};

/// Answers that are kept.
const MOST_REPLIES: usize = 64;

/// What somebody does at a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// `anyvip drain`; without a daemon the state file is written.
    Drain { service: Option<String>, reason: Option<String> },
    /// `anyvip undrain`.
    Undrain { service: Option<String> },
    /// Writes this configuration and says `anyvip reload`. A bad one is refused and the running one stays.
    Reload { config: String },
    /// SIGTERM.
    Terminate,
    /// SIGTERM, and a new agent so long after the old one has ended: VIP and guard stay.
    Restart { pause: Duration },
    /// `anyvip upgrade`, with `--force` or without. The new program takes so long to start; without a time the system cannot run it.
    Upgrade { pause: Option<Duration>, force: bool },
    /// Starts the agent, if none runs.
    Start,
}

/// What operators want of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intention {
    /// Whether it shall be drained.
    pub drained: bool,
    /// Since when somebody wants that.
    pub since: Time,
    /// The agent has said that it is done and on disk. Until then a crash may undo it.
    pub acknowledged: bool,
    /// The request that wants it.
    pub(super) by: RequestId,
}

impl World {
    /// Somebody does something at a host, now.
    pub(super) fn operate(&mut self, node: NodeId, operation: Operation) {
        self.turn.touch(node);
        match operation {
            Operation::Drain { service, reason } => {
                let service = service.map(ServiceName);
                self.command(node, Command::Drain { service, reason });
            }
            Operation::Undrain { service } => {
                let service = service.map(ServiceName);
                self.command(node, Command::Undrain { service });
            }
            Operation::Reload { config } => {
                let now = self.now;
                let Some(host) = self.host_mut(node) else { return };
                host.plan.config = Arc::from(config);
                let loaded = host.load(&host.disk.read());
                if loaded.is_ok() {
                    host.config_since = now;
                }
                self.command(node, Command::Reload { config: loaded.map(Box::new), keys: Vec::new() });
            }
            Operation::Terminate => {
                if let Some(host) = self.host_mut(node) {
                    host.wanted = false;
                    host.start_after = None;
                }
                self.kill_between(node);
                self.signal(node, Event::Terminate);
            }
            Operation::Restart { pause } => {
                let Some(host) = self.host_mut(node) else { return };
                host.wanted = true;
                if host.process.is_some() {
                    host.start_after = Some(pause);
                    self.signal(node, Event::Terminate);
                } else {
                    self.start_agent(node);
                }
            }
            Operation::Upgrade { pause, force } => self.ask_for_upgrade(node, pause, force),
            Operation::Start => {
                if let Some(host) = self.host_mut(node) {
                    let ends = !std::mem::replace(&mut host.wanted, true) && host.process.is_some();
                    if ends {
                        // A service manager starts it as soon as the old one has ended.
                        host.start_after = Some(Duration::ZERO);
                    }
                }
                self.start_agent(node);
            }
        }
    }

    fn signal(&mut self, node: NodeId, event: Event) {
        if let Some(number) = self.task(node).map(|task| task.number) {
            self.deliver(node, number, Letter::Core(Box::new(event)));
        }
    }

    pub(super) fn command(&mut self, node: NodeId, command: Command) {
        let now = self.now;
        let Some(host) = self.host_mut(node).filter(|host| host.powered) else { return };
        host.next_request += 1;
        let request = RequestId(host.next_request);
        let number = host.process.as_ref().map(|process| process.task.number);
        let names: Vec<ServiceName> = match (host.agent(), host.load(&host.disk.read())) {
            (Some(agent), _) => agent.config().services.keys().cloned().collect(),
            (None, Ok(config)) => config.services.into_keys().collect(),
            // The state file can be written whatever the configuration says.
            (None, Err(_)) => host.intentions.keys().cloned().collect(),
        };
        if let Some((service, drained)) = drains(&command) {
            for name in names.into_iter().filter(|name| service.as_ref().is_none_or(|wanted| wanted == name))
            {
                // What nobody confirmed may have been forgotten with the agent: asked for again, it begins anew.
                let known = host.intentions.get(&name);
                if !known.is_some_and(|known| known.drained == drained && known.acknowledged) {
                    let acknowledged = false;
                    let intention = Intention { drained, since: now, acknowledged, by: request };
                    host.intentions.insert(name, intention);
                }
            }
        }
        match number {
            Some(number) => {
                self.remember_request(node, request, command.clone());
                self.deliver(node, number, Letter::Core(Box::new(Event::Operator { request, command })));
            }
            None => self.write_state_without_an_agent(node, &command),
        }
    }

    /// `anyvip drain` without a daemon.
    fn write_state_without_an_agent(&mut self, node: NodeId, command: &Command) {
        let now = self.now;
        let Some(host) = self.host_mut(node) else { return };
        let Some((service, drained)) = drains(command) else { return };
        if host.disk.full || host.disk.unreadable.is_some() {
            return;
        }
        let wall = host.wall_clock_ms(now);
        let mut state = host.disk.stored.clone().unwrap_or_default();
        state.version = state.version.max(1);
        state.generation += 1;
        for (name, intention) in &mut host.intentions {
            if service.as_ref().is_some_and(|wanted| wanted != name) {
                continue;
            }
            intention.acknowledged = true;
            match drained {
                true => {
                    state.drained.insert(name.clone(), Drained { since: wall, reason: None });
                }
                false => {
                    state.drained.remove(name);
                }
            }
        }
        host.disk.stored = Some(state);
    }

    /// The agent answers an operator.
    pub(super) fn answered(&mut self, node: NodeId, number: u32, request: RequestId, reply: Reply) {
        let now = self.now;
        let Some(command) = self.forget_request(node, number, request) else {
            return self
                .breach(node, format!("an answer to {request:?}, which nobody asked or which was answered"));
        };
        self.note(node, NoteKind::Reply, || reply.text.clone());
        if reply.done && matches!(command, Command::Upgrade { force: false, .. }) {
            self.promises(node);
        }
        let Some(host) = self.host_mut(node) else { return };
        if let (true, Some((service, drained))) = (reply.done, drains(&command)) {
            for (name, intention) in &mut host.intentions {
                let meant = service.as_ref().is_none_or(|wanted| wanted == name);
                let newest = intention.by <= request && intention.drained == drained;
                intention.acknowledged |= meant && newest;
            }
        }
        host.replies.push((now, request, reply));
        if host.replies.len() > MOST_REPLIES {
            host.replies.remove(0);
        }
    }
}

/// The service, or all, and whether it shall be drained.
fn drains(command: &Command) -> Option<(Option<ServiceName>, bool)> {
    match command {
        Command::Drain { service, .. } => Some((service.clone(), true)),
        Command::Undrain { service } => Some((service.clone(), false)),
        Command::Reload { .. } | Command::Upgrade { .. } => None,
    }
}
