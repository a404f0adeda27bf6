use clap::CommandFactory;
use clap::error::ErrorKind;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_command_line_is_consistent_and_lists_exactly_what_exists() {
    Cli::command().debug_assert();
    let names: Vec<String> =
        Cli::command().get_subcommands().map(|command| command.get_name().to_owned()).collect();
    let expected = [
        "run", "validate", "status", "explain", "drain", "undrain", "reload", "upgrade", "events", "prepare",
        "cleanup", "schema",
    ];
    assert_eq!(names, expected);
}

#[test]
fn lines_of_the_manual_are_understood() {
    for line in [
        "anyvip run",
        "anyvip run -c /etc/x.toml --socket /run/y --state-dir /var/z --log-format json --log-level debug",
        "anyvip --socket /run/y status --json --check",
        "anyvip validate -c x.toml --show",
        "anyvip explain dns --json",
        "anyvip drain dns",
        "anyvip drain --all --wait --timeout 5m --or-abort --reason update",
        "anyvip undrain --all",
        "anyvip reload",
        "anyvip upgrade --binary ./anyvip --force --timeout 5m",
        "anyvip upgrade --plan --json",
        "anyvip events --follow --json",
        "anyvip prepare -c x",
        "anyvip cleanup",
        "anyvip schema",
    ] {
        assert!(parse(line).is_ok(), "{line}");
    }
}

#[test]
fn usage_errors_end_with_2_and_help_with_0() {
    for line in [
        "anyvip",
        "anyvip plan",
        "anyvip confirm",
        "anyvip reload --confirm 60s",
        "anyvip upgrade --json",
        "anyvip upgrade --plan --force",
        "anyvip drain",
        "anyvip drain dns --all",
        "anyvip drain dns --or-abort",
        "anyvip drain dns --wait --timeout soon",
        "anyvip explain",
        "anyvip run --log-format xml",
    ] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
    }
    assert_eq!(parse("anyvip --help").unwrap_err().exit_code(), 0);
    assert_eq!(parse("anyvip --version").unwrap_err().kind(), ErrorKind::DisplayVersion);
}

#[test]
fn the_defaults_are_those_of_the_manual() {
    let cli = parse("anyvip run").unwrap();
    assert_eq!(cli.global.socket.to_str(), Some("/run/anyvip/anyvip.sock"));
    assert_eq!(cli.global.state_dir.to_str(), Some("/var/lib/anyvip"));
    match cli.command {
        Command::Run(run) => assert_eq!(run.config.config.to_str(), Some("/etc/anyvip/config.toml")),
        other => panic!("{other:?}"),
    }
}
