//! When things happened: the whole run, and each measurement during which something was done.

use std::fmt::Write as _;

use super::markup::{Servers, Text, clip, count, lanes, step, time_ms};
use crate::figures::{Measurement, OverTime};
use crate::journal::{Entry, Journal, Kind};

const WIDTH: f64 = 1040.0;
/// Of a numbered marker, with air around it.
const MARKER: f64 = 24.0;
/// More than so many things in one picture are not numbered one by one.
const MARKERS: usize = 24;

/// Causes, effects and measurements of the whole run.
pub(super) fn whole(journal: &Journal) -> String {
    const LEFT: f64 = 140.0;
    let mut all: Vec<(&str, &Measurement)> =
        journal.measurements.iter().map(|(n, m)| (n.as_str(), m)).collect();
    all.sort_by_key(|(_, one)| one.number);
    let end = journal.took_ms.max(1.0);
    let across = |ms: f64| LEFT + ms / end * (WIDTH - LEFT - 20.0);
    let causes: Vec<&Entry> = journal.timeline.iter().filter(|entry| entry.kind == Kind::Cause).collect();
    let places: Vec<f64> = causes.iter().map(|entry| across(entry.at_ms)).collect();
    let marker_lanes = lanes(&places, MARKER);
    let top = 14.0 + 24.0 * marker_lanes.iter().max().map_or(1.0, |lane| *lane as f64 + 1.0);
    let rows = top + 22.0;
    let height = rows + 20.0 * all.len() as f64 + 54.0;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" height=\"{height:.0}\" role=\"img\" aria-label=\"Time line of the run\" \
         data-causes=\"{}\">\n",
        causes.len()
    );
    axis(&mut svg, (0.0, end), across, (8.0, height - 42.0), "since the run began");
    let _ = writeln!(
        svg,
        "<text class=\"soft\" x=\"0\" y=\"22\">done</text><text class=\"soft\" x=\"0\" y=\"{:.1}\">seen</text>",
        top + 9.0
    );
    let seen = |entry: &&Entry| matches!(entry.kind, Kind::Effect | Kind::Trouble);
    for entry in journal.timeline.iter().filter(seen) {
        let colour = if entry.kind == Kind::Trouble { "var(--bad)" } else { "var(--accent)" };
        let _ = writeln!(
            svg,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"2\" height=\"12\" fill=\"{colour}\"><title>{} {}</title></rect>",
            across(entry.at_ms) - 1.0,
            top,
            time_ms(entry.at_ms),
            Text(&entry.text)
        );
    }
    for (number, ((entry, x), lane)) in causes.iter().zip(&places).zip(&marker_lanes).enumerate() {
        let y = 18.0 + 24.0 * *lane as f64;
        let _ = writeln!(
            svg,
            "<line stroke=\"var(--quiet)\" stroke-dasharray=\"3 3\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{y:.1}\" y2=\"{:.1}\"/>",
            height - 42.0
        );
        marker(&mut svg, *x, y, number + 1, &entry.text);
    }
    for (row, (name, one)) in all.iter().enumerate() {
        let y = rows + 20.0 * row as f64;
        let (from, to) = (across(one.begin_ms), across(one.end_ms));
        let _ = writeln!(
            svg,
            "<text x=\"0\" y=\"{:.1}\">{}</text><rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"12\" rx=\"2\" \
             fill=\"var(--quiet)\" fill-opacity=\".55\"><title>{}: {} asked, {} lost</title></rect>",
            y + 10.0,
            Text(&clip(name, 18)),
            y,
            (to - from).max(2.0),
            Text(name),
            count(one.asked),
            count(one.lost)
        );
        if let (Some(over), true) = (&one.over_time, one.lost > 0) {
            for (column, _) in over.lost.iter().enumerate().filter(|(_, lost)| **lost > 0) {
                let at = across(one.begin_ms + column as f64 * over.column_ms);
                let wide = (across(over.column_ms) - LEFT).max(1.5);
                let _ = writeln!(
                    svg,
                    "<rect class=\"lost\" x=\"{at:.1}\" y=\"{y:.1}\" width=\"{wide:.1}\" height=\"12\"/>"
                );
            }
        }
    }
    svg.push_str("</svg>");
    let mut key = String::from("<ol class=\"key\">\n");
    for entry in &causes {
        let _ = writeln!(
            key,
            "<li data-cause-at=\"{}\">{} <span class=\"soft\">at {}</span></li>",
            entry.at_ms,
            Text(&entry.text),
            time_ms(entry.at_ms)
        );
    }
    let legend = "<ul class=\"legend\"><li><i style=\"background:var(--quiet)\"></i>questions asked</li>\
                  <li><i style=\"background:var(--accent)\"></i>a route changed or a session came or went</li>\
                  <li><i style=\"background:var(--bad)\"></i>trouble</li><li><i class=\"hatch\"></i>questions without an answer</li></ul>";
    format!("<figure><div class=\"scroll\">{svg}</div>\n{legend}\n{key}</ol></figure>\n")
}

/// One measurement during which something was done: answers over time, from the cause to the last lost question.
pub(super) fn close_up(
    name: &str,
    one: &Measurement,
    journal: &Journal,
    servers: &Servers,
) -> Option<String> {
    let over = one.over_time.as_ref()?;
    let inside = |entry: &&Entry| (one.begin_ms..=one.end_ms).contains(&entry.at_ms);
    let cause = journal.timeline.iter().filter(inside).find(|entry| entry.kind == Kind::Cause)?;
    let zero = cause.at_ms;
    let column = |at: usize| one.begin_ms + at as f64 * over.column_ms;
    let lost_at = |at: Option<usize>| at.map(column);
    let first_lost = lost_at(over.lost.iter().position(|lost| *lost > 0));
    let last_lost = lost_at(over.lost.iter().rposition(|lost| *lost > 0));
    let mut events: Vec<(f64, String)> =
        journal.timeline.iter().filter(inside).map(|entry| (entry.at_ms, entry.text.clone())).collect();
    // The exact moments where one cause is all there was; a column else.
    let exact = one.lost_after_ms.filter(|_| {
        journal.timeline.iter().filter(inside).filter(|entry| entry.kind == Kind::Cause).count() == 1
    });
    if let (Some(first), Some(last)) = (
        exact.map(|(first, _)| zero + first).or(first_lost),
        exact.map(|(_, last)| zero + last).or(last_lost),
    ) {
        events.push((first, "the first lost question is asked".to_owned()));
        if one.lost > 1 {
            events.push((last, "the last lost question is asked".to_owned()));
        }
    }
    events.sort_by(|a, b| a.0.total_cmp(&b.0));
    let left_out = events.len().saturating_sub(MARKERS);
    events.truncate(MARKERS);
    let rows: Vec<&String> = over.answered.keys().collect();
    let many = rows.len() > 8;
    let (left, right) = (if many { 110.0 } else { 60.0 }, 16.0);
    let across = |ms: f64| {
        left + (ms - one.begin_ms) / (over.column_ms * over.lost.len() as f64) * (WIDTH - left - right)
    };
    let places: Vec<f64> = events.iter().map(|(at, _)| across(*at)).collect();
    let marker_lanes = lanes(&places, MARKER);
    let top = 20.0 + 24.0 * marker_lanes.iter().max().map_or(1.0, |lane| *lane as f64 + 1.0);
    let plot = if many { 11.0 * (rows.len() + 1) as f64 } else { 190.0 };
    let height = top + plot + 40.0;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" height=\"{height:.0}\" role=\"img\" aria-label=\"Answers over time\">\n"
    );
    let span = (one.begin_ms - zero, one.begin_ms - zero + over.column_ms * over.lost.len() as f64);
    axis(&mut svg, span, |ms| across(ms + zero), (top, top + plot), "since the first thing done");
    if many {
        heat(&mut svg, over, servers, (left, right, top));
    } else {
        stacked(&mut svg, over, servers, (left, right, top, plot));
    }
    for (number, (((at, text), x), lane)) in events.iter().zip(&places).zip(&marker_lanes).enumerate() {
        let y = 14.0 + 24.0 * *lane as f64;
        let _ = writeln!(
            svg,
            "<line stroke=\"var(--ink)\" stroke-dasharray=\"3 3\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{y:.1}\" y2=\"{:.1}\"/>",
            top + plot
        );
        marker(&mut svg, *x, y, number + 1, &format!("{} {text}", time_ms(at - zero)));
    }
    svg.push_str("</svg>");
    let mut key = String::from("<ol class=\"key\">\n");
    for (at, text) in &events {
        let sign = if *at < zero { "−" } else { "+" };
        let _ = writeln!(
            key,
            "<li>{} <span class=\"soft\">{sign}{}</span></li>",
            Text(text),
            time_ms((at - zero).abs())
        );
    }
    key.push_str("</ol>\n");
    if left_out > 0 {
        let _ = writeln!(key, "<p class=\"soft\">{left_out} later events are in the list below.</p>");
    }
    let mut legend = String::from("<ul class=\"legend\">");
    if many {
        let most = over.answered.values().flatten().max().copied().unwrap_or(0);
        let _ = write!(
            legend,
            "<li><i style=\"background:var(--heat)\"></i>{} answers of one server in {}, the most; fainter is fewer</li>",
            count(most),
            time_ms(over.column_ms)
        );
    } else {
        for server in servers.names().iter().filter(|server| over.answered.contains_key(*server)) {
            let _ = write!(
                legend,
                "<li><i style=\"background:{}\"></i>{}</li>",
                servers.colour(server),
                Text(server)
            );
        }
    }
    legend.push_str("<li><i class=\"hatch\"></i>no answer</li></ul>\n");
    let lost: usize = over.lost.iter().sum();
    Some(format!(
        "<figure data-close-up=\"{0}\" data-lost=\"{lost}\"><h3>{0}: {1} of {2} lost</h3>\n\
         <p class=\"soft\">Questions by the time they were asked, {3} a column.</p>\n<div class=\"scroll\">{svg}</div>\n{legend}{key}</figure>\n",
        Text(name),
        count(one.lost),
        count(one.asked),
        time_ms(over.column_ms)
    ))
}

fn stacked(
    svg: &mut String,
    over: &OverTime,
    servers: &Servers,
    (left, right, top, plot): (f64, f64, f64, f64),
) {
    let columns = over.lost.len();
    let sum = |at: usize| -> usize {
        over.answered.values().chain([&over.lost]).filter_map(|counts| counts.get(at)).sum()
    };
    let most = (0..columns).map(sum).max().unwrap_or(1).max(1);
    let wide = (WIDTH - left - right) / columns.max(1) as f64;
    let scale = plot / most as f64;
    let by = step(most as f64, 4).max(1.0);
    let mut tick = 0.0;
    while tick <= most as f64 {
        let y = top + plot - tick * scale;
        let _ = writeln!(
            svg,
            "<line class=\"axis\" x1=\"{left}\" x2=\"{:.0}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"soft\" x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - right,
            left - 6.0,
            y + 4.0,
            count(tick as usize)
        );
        tick += by;
    }
    for at in 0..columns {
        let mut y = top + plot;
        let x = left + wide * at as f64;
        let gap = if wide > 4.0 { 0.6 } else { 0.0 };
        for server in servers.names() {
            let number = over.answered.get(server).and_then(|counts| counts.get(at)).copied().unwrap_or(0);
            if number == 0 {
                continue;
            }
            let tall = number as f64 * scale;
            y -= tall;
            let _ = writeln!(
                svg,
                "<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{:.2}\" height=\"{tall:.2}\" fill=\"{}\"/>",
                wide - gap,
                servers.colour(server)
            );
        }
        if let Some(lost) = over.lost.get(at).filter(|lost| **lost > 0) {
            let tall = *lost as f64 * scale;
            let _ = writeln!(
                svg,
                "<rect class=\"lost\" x=\"{x:.2}\" y=\"{:.2}\" width=\"{:.2}\" height=\"{tall:.2}\"/>",
                y - tall,
                wide - gap
            );
        }
    }
}

fn heat(svg: &mut String, over: &OverTime, servers: &Servers, (left, right, top): (f64, f64, f64)) {
    let wide = (WIDTH - left - right) / over.lost.len().max(1) as f64;
    let most = over.answered.values().flatten().max().copied().unwrap_or(1).max(1) as f64;
    let present =
        servers.names().iter().filter_map(|server| Some((server.as_str(), over.answered.get(server)?)));
    for (row, (name, counts)) in [("no answer", &over.lost)].into_iter().chain(present).enumerate() {
        let y = top + 11.0 * row as f64;
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\" font-size=\"9\">{}</text>",
            left - 6.0,
            y + 8.5,
            Text(&clip(name, 16))
        );
        for (at, number) in counts.iter().enumerate().filter(|(_, number)| **number > 0) {
            let x = left + wide * at as f64;
            let style = match row {
                0 => "class=\"lost\"".to_owned(),
                _ => {
                    format!("fill=\"var(--heat)\" fill-opacity=\"{:.2}\"", 0.1 + 0.9 * *number as f64 / most)
                }
            };
            let _ = writeln!(
                svg,
                "<rect {style} x=\"{x:.2}\" y=\"{:.1}\" width=\"{wide:.2}\" height=\"10\"/>",
                y + 0.5
            );
        }
    }
}

/// A horizontal axis of milliseconds with lines upwards.
fn axis(
    svg: &mut String,
    (from, to): (f64, f64),
    across: impl Fn(f64) -> f64,
    (top, bottom): (f64, f64),
    what: &str,
) {
    let by = step(to - from, 8);
    let (unit, divide) = if by >= 1000.0 { ("s", 1000.0) } else { ("ms", 1.0) };
    let mut tick = (from / by).ceil() * by;
    while tick <= to {
        let x = across(tick);
        let number = (tick / divide * 1000.0).round() / 1000.0;
        let sign = if number < 0.0 { "−" } else { "" };
        let _ = writeln!(
            svg,
            "<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top:.1}\" y2=\"{:.1}\"/>\
             <text class=\"soft\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{sign}{}</text>",
            bottom + 4.0,
            bottom + 17.0,
            number.abs()
        );
        tick += by;
    }
    let _ = writeln!(
        svg,
        "<text class=\"soft\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{unit} {what}</text>",
        across(to),
        bottom + 33.0
    );
}

fn marker(svg: &mut String, x: f64, y: f64, number: usize, text: &str) {
    let _ = writeln!(
        svg,
        "<g><title>{}</title><circle class=\"mark\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"10\"/>\
         <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"11\" font-weight=\"600\">{number}</text></g>",
        Text(text),
        y + 4.0
    );
}
