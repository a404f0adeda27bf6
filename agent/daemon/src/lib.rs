//! The anyvip binary.
#![forbid(unsafe_code)]
mod control;
mod journal;
mod latency;
mod probes;
mod wording;
/// Runs.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
