//! Checks: as written → as meant.

use std::time::Duration;

use super::diagnostic::{Place, error};
use super::keys::{WrittenCheck, WrittenExec, WrittenHttp, WrittenTcp, WrittenTls};
use super::read::Leaf;
use super::resolve::Resolver;
use super::web::is_field_value;
use super::{Check, CheckKind, ExecCheck, HttpCheck, HttpMethod, TcpCheck, Tls};
use crate::boundary::CheckName;

const INTERVAL: Duration = Duration::from_secs(1);
const LONGEST_DEFAULT_TIMEOUT: Duration = Duration::from_millis(500);

impl Resolver<'_> {
    /// The check, unless something is wrong with it (and then reported).
    pub(super) fn check(
        &mut self,
        name: CheckName,
        path: &str,
        written: &WrittenCheck,
        place: &Place,
    ) -> Option<Check> {
        let before = self.errors();
        let kinds: Vec<&Place> = [
            written.http.given().map(|at| &at.place),
            written.tcp.given().map(|at| &at.place),
            written.exec.given().map(|at| &at.place),
        ]
        .into_iter()
        .flatten()
        .collect();
        if let [first, second, ..] = kinds.as_slice() {
            self.push(
                error(self.sources, second, path, "a check has one of http, tcp and exec")
                    .related(self.sources, first, "another one")
                    .help("write a second check"),
            );
        }
        let (kind, own) = if let Some(http) = written.http.given() {
            let kind = self.http(&http.value, &format!("{path}.http"));
            let own = !http.value.url.is_absent();
            (kind.map(CheckKind::Http), own)
        } else if let Some(tcp) = written.tcp.given() {
            let kind = self.tcp(&tcp.value, &format!("{path}.tcp"), &tcp.place);
            (kind.map(CheckKind::Tcp), !tcp.value.address.is_absent())
        } else if let Some(exec) = written.exec.given() {
            let kind = self.exec(&exec.value, &format!("{path}.exec"), &exec.place);
            (kind.map(CheckKind::Exec), false)
        } else {
            if written.http.is_absent() && written.tcp.is_absent() && written.exec.is_absent() {
                self.push(
                    error(self.sources, place, path, "nothing to check")
                        .help(
                            "write http = { port = … }, tcp = { port = … } or exec = { command = [\"/…\"] }",
                        )
                        .absent(),
                );
            }
            (None, false)
        };
        let on_vip = self.target(written, path, own);
        let (interval, timeout) = self.times(written, path);
        let rise = written.rise.value().map_or(2, |rise| rise.u32());
        let fall = written.fall.value().map_or(2, |fall| fall.u32());
        let kind = kind.filter(|_| self.errors() == before)?;
        Some(Check { name, kind, on_vip, interval, timeout, rise, fall })
    }

    fn target(&mut self, written: &WrittenCheck, path: &str, own: bool) -> bool {
        let is_exec = written.exec.given().is_some();
        let Some(target) = written.target.given() else { return !own && !is_exec };
        let key = format!("{path}.target");
        match (target.value.0, own) {
            (true, true) => self.push(
                error(
                    self.sources,
                    &target.place,
                    key,
                    "a check with an address of its own cannot be made per VIP",
                )
                .help("remove target, or the address"),
            ),
            (false, false) if !is_exec => self.push(
                error(self.sources, &target.place, key, "this check has no address of its own")
                    .help("write url (http) or address (tcp), or remove target"),
            ),
            _ => {}
        }
        target.value.0
    }

    fn times(&mut self, written: &WrittenCheck, path: &str) -> (Duration, Duration) {
        let interval = written.interval.value().map_or(INTERVAL, |interval| interval.0);
        let half = u64::try_from(interval.as_millis() / 2).unwrap_or(u64::MAX);
        let Some(timeout) = written.timeout.given() else {
            return (interval, Duration::from_millis(half).min(LONGEST_DEFAULT_TIMEOUT));
        };
        let readable = written.interval.is_absent() || written.interval.given().is_some();
        if readable && timeout.value.0 > interval {
            let (timeout_text, interval_text) =
                (super::values::format_duration(timeout.value.0), super::values::format_duration(interval));
            let message = format!("{timeout_text} is longer than the interval of {interval_text}");
            let mut problem = error(self.sources, &timeout.place, format!("{path}.timeout"), message)
                .help("write a shorter timeout or a longer interval");
            if let Some(interval) = written.interval.given() {
                problem = problem.related(self.sources, &interval.place, "interval");
            }
            self.push(problem);
        }
        (interval, timeout.value.0)
    }

    fn http(&mut self, written: &WrittenHttp, path: &str) -> Option<HttpCheck> {
        let url = written.url.given();
        for (name, other) in [
            ("port", written.port.given().map(|at| &at.place)),
            ("path", written.path.given().map(|at| &at.place)),
        ] {
            if let (Some(url), Some(other)) = (url, other) {
                self.push(
                    error(
                        self.sources,
                        other,
                        format!("{path}.{name}"),
                        format!("url says the {name} already"),
                    )
                    .related(self.sources, &url.place, "url")
                    .help("remove one of the two"),
                );
            }
        }
        let tls = written.tls.given();
        match (url, tls) {
            (Some(url), None) if url.value.secure && written.tls.is_absent() => self.push(
                error(self.sources, &url.place, format!("{path}.url"), "an https URL needs tls")
                    .help("write tls = { ca_file = \"/…/ca.pem\" } or tls = { insecure = true }; no certificate authority is built in"),
            ),
            (Some(url), Some(tls)) if !url.value.secure => self.push(
                error(self.sources, &tls.place, format!("{path}.tls"), "the URL is not https")
                    .related(self.sources, &url.place, "url")
                    .help("write https:// or remove tls"),
            ),
            _ => {}
        }
        let meant_tls = tls.map(|tls| self.tls(&tls.value, path, &tls.place));
        if let Some(host) =
            written.host.given().filter(|host| host.value.is_empty() || !is_field_value(&host.value))
        {
            self.push(
                error(self.sources, &host.place, format!("{path}.host"), "not a usable Host header")
                    .help("write a name, with a port if needed: \"www.example.net\""),
            );
        }
        if let Some(text) = written.expect_body.given() {
            if text.value.is_empty() {
                self.push(
                    error(
                        self.sources,
                        &text.place,
                        format!("{path}.expect_body"),
                        "the empty text is in every body",
                    )
                    .help("write some text or remove this key"),
                );
            }
            if written.method.value().is_some_and(|method| method.0 == HttpMethod::Head) {
                self.push(
                    error(
                        self.sources,
                        &text.place,
                        format!("{path}.expect_body"),
                        "the answer to HEAD has no body",
                    )
                    .help("write method = \"GET\" or remove this key"),
                );
            }
        }
        let expect_status: Vec<(u16, u16)> = match written.expect_status.given() {
            None => vec![(200, 299)],
            Some(at) => {
                if at.value.0.is_empty() {
                    self.push(
                        error(
                            self.sources,
                            &at.place,
                            format!("{path}.expect_status"),
                            "no status would pass",
                        )
                        .help("write at least one"),
                    );
                }
                at.value.0.iter().map(|range| range.value.0).collect()
            }
        };
        let secure = tls.is_some();
        let default_port = if secure { 443 } else { 80 };
        Some(HttpCheck {
            address: url.map(|url| url.value.address),
            port: url
                .map(|url| url.value.port)
                .or(written.port.value().map(|port| port.u16()))
                .unwrap_or(default_port),
            method: written.method.value().map_or(HttpMethod::Get, |method| method.0),
            path: url
                .map(|url| url.value.path.clone())
                .or(written.path.value().map(|path| path.0.clone()))
                .unwrap_or_else(|| "/".to_owned()),
            host: written.host.value().cloned(),
            headers: written.headers.value().map(|headers| headers.meant()).unwrap_or_default(),
            expect_status,
            expect_body: written.expect_body.value().cloned(),
            tls: meant_tls,
        })
    }

    fn tls(&mut self, written: &WrittenTls, path: &str, place: &Place) -> Tls {
        let (ca_file, insecure) = (&written.ca_file, written.insecure.value() == Some(&true));
        if ca_file.is_absent() && !insecure && !matches!(written.insecure, Leaf::Bad) {
            self.push(
                    error(self.sources, place, format!("{path}.tls"), "nothing says which certificates to trust")
                        .help("write ca_file = \"/…/ca.pem\" (no certificate authority is built in), or insecure = true")
                        .absent(),
                );
        }
        if let (Some(ca_file), true) = (ca_file.given(), insecure) {
            self.push(
                error(
                    self.sources,
                    &ca_file.place,
                    format!("{path}.tls.ca_file"),
                    "has no effect with insecure = true",
                )
                .help("remove one of the two"),
            );
        }
        let server_name = written.server_name.value().cloned();
        Tls { server_name, ca_file: ca_file.value().map(|file| file.0.clone()), insecure }
    }

    fn tcp(&mut self, written: &WrittenTcp, path: &str, place: &Place) -> Option<TcpCheck> {
        if written.port.is_absent() {
            self.push(
                error(self.sources, place, format!("{path}.port"), "missing").help("write port = …").absent(),
            );
        }
        for (name, text) in [("send", &written.send), ("expect", &written.expect)] {
            if let Some(text) = text.given().filter(|text| text.value.is_empty()) {
                self.push(
                    error(self.sources, &text.place, format!("{path}.{name}"), "empty")
                        .help("write some text or remove this key"),
                );
            }
        }
        Some(TcpCheck {
            address: written.address.value().map(|address| address.0),
            port: written.port.value()?.u16(),
            send: written.send.value().map(|text| text.as_str().into()),
            expect: written.expect.value().cloned(),
        })
    }

    fn exec(&mut self, written: &WrittenExec, path: &str, place: &Place) -> Option<ExecCheck> {
        let key = format!("{path}.command");
        let remedy = "write command = [\"/path/to/program\", \"argument\"]";
        let Some(command) = written.command.given() else {
            if written.command.is_absent() {
                self.push(error(self.sources, place, key, "missing").help(remedy).absent());
            }
            return None;
        };
        match command.value.first() {
            None => self.push(error(self.sources, &command.place, &key, "empty").help(remedy)),
            Some(program) if !program.value.starts_with('/') => self.push(
                error(
                    self.sources,
                    &program.place,
                    format!("{key}[0]"),
                    format!("{:?} is no absolute path", program.value),
                )
                .help("write the whole path of the program; there is no shell and no PATH"),
            ),
            Some(_) => {}
        }
        for (index, argument) in command.value.iter().enumerate() {
            if argument.value.contains('\0') {
                self.push(
                    error(self.sources, &argument.place, format!("{key}[{index}]"), "has a NUL character")
                        .help("remove it: no program can be given one"),
                );
            }
        }
        Some(ExecCheck { command: command.value.iter().map(|argument| argument.value.clone()).collect() })
    }
}
