//! The command line: one file per command.

mod cleanup;
mod drain;
mod events;
mod explain;
mod prepare;
mod reload;
mod run;
mod schema;
mod status;
pub(crate) mod terminal;
#[cfg(test)]
mod tests;
mod upgrade;
mod validate;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::complaint::{Complaint, Exit};
use crate::configuration;
use crate::control::client::Client;
use crate::logging::{self, LogFormat, LogLevel};
use crate::start::Paths;
use crate::state;

/// Where the control socket is unless `--socket` says otherwise.
const SOCKET: &str = "/run/anyvip/anyvip.sock";

/// One service IP on many servers, announced while the service is healthy.
#[derive(Debug, Parser)]
#[command(name = "anyvip", version, propagate_version = true, disable_help_subcommand = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 refused or invalid, 2 usage, 3 no daemon, 4 conflict (another agent), \
                        5 timed out.\n`status --check` has its own: 0 all as wanted, 1 degraded, 2 nothing announced."
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command understands.
#[derive(Clone, Debug, Args)]
struct Global {
    /// The control socket of the agent
    #[arg(long, global = true, value_name = "PATH", env = "ANYVIP_SOCKET", default_value = SOCKET)]
    socket: PathBuf,
    /// Where drained services, former ARP values and the like are kept
    #[arg(long, global = true, value_name = "PATH", env = "ANYVIP_STATE_DIR", default_value = state::DEFAULT)]
    state_dir: PathBuf,
    /// How the log looks
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Human)]
    log_format: LogFormat,
    /// How much is logged
    #[arg(long, global = true, value_name = "LEVEL", value_enum, default_value_t = LogLevel::Info)]
    log_level: LogLevel,
}

/// Which configuration.
#[derive(Clone, Debug, Args)]
struct ConfigFile {
    /// The configuration file
    #[arg(short = 'c', long = "config", value_name = "FILE", default_value = configuration::DEFAULT)]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent in the foreground
    Run(run::Arguments),
    /// Check a configuration: all errors at once, each with its place
    Validate(validate::Arguments),
    /// Show services, VIPs and peers: since when, and why
    Status(status::Arguments),
    /// Show every gate between a service and the wire, and what would open it
    Explain(explain::Arguments),
    /// Withdraw a service until `undrain`; it goes on answering
    Drain(drain::DrainArguments),
    /// Put a drained service back
    Undrain(drain::UndrainArguments),
    /// Read the configuration again and apply it; a refused one changes nothing
    Reload,
    /// Let the running agent become another version, while routers keep its routes
    Upgrade(upgrade::Arguments),
    /// Show what changed
    Events(events::Arguments),
    /// Set the ARP guard and the VIPs, and exit: before services that bind them
    Prepare(ConfigFile),
    /// Remove the VIPs that anyvip put in place, then restore the ARP settings
    Cleanup,
    /// Print the JSON Schema of the configuration file
    Schema,
}

impl Global {
    fn client(&self) -> Client {
        Client::new(&self.socket)
    }

    fn paths(&self, config: &ConfigFile) -> Paths {
        Paths {
            config: config.config.clone(),
            socket: self.socket.clone(),
            state_dir: self.state_dir.clone(),
        }
    }
}

/// Runs the command line of this process to its end.
pub(crate) fn main() -> ExitCode {
    // --help and --version exit with 0, a usage error with 2.
    let cli = Cli::parse();
    let Global { log_format, log_level, .. } = cli.global;
    let log = match &cli.command {
        Command::Run(_) | Command::Prepare(_) | Command::Cleanup => logging::begin(log_format, log_level),
        _ => None,
    };
    let ended = match cli.command {
        Command::Run(arguments) => run::run(&cli.global, &arguments),
        Command::Validate(arguments) => block_on(validate::run(&cli.global, &arguments)),
        Command::Status(arguments) => block_on(status::run(&cli.global, &arguments)),
        Command::Explain(arguments) => block_on(explain::run(&cli.global, &arguments)),
        Command::Drain(arguments) => block_on(drain::drain(&cli.global, &arguments)),
        Command::Undrain(arguments) => block_on(drain::undrain(&cli.global, &arguments)),
        Command::Reload => block_on(reload::run(&cli.global)),
        Command::Upgrade(arguments) => block_on(upgrade::run(&cli.global, &arguments)),
        Command::Events(arguments) => block_on(events::run(&cli.global, &arguments)),
        Command::Prepare(config) => block_on(prepare::run(&cli.global.paths(&config))),
        Command::Cleanup => block_on(cleanup::run(&cli.global)),
        Command::Schema => schema::run(),
    };
    // The last lines come before what the terminal is told.
    drop(log);
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(complaint) => {
            terminal::complain(&complaint);
            ExitCode::from(complaint.exit as u8)
        }
    }
}

/// What a command comes to: an exit code, or why not.
type Ended = Result<u8, Complaint>;

const DONE: Ended = Ok(Exit::Done as u8);

fn runtime() -> Result<tokio::runtime::Runtime, Complaint> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Netlink requests and the disk; the default of 512 is not for a small agent.
        .max_blocking_threads(16)
        .thread_stack_size(256 * 1024)
        .build()
        .map_err(|error| Complaint::refused(format!("cannot begin: {error}")))
}

fn block_on(command: impl Future<Output = Ended>) -> Ended {
    runtime()?.block_on(command)
}
