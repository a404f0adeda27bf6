//! The anyvip binary.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    anyvip::main()
}
