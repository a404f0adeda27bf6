//! What `anyvip status --json` says about a condition.

use anyvip_virtual::scenario::Condition;
use serde_json::Value;

/// Whether the condition holds, and what is seen.
pub(crate) fn holds(status: &Value, condition: &Condition) -> (bool, String) {
    let services = list(status, "services");
    match condition {
        Condition::NextHops { .. } | Condition::Weights { .. } => (false, "not in a status".to_owned()),
        Condition::Health { service, health, .. } => {
            let of: Vec<&str> = services
                .iter()
                .filter(|found| service.as_ref().is_none_or(|name| text(found, "name") == name))
                .map(|found| text(found, "health"))
                .collect();
            (!of.is_empty() && of.iter().all(|seen| seen == health), of.join(", "))
        }
        Condition::Announced { vip, peer, announced, .. } => {
            let told: Vec<String> = services
                .iter()
                .flat_map(|service| list(service, "vips"))
                .filter(|found| text(found, "address") == vip.to_string())
                .flat_map(|found| list(found, "peers"))
                .filter(|found| found["advertised"] == Value::Bool(true))
                .map(|found| text(found, "name").to_owned())
                .collect();
            let met = match peer {
                Some(peer) => told.contains(peer) == *announced,
                None => told.is_empty() != *announced,
            };
            (
                met,
                if told.is_empty() {
                    "told to nobody".to_owned()
                } else {
                    format!("told to {}", told.join(", "))
                },
            )
        }
        Condition::Withheld { vip, peer, reason, .. } => {
            let vips: Vec<&Value> = services
                .iter()
                .flat_map(|service| list(service, "vips"))
                .filter(|found| text(found, "address") == vip.to_string())
                .collect();
            let own = vips.iter().map(|vip| text(vip, "reason"));
            let of_peers = vips
                .iter()
                .flat_map(|vip| list(vip, "peers"))
                .filter(|found| peer.as_ref().is_some_and(|peer| text(found, "name") == peer))
                .map(|found| text(found, "reason"));
            let seen: Vec<&str> = own.chain(of_peers).filter(|reason| !reason.is_empty()).collect();
            (
                seen.iter().any(|seen| seen == reason),
                if seen.is_empty() { "no reason".to_owned() } else { seen.join(", ") },
            )
        }
    }
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_answers_for_health_announcements_and_reasons() {
        let status: Value = serde_json::from_str(
            r#"{"services":[{"name":"web","health":"down","vips":[{"address":"192.0.2.53","reason":null,"peers":[
                {"name":"tor1","advertised":true,"reason":null},
                {"name":"tor2","advertised":false,"reason":"ReturnPath"}]}]}]}"#,
        )
        .unwrap();
        let (agent, vip) = ("h1".to_owned(), "192.0.2.53".parse().unwrap());
        let health = |service: Option<&str>, health: &str| {
            let service = service.map(str::to_owned);
            holds(&status, &Condition::Health { agent: agent.clone(), service, health: health.into() }).0
        };
        assert!(health(Some("web"), "down") && health(None, "down"));
        assert!(!health(None, "up") && !health(Some("dns"), "down"));
        let announced = |peer: Option<&str>, announced| {
            let peer = peer.map(str::to_owned);
            holds(&status, &Condition::Announced { agent: agent.clone(), vip, peer, announced }).0
        };
        assert!(announced(Some("tor1"), true) && announced(Some("tor2"), false) && announced(None, true));
        assert!(!announced(Some("tor2"), true) && !announced(None, false));
        let withheld = |peer: &str, reason: &str| {
            let peer = Some(peer.to_owned());
            holds(&status, &Condition::Withheld { agent: agent.clone(), vip, peer, reason: reason.into() }).0
        };
        assert!(withheld("tor2", "ReturnPath"));
        assert!(!withheld("tor1", "ReturnPath") && !withheld("tor2", "Drained"));
    }
}
