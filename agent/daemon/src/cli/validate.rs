//! `anyvip validate`

use clap::Args;

use super::{ConfigFile, DONE, Ended, Global, terminal};
use crate::start::KernelSide;
use crate::{configuration, kernel, keys, render, state};
use anyvip_core::state::StoredStateRead;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
    /// Print the effective configuration: every default written out
    #[arg(long)]
    show: bool,
    /// Also say whether this version can take over from an agent that hands down this format; for `anyvip upgrade`.
    #[arg(long, value_name = "VERSION", hide = true)]
    takes_over: Option<u32>,
}

/// Checks as `run` would, on this host.
pub(super) async fn run(global: &Global, arguments: &Arguments) -> Ended {
    let stored = match state::read(&global.state_dir) {
        StoredStateRead::Read(state) => state.router_id,
        StoredStateRead::Absent | StoredStateRead::Unreadable(_) => None,
    };
    let view = KernelSide::open().await?.view;
    let color = terminal::color_on_stderr();
    let path = &arguments.config.config;
    let (loaded, sources) = configuration::load(path, &kernel::facts(&view, stored), color)?;
    if !loaded.warnings.is_empty() {
        terminal::warn(&render::render(&loaded.warnings, &sources, color));
    }
    keys::read(&loaded.config)?;
    if let Some(version) = arguments.takes_over {
        crate::upgrade::reads(version)?;
        crate::capabilities::check(&loaded.config)?;
    }
    if arguments.show {
        terminal::say(&anyvip_core::config::show(&loaded.config));
    } else {
        let (services, peers) = (loaded.config.services.len(), loaded.config.bgp.peers.len());
        terminal::say(&format!(
            "{}: good ({services} service{}, {peers} peer{}, router id {})",
            path.display(),
            plural(services),
            plural(peers),
            loaded.config.router_id
        ));
    }
    DONE
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
