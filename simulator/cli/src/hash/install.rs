//! What `--install` names: the ways of Linux, and models of others.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyvip_ecmp::design::{Maglev, Modulo, Rendezvous, Routes, Slots, Spray};
use anyvip_ecmp::{Design, Member, Resilient, Timers};
use anyvip_machine::Time;

use super::Error;

/// A way to put next hops into a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Install {
    /// A multipath route.
    Plain,
    /// A hash-threshold next-hop group.
    Group,
    /// A resilient group of so many buckets.
    Resilient {
        buckets: u16,
        /// Flows go on all the time, so that no bucket is ever idle.
        busy: bool,
    },
    /// A multipath route of so many equal next hops, each server named many times.
    Slots(u16),
    /// Maglev's table of at least so many places.
    Maglev(u32),
    Rendezvous,
    Modulo,
    Spray,
}

/// What a comparison shows unless told otherwise.
pub(crate) const ALL: [Install; 9] = [
    Install::Plain,
    Install::Group,
    Install::Resilient { buckets: 128, busy: false },
    Install::Resilient { buckets: 128, busy: true },
    Install::Slots(256),
    Install::Maglev(65_537),
    Install::Rendezvous,
    Install::Modulo,
    Install::Spray,
];

impl Install {
    /// Whether the kernel can be asked to do it.
    pub(crate) const fn is_kernels(self) -> bool {
        matches!(self, Install::Plain | Install::Group | Install::Resilient { .. } | Install::Slots(_))
    }

    /// How long a bucket must be idle: not at all, or so long that none ever is.
    pub(crate) const fn idle(busy: bool) -> Duration {
        Duration::from_secs(if busy { 3600 } else { 0 })
    }

    /// How many slots, where that is a question.
    pub(crate) const fn slots(self) -> u16 {
        match self {
            Install::Slots(slots) => slots,
            _ => 1,
        }
    }

    /// The twin or the model.
    pub(crate) fn design(self, members: &[Member]) -> Result<Box<dyn Design>, Error> {
        Ok(match self {
            Install::Plain | Install::Group => Box::new(Routes::new(members)),
            Install::Resilient { buckets, busy } => Box::new(Install::resilient(buckets, busy, members)?),
            Install::Slots(slots) => Box::new(Slots::new(slots, members)),
            Install::Maglev(places) => Box::new(Maglev::new(places, members)),
            Install::Rendezvous => Box::new(Rendezvous::new(members)),
            Install::Modulo => Box::new(Modulo::new(members)),
            Install::Spray => Box::new(Spray::new(members)),
        })
    }

    /// The twin of a resilient group.
    pub(crate) fn resilient(buckets: u16, busy: bool, members: &[Member]) -> Result<Resilient, Error> {
        let timers = Timers { idle: Install::idle(busy), ..Timers::default() };
        Resilient::new(Time::ZERO, buckets, members, timers).map_err(|error| Error::Usage(error.to_string()))
    }
}

impl FromStr for Install {
    type Err = String;

    fn from_str(text: &str) -> Result<Install, String> {
        let mut words = text.split(':');
        let name = words.next().unwrap_or_default();
        let (size, state) = (words.next(), words.next());
        let number = |default: u32, least: u32, most: u32| match size.map(str::parse::<u32>) {
            None => Ok(default),
            Some(Ok(size)) if (least..=most).contains(&size) => Ok(size),
            Some(_) => Err(format!("`{text}`: a number from {least} to {most} is wanted after `{name}:`")),
        };
        let install = match name {
            "plain" => Install::Plain,
            "group" => Install::Group,
            "resilient" => {
                let busy = match state {
                    None => false,
                    Some("busy") => true,
                    Some(_) => return Err(format!("`{text}`: only `busy` may follow the number of buckets")),
                };
                let buckets = u16::try_from(number(128, 1, 65_535)?).unwrap_or(u16::MAX);
                return Ok(Install::Resilient { buckets, busy });
            }
            "slots" => Install::Slots(u16::try_from(number(256, 1, 4096)?).unwrap_or(u16::MAX)),
            "maglev" => Install::Maglev(number(65_537, 3, 10_000_000)?),
            "rendezvous" => Install::Rendezvous,
            "modulo" => Install::Modulo,
            "spray" => Install::Spray,
            _ => {
                return Err(format!(
                    "`{text}`: there are plain, group, resilient:BUCKETS[:busy], slots:N (of Linux), and the models \
                     maglev:PLACES, rendezvous, modulo, spray"
                ));
            }
        };
        let sized = matches!(install, Install::Slots(_) | Install::Maglev(_));
        if state.is_some() || words.next().is_some() || (size.is_some() && !sized) {
            return Err(format!("`{text}`: nothing more may follow here"));
        }
        Ok(install)
    }
}

impl fmt::Display for Install {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Install::Plain => write!(f, "plain"),
            Install::Group => write!(f, "group"),
            Install::Resilient { buckets, busy } => {
                write!(f, "resilient:{buckets}{}", if *busy { ":busy" } else { "" })
            }
            Install::Slots(slots) => write!(f, "slots:{slots}"),
            Install::Maglev(places) => write!(f, "maglev:{places}"),
            Install::Rendezvous => write!(f, "rendezvous"),
            Install::Modulo => write!(f, "modulo"),
            Install::Spray => write!(f, "spray"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_install_reads_back_as_it_is_written() {
        for install in ALL {
            assert_eq!(install.to_string().parse(), Ok(install));
            assert!(install.design(&Member::equal(3)).is_ok());
        }
        assert_eq!("resilient".parse(), Ok(Install::Resilient { buckets: 128, busy: false }));
    }

    #[test]
    fn a_word_that_is_no_install_is_told_what_there_is() {
        for bad in [
            "",
            "fancy",
            "resilient:0",
            "resilient:70000",
            "resilient:128:idle",
            "plain:3",
            "slots:8:9",
            "group:",
        ] {
            let error = bad.parse::<Install>().unwrap_err();
            assert!(error.starts_with(&format!("`{bad}`")), "{error}");
        }
    }
}
