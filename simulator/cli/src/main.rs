//! The anyvip-sim binary.
fn main() -> std::process::ExitCode {
    anyvip_sim::main()
}
