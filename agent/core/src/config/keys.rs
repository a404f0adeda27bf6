//! The key table: every key once. Reading, JSON Schema, reference and the classes of changes come from here.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::addresses::{
    AbsolutePath, HostAddress, HostName, InterfaceName, Listen, PeerAddress, PortAddress, PrefixNet,
    RouterId, VipAddress,
};
use super::diagnostic::At;
use super::document::{Node, Value};
use super::read::{Leaf, Nesting, Read, Reader};
use super::values::{Asn, ConfigVersion, HoldTime, Int, OneOrMany, Wait};
use super::web::{HeaderTable, StatusRange, UrlPath, WebAddress};
use super::words::{
    BfdAuthenticationWord, BfdWord, CheckTarget, CheckWords, CommunityWord, FamilyWord, GracefulRestartWord,
    Method, OnErrorWord, OnFailureWord, ReturnPathWord, RoleWord,
};

/// What a changed key does to what is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Nothing.
    Live,
    /// Routes are told again, withdrawn or added on sessions that stay.
    Readvertise,
    /// Sessions are closed and made again.
    ResetSession,
}

/// A key of a section.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) class: Class,
    /// For people; empty: none.
    pub(crate) default: &'static str,
    pub(crate) meaning: &'static str,
    pub(crate) describe: fn() -> String,
    pub(crate) schema: fn() -> Json,
    pub(crate) nesting: fn() -> Nesting,
}

/// The keys that may stand in one table.
pub(crate) struct Section {
    /// As in a file.
    pub(crate) title: &'static str,
    pub(crate) about: &'static str,
    pub(crate) keys: &'static [Key],
    /// Keys of the design that this version does not have.
    pub(crate) later: &'static [&'static str],
    /// Words that people try, and what to write instead.
    pub(crate) instead: &'static [(&'static str, &'static str)],
}

impl std::fmt::Debug for Section {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.title)
    }
}

/// A key that is a word of Rust too is written `r#static` below.
const fn plain(key: &'static str) -> &'static str {
    match key.as_bytes() {
        [b'r', b'#', ..] => key.split_at(2).1,
        _ => key,
    }
}

macro_rules! section {
    (
        $about:literal
        $name:ident $title:literal {
            $( $key:ident : $type:ty, $class:ident, $default:literal, $meaning:literal; )+
        }
        later { $( $later:literal ),* }
        instead { $( $word:literal => $instead:literal ),* }
    ) => {
        #[doc = concat!("`", $title, "` as written.")]
        #[derive(Clone, Debug, Default, PartialEq)]
        pub(crate) struct $name {
            $( pub(crate) $key: Leaf<$type>, )+
        }

        impl $name {
            pub(crate) const SECTION: &'static Section = &Section {
                title: $title,
                about: $about,
                keys: &[ $( Key {
                    name: plain(stringify!($key)),
                    class: Class::$class,
                    default: $default,
                    meaning: $meaning,
                    describe: <$type as Read>::describe,
                    schema: <$type as Read>::schema,
                    nesting: <$type as Read>::nesting,
                } ),+ ],
                later: &[ $( $later ),* ],
                instead: &[ $( ($word, $instead) ),* ],
            };
        }

        impl Read for $name {
            fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
                let Value::Table(table) = &node.value else {
                    return reader.expected(node, path, "a table", concat!("write it as ", $title));
                };
                reader.refuse_unknown(table, path, Self::SECTION);
                Some($name { $( $key: reader.leaf(table, plain(stringify!($key)), path), )+ })
            }

            fn describe() -> String {
                "table".to_owned()
            }

            fn schema() -> Json {
                super::schema::object(Self::SECTION)
            }

            fn nesting() -> Nesting {
                Nesting::Table(Self::SECTION)
            }
        }
    };
}

section! {
    "The whole file. `include` adds files to it as if their text stood here; a key set twice is an error."
    WrittenFile "top level" {
        config_version: ConfigVersion, Live, "1", "Version of this format.";
        include: Vec<At<String>>, Live, "none",
            "Patterns of further files, relative to the folder of this one, read in sorted order. Only in the main file.";
        router_id: RouterId, ResetSession,
            "the one kept in the state directory, else the lowest global IPv4 address of an uplink, then kept",
            "BGP Identifier, an IPv4 address that is no VIP.";
        host: WrittenHost, Live, "", "This host.";
        bgp: WrittenBgp, Live, "", "Our side of BGP, and the peers.";
        r#static: WrittenStatic, Live, "", "Routers with static routes to this host that follow BFD.";
        responder: WrittenResponder, Live, "", "Answers for routers that track this host by probe.";
        check: BTreeMap<String, Leaf<WrittenCheck>>, Live, "", "Checks by name, for services to share.";
        service: BTreeMap<String, Leaf<WrittenService>>, Readvertise, "", "Services by name.";
    }
    later { "ospf", "bfd", "hooks", "metrics", "nd", "log", "control" }
    instead {
        "services" => "write [service.NAME]",
        "checks" => "write [check.NAME], or checks = [\"NAME\"] in a service",
        "peer" => "write [bgp.peer.NAME]",
        "peers" => "write [bgp.peer.NAME], or peers = [\"NAME\"] in a service",
        "vips" => "write it in [service.NAME]"
    }
}

section! {
    "This host."
    WrittenHost "[host]" {
        vip_interface: InterfaceName, Readvertise, "\"lo\"", "Interface that carries the VIPs: `lo` or an existing dummy.";
        uplinks: Vec<At<InterfaceName>>, Live,
            "every interface that holds a default route or a route to a peer",
            "Interfaces on which the host must not answer ARP for a VIP.";
        return_path: ReturnPathWord, Live, "\"require\"",
            "What a reverse path filter does that would drop traffic coming in from a peer: `require` withholds from that peer, `warn` only warns.";
        stop_time: Wait<0, 300_000>, Live, "\"2s\"", "How long to stay after the withdrawals were sent on SIGTERM.";
        stop_removes_vip: bool, Live, "false", "Whether an orderly stop removes the VIPs and then the ARP guard.";
    }
    later { "arp_guard", "drain" }
    instead { "interface" => "write vip_interface or uplinks", "install_default" => "write it in [bgp]" }
}

section! {
    "Our side of BGP."
    WrittenBgp "[bgp]" {
        asn: Asn, ResetSession, "required", "Our AS number.";
        listen: Listen, Live, "\"off\"", "Where to wait for peers that connect to us: `ADDR:PORT`, or `off`.";
        install_default: bool, Live, "false",
            "Whether default routes that peers tell are installed, through all that tell one, as routes of protocol 201 and metric 50. They go with the sessions.";
        defaults: WrittenPeer, ResetSession, "", "Any key of a peer, for all peers that do not set it.";
        peer: BTreeMap<String, Leaf<WrittenPeer>>, ResetSession, "", "Peers by name.";
    }
    later { "prefixes" }
    instead {
        "graceful_restart" => "write it in [bgp.peer.NAME] or [bgp.defaults]",
        "bfd" => "write it in [bgp.peer.NAME] or [bgp.defaults]", "local_as" => "write asn", "as" => "write asn", "neighbor" => "write [bgp.peer.NAME]",
        "peers" => "write [bgp.peer.NAME]", "router_id" => "write router_id at the top of the file"
    }
}

section! {
    "A router that is told. `[bgp.defaults]` takes the same keys."
    WrittenPeer "[bgp.peer.NAME]" {
        address: PeerAddress, ResetSession, "required without `interface`", "Address of the peer.";
        interface: InterfaceName, ResetSession, "none",
            "Without `address`: the peer is the router at the other end of this link (unnumbered), whichever link-local address it has. With `address`: the session runs through this interface (or VRF) alone, whoever calls; needed for a link-local address.";
        asn: Asn, ResetSession, "required", "AS number of the peer; equal to ours makes the session internal.";
        port: Int<1, 65535>, ResetSession, "179", "TCP port of the peer.";
        hold_time: HoldTime, ResetSession, "\"9s\"",
            "How long without a word until the session is given up; the smaller one of both ends counts. `0s`: never. A third of it passes between keepalives.";
        connect_retry: Wait<100, 600_000>, Live, "\"1s\"", "How long to wait before connecting again, ±25 %.";
        passive: bool, Live, "false", "Whether to wait for the peer to connect; needs `bgp.listen`.";
        ttl: Int<1, 255>, ResetSession, "1 for an external peer that is not on loopback, else the system's",
            "IP TTL (hop limit) of our packets; more than 1 for an external peer behind other routers.";
        bfd: BfdWord, Live, "false",
            "Whether BFD watches the path to the peer: its failure closes the session at once. `true`, or a table.";
        families: Vec<At<FamilyWord>>, ResetSession, "those of the VIPs told to this peer", "Address families to offer.";
        local_asn: Asn, ResetSession, "bgp.asn", "Our AS number towards this peer alone.";
        role: RoleWord, ResetSession, "none",
            "Our role on an external session (RFC 9234): a host below its routers is their `customer`. Roles that do not fit end the session.";
        role_strict: bool, ResetSession, "false", "Whether a peer that tells no role is refused; needs `role`.";
        host_name: HostName, ResetSession, "none", "Name of this host to tell the peer's operator (FQDN capability).";
        software_version: bool, ResetSession, "false", "Whether to tell the peer's operator that this is anyvip, and which version.";
        source_address: HostAddress, ResetSession, "the kernel's choice", "Address of this host to connect from.";
        ttl_security: Int<1, 254>, ResetSession, "none",
            "GTSM (RFC 5082): how many hops away the peer may be, 1 on the same link. We send TTL 255 and drop what has passed more routers. Both ends need it.";
        add_path: bool, ResetSession, "false",
            "Whether the peer is asked for all its ways to our VIPs, not only for its best (RFC 7911); for `other_origins` of `status --json`.";
        extended_messages: bool, ResetSession, "false",
            "Whether messages longer than 4096 octets are offered to the peer and taken from it (RFC 8654).";
        heard_limit: Int<1, 100_000_000>, Live, "10000",
            "Prefixes within a minute from which on a peer that tells too much is named in `status`. Nothing else happens: what is not about our VIPs is dropped anyway.";
        graceful_restart: GracefulRestartWord, ResetSession, "false",
            "For `anyvip upgrade`: how long the router keeps our routes when the session ends without a word (RFC 4724); `true` is `10s`. It then keeps them too when the agent crashes, until the time is over or the next start is there.";
        password_file: AbsolutePath, ResetSession, "none",
            "File whose first line is the TCP MD5 key (RFC 2385), 1 to 80 octets. A reload reads it again; a changed key resets no session.";
    }
    later {
        "weight", "multihop"
    }
    instead {
        "multihop" => "write ttl, the number of hops to the peer",
        "connect" => "write passive = true for a peer that connects to us",
        "remote_as" => "write asn", "peer_as" => "write asn", "local_as" => "write local_asn",
        "local_role" => "write role", "source" => "write source_address", "keepalive" => "it is a third of hold_time",
        "password" => "write password_file: keys do not belong into this file",
        "gtsm" => "write ttl_security, 1 for a peer on the same link", "ebgp_multihop" => "write ttl, the number of hops to the peer",
        "install_default" => "write it in [bgp]", "max_prefix" => "write heard_limit: what is heard is dropped, nothing has to be torn down",
        "hold" => "write hold_time", "neighbor" => "write address"
    }
}

section! {
    "BFD towards one peer. The router needs the same."
    WrittenBfd "bfd = { … }" {
        interval: Wait<10, 60_000>, Live, "\"300ms\"", "Between packets, ours and the peer's; the slower wish of both ends counts.";
        multiplier: Int<1, 255>, Live, "3", "After how many missing packets the path is down.";
        strict: bool, Live, "false", "Whether the VIPs are told to the peer only while BFD is Up.";
        min_ttl: Int<1, 255>, Live, "256 - `ttl` where `ttl` is more than 1, else none: the peer is on the link",
            "Makes it a multihop session (RFC 5883): the least TTL that the peer's packets may arrive with.";
        authentication: BfdAuthenticationWord, Live, "none", "How packets of both ends prove who sent them (RFC 5880 §6.7); needs `key_file`.";
        key_id: Int<0, 255>, Live, "1", "Number of the key; both ends need the same.";
        key_file: AbsolutePath, Live, "none",
            "File whose first line is the key: 1 to 16 octets, for SHA1 to 20. A reload reads it again.";
    }
    later { "passive", "echo" }
    instead {
        "transmit_interval" => "write interval", "receive_interval" => "write interval", "detect_multiplier" => "write multiplier",
        "multihop" => "write min_ttl", "password" => "write key_file: keys do not belong into this file"
    }
}

section! {
    "Routers that hold a static route to this host and follow BFD. No BGP is needed for them."
    WrittenStatic "[static]" {
        peer: BTreeMap<String, Leaf<WrittenStaticPeer>>, Live, "", "Static peers by name.";
    }
    later { "defaults" }
    instead { "peers" => "write [static.peer.NAME]" }
}

section! {
    "A router that tracks this host. BFD is Up while the service that names it is healthy, and Down when it is not."
    WrittenStaticPeer "[static.peer.NAME]" {
        address: PeerAddress, Live, "required", "Address of the router.";
        interface: InterfaceName, Live, "none", "Interface towards it; needed for a link-local address.";
        interval: Wait<10, 60_000>, Live, "\"300ms\"", "Between packets, ours and the router's; the slower wish of both ends counts.";
        multiplier: Int<1, 255>, Live, "3", "After how many missing packets the path is down.";
        min_ttl: Int<1, 255>, Live, "none: the router is on the link",
            "Makes it a multihop session (RFC 5883): the least TTL that the router's packets may arrive with.";
        authentication: BfdAuthenticationWord, Live, "none", "How packets of both ends prove who sent them (RFC 5880 §6.7); needs `key_file`.";
        key_id: Int<0, 255>, Live, "1", "Number of the key; both ends need the same.";
        key_file: AbsolutePath, Live, "none",
            "File whose first line is the key: 1 to 16 octets, for SHA1 to 20. A reload reads it again.";
    }
    later { "passive" }
    instead {
        "asn" => "a static peer speaks no BGP", "password" => "write key_file: keys do not belong into this file",
        "service" => "write static = [\"NAME\"] in [service.NAME]"
    }
}

section! {
    "HTTP/1.1 for routers that track this host by probe (IP SLA and the like): `GET /SERVICE` is answered with 200 while the service is offered, else with 503; `GET /` speaks for all services."
    WrittenResponder "[responder]" {
        listen: PortAddress, Live, "none", "`ADDR:PORT` to answer on. Anybody who reaches it may ask.";
    }
    later { "tls" }
    instead { "port" => "write listen = \"0.0.0.0:PORT\"", "address" => "write listen = \"ADDRESS:PORT\"" }
}

section! {
    "A check, shared by all services that name it. `[[service.NAME.check]]` takes the same keys. Exactly one of `http`, `tcp` and `exec`."
    WrittenCheck "[check.NAME]" {
        http: WrittenHttp, Live, "", "Ask a web server. With `tls`, HTTPS.";
        tcp: WrittenTcp, Live, "", "Connect by TCP, and optionally say a word and wait for another.";
        exec: WrittenExec, Live, "", "Run a command; exit status 0 passes.";
        target: CheckTarget, Live, "\"service\" for exec and for a check with an address of its own, else \"vip\"",
            "`vip`: each VIP is probed and gated by itself. `service`: one probe gates the whole service.";
        interval: Wait<10, 86_400_000>, Live, "\"1s\"", "From start to start.";
        timeout: Wait<1, 86_400_000>, Live, "half the interval, at most \"500ms\"", "When a probe without an answer has failed; not longer than the interval.";
        rise: Int<1, 1000>, Live, "2", "Passes in a row until up.";
        fall: Int<1, 1000>, Live, "2", "Fails in a row until down.";
    }
    later { "dns", "grpc", "udp", "icmp", "ntp", "radius", "syslog", "window", "jitter", "slow_start" }
    instead {
        "https" => "write http = { …, tls = { ca_file = \"/etc/…/ca.pem\" } }",
        "command" => "write exec = { command = [\"/path/to/program\"] }",
        "port" => "write it inside http or tcp", "path" => "write it inside http", "url" => "write http = { url = \"…\" }"
    }
}

section! {
    "What an HTTP check asks and wants. HTTP/1.1, no redirects followed, names are not resolved."
    WrittenHttp "http = { … }" {
        url: WebAddress, Live, "the VIP",
            "An address of its own, as `http://127.0.0.1:9000/ok`; sets scheme, port and path. With `https://`, `tls` is needed.";
        port: Int<1, 65535>, Live, "80, with tls 443", "TCP port.";
        path: UrlPath, Live, "\"/\"", "Path and query.";
        method: Method, Live, "\"GET\"", "`GET` or `HEAD`.";
        host: String, Live, "the address", "Host header.";
        headers: HeaderTable, Live, "none", "Further headers, name = \"value\".";
        expect_status: OneOrMany<StatusRange>, Live, "\"200-299\"", "Status codes that pass.";
        expect_body: String, Live, "none", "Text that must occur in the first 64 KiB of the body.";
        tls: WrittenTls, Live, "plain HTTP", "Makes it HTTPS.";
    }
    later { "body", "follow", "expect_header", "http2", "proxy_protocol" }
    instead {
        "address" => "write url = \"http://ADDRESS:PORT/PATH\"", "status" => "write expect_status",
        "body_contains" => "write expect_body", "ca_file" => "write it inside tls = { … }",
        "insecure" => "write it inside tls = { … }", "timeout" => "write it beside http", "interval" => "write it beside http"
    }
}

section! {
    "TLS of an HTTPS check. No certificate authority is built in: name one, or say `insecure`."
    WrittenTls "tls = { … }" {
        server_name: String, Live, "the Host header, else the address", "Name that the certificate must carry.";
        ca_file: AbsolutePath, Live, "none, which needs insecure", "PEM file with the certificate authorities to trust.";
        insecure: bool, Live, "false", "Whether to take any certificate.";
    }
    later { "cert_file", "key_file", "min_version" }
    instead { "ca" => "write ca_file", "verify" => "write insecure = true to take any certificate" }
}

section! {
    "What a TCP check does."
    WrittenTcp "tcp = { … }" {
        port: Int<1, 65535>, Live, "required", "TCP port.";
        address: HostAddress, Live, "the VIP", "An address of its own.";
        send: String, Live, "nothing", "Text to send first.";
        expect: String, Live, "none", "Text that must occur in the first 64 KiB of what comes back.";
    }
    later { "tls", "proxy_protocol" }
    instead { "timeout" => "write it beside tcp", "interval" => "write it beside tcp" }
}

section! {
    "What an exec check runs. No shell; `ANYVIP_SERVICE`, `ANYVIP_CHECK` and, with `target = \"vip\"`, `ANYVIP_VIP` are in its environment."
    WrittenExec "exec = { … }" {
        command: Vec<At<String>>, Live, "required", "Program (absolute path) and its arguments.";
    }
    later { "user", "env", "working_directory" }
    instead { "args" => "write them into command", "timeout" => "write it beside exec" }
}

section! {
    "A service: its VIPs, what tells that it is healthy, and who is told."
    WrittenService "[service.NAME]" {
        vips: Vec<At<VipAddress>>, Readvertise, "required", "Service addresses. They belong to this service alone.";
        checks: CheckWords, Live, "none, which needs a [[service.NAME.check]]",
            "Names of shared checks. All checks of a service must be up. `\"none\"` announces without any check.";
        check: Vec<At<WrittenCheck>>, Live, "none", "Checks of this service alone, each as [[service.NAME.check]].";
        peers: Vec<At<String>>, Readvertise, "all", "Names of the peers to tell.";
        r#static: Vec<At<String>>, Readvertise, "none",
            "Names of the static peers that follow the health of this service. A static peer follows one service.";
        responder: PortAddress, Live, "none",
            "`ADDR:PORT` that takes connections, and answers HTTP with 200, only while this service is offered: for routers that track a TCP port, or an address without a path.";
        on_error: OnErrorWord, Live, "\"hold\"",
            "When a check cannot be made (a missing file, no descriptor): `hold` the last health, or `fail`.";
        on_failure: OnFailureWord, Readvertise, "\"withdraw\"",
            "What an unhealthy service does: `withdraw`, or `depreference`: it is still told, with the attributes of `announce.depreferenced`.";
        drain_time: Wait<0, 86_400_000>, Live, "\"60s\" with announce.draining, else \"0s\"",
            "How long `anyvip drain` tells the attributes of `announce.draining` before it withdraws; `0s` withdraws at once.";
        announce: WrittenAnnounce, Readvertise, "", "How the VIPs are told.";
    }
    later { "hooks", "start", "ospf", "bfd" }
    instead {
        "vip" => "write vips = [\"ADDRESS\"]", "address" => "write vips = [\"ADDRESS\"]", "peer" => "write peers = [\"NAME\"]",
        "http" => "write [[service.NAME.check]] with http = { … }", "tcp" => "write [[service.NAME.check]] with tcp = { … }",
        "exec" => "write [[service.NAME.check]] with exec = { … }", "med" => "write it in [service.NAME.announce]",
        "communities" => "write it in [service.NAME.announce]", "prefixes" => "write it in [service.NAME.announce]",
        "weight" => "write it in [service.NAME.announce]", "drain" => "write drain_time"
    }
}

/// A section with the attributes of a route among its keys.
macro_rules! attribute_section {
    ( $about:literal $name:ident $title:literal { $( $more:tt )* } later { $( $later:literal ),* } ) => {
        section! {
            $about
            $name $title {
                med: Int<0, 4_294_967_295>, Readvertise, "none", "MULTI_EXIT_DISC; lower is preferred.";
                local_pref: Int<0, 4_294_967_295>, Readvertise, "100; 0 while draining",
                    "LOCAL_PREF, told to internal peers only; higher is preferred.";
                prepend: Int<0, 32>, Readvertise, "0", "How many times more than needed our AS number is put in front.";
                communities: Vec<At<CommunityWord>>, Readvertise, "none; while draining those told otherwise and `graceful-shutdown`",
                    "Standard (`65001:100`), large (`65001:1:2`), extended (`rt:65001:100`, `soo:65001:100`, `0x` and 16 hexadecimal digits), or well-known: `no-export`, `no-advertise`, `no-export-subconfed`, `nopeer`, `blackhole`, `graceful-shutdown`.";
                next_hop: OneOrMany<HostAddress>, Readvertise, "this host's address towards the peer", "Next hop to tell, at most one per family.";
                weight: Int<1, 10_000>, Readvertise, "none",
                    "Share of this host among those of the service, told as link bandwidth (extended community, non-transitive) of so many Mbit/s.";
                $( $more )*
            }
            later { $( $later ),* }
            instead {
                "community" => "write communities = [\"ASN:VALUE\"]", "metric" => "write med",
                "large_communities" => "write them in communities", "extended_communities" => "write them in communities",
                "as_path_prepend" => "write prepend", "local_preference" => "write local_pref"
            }
        }

        impl $name {
            /// The keys that every such section has.
            pub(crate) fn attributes(&self) -> AttributeLeaves<'_> {
                AttributeLeaves {
                    med: &self.med,
                    local_pref: &self.local_pref,
                    prepend: &self.prepend,
                    communities: &self.communities,
                    next_hop: &self.next_hop,
                    weight: &self.weight,
                }
            }
        }
    };
}

/// The attributes of a route as written in one section.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttributeLeaves<'a> {
    pub(crate) med: &'a Leaf<Int<0, 4_294_967_295>>,
    pub(crate) local_pref: &'a Leaf<Int<0, 4_294_967_295>>,
    pub(crate) prepend: &'a Leaf<Int<0, 32>>,
    pub(crate) communities: &'a Leaf<Vec<At<CommunityWord>>>,
    pub(crate) next_hop: &'a Leaf<OneOrMany<HostAddress>>,
    pub(crate) weight: &'a Leaf<Int<1, 10_000>>,
}

impl AttributeLeaves<'_> {
    /// Whether nothing is written here.
    pub(crate) fn is_empty(&self) -> bool {
        let AttributeLeaves { med, local_pref, prepend, communities, next_hop, weight } = self;
        med.is_absent()
            && local_pref.is_absent()
            && prepend.is_absent()
            && communities.is_absent()
            && next_hop.is_absent()
            && weight.is_absent()
    }
}

attribute_section! {
    "What is told of a service, and how. Of each key the most specific one counts: that of the peer in this state, of the state, of the peer, of this table."
    WrittenAnnounce "[service.NAME.announce]" {
        prefixes: Vec<At<PrefixNet>>, Readvertise, "the VIPs",
            "Prefixes to tell instead of the VIPs; each VIP is in one of them. One is told while all VIPs in it may be. They never go onto an interface.";
        depreferenced: WrittenState, Readvertise, "", "For `on_failure = \"depreference\"`: what is told of an unhealthy service.";
        draining: WrittenState, Readvertise, "", "What is told for the drain time after `anyvip drain`.";
        peer: BTreeMap<String, Leaf<WrittenPeerAnnounce>>, Readvertise, "", "What one peer is told instead, by its name.";
    }
    later { }
}

attribute_section! {
    "What one peer is told instead."
    WrittenPeerAnnounce "[service.NAME.announce.peer.PEER]" {
        depreferenced: WrittenState, Readvertise, "", "For an unhealthy service.";
        draining: WrittenState, Readvertise, "", "For the drain time.";
    }
    later { }
}

attribute_section! {
    "What is told in one state of the service, in `[service.NAME.announce.depreferenced]`, `[service.NAME.announce.draining]` and the same below `announce.peer.PEER`."
    WrittenState "[service.NAME.announce.STATE]" { }
    later { }
}

/// The whole table.
pub(crate) const ROOT: &Section = WrittenFile::SECTION;

/// The key at this path, or the nearest one above it, and how many of the words it took.
fn find(path: &[&str]) -> Option<(&'static Key, usize)> {
    let (mut section, mut found, mut at) = (ROOT, None, 0);
    while let Some(key) = path.get(at).and_then(|word| section.keys.iter().find(|key| key.name == *word)) {
        found = Some((key, at + 1));
        (section, at) = match (key.nesting)() {
            Nesting::Leaf => break,
            Nesting::Table(below) => (below, at + 1),
            Nesting::Named(below) | Nesting::Array(below) => (below, at + 2),
        };
    }
    found
}

/// The class of the key at this path.
pub(crate) fn class_of(path: &[&str]) -> Class {
    find(path).map_or(Class::Live, |(key, _)| key.class)
}

/// Whether the words below this path are names of the user's choice.
pub(crate) fn holds_names(path: &[&str]) -> bool {
    find(path).is_some_and(|(key, words)| words == path.len() && matches!((key.nesting)(), Nesting::Named(_)))
}

/// JSON Schema of a closed set of words.
pub(crate) fn one_of(words: &[&str]) -> Json {
    json!({ "type": "string", "enum": words })
}
