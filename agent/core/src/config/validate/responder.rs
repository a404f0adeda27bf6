//! `[responder]` and the key `responder` of services.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::{Validator, tables};
use crate::config::diagnostic::Place;
use crate::config::document::join;

impl<'a> Validator<'a> {
    /// Every port that routers may ask on, with its key.
    pub(super) fn answered_ports(&self) -> Vec<(String, SocketAddr, &'a Place)> {
        let file = self.file;
        let all = file.responder.value().and_then(|section| section.listen.given());
        let of_services = tables(&file.service).filter_map(|(name, service)| {
            let port = service.value.responder.given()?;
            Some((format!("{}.responder", join("service", name)), port.value.0, &port.place))
        });
        all.map(|port| ("responder.listen".to_owned(), port.value.0, &port.place))
            .into_iter()
            .chain(of_services)
            .collect()
    }

    /// One port, one answer.
    pub(super) fn responder(&mut self) {
        let file = self.file;
        if let Some(section) = file.responder.given()
            && section.value.listen.is_absent()
        {
            let help = "write listen = \"0.0.0.0:8080\", or remove the table";
            self.push(self.error(&section.place, "responder.listen", "missing").help(help).absent());
        }
        let mut taken: BTreeMap<SocketAddr, &Place> = BTreeMap::new();
        if let Some(listen) = file.bgp.value().and_then(|bgp| bgp.listen.given())
            && let Some(address) = listen.value.0
        {
            taken.insert(address, &listen.place);
        }
        for (key, address, place) in self.answered_ports() {
            if let Some(first) = taken.insert(address, place) {
                let message = format!("{address} is listened on already");
                self.push(
                    self.error(place, key, message)
                        .related(self.sources, first, "first")
                        .help("write another port: one port gives one answer"),
                );
            }
        }
    }
}
