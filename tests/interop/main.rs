//! anyvip hosts against foreign speakers, in namespaces: what counts is the routing table of the router.
//!
//! `features` is the matrix: each feature once, with its story; `stories`, `policy`, `protection`, `sessions` and `bfd` tell the stories with any
//! [`router::Router`]; one file for each daemon says how it is made to behave, and what it lacks. A test is named
//! `daemon::story`. They wait more than they work, so several run at once on each core; for that, and for the page that is
//! written from their results, this target has a harness of its own, which takes the usual arguments.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::ExitCode;

use anyvip_tests::{Bird, Exabgp, Frr, Gobgp, Openbgpd, met_by};
use libtest_mimic::{Arguments, Trial};

use crate::features::Feature;
use crate::page::Column;
use crate::router::Router;

mod bfd;
mod bird;
mod exabgp;
mod features;
mod frr;
mod gobgp;
mod heard;
mod local;
mod openbgpd;
mod page;
mod policy;
mod protection;
mod router;
mod sessions;
mod stories;
mod unnumbered;
mod upgrade;

/// Tests at once.
const AT_ONCE: usize = 8;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    let columns =
        [column::<Bird>(), column::<Frr>(), column::<Gobgp>(), column::<Openbgpd>(), column::<Exabgp>()];
    let mut tests: Vec<Trial> = [
        trials::<Bird>("bird"),
        trials::<Frr>("frr"),
        trials::<Gobgp>("gobgp"),
        trials::<Openbgpd>("openbgpd"),
        trials::<Exabgp>("exabgp"),
    ]
    .into_iter()
    .flatten()
    .collect();
    tests.extend(on_the_host());
    let refresh = std::env::var_os("ANYVIP_REFRESH").is_some();
    if !refresh {
        let columns = columns.clone();
        tests.push(Trial::test("the_page_says_what_the_tests_declare", move || {
            page::says_what_the_tests_declare(&columns);
            Ok(())
        }));
    }
    let conclusion = libtest_mimic::run(&arguments, tests);
    if refresh
        && !arguments.list
        && let Err(text) = page::write(&columns)
    {
        eprintln!("{text}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

/// Not of the matrix: the daemon is not the router.
fn on_the_host() -> Vec<Trial> {
    let stories: [(&str, fn()); 2] = [
        ("bird::on_the_host_tells_on_what_it_is_told", local::bird_on_the_host_tells_on_what_it_is_told),
        ("frr::on_the_host_tells_on_what_it_is_told", local::frr_on_the_host_tells_on_what_it_is_told),
    ];
    let trial = |(name, story): (&'static str, fn())| {
        Trial::test(name, move || {
            if met_by(name, Bird::NEEDS) && met_by(name, Frr::NEEDS) {
                story();
            }
            Ok(())
        })
    };
    stories.into_iter().map(trial).collect()
}

fn column<R: Router>() -> Column {
    let lacked = |feature: &Feature| Some((*feature, R::lacks(*feature)?));
    Column { name: R::NAME, version: R::version(), lacks: Feature::ALL.iter().filter_map(lacked).collect() }
}

fn trials<R: Router>(daemon: &str) -> Vec<Trial> {
    let has = Feature::ALL.iter().copied().filter(|feature| R::lacks(*feature).is_none());
    has.map(|feature| {
        let name = format!("{daemon}::{}", feature.story_name());
        Trial::test(name.clone(), move || {
            if met_by(&name, R::NEEDS) {
                feature.story::<R>()();
                page::passed(R::NAME, feature);
            }
            Ok(())
        })
    })
    .collect()
}
