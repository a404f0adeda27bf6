//! `anyvip schema`

use super::{DONE, Ended, terminal};

pub(super) fn run() -> Ended {
    terminal::say(&anyvip_core::config::schema());
    DONE
}
