//! Makes a failing plan small: drops strikes while the same invariant still fails.

use super::{Case, Strike};
use crate::checker::Invariant;

/// Delta debugging over strikes. Take the [`offer`](Minimiser::offer)ed plan, run it, say whether it still fails.
#[derive(Clone, Debug)]
pub struct Minimiser {
    case: Case,
    invariant: Invariant,
    /// Pieces that the plan is cut into.
    pieces: usize,
    /// The piece that is left out next.
    at: usize,
    offered: Option<Vec<Strike>>,
    runs: usize,
}

impl Minimiser {
    /// For a case that fails with this invariant.
    pub fn new(case: Case, invariant: Invariant) -> Minimiser {
        Minimiser { case, invariant, pieces: 2, at: 0, offered: None, runs: 0 }
    }

    /// A smaller plan to try; `None` when none of them can be dropped.
    pub fn offer(&mut self) -> Option<Case> {
        let count = self.case.strikes.len();
        if count == 0 {
            return None;
        }
        if self.at >= self.pieces {
            if self.pieces >= count {
                return None;
            }
            (self.pieces, self.at) = ((self.pieces * 2).min(count), 0);
        }
        let (from, to) = (count * self.at / self.pieces, count * (self.at + 1) / self.pieces);
        let kept = self.case.strikes.iter().enumerate();
        let kept: Vec<Strike> =
            kept.filter(|(at, _)| !(from..to).contains(at)).map(|(_, strike)| strike.clone()).collect();
        self.offered = Some(kept.clone());
        self.runs += 1;
        Some(Case { strikes: kept, ..self.case.clone() })
    }

    /// What came of the last offer.
    pub fn came(&mut self, failed: Option<Invariant>) {
        let Some(offered) = self.offered.take() else { return };
        if failed == Some(self.invariant) {
            self.case.strikes = offered;
            self.pieces = (self.pieces - 1).max(2).min(self.case.strikes.len().max(1));
            self.at = self.at.min(self.pieces.saturating_sub(1));
        } else {
            self.at += 1;
        }
    }

    /// The smallest plan so far.
    pub fn case(&self) -> &Case {
        &self.case
    }

    /// Plans that were tried.
    pub fn runs(&self) -> usize {
        self.runs
    }
}

#[cfg(test)]
mod tests {
    use anyvip_machine::Time;

    use super::*;
    use crate::sweep::{Bounds, Kind};

    #[test]
    fn two_strikes_that_fail_only_together_are_all_that_is_left_of_sixty() {
        let mut case = Case::draw(1, &Bounds::default());
        let strike =
            |at| Strike { kind: Kind::Cut, steps: vec![(Time::from_secs(at), crate::world::Planned::Heal)] };
        case.strikes = (0..60).map(strike).collect();
        let fails = |case: &Case| {
            let has = |at| case.strikes.iter().any(|strike| strike.begins() == Time::from_secs(at));
            (has(17) && has(41)).then_some(Invariant::ViewsAgree)
        };
        let mut minimiser = Minimiser::new(case, Invariant::ViewsAgree);
        while let Some(next) = minimiser.offer() {
            let failed = fails(&next);
            minimiser.came(failed);
        }
        let left: Vec<Time> = minimiser.case().strikes.iter().map(Strike::begins).collect();
        assert_eq!(left, [Time::from_secs(17), Time::from_secs(41)]);
        assert!(minimiser.runs() < 80, "{}", minimiser.runs());
    }
}
