//! Flows per server, measurement by measurement, and connections that were kept open.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyvip_virtual::observation::percent;

use super::markup::{Servers, Text, count, time_ms};
use crate::figures::{Kept, Measurement};

/// All measurements of one service asked from one place, in order.
pub(super) type Group<'a> = Vec<(&'a str, &'a Measurement)>;

/// Measurements whose flows can be compared stand side by side.
pub(super) fn groups(measurements: &BTreeMap<String, Measurement>) -> Vec<Group<'_>> {
    let mut all: Group<'_> = measurements.iter().map(|(name, one)| (name.as_str(), one)).collect();
    all.sort_by_key(|(_, one)| one.number);
    let mut groups: Vec<Group<'_>> = Vec::new();
    for (name, one) in all {
        let same =
            groups.iter_mut().find(|group| group.first().is_some_and(|(_, first)| first.comparable(one)));
        match same {
            Some(group) => group.push((name, one)),
            None => groups.push(vec![(name, one)]),
        }
    }
    groups
}

/// A table with a bar in each cell: one row a server, one column a measurement.
pub(super) fn table(group: &Group<'_>, servers: &Servers) -> String {
    let Some((_, first)) = group.first() else { return String::new() };
    let protocol = match first.protocol {
        anyvip_virtual::scenario::Protocol::Udp => "UDP",
        anyvip_virtual::scenario::Protocol::Tcp => "TCP",
        anyvip_virtual::scenario::Protocol::Dns => "DNS",
    };
    let mut html = format!(
        "<h3>{protocol} from {} to {}</h3>\n<div class=\"scroll\"><table class=\"bars{}\">\n<tr><th></th>",
        Text(&first.from),
        Text(&first.to),
        if group.len() > 4 { " many" } else { "" }
    );
    for (name, one) in group {
        let _ = write!(
            html,
            "<th data-measurement=\"{0}\" data-asked=\"{1}\" data-lost=\"{2}\">{0}<small>{3} asked in {4}</small></th>",
            Text(name),
            one.asked,
            one.lost,
            count(one.asked),
            time_ms(one.took_ms)
        );
    }
    html.push_str("</tr>\n");
    let seen = |server: &String| group.iter().any(|(_, one)| one.per_server.contains_key(server));
    for server in servers.names().iter().filter(|server| seen(server)) {
        let _ = write!(html, "<tr><td>{}</td>", Text(server));
        for (name, one) in group {
            let flows = one.per_server.get(server).copied().unwrap_or(0);
            let most = one.per_server.values().copied().max().unwrap_or(1).max(1);
            let answered: usize = one.per_server.values().sum();
            let fair = answered as f64 / one.per_server.len().max(1) as f64;
            let _ = write!(
                html,
                "<td data-measurement=\"{}\" data-server=\"{}\" data-flows=\"{flows}\"><span class=\"track\">\
                 <i style=\"width:{:.1}%;background:{}\"></i><u style=\"left:{:.1}%\"></u></span>{} <span class=\"soft\">{}</span></td>",
                Text(name),
                Text(server),
                flows as f64 * 100.0 / most as f64,
                servers.colour(server),
                fair * 100.0 / most as f64,
                count(flows),
                percent(flows, one.asked)
            );
        }
        html.push_str("</tr>\n");
    }
    html.push_str("<tr><td>no answer</td>");
    for (_, one) in group {
        let share = if one.asked == 0 { 0.0 } else { one.lost as f64 * 100.0 / one.asked as f64 };
        let _ = write!(
            html,
            "<td><span class=\"track\"><i class=\"{}\" style=\"width:{share:.1}%\"></i></span>{} <span class=\"soft\">{}</span></td>",
            if one.lost > 0 { "hatch" } else { "" },
            count(one.lost),
            percent(one.lost, one.asked)
        );
    }
    html.push_str("</tr>\n</table></div>\n");
    html
}

/// What became of connections that were kept open.
pub(super) fn connections(all: &BTreeMap<String, BTreeMap<String, Kept>>, servers: &Servers) -> String {
    let mut html = String::new();
    for (name, per_server) in all {
        let _ = write!(
            html,
            "<h3>{}</h3>\n<table><tr><th>server</th><th class=\"number\">kept</th><th class=\"number\">closed</th>\
             <th class=\"number\">reset</th><th class=\"number\">stalled</th><th class=\"number\">cut</th></tr>\n",
            Text(name)
        );
        let nobody = String::new();
        for server in servers.names().iter().chain([&nobody]) {
            let Some(kept) = per_server.get(server) else { continue };
            let cut = kept.closed + kept.reset + kept.stalled;
            let _ = writeln!(
                html,
                "<tr data-connections=\"{}\" data-server=\"{}\" data-kept=\"{}\" data-cut=\"{cut}\"><td>{}</td>\
                 <td class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td>\
                 <td class=\"number\">{}</td></tr>",
                Text(name),
                Text(server),
                kept.kept,
                if server.is_empty() { "(nobody accepted)".to_owned() } else { Text(server).to_string() },
                count(kept.kept),
                count(kept.closed),
                count(kept.reset),
                count(kept.stalled),
                percent(cut, cut + kept.kept)
            );
        }
        html.push_str("</table>\n");
    }
    html
}
