//! `anyvip run`

use super::Ended;
use crate::complaint::Complaint;
use crate::start::{Paths, Prepared, prepare};

/// Runs the agent until it is told to stop.
pub(super) fn run(paths: &Paths) -> Ended {
    let runtime = super::runtime()?;
    let (code, alone) = runtime.block_on(async {
        let Prepared { driver, alone } = prepare(paths, |_| {}, true).await?;
        Ok::<_, Complaint>((driver.run().await, alone))
    })?;
    // The socket's file goes with the runtime, and only then may another agent begin.
    runtime.shutdown_background();
    drop(alone);
    Ok(code)
}
