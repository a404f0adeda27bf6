//! The agent, built beside the tests so that it is always fresh.
fn main() -> std::process::ExitCode {
    anyvip::main()
}
