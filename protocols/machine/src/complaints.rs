use std::mem::discriminant;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Time;

/// What was told lately of messages that broke a rule, so that a flood of bad ones is not a flood of words. `R` has a variant for each
/// rule; the same rule with other numbers is the same complaint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Complaints<R>(Vec<(R, Time)>);

impl<R> Complaints<R> {
    /// How long the same is not told again.
    const PAUSE: Duration = Duration::from_secs(60);

    /// Whether to tell. There are no more entries than rules.
    pub fn is_news(&mut self, now: Time, rule: R) -> bool {
        match self.0.iter_mut().find(|(known, _)| discriminant(known) == discriminant(&rule)) {
            Some((_, told)) if now.since(*told) < Self::PAUSE => false,
            Some((_, told)) => {
                *told = now;
                true
            }
            None => {
                self.0.push((rule, now));
                true
            }
        }
    }
}

impl<R> Default for Complaints<R> {
    fn default() -> Self {
        Complaints(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_rule_is_told_once_a_minute_whatever_its_numbers() {
        let mut complaints = Complaints::default();
        let (length, version) = (Some, None);
        assert!(complaints.is_news(Time::ZERO, length(1)));
        assert!(!complaints.is_news(Time::from_secs(59), length(2)));
        assert!(complaints.is_news(Time::from_secs(59), version));
        assert!(complaints.is_news(Time::from_secs(60), length(3)));
    }
}
