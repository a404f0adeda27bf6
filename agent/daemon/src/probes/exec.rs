//! placeholder until the child runner is there

use anyvip_core::config::ExecCheck;

use super::{Ending, Request};

/// Who asks, for the environment of a child.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) service: String,
    pub(crate) check: String,
}

pub(super) async fn run(_check: &ExecCheck, _request: &Request) -> Ending {
    Ending::error("not built")
}
