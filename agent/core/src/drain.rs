//! Operator state: which services are drained. It survives restarts.

use std::collections::{BTreeMap, BTreeSet};

use anyvip_machine::Time;
use serde::{Deserialize, Serialize};

use crate::boundary::ServiceName;
use crate::state::Drained;

/// Drained services, those too that the configuration does not name at the moment: they stay drained if they return.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct AdminState {
    drained: BTreeMap<ServiceName, Drained>,
    /// Those of them that are still told, as draining, until then. Not on disk: a restart has moved the flows already.
    draining: BTreeMap<ServiceName, Time>,
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ordered {
    /// These changed (none: it was so already).
    Changed(Vec<ServiceName>),
    /// There is no such service.
    Unknown(String),
}

impl AdminState {
    /// As the state on disk says.
    pub(crate) fn new(drained: BTreeMap<ServiceName, Drained>) -> AdminState {
        AdminState { drained, draining: BTreeMap::new() }
    }

    /// For the state on disk.
    pub(crate) fn stored(&self) -> &BTreeMap<ServiceName, Drained> {
        &self.drained
    }

    /// Set while the service is drained.
    pub(crate) fn drained(&self, service: &ServiceName) -> Option<&Drained> {
        self.drained.get(service)
    }

    /// Until when a drained service is still told.
    pub(crate) fn draining(&self, service: &ServiceName) -> Option<Time> {
        self.draining.get(service).copied()
    }

    /// Lets a service that was just drained be told until then.
    pub(crate) fn tell_until(&mut self, service: ServiceName, until: Time) {
        self.draining.insert(service, until);
    }

    /// Its next moment.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.draining.values().min().copied()
    }

    /// Lets time act; true if a drain time is over.
    pub(crate) fn expire(&mut self, now: Time) -> bool {
        let before = self.draining.len();
        self.draining.retain(|_, until| *until > now);
        self.draining.len() != before
    }

    /// Drains one service, or all that are configured.
    pub(crate) fn drain(
        &mut self,
        service: Option<ServiceName>,
        drained: &Drained,
        known: &BTreeSet<ServiceName>,
    ) -> Ordered {
        let meant = match service {
            Some(name) if !known.contains(&name) => return unknown(&name, known),
            Some(name) => BTreeSet::from([name]),
            None => known.clone(),
        };
        let fresh: Vec<ServiceName> =
            meant.into_iter().filter(|name| !self.drained.contains_key(name)).collect();
        self.drained.extend(fresh.iter().map(|name| (name.clone(), drained.clone())));
        Ordered::Changed(fresh)
    }

    /// Puts one service back, or all.
    pub(crate) fn undrain(&mut self, service: Option<ServiceName>, known: &BTreeSet<ServiceName>) -> Ordered {
        let meant: Vec<ServiceName> = match service {
            Some(name) if !known.contains(&name) && !self.drained.contains_key(&name) => {
                return unknown(&name, known);
            }
            Some(name) => vec![name],
            None => self.drained.keys().cloned().collect(),
        };
        let remove = |name: &ServiceName| {
            self.draining.remove(name);
            self.drained.remove(name).is_some()
        };
        Ordered::Changed(meant.into_iter().filter(remove).collect())
    }
}

fn unknown(name: &ServiceName, known: &BTreeSet<ServiceName>) -> Ordered {
    let names: Vec<&str> = known.iter().map(|name| name.0.as_str()).collect();
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    Ordered::Unknown(format!("there is no service \"{name}\"; configured: {names}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> BTreeSet<ServiceName> {
        [ServiceName::from("dns"), ServiceName::from("ntp")].into()
    }

    #[test]
    fn an_unknown_service_is_refused_with_the_known_names() {
        let mut admin = AdminState::default();
        let text = |ordered| match ordered {
            Ordered::Unknown(text) => text,
            other => panic!("{other:?}"),
        };
        let refused = text(admin.drain(Some("dsn".into()), &Drained::default(), &known()));
        assert_eq!(refused, "there is no service \"dsn\"; configured: dns, ntp");
        assert_eq!(text(admin.undrain(Some("dsn".into()), &known())), refused);
        assert_eq!(admin, AdminState::default());
    }

    #[test]
    fn draining_twice_keeps_the_first_reason_and_time() {
        let mut admin = AdminState::default();
        let first = Drained { since: 1, reason: Some("disk".into()) };
        assert_eq!(admin.drain(Some("dns".into()), &first, &known()), Ordered::Changed(vec!["dns".into()]));
        assert_eq!(admin.drain(None, &Drained::default(), &known()), Ordered::Changed(vec!["ntp".into()]));
        assert_eq!(admin.drained(&"dns".into()), Some(&first));
    }

    #[test]
    fn a_service_that_left_the_configuration_can_still_be_put_back() {
        let mut admin = AdminState::new([("old".into(), Drained::default())].into());
        assert_eq!(admin.undrain(Some("old".into()), &known()), Ordered::Changed(vec!["old".into()]));
        assert!(admin.stored().is_empty());
    }
}
