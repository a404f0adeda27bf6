//! The picture of the network: clients above, servers below, what is between them in between.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

use super::markup::{Servers, Text, by_number, clip};
use crate::journal::{Shown, Topology};

const WIDTH: f64 = 1040.0;
/// For the names of layers.
const GUTTER: f64 = 84.0;
const LAYER: f64 = 104.0;
/// A node needs so much for a box with its name, and less for a square with its name below, turned.
const WIDE: f64 = 62.0;
const NARROW: f64 = 15.0;
/// A letter of 12 pixels is at most so wide on average.
const LETTER: f64 = 7.4;

/// An SVG picture.
pub(super) fn picture(topology: &Topology, servers: &Servers) -> String {
    let layers = layers(topology);
    let most = layers.iter().map(Vec::len).max().unwrap_or(1);
    let width = WIDTH.max(GUTTER + NARROW * most as f64 + 10.0);
    let mut places: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for (number, layer) in layers.iter().enumerate() {
        let slot = (width - GUTTER) / layer.len().max(1) as f64;
        for (at, name) in layer.iter().enumerate() {
            places.insert(name, (GUTTER + slot * (at as f64 + 0.5), 34.0 + LAYER * number as f64));
        }
    }
    let turned = layers.last().filter(|layer| (width - GUTTER) / (layer.len().max(1) as f64) < WIDE);
    let longest = turned.and_then(|layer| layer.iter().map(|name| name.chars().count()).max());
    let below = longest.map_or(44.0, |letters| 20.0 + letters.min(14) as f64 * 6.6);
    let height = 34.0 + LAYER * layers.len().saturating_sub(1) as f64 + below;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\" \
         aria-label=\"Nodes and links\" data-nodes=\"{}\" data-links=\"{}\">\n",
        topology.nodes.len(),
        topology.links.len()
    );
    let place = |end: &str| end.split_once(':').and_then(|(node, _)| places.get(node)).copied();
    for [a, b] in &topology.links {
        let (Some((x1, y1)), Some((x2, y2))) = (place(a), place(b)) else { continue };
        // Between nodes of one layer the line passes below the others.
        let bend = if y1 == y2 { 46.0 } else { 0.0 };
        let (middle, low) = ((x1 + x2) / 2.0, (y1 + y2) / 2.0 + bend);
        let _ = writeln!(
            svg,
            "<path class=\"cable\" d=\"M{x1:.1} {y1:.1} Q{middle:.1} {low:.1} {x2:.1} {y2:.1}\"><title>{} – {}</title></path>",
            Text(a),
            Text(b)
        );
    }
    for (number, layer) in layers.iter().enumerate() {
        let slot = (width - GUTTER) / layer.len().max(1) as f64;
        let y = 34.0 + LAYER * number as f64;
        let _ = writeln!(
            svg,
            "<text class=\"soft\" x=\"0\" y=\"{:.1}\">{}</text>",
            y + 4.0,
            heading(topology, layer)
        );
        for name in layer {
            let (Some((x, y)), Some(node)) = (places.get(name.as_str()), topology.nodes.get(name)) else {
                continue;
            };
            draw(&mut svg, name, node, (*x, *y), slot, servers);
        }
    }
    svg + "</svg>\n"
}

fn draw(svg: &mut String, name: &str, node: &Shown, (x, y): (f64, f64), slot: f64, servers: &Servers) {
    let colour = match node.role {
        "server" => format!("fill=\"{}\"", servers.colour(name)),
        _ => "fill=\"var(--quiet)\"".to_owned(),
    };
    let addresses: Vec<String> = node.addresses.iter().map(ToString::to_string).collect();
    let asn = node.asn.map(|asn| format!("AS {asn}"));
    let about = [Some(name.to_owned()), asn.clone(), Some(addresses.join(", "))];
    let about: Vec<String> = about.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    let _ = writeln!(svg, "<g data-node=\"{}\"><title>{}</title>", Text(name), Text(&about.join(" · ")));
    if slot < WIDE {
        let side = (slot - 4.0).clamp(6.0, 16.0);
        let _ = writeln!(
            svg,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{side:.1}\" height=\"14\" rx=\"2\" {colour}/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" font-size=\"10\" transform=\"rotate(90 {x:.1} {:.1})\" dy=\"3.5\">{}</text></g>",
            x - side / 2.0,
            y - 7.0,
            y + 13.0,
            y + 13.0,
            Text(&clip(name, 14))
        );
        return;
    }
    let mut lines = vec![name.to_owned()];
    lines.extend(asn);
    // One address, where there is just one of its family: which one would it be else?
    let v4: Vec<&ipnet::IpNet> = node.addresses.iter().filter(|net| net.addr().is_ipv4()).collect();
    if let [one] = v4.as_slice() {
        lines.push(one.addr().to_string());
    }
    let longest = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0) as f64;
    let width = (longest * LETTER + 22.0).clamp(48.0, slot - 8.0);
    let height = 14.0 * lines.len() as f64 + 12.0;
    let _ = writeln!(
        svg,
        "<rect class=\"box\" x=\"{:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"6\"/>\
         <rect x=\"{:.1}\" y=\"{:.1}\" width=\"6\" height=\"{height:.1}\" rx=\"3\" {colour}/>",
        x - width / 2.0,
        y - height / 2.0,
        x - width / 2.0,
        y - height / 2.0
    );
    for (number, line) in lines.iter().enumerate() {
        let style = if number == 0 { "font-weight=\"600\"" } else { "class=\"soft\" font-size=\"11\"" };
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" {style}>{}</text>",
            x + 3.0,
            y - height / 2.0 + 17.0 + 14.0 * number as f64,
            Text(&clip(line, ((width - 14.0) / LETTER) as usize))
        );
    }
    svg.push_str("</g>\n");
}

/// `4 servers`.
fn heading(topology: &Topology, layer: &[String]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in layer {
        if let Some(node) = topology.nodes.get(name) {
            *counts.entry(node.role).or_default() += 1;
        }
    }
    let one =
        |(role, count): (&&str, &usize)| format!("{count} {role}{}", if *count == 1 { "" } else { "s" });
    clip(&counts.iter().map(one).collect::<Vec<_>>().join(", "), 12)
}

/// By distance from the clients; servers are the last layer.
fn layers(topology: &Topology) -> Vec<Vec<String>> {
    let mut near: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for [a, b] in &topology.links {
        if let (Some((a, _)), Some((b, _))) = (a.split_once(':'), b.split_once(':')) {
            near.entry(a).or_default().insert(b);
            near.entry(b).or_default().insert(a);
        }
    }
    let role = |name: &str| topology.nodes.get(name).map_or("", |node| node.role);
    let mut far: BTreeMap<&str, usize> = BTreeMap::new();
    let mut next: VecDeque<&str> =
        topology.nodes.keys().map(String::as_str).filter(|n| role(n) == "client").collect();
    for name in &next {
        far.insert(name, 0);
    }
    while let Some(name) = next.pop_front() {
        let distance = far.get(name).copied().unwrap_or(0) + 1;
        // Nothing is beyond a server.
        for other in near.get(name).into_iter().flatten().filter(|_| role(name) != "server") {
            if !far.contains_key(other) {
                far.insert(other, distance);
                next.push_back(other);
            }
        }
    }
    let last = far.values().max().copied().unwrap_or(0);
    let mut layers: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for name in topology.nodes.keys() {
        let layer = match role(name) {
            "server" => usize::MAX,
            _ => far.get(name.as_str()).copied().unwrap_or(last + 1),
        };
        layers.entry(layer).or_default().push(name.clone());
    }
    let mut placed: BTreeMap<&str, f64> = BTreeMap::new();
    let mut ordered = Vec::new();
    for mut layer in layers.into_values() {
        layer.sort_by(|a, b| by_number(a, b));
        // Below those that they are connected with: fewer cables cross.
        let below = |name: &String| {
            let above: Vec<f64> = near
                .get(name.as_str())
                .into_iter()
                .flatten()
                .filter_map(|other| placed.get(other))
                .copied()
                .collect();
            if above.is_empty() { 0.5 } else { above.iter().sum::<f64>() / above.len() as f64 }
        };
        layer.sort_by(|a, b| below(a).total_cmp(&below(b)));
        let wide = layer.len() as f64;
        for (at, name) in layer.iter().enumerate() {
            if let Some((name, _)) = topology.nodes.get_key_value(name) {
                placed.insert(name, (at as f64 + 0.5) / wide);
            }
        }
        ordered.push(layer);
    }
    ordered
}
