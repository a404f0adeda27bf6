//! The agent, built beside the tests so that it is always fresh.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    anyvip::main()
}
