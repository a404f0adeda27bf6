//! A balancer in the path, made of nftables: NAT both ways, or the hardware address alone, so that answers go around it.
//!
//! Who is in rotation is one chain that is replaced as a whole; flows that the kernel remembers (connection tracking, or a map of our
//! own for direct server return) are not touched by that.

use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;

use anyvip_machine::Time;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::task::{JoinHandle, JoinSet};

use super::checks::Watched;
use super::order::Server;
use crate::compare::flows::SERVICE;
use crate::compare::model::HASH_SEED;
use crate::compare::plan::Checks;

/// A balancer as meant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Config {
    pub(crate) servers: Vec<Server>,
    pub(crate) checks: Checks,
    pub(crate) way: Way,
}

/// What is done to packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Way {
    /// Another destination; the answer comes back through here.
    Nat,
    /// Another hardware address, on the interface on which it came.
    Direct {
        /// Whether flows are remembered, for so long after their last packet; else each packet is hashed.
        remember: Option<Duration>,
    },
}

/// A running balancer.
pub(super) struct Balancer {
    config: Config,
    watched: Watched,
    checks: JoinSet<()>,
    task: JoinHandle<()>,
}

impl Balancer {
    /// All servers are in from the start.
    pub(super) async fn start(config: Config) -> Result<Balancer, String> {
        nft(&ruleset(&config)).await?;
        let watched = Watched::new(config.servers.len());
        nft(&rotation(&config, &watched.ready())).await?;
        let task = tokio::task::spawn_local({
            let (config, watched) = (config.clone(), watched.clone());
            async move {
                loop {
                    watched.changed.notified().await;
                    if let Err(error) = nft(&rotation(&config, &watched.ready())).await {
                        eprintln!("anyvip-sim: balancer: {error}");
                    }
                }
            }
        });
        Ok(Balancer { config, watched, checks: JoinSet::new(), task })
    }

    pub(super) fn begin(&mut self, at: Time) {
        self.checks = self.watched.check(&self.config.servers, self.config.checks, at);
    }

    pub(super) fn want(&self, server: usize, wanted: bool) {
        self.watched.want(server, wanted);
    }

    /// Passes nothing on, and knows all it knew afterwards.
    pub(super) async fn pause(&self, pause: bool) -> Result<(), String> {
        let table = match self.config.way {
            Way::Nat => "inet pause",
            Way::Direct { .. } => "netdev pause",
        };
        if !pause {
            return nft(&format!("delete table {table}\n")).await;
        }
        let hook = match self.config.way {
            Way::Nat => "type filter hook forward priority -10; policy drop;".to_owned(),
            Way::Direct { .. } => format!(
                "type filter hook ingress device \"{INTERFACE}\" priority -10; policy accept;\nip daddr {SERVICE} drop"
            ),
        };
        nft(&format!("table {table} {{\nchain silence {{\n{hook}\n}}\n}}\n")).await
    }

    /// Requests and answers: datagrams, ICMP errors, and segments that carry something.
    pub(super) async fn packets(&self) -> Result<u64, String> {
        let family = self.config.way.family();
        let mut sum = 0;
        for counter in ["datagrams", "segments"] {
            let said = run(&["list", "counter", family, "balance", counter], "").await?;
            let mut words = said.split_whitespace().skip_while(|word| *word != "packets").skip(1);
            let count = words.next().and_then(|word| word.parse::<u64>().ok());
            sum += count.ok_or_else(|| format!("nft: no count in `{said}`"))?;
        }
        Ok(sum)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The interface towards the clients.
pub(super) const INTERFACE: &str = "eth1";

impl Way {
    fn family(self) -> &'static str {
        match self {
            Way::Nat => "ip",
            Way::Direct { .. } => "netdev",
        }
    }
}

fn ruleset(config: &Config) -> String {
    // A question and its answer, not what TCP needs besides.
    const COUNT: &str =
        "meta l4proto udp counter name datagrams\ntcp flags & psh == psh counter name segments";
    let counters = "counter datagrams { }\ncounter segments { }\nchain pick { }";
    match config.way {
        Way::Nat => format!(
            "table ip balance {{\n{counters}\n\
             chain arriving {{\ntype nat hook prerouting priority dstnat; policy accept;\nip daddr {SERVICE} jump pick\n}}\n\
             chain passing {{\ntype filter hook forward priority 0; policy accept;\n{COUNT}\n\
             meta l4proto icmp counter name datagrams\n}}\n}}\n"
        ),
        Way::Direct { remember } => {
            let servers = config.servers.iter().enumerate();
            let servers: Vec<String> =
                servers.map(|(number, server)| format!("{} : {}", number + 1, server.address)).collect();
            let flow = "ip saddr . th sport . meta l4proto";
            let (map, find, keep) = match remember {
                Some(time) => (
                    format!(
                        "map flows {{ type ipv4_addr . inet_service . inet_proto : mark; flags dynamic,timeout; timeout {}s; \
                         size 1048576; }}\n",
                        time.as_secs().max(1)
                    ),
                    format!("meta mark set {flow} map @flows\n"),
                    format!("meta mark != 0 update @flows {{ {flow} : meta mark }}\n"),
                ),
                None => (String::new(), String::new(), String::new()),
            };
            // What a bridge floods because it does not know where the address is, is not ours.
            // A packet is marked with the number of its server, then sent on as it is to that server's hardware address.
            format!(
                "table netdev balance {{\n{map}{counters}\n\
                 chain arriving {{\ntype filter hook ingress device \"{INTERFACE}\" priority 0; policy accept;\n\
                 meta protocol != ip accept\nmeta pkttype != host accept\nip daddr != {SERVICE} accept\n{COUNT}\nmeta mark set 0\n{find}\
                 meta mark 0 jump pick\n{keep}fwd ip to meta mark map {{ {} }} device \"{INTERFACE}\"\ndrop\n}}\n}}\n",
                servers.join(", ")
            )
        }
    }
}

/// Who gets new flows (without a table: all packets), in one step.
fn rotation(config: &Config, ready: &[usize]) -> String {
    let family = config.way.family();
    let begin = format!("flush chain {family} balance pick\n");
    let address = |server: &usize| {
        config.servers.get(*server).map_or(Ipv4Addr::UNSPECIFIED, |server| server.address).to_string()
    };
    let mark = |server: &usize| (server + 1).to_string();
    let value: &dyn Fn(&usize) -> String = match config.way {
        Way::Nat => &address,
        Way::Direct { .. } => &mark,
    };
    let what = match config.way {
        Way::Nat => "dnat to",
        Way::Direct { .. } => "meta mark set",
    };
    let count = ready.len();
    let choice = match config.way {
        Way::Direct { remember: None } => {
            format!("jhash ip saddr . th sport mod {count} seed {HASH_SEED:#x}")
        }
        _ => format!("numgen random mod {count}"),
    };
    match ready {
        [] => begin,
        [one] => format!("{begin}add rule {family} balance pick {what} {}\n", value(one)),
        _ => {
            let places =
                ready.iter().enumerate().map(|(place, server)| format!("{place} : {}", value(server)));
            let places = places.collect::<Vec<_>>().join(", ");
            format!("{begin}add rule {family} balance pick {what} {choice} map {{ {places} }}\n")
        }
    }
}

async fn nft(rules: &str) -> Result<(), String> {
    run(&["-f", "-"], rules).await.map(drop)
}

async fn run(arguments: &[&str], input: &str) -> Result<String, String> {
    let text = |error: std::io::Error| format!("nft: {error}");
    let mut child = tokio::process::Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(text)?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(input.as_bytes()).await.map_err(text)?;
    }
    let output = child.wait_with_output().await.map_err(text)?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("nft: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
