//! The configuration in effect, as a file: every key written out, defaults included.

use std::net::{IpAddr, SocketAddr};

use anyvip_bfd::AuthenticationKind;
use anyvip_bgp::PeerConfig;
use toml::{Table, Value};

use super::values::format_duration;
use super::{
    Announce, Attributes, Bfd, BfdAuthentication, Bgp, Check, CheckKind, Communities, Config, Host,
    HttpCheck, HttpMethod, Layers, OnError, OnFailure, ReturnPath, Secret, Service, StaticPeer, TcpCheck,
};

/// The effective file: TOML that loads to this same configuration on any host.
#[must_use]
pub fn show(config: &Config) -> String {
    // A table of strings, integers and booleans can always be written.
    toml::to_string(&tree(config, exposed)).unwrap_or_default()
}

/// How a secret is written.
type Words = fn(&Secret) -> String;

/// For whoever may read the file itself.
fn exposed(secret: &Secret) -> String {
    secret.expose().map_or_else(|| secret.digest().to_string(), str::to_owned)
}

/// The same as a tree, with digests for secrets; what is compared at a reload.
pub(super) fn digested(config: &Config) -> Table {
    tree(config, |secret| secret.digest().to_string())
}

fn tree(config: &Config, words: Words) -> Table {
    let mut file = Table::new();
    set(&mut file, "config_version", 1);
    if !config.router_id.is_unspecified() {
        set(&mut file, "router_id", config.router_id.to_string());
    }
    set(&mut file, "host", host(&config.host));
    if !config.bgp.is_none() {
        set(&mut file, "bgp", bgp(&config.bgp));
    }
    if !config.statics.is_empty() {
        let peers = config.statics.iter();
        let peers: Table =
            peers.map(|(name, written)| (name.0.clone(), Value::Table(static_peer(written)))).collect();
        set(&mut file, "static", Table::from_iter([("peer".to_owned(), Value::Table(peers))]));
    }
    if let Some(listen) = config.responder.listen {
        let listen = Value::from(listen.to_string());
        set(&mut file, "responder", Table::from_iter([("listen".to_owned(), listen)]));
    }
    let mut shared = Table::new();
    let mut services = Table::new();
    for (name, written) in &config.services {
        let mut table = service(written, words);
        set_some(&mut table, "responder", config.responder.ports.get(name).map(ToString::to_string));
        services.insert(name.0.clone(), Value::Table(table));
        for check in written.checks.iter().filter(|check| is_shared(check)) {
            shared.insert(check.name.0.clone(), Value::Table(check_table(check, words)));
        }
    }
    set(&mut file, "check", shared);
    set(&mut file, "service", services);
    file
}

fn set(table: &mut Table, key: &str, value: impl Into<Value>) {
    table.insert(key.to_owned(), value.into());
}

fn set_some(table: &mut Table, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        set(table, key, value);
    }
}

fn strings<T: ToString>(items: impl IntoIterator<Item = T>) -> Vec<String> {
    items.into_iter().map(|item| item.to_string()).collect()
}

fn host(host: &Host) -> Table {
    let mut table = Table::new();
    set(&mut table, "vip_interface", host.vip_interface.clone());
    set_some(&mut table, "uplinks", host.uplinks.as_ref().map(strings));
    let return_path = match host.return_path {
        ReturnPath::Require => "require",
        ReturnPath::Warn => "warn",
    };
    set(&mut table, "return_path", return_path);
    set(&mut table, "stop_time", format_duration(host.stop_time));
    set(&mut table, "stop_removes_vip", host.stop_removes_vip);
    table
}

fn bgp(bgp: &Bgp) -> Table {
    let mut table = Table::new();
    set(&mut table, "asn", i64::from(bgp.asn));
    set(&mut table, "listen", bgp.listen.map_or("off".to_owned(), |address| address.to_string()));
    set(&mut table, "install_default", bgp.install_default);
    let peers: Table = bgp
        .peers
        .iter()
        .map(|(name, written)| (name.0.clone(), Value::Table(peer(written, bgp.bfd.get(name)))))
        .collect();
    set(&mut table, "peer", peers);
    table
}

fn static_peer(peer: &StaticPeer) -> Table {
    let mut table = Table::new();
    set(&mut table, "address", peer.address.to_string());
    set_some(&mut table, "interface", peer.interface.clone());
    table.extend(bfd(&peer.bfd));
    table
}

fn bfd(bfd: &Bfd) -> Table {
    let mut table = Table::new();
    set(&mut table, "interval", format_duration(bfd.interval));
    set(&mut table, "multiplier", i64::from(bfd.multiplier));
    set_some(&mut table, "min_ttl", bfd.min_ttl.map(i64::from));
    if let Some(BfdAuthentication { kind, key_id, key_file }) = &bfd.authentication {
        set(&mut table, "authentication", kind_of_key(*kind));
        set(&mut table, "key_id", i64::from(*key_id));
        set(&mut table, "key_file", key_file.display().to_string());
    }
    table
}

fn kind_of_key(kind: AuthenticationKind) -> &'static str {
    match kind {
        AuthenticationKind::SimplePassword => "simple",
        AuthenticationKind::KeyedMd5 => "keyed-md5",
        AuthenticationKind::MeticulousKeyedMd5 => "meticulous-keyed-md5",
        AuthenticationKind::KeyedSha1 => "keyed-sha1",
        AuthenticationKind::MeticulousKeyedSha1 => "meticulous-keyed-sha1",
    }
}

fn peer(peer: &PeerConfig, watched: Option<&Bfd>) -> Table {
    let transport = &peer.transport;
    let mut table = Table::new();
    set_some(&mut table, "address", peer.remote.address().map(|address| address.to_string()));
    set_some(&mut table, "interface", peer.remote.interface());
    set(&mut table, "asn", i64::from(peer.asn));
    set(&mut table, "port", i64::from(peer.remote.port()));
    set(&mut table, "hold_time", format_duration(peer.hold_time.unwrap_or_default()));
    set(&mut table, "connect_retry", format_duration(peer.connect_retry));
    set(&mut table, "passive", !peer.connect);
    set_some(&mut table, "ttl", peer.ttl.filter(|_| transport.ttl_security.is_none()).map(i64::from));
    set_some(&mut table, "ttl_security", transport.ttl_security.map(i64::from));
    set_some(&mut table, "source_address", transport.source.map(|address| address.to_string()));
    set_some(
        &mut table,
        "password_file",
        transport.password_file.as_ref().map(|file| file.display().to_string()),
    );
    set(&mut table, "families", strings(&peer.families));
    set(&mut table, "add_path", peer.session.add_path);
    set(&mut table, "extended_messages", peer.session.extended_messages);
    set_some(&mut table, "heard_limit", peer.session.heard_limit.map(i64::from));
    match peer.session.graceful_restart {
        None => set(&mut table, "graceful_restart", false),
        Some(time) => set(&mut table, "graceful_restart", format_duration(time)),
    }
    match watched {
        None => set(&mut table, "bfd", false),
        Some(watched) => {
            let mut settings = bfd(watched);
            set(&mut settings, "strict", watched.strict);
            set(&mut table, "bfd", settings);
        }
    }
    set_some(&mut table, "local_asn", peer.session.local_asn.map(i64::from));
    set_some(&mut table, "role", peer.session.role.map(|role| role.to_string()));
    set(&mut table, "role_strict", peer.session.role_strict);
    set_some(&mut table, "host_name", peer.session.host_name.clone());
    set(&mut table, "software_version", peer.session.software_version.is_some());
    table
}

fn service(service: &Service, words: Words) -> Table {
    let mut table = Table::new();
    set(&mut table, "vips", strings(&service.vips));
    let (shared, own): (Vec<&Check>, Vec<&Check>) = service.checks.iter().partition(|check| is_shared(check));
    if service.checks.is_empty() {
        set(&mut table, "checks", "none");
    } else {
        set(&mut table, "checks", strings(shared.iter().map(|check| &check.name)));
    }
    let own: Vec<Value> = own.into_iter().map(|check| Value::Table(check_table(check, words))).collect();
    if !own.is_empty() {
        set(&mut table, "check", own);
    }
    set(&mut table, "peers", strings(&service.peers));
    if !service.statics.is_empty() {
        set(&mut table, "static", strings(&service.statics));
    }
    let on_error = match service.on_error {
        OnError::Hold => "hold",
        OnError::Fail => "fail",
    };
    set(&mut table, "on_error", on_error);
    let on_failure = match service.on_failure {
        OnFailure::Withdraw => "withdraw",
        OnFailure::Depreference => "depreference",
    };
    set(&mut table, "on_failure", on_failure);
    set(&mut table, "drain_time", format_duration(service.drain_time));
    set(&mut table, "announce", announce(&service.announce));
    table
}

fn announce(announce: &Announce) -> Table {
    let mut table = layers(&announce.all);
    if !announce.prefixes.is_empty() {
        set(&mut table, "prefixes", strings(&announce.prefixes));
    }
    let peers: Table =
        announce.peers.iter().map(|(name, own)| (name.0.clone(), Value::Table(layers(own)))).collect();
    if !peers.is_empty() {
        set(&mut table, "peer", peers);
    }
    table
}

fn layers(layers: &Layers) -> Table {
    let mut table = attributes(&layers.always);
    for (name, state) in [("depreferenced", &layers.depreferenced), ("draining", &layers.draining)] {
        if *state != Attributes::default() {
            set(&mut table, name, attributes(state));
        }
    }
    table
}

fn attributes(attributes: &Attributes) -> Table {
    let mut table = Table::new();
    set_some(&mut table, "med", attributes.med.map(i64::from));
    set_some(&mut table, "local_pref", attributes.local_pref.map(i64::from));
    set_some(&mut table, "prepend", attributes.prepend.map(i64::from));
    set_some(&mut table, "communities", attributes.communities.as_ref().map(community_words));
    set_some(&mut table, "next_hop", attributes.next_hop.as_ref().map(strings));
    set_some(&mut table, "weight", attributes.weight.map(i64::from));
    table
}

fn community_words(communities: &Communities) -> Vec<String> {
    let mut words = strings(&communities.standard);
    words.extend(strings(&communities.extended));
    words.extend(strings(&communities.large));
    words
}

/// Checks of one service alone are named `SERVICE/N`; a key under `[check]` has no slash.
fn is_shared(check: &Check) -> bool {
    !check.name.0.contains('/')
}

fn check_table(check: &Check, words: Words) -> Table {
    let mut table = Table::new();
    match &check.kind {
        CheckKind::Http(kind) => set(&mut table, "http", http(kind, words)),
        CheckKind::Tcp(kind) => set(&mut table, "tcp", tcp(kind, words)),
        CheckKind::Exec(kind) => {
            let exec: Table =
                [("command".to_owned(), Value::from(kind.command.clone()))].into_iter().collect();
            set(&mut table, "exec", exec);
        }
    }
    set(&mut table, "target", if check.on_vip { "vip" } else { "service" });
    set(&mut table, "interval", format_duration(check.interval));
    set(&mut table, "timeout", format_duration(check.timeout));
    set(&mut table, "rise", i64::from(check.rise));
    set(&mut table, "fall", i64::from(check.fall));
    table
}

fn http(http: &HttpCheck, words: Words) -> Table {
    let mut table = Table::new();
    match http.address {
        Some(address) => set(&mut table, "url", url(address, http)),
        None => {
            set(&mut table, "port", i64::from(http.port));
            set(&mut table, "path", http.path.clone());
        }
    }
    let method = match http.method {
        HttpMethod::Get => "GET",
        HttpMethod::Head => "HEAD",
    };
    set(&mut table, "method", method);
    set_some(&mut table, "host", http.host.clone());
    let headers: Table =
        http.headers.iter().map(|(name, value)| (name.clone(), Value::from(words(value)))).collect();
    set(&mut table, "headers", headers);
    let statuses: Vec<Value> = http
        .expect_status
        .iter()
        .map(
            |(from, to)| {
                if from == to { Value::from(i64::from(*from)) } else { Value::from(format!("{from}-{to}")) }
            },
        )
        .collect();
    set(&mut table, "expect_status", statuses);
    set_some(&mut table, "expect_body", http.expect_body.clone());
    if let Some(tls) = &http.tls {
        let mut written = Table::new();
        set_some(&mut written, "server_name", tls.server_name.clone());
        set_some(&mut written, "ca_file", tls.ca_file.as_ref().map(|file| file.display().to_string()));
        set(&mut written, "insecure", tls.insecure);
        set(&mut table, "tls", written);
    }
    table
}

fn url(address: IpAddr, http: &HttpCheck) -> String {
    let scheme = if http.tls.is_some() { "https" } else { "http" };
    format!("{scheme}://{}{}", SocketAddr::new(address, http.port), http.path)
}

fn tcp(tcp: &TcpCheck, words: Words) -> Table {
    let mut table = Table::new();
    set_some(&mut table, "address", tcp.address.map(|address| address.to_string()));
    set(&mut table, "port", i64::from(tcp.port));
    set_some(&mut table, "send", tcp.send.as_ref().map(words));
    set_some(&mut table, "expect", tcp.expect.clone());
    table
}
