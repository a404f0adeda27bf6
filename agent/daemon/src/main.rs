//! The anyvip binary.
fn main() -> std::process::ExitCode {
    anyvip::main()
}
