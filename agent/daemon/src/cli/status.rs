//! `anyvip status`

use anyvip_core::boundary::{ProbeResult, Reason};
use anyvip_core::config::Standing;
use anyvip_core::status::{CheckStatus, PeerStatus, ServiceStatus, Status, UpgradeStatus, VipStatus};
use clap::Args;

use super::terminal::{self, Table, Tone};
use super::{Ended, Global};
use crate::wording;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// As JSON; fields may be added in later versions, never changed
    #[arg(long)]
    json: bool,
    /// Say it by the exit code: 0 all as wanted, 1 degraded, 2 nothing announced
    #[arg(long)]
    check: bool,
}

pub(super) async fn run(global: &Global, arguments: &Arguments) -> Ended {
    let (status, text): (Status, String) = global.client().get_with_text("/v1/status").await?;
    if arguments.json {
        terminal::say(&text);
    } else if arguments.check {
        terminal::say(&verdict(&status).1);
    } else {
        terminal::say(&render(&status, terminal::color_on_stdout()));
    }
    Ok(if arguments.check { verdict(&status).0 } else { 0 })
}

/// Exit code and one line. A drained service is as wanted; nothing announced at all is not.
fn verdict(status: &Status) -> (u8, String) {
    let told: usize = announced(status).count();
    let lacking: Vec<String> = status
        .services
        .iter()
        .flat_map(|service| service.vips.iter().map(move |vip| (service, vip)))
        .flat_map(|(service, vip)| vip.peers.iter().map(move |peer| (service, vip, peer)))
        .filter(|(service, vip, peer)| match service.admin.as_str() {
            "enabled" => {
                let depreferenced = vip.standing == Some(Standing::Depreferenced);
                !peer.advertised || vip.reason.is_some() || peer.reason.is_some() || depreferenced
            }
            // For the drain time it is told as draining.
            _ => peer.advertised && vip.standing != Some(Standing::Draining),
        })
        .map(|(service, vip, peer)| format!("{} {} to {}", service.name, vip.address, peer.name))
        .collect();
    match (told, lacking.as_slice()) {
        (0, _) => (2, "nothing is announced".to_owned()),
        (told, []) => (0, format!("all as wanted: {told} announced")),
        (told, lacking) => (1, format!("degraded: {told} announced; not as wanted: {}", lacking.join(", "))),
    }
}

fn announced(status: &Status) -> impl Iterator<Item = &str> {
    status
        .services
        .iter()
        .flat_map(|service| &service.vips)
        .flat_map(|vip| &vip.peers)
        .filter(|peer| peer.advertised)
        .map(|peer| peer.name.as_str())
}

fn render(status: &Status, color: bool) -> String {
    let mut text = format!(
        "anyvip {}, router id {}, running for {}\n",
        status.version,
        status.router_id,
        wording::for_ms(status.uptime_ms)
    );
    text.push_str(&format!("{}\n", verdict_in_words(status)));
    if let Some(upgrade) = &status.upgrade {
        text.push_str(&upgraded(upgrade));
    }
    text.push('\n');
    text.push_str(&terminal::heading("Services", color));
    text.push_str(&services(&status.services).render(color));
    text.push('\n');
    text.push_str(&terminal::heading("Checks", color));
    text.push_str(&checks(&status.services).render(color));
    text.push('\n');
    text.push_str(&terminal::heading("Peers", color));
    text.push_str(&peers(&status.peers).render(color));
    if status.peers.iter().any(|peer| peer.bfd.is_some()) {
        text.push('\n');
        text.push_str(&terminal::heading("BFD", color));
        text.push_str(&paths(&status.peers).render(color));
    }
    let why = not_announced(status);
    if !why.is_empty() {
        text.push('\n');
        text.push_str(&terminal::heading("Not announced, and what cures it", color));
        text.push_str(&why);
    }
    if !status.warnings.is_empty() {
        text.push('\n');
        text.push_str(&terminal::heading("Warnings", color));
        for warning in &status.warnings {
            text.push_str(&terminal::paragraph("  - ", "    ", &warning.text));
        }
    }
    text
}

fn upgraded(upgrade: &UpgradeStatus) -> String {
    let since = format!("Upgrade, {} ago: ", wording::for_ms(upgrade.for_ms));
    let first = if upgrade.phase == "preparing" { "Upgrade: " } else { &since };
    let mut text = terminal::paragraph(first, "  ", &upgrade.text);
    if !upgrade.waiting_for.is_empty() {
        let peers = upgrade.waiting_for.join(", ");
        text.push_str(&terminal::paragraph("  ", "  ", &format!("still keeping former routes: {peers}")));
    }
    text
}

fn verdict_in_words(status: &Status) -> &'static str {
    match verdict(status).0 {
        0 => "All as wanted.",
        1 => "Degraded: not everything that should be announced is.",
        _ => "Nothing is announced.",
    }
}

fn services(services: &[ServiceStatus]) -> Table {
    let mut table = Table::new(&["service", "health", "for", "admin", "VIP", "on this host", "announced to"]);
    for service in services {
        for (number, vip) in service.vips.iter().enumerate() {
            let first = number == 0;
            let once = |text: String| if first { text } else { String::new() };
            table.row([
                (once(service.name.0.clone()), Tone::Plain),
                (once(service.health.clone()), health_tone(&service.health)),
                (once(wording::for_ms(service.for_ms)), Tone::Plain),
                (once(admin(service)), admin_tone(&service.admin)),
                (vip.address.to_string(), Tone::Plain),
                on_host(vip),
                announced_to(service, vip),
            ]);
        }
    }
    table
}

fn health_tone(health: &str) -> Tone {
    match health {
        "up" => Tone::Good,
        "down" => Tone::Bad,
        _ => Tone::Careful,
    }
}

/// While it drains, how long it is still told.
fn admin(service: &ServiceStatus) -> String {
    match service.drain.as_ref().and_then(|drain| drain.left_ms) {
        Some(left) => format!("{}, {} left", service.admin, wording::for_ms(left)),
        None => service.admin.clone(),
    }
}

fn admin_tone(admin: &str) -> Tone {
    if admin == "enabled" { Tone::Plain } else { Tone::Careful }
}

fn on_host(vip: &VipStatus) -> (String, Tone) {
    match (vip.present, vip.owned, vip.arp_guarded) {
        (false, _, _) => ("missing".to_owned(), Tone::Bad),
        (true, _, Some(false)) => ("yes, ARP open".to_owned(), Tone::Bad),
        (true, false, _) => ("yes, not ours".to_owned(), Tone::Plain),
        (true, true, _) => ("yes".to_owned(), Tone::Plain),
    }
}

fn announced_to(service: &ServiceStatus, vip: &VipStatus) -> (String, Tone) {
    let names: Vec<&str> =
        vip.peers.iter().filter(|peer| peer.advertised).map(|peer| peer.name.as_str()).collect();
    let lowered = match vip.standing {
        Some(Standing::Depreferenced) => Some("depreferenced"),
        Some(Standing::Draining) => Some("draining"),
        Some(Standing::Normal) | None => None,
    };
    if let Some(word) = lowered.filter(|_| !names.is_empty()) {
        return (format!("{} ({word})", names.join(", ")), Tone::Careful);
    }
    match (names.len(), vip.peers.len()) {
        (0, _) if service.admin != "enabled" => ("nobody".to_owned(), Tone::Careful),
        (0, _) => ("nobody".to_owned(), Tone::Bad),
        (told, all) if told == all => (names.join(", "), Tone::Good),
        (_, all) => (format!("{} (of {all})", names.join(", ")), Tone::Careful),
    }
}

fn checks(services: &[ServiceStatus]) -> Table {
    let mut table = Table::new(&["service", "check", "kind", "target", "state", "last result"]);
    for service in services {
        for (number, check) in service.checks.iter().enumerate() {
            let name = if number == 0 { service.name.0.clone() } else { String::new() };
            table.row([
                (name, Tone::Plain),
                (check.name.0.clone(), Tone::Plain),
                (check.kind.clone(), Tone::Plain),
                (check.target.clone(), Tone::Plain),
                (state(check), health_tone(&check.state)),
                (last_result(check), Tone::Plain),
            ]);
        }
    }
    table
}

/// What a former process left is told from what was found out since.
fn state(check: &CheckStatus) -> String {
    match check.inherited_ms {
        Some(age) => format!("{}, inherited {} ago", check.state, wording::for_ms(age)),
        None => check.state.clone(),
    }
}

fn last_result(check: &CheckStatus) -> String {
    let Some(last) = &check.last else { return "none yet".to_owned() };
    let word = match (last.result, check.consecutive) {
        (ProbeResult::Pass, 1) => "pass".to_owned(),
        (ProbeResult::Pass, times) => format!("{times} passes"),
        (ProbeResult::Fail, 1) => "fail".to_owned(),
        (ProbeResult::Fail, times) => format!("{times} fails"),
        (ProbeResult::Error, 1) => "error".to_owned(),
        (ProbeResult::Error, times) => format!("{times} errors"),
    };
    format!("{word}: {} ({})", last.detail, wording::micros(last.latency_us))
}

fn peers(peers: &[PeerStatus]) -> Table {
    let mut table = Table::new(&["peer", "address", "session", "for", "told", "last error"]);
    for peer in peers {
        // A static peer has no session but that of BFD.
        let up = ["Established", "Up"].contains(&peer.state.as_str());
        let told: Vec<String> = peer.advertised.iter().map(ToString::to_string).collect();
        table.row([
            (peer.name.clone(), Tone::Plain),
            (peer.address.clone(), Tone::Plain),
            (peer.state.clone(), if up { Tone::Good } else { Tone::Bad }),
            (wording::for_ms(peer.for_ms), Tone::Plain),
            (if told.is_empty() { "nothing".to_owned() } else { told.join(", ") }, Tone::Plain),
            (last_word(peer), Tone::Plain),
        ]);
    }
    table
}

/// The paths that BFD watches.
fn paths(peers: &[PeerStatus]) -> Table {
    let mut table = Table::new(&["peer", "state", "for", "packet every", "dead after", "last word"]);
    for (peer, bfd) in peers.iter().filter_map(|peer| Some((peer, peer.bfd.as_ref()?))) {
        let time = |micros: Option<u64>| micros.map_or_else(|| "-".to_owned(), wording::micros);
        let told = |(text, ago): (&String, Option<u64>)| match ago {
            Some(ago) => format!("{} ago: {text}", wording::for_ms(ago)),
            None => text.clone(),
        };
        let last = match (&bfd.trouble, &bfd.last_down) {
            (Some(trouble), _) => Some(told((trouble, bfd.trouble_for_ms))),
            (None, Some(down)) => Some(told((down, bfd.last_down_for_ms))),
            (None, None) if bfd.state != "Up" => Some("not Up so far".to_owned()),
            (None, None) => None,
        };
        table.row([
            (peer.name.clone(), Tone::Plain),
            (bfd.state.clone(), if bfd.state == "Up" { Tone::Good } else { Tone::Bad }),
            (wording::for_ms(bfd.for_ms), Tone::Plain),
            (time(bfd.transmit_us), Tone::Plain),
            (time(bfd.detection_us), Tone::Plain),
            (last.unwrap_or_else(|| "-".to_owned()), Tone::Plain),
        ]);
    }
    table
}

/// How long ago it ended last, how, and how often: a peer that flaps must not look sound while a session happens to stand.
fn last_word(peer: &PeerStatus) -> String {
    let lost = match peer.sessions_lost {
        0 => String::new(),
        1 => "; 1 session lost".to_owned(),
        many => format!("; {many} sessions lost"),
    };
    if let Some(waiting) = &peer.waiting_for {
        return format!("{waiting}{lost}");
    }
    match &peer.last_error {
        Some(_) if peer.state == "Established" && peer.sessions_lost == 0 => "-".to_owned(),
        Some(error) => match peer.last_error_for_ms {
            Some(ago) => format!("{} ago: {error}{lost}", wording::for_ms(ago)),
            None => format!("{error}{lost}"),
        },
        None => "-".to_owned(),
    }
}

/// Each reason once per VIP: one that closes the VIP for all is not repeated for every peer.
fn not_announced(status: &Status) -> String {
    let mut text = String::new();
    for service in &status.services {
        for vip in &service.vips {
            if let Some(reason) = &vip.reason {
                text.push_str(&entry(service, &format!("{} {}", service.name, vip.address), reason));
                continue;
            }
            for peer in &vip.peers {
                if let Some(reason) = &peer.reason {
                    let what = format!("{} {} to {}", service.name, vip.address, peer.name);
                    text.push_str(&entry(service, &what, reason));
                }
            }
        }
    }
    text
}

fn entry(service: &ServiceStatus, what: &str, reason: &Reason) -> String {
    let mut why = wording::reason(reason).to_owned();
    if let (Reason::Drained, Some(drain)) = (reason, &service.drain) {
        why.push_str(&format!(" {} ago", wording::for_ms(drain.for_ms)));
        if let Some(said) = &drain.reason {
            why.push_str(&format!(" ({said})"));
        }
        if !drain.waiting_for.is_empty() {
            why.push_str(&format!("; still to be told to {}", drain.waiting_for.join(", ")));
        }
    }
    let cure = wording::cure(reason).replace("SERVICE", &service.name.0);
    terminal::paragraph(&format!("  {what}: "), "      ", &why)
        + &terminal::paragraph("      -> ", "         ", &cure)
}

#[cfg(test)]
#[path = "status/tests.rs"]
mod tests;
