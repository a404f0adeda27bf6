//! The service that agents watch: a process of its own, killable.

use crate::lab::{Lab, Namespace};
use crate::process::Process;
use crate::wait::{LONG, wait_until};

/// An HTTP service that answers with its name. Listens on all addresses of both families.
#[derive(Debug)]
pub struct Service {
    /// Kill it, stop it, continue it.
    pub process: Process,
}

impl Service {
    /// Starts it and waits until it listens.
    #[track_caller]
    pub fn start(lab: &Lab, namespace: &Namespace, name: &str, port: u16) -> Self {
        let log = lab.scratch().path().join(format!("service-{}-{port}", namespace.name()));
        let _ = std::fs::remove_file(&log);
        let mut command = namespace.command(lab.binaries.service);
        command.args(["serve", name, &port.to_string()]);
        let mut process = Process::start(&format!("service {name}"), &mut command, &log);
        wait_until(LONG, || {
            assert!(process.ended().is_none(), "the service ended: {}", process.output());
            if process.output().contains("ready") {
                Ok(())
            } else {
                Err("the service is not ready".to_owned())
            }
        });
        Service { process }
    }

    /// Asks the service at an address once; `None` when nobody answers within two seconds.
    pub fn ask(lab: &Lab, from: &Namespace, address: &str, port: u16) -> Option<String> {
        let output = from.output(lab.binaries.service, &["ask", address, &port.to_string()]);
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}
