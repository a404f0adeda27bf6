//! What became of flows between two measurements: ribbons between few servers, a matrix of many.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyvip_virtual::observation::percent;

use super::markup::{Servers, Text, clip, count};
use crate::figures::Moves;

const WIDTH: f64 = 1040.0;
/// More servers are a matrix.
const RIBBONS: usize = 12;
/// Room for the names at both sides of ribbons.
const SIDE: f64 = 170.0;
const BAR: f64 = 14.0;
/// Between two servers: their names must not touch.
const GAP: f64 = 18.0;
const NOBODY: &str = "no answer";

/// Heading, one sentence, picture.
pub(super) fn figure(moves: &Moves, servers: &Servers) -> String {
    let mut html = format!(
        "<figure data-before=\"{0}\" data-after=\"{1}\" data-flows=\"{2}\" data-moved=\"{3}\" data-moved-of-survivors=\"{4}\" \
         data-unanswered=\"{5}\">\n<h3>From {0} to {1}</h3>\n<p>",
        Text(&moves.before),
        Text(&moves.after),
        moves.flows,
        moves.moved,
        moves.moved_of_survivors,
        moves.unanswered
    );
    html.push_str(&sentence(moves));
    html.push_str("</p>\n");
    let table = Table::of(moves, servers);
    if moves.moved == 0 && moves.unanswered == 0 {
        // A picture would show that every flow has the server it had.
    } else if table.from.len().max(table.to.len()) <= RIBBONS {
        let _ = writeln!(html, "<div class=\"scroll\">{}</div>", table.ribbons(moves, servers));
        html.push_str(
            "<ul class=\"legend\"><li><i style=\"background:var(--quiet);opacity:.35\"></i>the server they had</li>\
             <li>in the colour of the former server: another server</li><li><i class=\"hatch\"></i>no answer</li></ul>\n",
        );
    } else {
        let _ = writeln!(html, "<div class=\"scroll\">{}</div>", table.matrix());
        let _ = writeln!(
            html,
            "<ul class=\"legend\"><li><i style=\"background:var(--quiet);opacity:.35\"></i>the server they had</li>\
             <li><i style=\"background:var(--heat)\"></i>{} flows moved (the most in one cell); fainter is fewer, by the square \
             root</li><li><i class=\"hatch\"></i>no answer</li></ul>",
            count(table.most_moved())
        );
    }
    html + "</figure>\n"
}

/// What moved, and what of it had to.
fn sentence(moves: &Moves) -> String {
    let had = |server: &str| moves.shares.iter().any(|share| share.from == server);
    let has = |server: &str| moves.shares.iter().any(|share| share.to.as_deref() == Some(server));
    let mut text = if moves.moved == 0 {
        format!("All {} flows answered both times have the server they had.", count(moves.flows))
    } else {
        format!(
            "<b>{} of {} flows</b> answered both times have another server now ({}).",
            count(moves.moved),
            count(moves.flows),
            percent(moves.moved, moves.flows)
        )
    };
    let (mut left, mut joined, mut between) = (0, 0, 0);
    for share in &moves.shares {
        match share.to.as_deref() {
            Some(to) if to != share.from && !has(&share.from) => left += share.flows,
            Some(to) if to != share.from && !had(to) => joined += share.flows,
            Some(to) if to != share.from => between += share.flows,
            _ => {}
        }
    }
    if left + joined > 0 {
        let of_leavers = format!("{} were of servers that answer nobody any more", count(left));
        let to_newcomers = format!("{} went to servers that answered nobody before", count(joined));
        let parts = [(left, of_leavers), (joined, to_newcomers)];
        for (_, part) in parts.iter().filter(|(flows, _)| *flows > 0) {
            let _ = write!(text, " {part};");
        }
        let _ = write!(text, " <b>{} moved between servers that were there both times</b>.", count(between));
    }
    if moves.unanswered > 0 {
        let _ = write!(text, " {} were asked again and never answered.", count(moves.unanswered));
    }
    text
}

/// Flows by former and present server.
struct Table<'a> {
    from: Vec<&'a str>,
    to: Vec<&'a str>,
    flows: BTreeMap<(usize, usize), usize>,
}

impl<'a> Table<'a> {
    fn of(moves: &'a Moves, servers: &'a Servers) -> Table<'a> {
        let end = |to: &'a Option<String>| to.as_deref().unwrap_or(NOBODY);
        let known = |used: Vec<&str>| -> Vec<&'a str> {
            servers.names().iter().map(String::as_str).filter(|name| used.contains(name)).collect()
        };
        let from = known(moves.shares.iter().map(|share| share.from.as_str()).collect());
        let mut to = known(moves.shares.iter().map(|share| end(&share.to)).collect());
        if moves.unanswered > 0 {
            to.push(NOBODY);
        }
        let mut flows = BTreeMap::new();
        for share in &moves.shares {
            let row = from.iter().position(|name| *name == share.from);
            let column = to.iter().position(|name| *name == end(&share.to));
            if let (Some(row), Some(column)) = (row, column) {
                *flows.entry((row, column)).or_insert(0) += share.flows;
            }
        }
        Table { from, to, flows }
    }

    fn same(&self, row: usize, column: usize) -> bool {
        self.from.get(row) == self.to.get(column)
    }

    fn is_nobody(&self, column: usize) -> bool {
        self.to.get(column) == Some(&NOBODY)
    }

    fn most_moved(&self) -> usize {
        let moved = self.flows.iter().filter(|((row, column), _)| !self.same(*row, *column));
        moved.map(|(_, flows)| *flows).max().unwrap_or(0)
    }

    fn sum(&self, of: impl Fn(usize, usize) -> bool) -> usize {
        self.flows.iter().filter(|((row, column), _)| of(*row, *column)).map(|(_, flows)| flows).sum()
    }

    fn ribbons(&self, moves: &Moves, servers: &Servers) -> String {
        let all = self.sum(|_, _| true).max(1);
        let usable = 260.0;
        let scale = usable / all as f64;
        let height = usable + GAP * self.from.len().max(self.to.len()) as f64 + 34.0;
        let (left, right) = (SIDE, WIDTH - SIDE);
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" height=\"{height:.0}\" role=\"img\" \
             aria-label=\"Flows by former and present server\">\n\
             <text class=\"soft\" x=\"{0}\" y=\"14\" text-anchor=\"end\">{1}</text>\
             <text class=\"soft\" x=\"{2}\" y=\"14\">{3}</text>\n",
            left + BAR,
            Text(&clip(&moves.before, 24)),
            right - BAR,
            Text(&clip(&moves.after, 24))
        );
        let stack = |sums: &[usize]| {
            let mut y = 30.0;
            sums.iter()
                .map(|sum| {
                    let top = y;
                    y += *sum as f64 * scale + GAP;
                    top
                })
                .collect::<Vec<f64>>()
        };
        let rows: Vec<usize> = (0..self.from.len()).map(|row| self.sum(|r, _| r == row)).collect();
        let columns: Vec<usize> = (0..self.to.len()).map(|column| self.sum(|_, c| c == column)).collect();
        let (tops_left, tops_right) = (stack(&rows), stack(&columns));
        let (mut used_left, mut used_right) = (tops_left.clone(), tops_right.clone());
        let (mut quiet, mut loud) = (String::new(), String::new());
        for ((row, column), flows) in &self.flows {
            let (Some(a), Some(b)) = (used_left.get_mut(*row), used_right.get_mut(*column)) else { continue };
            let thick = *flows as f64 * scale;
            let (y1, y2) = (*a, *b);
            *a += thick;
            *b += thick;
            let (from, to) = (self.from.get(*row).unwrap_or(&""), self.to.get(*column).unwrap_or(&""));
            let style = if self.same(*row, *column) {
                "fill=\"var(--quiet)\" fill-opacity=\".28\"".to_owned()
            } else if self.is_nobody(*column) {
                "class=\"lost\"".to_owned()
            } else {
                format!("fill=\"{}\" fill-opacity=\".8\"", servers.colour(from))
            };
            let (x1, x2) = (left + BAR, right - BAR);
            let (third, two_thirds) = (x1 + (x2 - x1) * 0.4, x1 + (x2 - x1) * 0.6);
            // What is hardly there must still be seen.
            let thick = thick.max(0.8);
            let target = if self.same(*row, *column) { &mut quiet } else { &mut loud };
            let _ = writeln!(
                target,
                "<path {style} d=\"M{x1:.1} {y1:.1} C{third:.1} {y1:.1} {two_thirds:.1} {y2:.1} {x2:.1} {y2:.1} V{:.1} \
                 C{two_thirds:.1} {:.1} {third:.1} {:.1} {x1:.1} {:.1} Z\" data-from=\"{}\" data-to=\"{}\" data-flows=\"{flows}\">\
                 <title>{} → {}: {}</title></path>",
                y2 + thick,
                y2 + thick,
                y1 + thick,
                y1 + thick,
                Text(from),
                Text(to),
                Text(from),
                Text(to),
                count(*flows)
            );
        }
        svg.push_str(&quiet);
        svg.push_str(&loud);
        for (name, (top, sum)) in self.from.iter().zip(tops_left.iter().zip(&rows)) {
            let thick = (*sum as f64 * scale).max(0.8);
            let _ = writeln!(
                svg,
                "<rect x=\"{left}\" y=\"{top:.1}\" width=\"{BAR}\" height=\"{thick:.1}\" fill=\"{}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\"><tspan font-weight=\"600\">{}</tspan>  {}</text>",
                servers.colour(name),
                left - 8.0,
                top + thick / 2.0 + 4.0,
                Text(&clip(name, 14)),
                count(*sum)
            );
        }
        for (column, (name, (top, sum))) in self.to.iter().zip(tops_right.iter().zip(&columns)).enumerate() {
            let thick = (*sum as f64 * scale).max(0.8);
            let fill = if self.is_nobody(column) {
                "class=\"lost\"".to_owned()
            } else {
                format!("fill=\"{}\"", servers.colour(name))
            };
            let before =
                self.from.iter().position(|from| from == name).and_then(|row| rows.get(row)).copied();
            let change = match before.unwrap_or(0) {
                before if before < *sum => format!(" (+{})", count(*sum - before)),
                before if before > *sum => format!(" (−{})", count(before - *sum)),
                _ => String::new(),
            };
            let _ = writeln!(
                svg,
                "<rect x=\"{:.1}\" y=\"{top:.1}\" width=\"{BAR}\" height=\"{thick:.1}\" {fill}/>\
                 <text x=\"{:.1}\" y=\"{:.1}\"><tspan font-weight=\"600\">{}</tspan>  {}<tspan fill=\"var(--soft)\">{change}</tspan></text>",
                right - BAR,
                right + 8.0,
                top + thick / 2.0 + 4.0,
                Text(&clip(name, 14)),
                count(*sum)
            );
        }
        svg + "</svg>"
    }

    fn matrix(&self) -> String {
        let (rows, columns) = (self.from.len(), self.to.len());
        let cell = (780.0 / rows.max(columns) as f64).clamp(11.5, 22.0);
        let font = (cell - 2.0).min(11.0);
        let longest =
            |names: &[&str]| names.iter().map(|name| name.chars().count()).max().unwrap_or(0).min(14) as f64;
        let left = longest(&self.from) * font * 0.64 + 34.0;
        let top = longest(&self.to) * font * 0.64 + 36.0;
        let (width, height) = (left + cell * columns as f64 + 4.0, top + cell * rows as f64 + 4.0);
        let mut svg = format!(
            "<svg viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\" \
             aria-label=\"Flows by former and present server\">\n\
             <text class=\"soft\" x=\"{left:.1}\" y=\"12\">has the flow now →</text>\
             <text class=\"soft\" transform=\"rotate(-90 12 {0:.1})\" x=\"12\" y=\"{0:.1}\">← had it before</text>\n\
             <rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{1:.1}\" height=\"{2:.1}\" fill=\"none\" stroke=\"var(--line)\"/>\n",
            (top + 130.0).min(height),
            cell * columns as f64,
            cell * rows as f64
        );
        for (row, name) in self.from.iter().enumerate() {
            let y = top + cell * (row as f64 + 0.5) + font * 0.36;
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{y:.1}\" text-anchor=\"end\" font-size=\"{font:.1}\">{}</text>",
                left - 5.0,
                Text(&clip(name, 14))
            );
        }
        for (column, name) in self.to.iter().enumerate() {
            let x = left + cell * (column as f64 + 0.5) + font * 0.36;
            let _ = writeln!(
                svg,
                "<text transform=\"rotate(-90 {x:.1} {0:.1})\" x=\"{x:.1}\" y=\"{0:.1}\" font-size=\"{font:.1}\">{1}</text>",
                top - 5.0,
                Text(&clip(name, 14))
            );
        }
        let most = self.most_moved().max(1) as f64;
        for ((row, column), flows) in &self.flows {
            let style = if self.same(*row, *column) {
                "fill=\"var(--quiet)\" fill-opacity=\".28\"".to_owned()
            } else if self.is_nobody(*column) {
                "class=\"lost\"".to_owned()
            } else {
                format!(
                    "fill=\"var(--heat)\" fill-opacity=\"{:.2}\"",
                    0.12 + 0.88 * (*flows as f64 / most).sqrt()
                )
            };
            let (from, to) = (self.from.get(*row).unwrap_or(&""), self.to.get(*column).unwrap_or(&""));
            let _ = writeln!(
                svg,
                "<rect {style} x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" data-from=\"{}\" data-to=\"{}\" \
                 data-flows=\"{flows}\"><title>{} → {}: {}</title></rect>",
                left + cell * *column as f64 + 0.5,
                top + cell * *row as f64 + 0.5,
                cell - 1.0,
                cell - 1.0,
                Text(from),
                Text(to),
                Text(from),
                Text(to),
                count(*flows)
            );
        }
        svg + "</svg>"
    }
}
