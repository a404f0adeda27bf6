//! A command of the operator: exit 0 passes.

use anyvip_core::boundary::Target;
use anyvip_core::config::ExecCheck;
use anyvip_io::child::{self, Command, End};
use anyvip_io::clock::Patience;

use super::{Ending, Request, shortened};

/// Who asks, for the environment of the command.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) service: String,
    pub(crate) check: String,
}

/// Runs the command in a process group of its own; it is killed with all its children when the time is up.
pub(super) async fn run(check: &ExecCheck, request: &Request, patience: &mut Patience) -> Ending {
    let Some((program, arguments)) = check.command.split_first() else {
        return Ending::error("the check has no command");
    };
    let mut environment = vec![
        ("ANYVIP_SERVICE".into(), request.names.service.as_str().into()),
        ("ANYVIP_CHECK".into(), request.names.check.as_str().into()),
    ];
    if let Target::Vip(address) = request.target {
        environment.push(("ANYVIP_VIP".into(), address.to_string().into()));
    }
    let command = Command {
        program: program.into(),
        arguments: arguments.iter().map(Into::into).collect(),
        environment,
        directory: None,
    };
    match child::run_within(&command, patience).await {
        Err(failure) => Ending::error(failure.text),
        Ok(outcome) => {
            let said = shortened(&String::from_utf8_lossy(&outcome.output), 80);
            let with = |what: String| if said.is_empty() { what } else { format!("{what}: {said}") };
            match outcome.end {
                End::Exited(0) => Ending::pass(if said.is_empty() { "exit 0".to_owned() } else { said }),
                End::Exited(status) => Ending::fail(with(format!("exit {status}"))),
                End::Signalled(signal) => Ending::fail(with(format!("ended by signal {signal}"))),
                End::TimedOut => Ending::fail(with(format!("killed after {:?}", request.timeout))),
            }
        }
    }
}
