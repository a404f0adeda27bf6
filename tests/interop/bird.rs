//! BIRD 2 as the upstream router.

use anyvip_tests::{Bird, Fabric, Lab, Namespace, Need, VIP4};
use nix::sys::signal::Signal;

use crate::features::Feature;
use crate::router::{Bfd, Manner, Router, Tells, Told, host_route, spaced};

/// Both families over either session. BIRD locks a peer out for a minute and more after an error; the two `error` times make that
/// short.
fn config(manner: &Manner) -> String {
    let Manner { asn, .. } = manner;
    let mut lines = String::new();
    if !manner.calls {
        lines += "  passive on;\n";
    }
    if let Some(key) = manner.key {
        lines += &format!("  password \"{key}\";\n");
    }
    if manner.extended_messages {
        lines += "  enable extended messages on;\n";
    }
    if manner.multihop {
        lines += "  multihop 2;\n";
    }
    if manner.ttl_security {
        lines += "  ttl security on;\n";
    }
    if let Some(role) = manner.role {
        lines += &format!("  local role {role};\n");
    }
    if manner.bfd == Bfd::Guard {
        lines += "  bfd on;\n";
    }
    let mut channel = String::new();
    if let Some(limit) = manner.limit {
        channel += &format!("import limit {limit} action restart; ");
    }
    channel += match manner.tells {
        Tells::Nothing => "export none;",
        Tells::AllPaths => "export all; add paths tx;",
        Tells::Default => "export where net.len = 0;",
        Tells::Thousand => "export where source = RTS_STATIC;",
    };
    let extended = if manner.extended_next_hop { " extended next hop on;" } else { "" };
    let graceful = "import filter { if (65535, 0) ~ bgp_community then bgp_local_pref = 0; accept; };";
    let installed = if manner.bfd == Bfd::Static { "RTS_STATIC" } else { "RTS_BGP" };
    let side = if *asn == 65000 { "external" } else { "internal" };
    let mut text = format!(
        r#"router id 10.9.0.1;
log stderr all;
debug protocols {{ states, events }};
protocol device {{ scan time 60; }}
protocol direct {{ ipv4; ipv6; interface "*"; }}
protocol kernel k4 {{ scan time 60; merge paths on limit 16; ipv4 {{ import none; export where source = {installed}; }}; }}
protocol kernel k6 {{ scan time 60; merge paths on limit 16; ipv6 {{ import none; export where source = RTS_BGP; }}; }}
template bgp hosts {{
  local as {asn};
{lines}  hold time 9; keepalive time 3;
  error wait time 1, 2; error forget time 5;
  ipv4 {{ {graceful} {channel}{extended} }};
  ipv6 {{ {graceful} {channel} }};
}}
"#
    );
    if manner.tells == Tells::Default {
        text += "protocol static d4 { ipv4; route 0.0.0.0/0 unreachable; }\nprotocol static d6 { ipv6; route ::/0 unreachable; }\n";
    }
    if manner.tells == Tells::Thousand {
        let routes: String = (0..1000).map(|n| format!(" route {} unreachable;", host_route(n))).collect();
        text += &format!("protocol static thousand {{ ipv4;{routes} }}\n");
    }
    if manner.links > 0 && !manner.calls {
        text += "protocol radv { interface \"h*\" { min ra interval 3; max ra interval 4; default lifetime 0; }; }\n";
    }
    for n in 1..=manner.links {
        text += &match manner.calls {
            true => format!(
                "protocol bgp h{n} from hosts {{ neighbor fe80::{n}:2%h{n} as {}; connect delay time 1; \
                 connect retry time 1; }}\n",
                65000 + n
            ),
            false => format!(
                "protocol bgp h{n} from hosts {{ neighbor range fe80::/10 {side}; interface \"h{n}\"; \
                 dynamic name \"h{n}_\"; }}\n"
            ),
        };
    }
    text += &match manner.calls {
        _ if manner.links > 0 => String::new(),
        true => "protocol bgp h1 from hosts { neighbor 10.1.1.2 as 65001; connect delay time 1; connect retry time 1; }\n"
            .to_owned(),
        false => format!(
            "protocol bgp hosts4 from hosts {{ neighbor range 10.1.0.0/16 {side}; dynamic name \"host4_\"; }}\n\
             protocol bgp hosts6 from hosts {{ neighbor range fd00:1::/32 {side}; dynamic name \"host6_\"; }}\n"
        ),
    };
    text + &bfd(manner.bfd)
}

fn bfd(bfd: Bfd) -> String {
    let fast = "interface \"h*\" { interval 50 ms; idle tx interval 200 ms; multiplier 3; };";
    match bfd {
        Bfd::None => String::new(),
        Bfd::Guard => format!("protocol bfd {{ {fast} }}\n"),
        Bfd::Alone => format!(
            "protocol bfd {{ {fast} multihop {{ interval 100 ms; multiplier 3; }};\n\
             neighbor 10.1.1.2 dev \"h1\" local 10.1.1.1;\n neighbor fd00:1:1::2 dev \"h1\" local fd00:1:1::1;\n\
             neighbor 10.1.1.2 local 10.1.2.1 multihop on; }}\n"
        ),
        Bfd::Authenticated(kind, key) => format!(
            "protocol bfd {{ interface \"h*\" {{ interval 50 ms; multiplier 3; authentication {kind}; \
             password \"{key}\" {{ id 7; }}; }};\n neighbor 10.1.1.2 dev \"h1\" local 10.1.1.1; }}\n"
        ),
        Bfd::Static => format!(
            "protocol bfd {{ {fast} }}\nprotocol static tracked {{ ipv4; route {VIP4}/32 via 10.1.1.2 bfd on; }}\n"
        ),
    }
}

impl Router for Bird {
    const NAME: &'static str = "BIRD";
    const NEEDS: &'static [Need] = &[Need::Root, Need::Bird];

    fn version() -> String {
        crate::page::version("bird", &["--version"])
    }

    fn lacks(feature: Feature) -> Option<&'static str> {
        match feature {
            Feature::Weights => Some("makes no weights of link bandwidth by itself"),
            _ => None,
        }
    }

    fn start(lab: &Lab, namespace: &Namespace, manner: &Manner) -> Self {
        Bird::with(lab, namespace, &config(manner))
    }

    fn stop(&mut self) {
        Bird::stop(self);
    }

    fn shown(&self, address: &str) -> String {
        self.ask(&format!("show route for {address} all")).unwrap_or_else(|text| text)
    }

    fn words(fact: &Told) -> String {
        match fact {
            Told::Path(asns) => format!("BGP.as_path: {}\n", spaced(asns)),
            Told::Med(med) => format!("BGP.med: {med}\n"),
            Told::LocalPref(value) => format!("BGP.local_pref: {value}\n"),
            Told::Community(high, low) => format!("({high},{low})"),
            Told::LargeCommunity(a, b, c) => format!("({a}, {b}, {c})"),
            Told::RouteTarget(asn, value) => format!("(rt, {asn}, {value})"),
            Told::GracefulShutdown => "(65535,0)".to_owned(),
            Told::OnlyToCustomer(asn) => format!("BGP.otc: {asn}"),
        }
    }

    fn next_hops(&self, fabric: &Fabric, address: &str) -> Vec<String> {
        fabric.router.next_hops(address)
    }

    fn log(&self) -> String {
        Bird::log(self)
    }

    fn shut_down(&self, text: &str) {
        self.ask(&format!("disable host4_1 \"{text}\"")).unwrap();
    }

    fn ask_again(&self) {
        self.ask("reload in host4_1").unwrap();
    }

    fn session(&self) -> String {
        self.ask("show protocols all host4_1").unwrap_or_default()
    }

    fn bfd_state(&self, session: &str) -> Result<String, String> {
        let text = self.ask("show bfd sessions")?;
        let line = text.lines().find(|line| match session {
            "v4" => line.starts_with("10.1.1.2") && line.contains(" h1 "),
            "v6" => line.starts_with("fd00:1:1::2"),
            _ => line.starts_with("10.1.1.2") && line.contains(" --- "),
        });
        line.and_then(|line| line.split_whitespace().nth(2)).map(str::to_lowercase).ok_or(text)
    }

    fn freeze(&mut self, signal: Signal) {
        self.process().signal(signal);
    }
}
