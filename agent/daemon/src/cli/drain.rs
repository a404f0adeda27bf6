//! `anyvip drain` and `anyvip undrain`

use std::collections::BTreeSet;
use std::time::Duration;

use anyvip_core::state::{Drained, StoredState, StoredStateRead};
use anyvip_core::status::Status;
use anyvip_core::{Reply, ServiceName};
use clap::Args;
use tokio::time::{Instant, timeout};

use super::{ConfigFile, DONE, Ended, Global, terminal};
use crate::complaint::{Complaint, Exit};
use crate::control::api::Selection;
use crate::control::client::{Client, ClientError};
use crate::start::{Alone, KernelSide, configured};
use crate::state;

/// How long `--wait` waits for peers to take their withdrawal.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one that finds no agent waits for others that write down the same at this moment.
const TURN: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
pub(super) struct DrainArguments {
    #[command(flatten)]
    which: Which,
    /// Return only when the drain time is over and every peer has been told
    #[arg(long)]
    wait: bool,
    /// How long to wait, as 90s or 5m [default: 60s more than the drain time]
    #[arg(long, value_name = "TIME", value_parser = time, requires = "wait")]
    timeout: Option<Duration>,
    /// Put the service back if the time runs out
    #[arg(long, requires = "wait")]
    or_abort: bool,
    /// Why, for `status` and the log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct UndrainArguments {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Args)]
struct Which {
    /// The service, as in the configuration
    #[arg(value_name = "SERVICE", required_unless_present = "all")]
    service: Option<String>,
    /// All services
    #[arg(long, conflicts_with = "service")]
    all: bool,
    #[command(flatten)]
    config: ConfigFile,
}

impl Which {
    fn selection(&self, reason: Option<String>) -> Selection {
        Selection { service: self.service.clone(), all: self.all, reason }
    }
}

/// `90s`, `5m`, `500ms`, `1h`; a bare number is seconds.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 =
        digits.parse().map_err(|_| "a time is a number with ms, s, m or h, as 60s".to_owned())?;
    let millis = match text.get(digits.len()..).unwrap_or_default() {
        "ms" => Some(number),
        "" | "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        unit => return Err(format!("{unit:?} is no unit of time: ms, s, m or h")),
    };
    millis
        .filter(|millis| *millis <= 7 * 86_400_000)
        .map(Duration::from_millis)
        .ok_or_else(|| "longer than a week".to_owned())
}

/// Withdraws, and waits for it where asked.
pub(super) async fn drain(global: &Global, arguments: &DrainArguments) -> Ended {
    let client = global.client();
    // Followed from before the request, so that nothing is missed.
    let mut events = match client.events("?follow&kept=0").await {
        Ok(events) => Some(events),
        // Too many follow already: the drain must not fail for that, it only looks less often.
        Err(ClientError::Refused { .. }) => None,
        Err(ClientError::NoDaemon(_)) => {
            return without_daemon(global, &arguments.which, Some(&arguments.reason)).await;
        }
        Err(error) => return Err(error.into()),
    };
    order(&client, "/v1/drain", &arguments.which.selection(arguments.reason.clone())).await?;
    if !arguments.wait {
        return DONE;
    }
    let began = Instant::now();
    let mut limit = arguments.timeout;
    loop {
        let status: Status = match client.get("/v1/status").await {
            Ok(status) => status,
            Err(ClientError::NoDaemon(_) | ClientError::Cut(_)) => {
                let text = "the agent ended while draining; the service stays drained";
                return Err(Complaint::new(Exit::NoDaemon, text));
            }
            Err(error) => return Err(error.into()),
        };
        let left = untold(&status, arguments.which.service.as_deref());
        let limit = *limit
            .get_or_insert_with(|| PATIENCE + drain_time_left(&status, arguments.which.service.as_deref()));
        let deadline = began + limit;
        if left.is_empty() {
            terminal::say("drained: no peer is told of it any more");
            return DONE;
        }
        let now = Instant::now();
        if now >= deadline {
            return out_of_time(&client, arguments, limit, &left).await;
        }
        // An UPDATE that was written is no event of its own, so the wait is short.
        let wait = (deadline - now).min(Duration::from_millis(200));
        let news = async {
            match &mut events {
                Some(events) => events.next().await,
                None => std::future::pending().await,
            }
        };
        // A drain of many VIPs may make more events than a follower may leave unread; whether the agent has ended, the
        // next look at its status tells.
        if let Ok(Ok(None) | Err(_)) = timeout(wait, news).await {
            events = None;
        }
    }
}

async fn out_of_time(
    client: &Client,
    arguments: &DrainArguments,
    limit: Duration,
    left: &BTreeSet<String>,
) -> Ended {
    let text = format!(
        "not drained within {limit:?}: still told to {}",
        Vec::from_iter(left.iter().map(String::as_str)).join(", ")
    );
    if arguments.or_abort {
        order(client, "/v1/undrain", &arguments.which.selection(None)).await?;
        return Err(Complaint::new(Exit::TimedOut, format!("{text}; put back")));
    }
    Err(Complaint::new(Exit::TimedOut, text)
        .remedy("it stays drained; `anyvip status` shows what it waits for"))
}

/// How much of the drain time is left, of the service for which that is longest.
fn drain_time_left(status: &Status, service: Option<&str>) -> Duration {
    let selected =
        status.services.iter().filter(|candidate| service.is_none_or(|name| candidate.name.0 == name));
    let left = selected.filter_map(|service| service.drain.as_ref()?.left_ms).max();
    Duration::from_millis(left.unwrap_or(0))
}

/// Peers that may still know a VIP of the selected services: it was announced to them, or what they were sent last is
/// still on its way.
fn untold(status: &Status, service: Option<&str>) -> BTreeSet<String> {
    let selected =
        || status.services.iter().filter(|candidate| service.is_none_or(|name| candidate.name.0 == name));
    let told = selected().flat_map(|service| &service.vips).flat_map(|vip| &vip.peers);
    let told = told.filter(|peer| peer.advertised).map(|peer| &peer.name);
    let waiting = selected().filter_map(|service| service.drain.as_ref());
    told.chain(waiting.flat_map(|drain| &drain.waiting_for)).cloned().collect()
}

/// Puts back.
pub(super) async fn undrain(global: &Global, arguments: &UndrainArguments) -> Ended {
    match order(&global.client(), "/v1/undrain", &arguments.which.selection(None)).await {
        Err(complaint) if complaint.exit == Exit::NoDaemon => {
            without_daemon(global, &arguments.which, None).await
        }
        other => other,
    }
}

async fn order(client: &Client, path: &str, selection: &Selection) -> Ended {
    let reply: Reply = client.post(path, selection).await?;
    if !reply.done {
        return Err(Complaint::refused(reply.text));
    }
    terminal::say(&reply.text);
    DONE
}

/// Changes the state file, so that the next start finds it. `drain` carries the reason; `None` puts back.
async fn without_daemon(global: &Global, which: &Which, drain: Option<&Option<String>>) -> Ended {
    let until = Instant::now() + TURN;
    let alone = loop {
        match Alone::ensure(&global.state_dir) {
            // Another drain or undrain, most likely: it has soon done.
            Err(complaint) if complaint.exit == Exit::Conflict && Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            decided => break decided,
        }
    };
    let _alone = alone.map_err(|complaint| match complaint.exit {
        Exit::Conflict => complaint.remedy(format!(
            "an agent runs, but does not answer on {}; see --socket",
            global.socket.display()
        )),
        _ => complaint,
    })?;
    let read = state::read(&global.state_dir);
    let known = match KernelSide::open().await {
        Ok(side) => configured(&which.config.config, &side.view, &read).map(|config| config.services),
        Err(complaint) => Err(complaint),
    };
    let mut stored = match read {
        StoredStateRead::Absent => StoredState { version: 1, ..StoredState::default() },
        StoredStateRead::Read(stored) => stored,
        StoredStateRead::Unreadable(why) => {
            return Err(Complaint::refused(format!("the state cannot be read: {why}")));
        }
    };
    let names: Vec<ServiceName> = match (&which.service, drain, known) {
        (Some(name), Some(_), Ok(known)) if !known.contains_key(&ServiceName(name.clone())) => {
            return Err(Complaint::refused(format!("there is no service {name:?} in the configuration")));
        }
        (Some(name), _, _) => vec![ServiceName(name.clone())],
        // What is drained is known without a configuration.
        (None, None, _) => stored.drained.keys().cloned().collect(),
        (None, Some(_), known) => known?.into_keys().collect(),
    };
    for name in &names {
        match drain {
            Some(reason) => {
                let since = anyvip_io::clock::wall_clock_millis();
                stored.drained.insert(name.clone(), Drained { since, reason: reason.clone() });
            }
            None => drop(stored.drained.remove(name)),
        }
    }
    stored.generation += 1;
    state::write(&global.state_dir, &stored).map_err(|failure| Complaint::refused(failure.text))?;
    let names: Vec<&str> = names.iter().map(|name| name.0.as_str()).collect();
    let what = if drain.is_some() { "drained" } else { "put back" };
    let list = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    terminal::say(&format!(
        "no agent is running: {list} will be {what} when it starts (written to {})",
        global.state_dir.join("state.json").display()
    ));
    DONE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_withdrawal_on_its_way_is_not_done() {
        use anyvip_core::status::{DrainStatus, Histogram, ServiceStatus};
        let drain = |peers: &[&str]| DrainStatus {
            reason: None,
            for_ms: 1,
            phase: "withdrawing".to_owned(),
            left_ms: None,
            waiting_for: peers.iter().map(|peer| (*peer).to_owned()).collect(),
        };
        let service = |name: &str, peers: &[&str]| ServiceStatus {
            name: name.into(),
            health: "up".to_owned(),
            admin: "draining".to_owned(),
            for_ms: 1,
            drain: Some(drain(peers)),
            checks: Vec::new(),
            responder: None,
            vips: Vec::new(),
        };
        let status = Status {
            version: "1".to_owned(),
            router_id: "10.0.1.11".parse().unwrap(),
            uptime_ms: 1,
            warnings: Vec::new(),
            services: vec![service("dns", &["tor1"]), service("web", &[]), service("ntp", &["tor2"])],
            peers: Vec::new(),
            decision_to_wire_us: Histogram::default(),
            upgrade: None,
            turned_away: None,
        };
        assert_eq!(untold(&status, Some("dns")), BTreeSet::from(["tor1".to_owned()]));
        assert!(untold(&status, Some("web")).is_empty());
        assert_eq!(untold(&status, None).len(), 2);
    }

    #[test]
    fn times_are_numbers_with_a_unit() {
        assert_eq!(time("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(time("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(time("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(time("7"), Ok(Duration::from_secs(7)));
        for wrong in ["", "s", "1d", "-1s", "1.5s", "99999999999999999999s", "400h"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
