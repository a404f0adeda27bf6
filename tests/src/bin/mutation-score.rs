//! Puts each bug of `tests/mutants.txt` by itself into a copy of the project and runs the tests of its crate, then the
//! virtual lab: how many of the bugs do they find? Run by `scripts/mutation-score.sh`.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyvip_tests::mutants::{self, Mutant};

/// A test that a bug sends into a circle counts as failed.
const LONGEST: Duration = Duration::from_secs(600);
/// What must be found, in percent.
const WANTED: usize = 95;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// By the tests of these packages.
    Caught(&'static str),
    Survived,
    /// It is no bug but an error of the compiler.
    DoesNotCompile,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [copy, wanted @ ..] = &arguments[..] else {
        eprintln!("usage: mutation-score COPY [WORD IN A NAME...]");
        return ExitCode::from(2);
    };
    let copy = PathBuf::from(copy);
    let list = match mutants::of(&copy) {
        Ok(list) => list,
        Err(text) => {
            eprintln!("mutation-score: {text}");
            return ExitCode::FAILURE;
        }
    };
    let list: Vec<Mutant> = list
        .into_iter()
        .filter(|mutant| wanted.is_empty() || wanted.iter().any(|word| mutant.name.contains(word)))
        .collect();
    if judge(&copy, &["anyvip-bgp", "anyvip-core"]) != Verdict::Survived {
        eprintln!("mutation-score: the tests fail without any bug; nothing can be said");
        return ExitCode::FAILURE;
    }
    let (mut caught, mut survivors, mut broken) = (0, Vec::new(), Vec::new());
    for (at, mutant) in list.iter().enumerate() {
        let began = Instant::now();
        let verdict = try_one(&copy, mutant);
        let words = match verdict {
            Verdict::Caught(by) => format!("found by {by}"),
            Verdict::Survived => "NOT FOUND".to_owned(),
            Verdict::DoesNotCompile => "does not compile".to_owned(),
        };
        println!(
            "{:>3}/{}  {:<62} {words} ({} s)",
            at + 1,
            list.len(),
            mutant.name,
            began.elapsed().as_secs()
        );
        match verdict {
            Verdict::Caught(_) => caught += 1,
            Verdict::Survived => survivors.push(&mutant.name),
            Verdict::DoesNotCompile => broken.push(&mutant.name),
        }
    }
    let percent = caught * 100 / list.len().max(1);
    println!("{caught} of {} bugs found, {percent} % (at least {WANTED} %)", list.len());
    match percent >= WANTED && broken.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn try_one(copy: &Path, mutant: &Mutant) -> Verdict {
    let path = copy.join(&mutant.file);
    let source = fs::read_to_string(&path).expect("read a source");
    fs::write(&path, mutant.put_into(&source).expect("the test `tidy` holds the list"))
        .expect("write a source");
    let packages: &[&str] = match mutant.file.starts_with("protocols/") {
        true => &["anyvip-bgp", "anyvip-core"],
        false => &["anyvip-core"],
    };
    let verdict = judge(copy, packages);
    fs::write(&path, source).expect("put a source back");
    verdict
}

/// Runs the tests of each package in turn, then the virtual lab.
fn judge(copy: &Path, packages: &[&'static str]) -> Verdict {
    let of_packages = packages.iter().map(|package| (*package, vec!["-p", *package]));
    let lab = ("the virtual lab", vec!["-p", "anyvip-tests", "--test", "virtual"]);
    for (by, arguments) in of_packages.chain([lab]) {
        if !cargo(copy, &[&arguments[..], &["--no-run"]].concat()) {
            return Verdict::DoesNotCompile;
        }
        if !cargo(copy, &arguments) {
            return Verdict::Caught(by);
        }
    }
    Verdict::Survived
}

/// True if it passed in time.
fn cargo(copy: &Path, arguments: &[&str]) -> bool {
    let mut child = Command::new("cargo")
        .args(["test", "--quiet", "--locked"])
        .args(arguments)
        .current_dir(copy)
        .env("CARGO_TARGET_DIR", copy.join("target"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("run cargo");
    let compiles = arguments.contains(&"--no-run");
    let until = Instant::now() + if compiles { LONGEST * 10 } else { LONGEST };
    loop {
        if let Some(status) = child.try_wait().expect("wait for cargo") {
            return status.success();
        }
        if Instant::now() > until {
            // Its tests would go on without it: each is a child of cargo, in the same group of processes as this program.
            let _ = Command::new("pkill").args(["-KILL", "-P", &child.id().to_string()]).status();
            let _ = child.kill();
            let _ = child.wait();
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
