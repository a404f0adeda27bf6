//! `anyvip explain`

use anyvip_core::status::{Explanation, GateStatus};
use clap::Args;

use super::{DONE, Ended, Global, terminal};
use crate::complaint::Complaint;
use crate::wording;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The service, as in the configuration
    #[arg(value_name = "SERVICE")]
    service: String,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(global: &Global, arguments: &Arguments) -> Ended {
    if arguments.service.is_empty() || arguments.service.contains(['/', '?', '#', '%', ' ']) {
        return Err(Complaint::refused(format!("there is no service {:?}", arguments.service)));
    }
    let (explanation, text): (Explanation, String) =
        global.client().get_with_text(&format!("/v1/explain/{}", arguments.service)).await?;
    if arguments.json {
        terminal::say(&text);
    } else {
        terminal::say(&render(&explanation, terminal::color_on_stdout()));
    }
    DONE
}

/// From the service down to each peer; closed gates say what opens them.
fn render(explanation: &Explanation, color: bool) -> String {
    let mut text = String::new();
    for vip in &explanation.vips {
        let told = vip.peers.iter().filter(|peer| peer.advertised).count();
        let heading = format!(
            "{} {}: announced to {told} of {} peer{}",
            explanation.service,
            vip.address,
            vip.peers.len(),
            if vip.peers.len() == 1 { "" } else { "s" }
        );
        text.push_str(&terminal::heading(&heading, color));
        for gate in &vip.gates {
            text.push_str(&line(gate, "  ", color));
        }
        for peer in &vip.peers {
            let what = if peer.advertised { "announced" } else { "not announced" };
            text.push_str(&format!("  to {}: {what}\n", peer.name));
            for gate in &peer.gates {
                text.push_str(&line(gate, "    ", color));
            }
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn line(gate: &GateStatus, indent: &str, color: bool) -> String {
    let (sign, paint) = match (gate.open, gate.lowers) {
        (true, None) => ("ok", "\x1b[32m"),
        (true, Some(_)) => ("~~", "\x1b[33m"),
        (false, _) => ("NO", "\x1b[31m"),
    };
    let sign = if color { format!("{paint}{sign}\x1b[0m") } else { sign.to_owned() };
    let deeper = format!("{indent}{:22}", "");
    let said = format!("{} ({})", gate.text, wording::for_ms(gate.for_ms));
    let title = format!("{indent}{sign}  {:16}  ", wording::gate(&gate.gate));
    let mut text = terminal::paragraph(&title, &deeper, &said);
    if let Some(remedy) = gate.remedy.as_ref().filter(|_| !gate.open) {
        text.push_str(&terminal::paragraph(&format!("{deeper}cure: "), &deeper, remedy));
    }
    text
}

#[cfg(test)]
mod tests {
    use anyvip_core::Reason;
    use anyvip_core::config::Standing;
    use anyvip_core::status::{PeerExplanation, VipExplanation};

    use super::*;

    #[test]
    fn each_gate_says_what_is_seen_and_a_closed_one_what_opens_it() {
        let gate = |gate, open, text: &str, remedy: Option<&str>| GateStatus {
            gate,
            open,
            lowers: (gate == Reason::Drained && open).then_some(Standing::Draining),
            text: text.to_owned(),
            remedy: remedy.map(str::to_owned),
            for_ms: 192_000,
        };
        let explanation = Explanation {
            service: "dns".into(),
            vips: vec![VipExplanation {
                address: "192.0.2.53".parse().unwrap(),
                gates: vec![
                    gate(Reason::Drained, true, "draining: withdrawn in 43 s", None),
                    gate(Reason::VipMissing, true, "192.0.2.53 is on lo", None),
                ],
                peers: vec![PeerExplanation {
                    name: "tor1".to_owned(),
                    gates: vec![gate(
                        Reason::SessionDown,
                        false,
                        "the session is in state Active",
                        Some("check that 10.0.1.1 expects this host"),
                    )],
                    advertised: false,
                }],
            }],
        };
        let expected = "\
dns 192.0.2.53: announced to 0 of 1 peer
  ~~  not drained       draining: withdrawn in 43 s (3m12s)
  ok  VIP in place      192.0.2.53 is on lo (3m12s)
  to tor1: not announced
    NO  session up        the session is in state Active (3m12s)
                          cure: check that 10.0.1.1 expects this host
";
        assert_eq!(render(&explanation, false), expected);
    }
}
