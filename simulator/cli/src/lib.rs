//! x
#![forbid(unsafe_code)]
mod clock;
mod control;
mod service;
mod traffic;
/// main
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
