//! Reads the configuration again, beside the loop and one reading at a time, in the order asked.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::pin::Pin;

use anyvip_core::Config;
use anyvip_core::boundary::RequestId;
use anyvip_core::config::HostFacts;
use tokio::task::JoinHandle;

use crate::configuration;
use crate::keys::{self, Keys};
use crate::render;

/// What came out: the configuration, or what `validate` prints.
pub(crate) type Loaded = Result<(Box<Config>, Keys), String>;

/// Readings under way and waiting.
#[derive(Debug)]
pub(crate) struct Reloads {
    path: PathBuf,
    running: Option<(RequestId, Pin<Box<JoinHandle<Loaded>>>)>,
    waiting: VecDeque<(RequestId, HostFacts)>,
}

impl Reloads {
    pub(crate) fn new(path: PathBuf) -> Reloads {
        Reloads { path, running: None, waiting: VecDeque::new() }
    }

    /// Reads the configuration for this request, after those that asked before.
    pub(crate) fn begin(&mut self, request: RequestId, facts: HostFacts) {
        self.waiting.push_back((request, facts));
        self.go_on();
    }

    fn go_on(&mut self) {
        if self.running.is_some() {
            return;
        }
        if let Some((request, facts)) = self.waiting.pop_front() {
            let path = self.path.clone();
            let reading = tokio::task::spawn_blocking(move || read(&path, &facts));
            self.running = Some((request, Box::pin(reading)));
        }
    }

    /// The next configuration that has been read. Cancel-safe.
    pub(crate) async fn next(&mut self) -> (RequestId, Loaded) {
        let Some((request, reading)) = &mut self.running else {
            return std::future::pending().await;
        };
        let (request, loaded) = (*request, reading.await);
        self.running = None;
        self.go_on();
        (request, loaded.unwrap_or_else(|error| Err(format!("the configuration could not be read: {error}"))))
    }
}

fn read(path: &std::path::Path, facts: &HostFacts) -> Loaded {
    match configuration::load(path, facts, false) {
        Ok((loaded, sources)) => {
            if !loaded.warnings.is_empty() {
                tracing::warn!("{}", render::render(&loaded.warnings, &sources, false));
            }
            let keys = keys::read(&loaded.config).map_err(|complaint| complaint.to_string())?;
            Ok((Box::new(loaded.config), keys))
        }
        Err(complaint) => Err(complaint.to_string()),
    }
}
