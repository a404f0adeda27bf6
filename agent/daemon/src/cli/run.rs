//! `anyvip run`

use std::path::PathBuf;

use clap::Args;

use super::{ConfigFile, Ended, Global};
use crate::complaint::Complaint;
use crate::recorder::{self, Recorder};
use crate::start::{Prepared, prepare};

/// What `run` understands.
#[derive(Clone, Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) config: ConfigFile,
    /// Record everything that happens to the agent into two files of 32 MB in this folder, for `anyvip-sim replay`
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// Bytes of one of the two files; for tests.
    #[arg(long, value_name = "BYTES", hide = true, default_value_t = recorder::SEGMENT, requires = "record")]
    record_segment: usize,
}

/// Runs the agent until it is told to stop.
pub(super) fn run(global: &Global, arguments: &Arguments) -> Ended {
    let runtime = super::runtime()?;
    let (code, alone) = runtime.block_on(async {
        let Prepared { mut driver, alone } = prepare(&global.paths(&arguments.config), |_| {}, true).await?;
        if let Some(folder) = &arguments.record {
            let recorder = Recorder::begin(folder, arguments.record_segment, driver.agent());
            recorder.outlive_panics();
            driver.record_with(recorder);
        }
        Ok::<_, Complaint>((driver.run().await, alone))
    })?;
    // The socket's file goes with the runtime, and only then may another agent begin.
    runtime.shutdown_background();
    drop(alone);
    Ok(code)
}
