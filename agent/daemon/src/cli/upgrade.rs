//! `anyvip upgrade`

use std::path::PathBuf;
use std::time::Duration;

use anyvip_core::Reply;
use anyvip_core::status::{Status, UpgradePlan};
use clap::Args;
use tokio::time::{Instant, sleep};

use super::drain::time;
use super::terminal::{self, Table, Tone};
use super::{DONE, Ended, Global};
use crate::complaint::{Complaint, Exit};
use crate::control::api::Replacement;
use crate::control::client::ClientError;

/// How often to look whether the new version is there.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The new program [default: the file that the agent was started from, as it is now]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Only show what would happen to each peer, path and service
    #[arg(long, conflicts_with_all = ["binary", "force", "timeout"])]
    plan: bool,
    /// The plan as JSON
    #[arg(long, requires = "plan")]
    json: bool,
    /// Also if routes are lost for a while
    #[arg(long)]
    force: bool,
    /// How long to wait until the new version has taken over, as 90s or 5m
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "60s")]
    timeout: Duration,
}

/// Lets the running agent become another version, and waits until that has decided all that it inherited.
pub(super) async fn run(global: &Global, arguments: &Arguments) -> Ended {
    let client = global.client();
    if arguments.plan {
        let (plan, text): (UpgradePlan, String) = client.get_with_text("/v1/upgrade").await?;
        if arguments.json {
            terminal::say(&text);
        } else {
            terminal::say(&render(&plan, terminal::color_on_stdout()));
        }
        return if plan.lost().next().is_none() { DONE } else { Ok(Exit::Refused as u8) };
    }
    let binary = arguments.binary.as_ref().map(std::path::absolute).transpose();
    let binary =
        binary.map_err(|error| Complaint::refused(format!("cannot find the new program: {error}")))?;
    let request = Replacement { binary, force: arguments.force };
    let process = client.process().await;
    let asked = Instant::now();
    match client.post::<Reply>("/v1/upgrade", &request).await {
        Ok(reply) if !reply.done => return Err(Complaint::refused(reply.text)),
        Ok(reply) => terminal::say(&reply.text),
        // It may have become the other before its answer was out.
        Err(ClientError::Cut(_)) => {}
        Err(error) => return Err(error.into()),
    }
    loop {
        match client.get::<Status>("/v1/status").await {
            Ok(status) => {
                // The old one has run since before it was asked.
                let new = Duration::from_millis(status.uptime_ms) < asked.elapsed();
                let upgrade = status.upgrade.as_ref();
                match upgrade.map(|upgrade| (upgrade.phase.as_str(), &upgrade.text)) {
                    Some(("failed", text)) if !new => return Err(Complaint::refused(text.clone())),
                    Some(("done", text)) if new => {
                        terminal::say(&format!("anyvip {} {text}", status.version));
                        return DONE;
                    }
                    None if new => {
                        let text = "the agent was started anew, and inherited nothing: see `anyvip events`";
                        return Err(Complaint::refused(text));
                    }
                    _ => {}
                }
            }
            // It becomes the other, and does not end.
            Err(_) if process.is_some_and(|pid| !anyvip_io::process::lives(pid)) => return Err(ended()),
            // Between the two nobody answers.
            Err(ClientError::NoDaemon(_) | ClientError::Cut(_) | ClientError::Socket(..)) => {}
            Err(error) => return Err(error.into()),
        }
        if asked.elapsed() > arguments.timeout {
            let text = format!("the new version has not taken over within {:?}", arguments.timeout);
            return Err(
                Complaint::new(Exit::TimedOut, text).remedy("see `anyvip status` and `anyvip events`")
            );
        }
        sleep(LOOK).await;
    }
}

fn ended() -> Complaint {
    Complaint::refused(
        "the new version has ended: the addresses stay, and routers that agreed to it keep the routes for the time they were asked for, \
         but no longer than until the next start",
    )
    .remedy("its last words are in the log of the agent; put back a version that runs, and start it")
}

fn render(plan: &UpgradePlan, color: bool) -> String {
    let mut table = Table::new(&["what", "routes", "an upgrade now"]);
    for line in &plan.lines {
        let (word, tone) = if line.kept { ("kept", Tone::Good) } else { ("lost for a while", Tone::Bad) };
        table.row([
            (line.subject.clone(), Tone::Plain),
            (word.to_owned(), tone),
            (line.text.clone(), Tone::Plain),
        ]);
    }
    let mut text = table.render(color);
    if plan.lost().next().is_some() {
        text.push_str("\n`anyvip upgrade` refuses this; with --force it goes on.\n");
    }
    text
}
