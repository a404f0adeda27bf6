//! What routers are told that track this host by probe (IP SLA and the like) instead of a routing protocol.

use serde::{Deserialize, Serialize};

use crate::agent::Agent;
use crate::boundary::{Action, Answer, Answers, Reason, ServiceName};

/// What was told last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Responder {
    told: Answers,
}

impl Agent {
    /// Why this service is not offered to whoever knows up and down only: the first closed gate of any of its VIPs.
    pub(crate) fn not_offered(&self, service: &ServiceName) -> Option<Reason> {
        let Some(config) = self.config.services.get(service) else { return Some(Reason::NotYetChecked) };
        let record = self.services.0.get(service);
        let reasons = config.vips.iter().map(|vip| match record.and_then(|record| record.vips.get(vip)) {
            Some(vip) => vip.gates.closed_for_static(),
            None => Some(Reason::NotYetChecked),
        });
        reasons.flatten().min()
    }

    /// Says it again where it changed.
    pub(crate) fn answer_probes(&mut self, out: &mut Vec<Action>) {
        let asked = &self.config.responder;
        let services = self.config.services.keys().filter(|_| !asked.is_none());
        let answers = Answers {
            listen: asked.listen,
            services: services
                .map(|name| {
                    let port = asked.ports.get(name).copied();
                    (name.clone(), Answer { port, reason: self.not_offered(name) })
                })
                .collect(),
        };
        if self.responder.told != answers {
            self.responder.told = answers.clone();
            out.push(Action::Respond(answers));
        }
    }

    /// What is said of this service, if anybody may ask.
    pub(crate) fn answer_of(&self, service: &ServiceName) -> Option<&Answer> {
        self.responder.told.services.get(service)
    }
}
