//! The anyvip-sim binary.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    anyvip_sim::main()
}
