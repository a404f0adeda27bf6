//! A comparison of designs as a page.

use std::fmt::Write as _;

use super::markup::{Text, count, step};
use super::{document, quoted};
use crate::compare::outcome::{Outcome, Source};
use crate::compare::plan::short;
use crate::compare::{COLUMNS, Comparison, assumptions, cells, legend};

const WIDTH: f64 = 1040.0;
const LEFT: f64 = 60.0;
/// Half of the last label of the axis.
const RIGHT: f64 = 24.0;

/// The whole document.
pub(crate) fn page(comparison: &Comparison, json: &str) -> String {
    let plan = &comparison.plan;
    let mut body = format!(
        "<header data-designs=\"{}\"><h1>{}</h1>\n<table>\n",
        comparison.results.len(),
        Text(&plan.title)
    );
    for (what, value) in assumptions(plan) {
        let _ = writeln!(body, "<tr><td class=\"soft\">{}</td><td>{}</td></tr>", Text(&what), Text(&value));
    }
    body.push_str("</table></header>\n<section id=\"table\"><h2>Designs</h2>\n<div class=\"scroll\"><table>\n<tr><th>design</th>");
    for column in COLUMNS {
        let _ = write!(body, "<th class=\"number\">{column}</th>");
    }
    body.push_str("</tr>\n");
    for result in &comparison.results {
        let row = comparison.row(result);
        let name = match row == result.design {
            true => format!("<b>{}</b>", Text(&row)),
            false => format!("<span class=\"soft\">{}</span>", Text(&row)),
        };
        let _ = write!(
            body,
            "<tr data-design=\"{0}\" data-by=\"{7}\" data-lost=\"{1}\" data-late=\"{2}\" data-needless=\"{3}\" data-with-server=\"{4}\" \
             data-packets=\"{5}\"><td>{6}</td>",
            Text(&result.design),
            result.lost,
            result.late,
            result.cut_needlessly,
            result.cut_with_server,
            result.balancer_packets,
            name,
            by(result)
        );
        for cell in cells(result) {
            let _ = write!(
                body,
                "<td class=\"number\">{}&nbsp;<span class=\"soft\" title=\"{}\">{}</span></td>",
                Text(&cell),
                Text(&result.how),
                result.by.letter()
            );
        }
        body.push_str("</tr>\n");
    }
    body.push_str("</table></div>\n<h3>What each design is</h3>\n<table class=\"list\">\n");
    for design in &plan.designs {
        let (name, about) = (&design.name, design.to_string());
        let _ =
            writeln!(body, "<tr><td><b>{}</b></td><td class=\"soft\">{}</td></tr>", Text(name), Text(&about));
    }
    body.push_str("</table>\n<h3>What letters and columns mean</h3>\n<table class=\"list\">\n");
    for (word, meaning) in legend(comparison) {
        let _ = writeln!(body, "<tr><td><b>{word}</b></td><td class=\"soft\">{}</td></tr>", Text(&meaning));
    }
    body.push_str("</table></section>\n");
    let most = comparison
        .results
        .iter()
        .flat_map(|result| &result.hurt_each_second)
        .max()
        .copied()
        .unwrap_or(0)
        .max(1);
    let _ = write!(
        body,
        "<section id=\"time\"><h2>Requests lost or late, by the second they were asked</h2>\n<p class=\"soft\">All to one scale, so that they \
         compare. What happened, at the dashed lines:</p>\n<ol class=\"key\">\n"
    );
    for happening in &plan.happens {
        let (what, at) = (happening.what.to_string(), short(happening.at));
        let _ = writeln!(body, "<li>{} <span class=\"soft\">at {at}</span></li>", Text(&what));
    }
    body.push_str("</ol>\n");
    for result in &comparison.results {
        let _ = writeln!(
            body,
            "<figure data-hurt=\"{0}\" data-by=\"{2}\"><h3>{0}, {2}</h3>{1}</figure>",
            Text(&result.design),
            bars(&result.hurt_each_second, most, comparison),
            by(result)
        );
    }
    body.push_str("</section>\n<section id=\"happenings\"><h2>What each happening cost</h2>\n<div class=\"scroll\"><table><tr><th>design</th><th>happening</th><th class=\"number\">lost</th><th class=\"number\">late</th><th class=\"number\">connections cut</th><th class=\"number\">to recover</th></tr>\n");
    for result in &comparison.results {
        for hurt in &result.happenings {
            let recover =
                hurt.recover_ms.map_or("0 s".to_owned(), |ms| format!("{}.{} s", ms / 1000, ms % 1000 / 100));
            let _ = writeln!(
                body,
                "<tr data-happening=\"{}\" data-lost=\"{}\" data-cut=\"{}\"><td>{}&nbsp;<span class=\"soft\">{}</span></td><td>{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"number\">{recover}</td></tr>",
                Text(&hurt.what),
                hurt.lost,
                hurt.cut,
                Text(&result.design),
                result.by.letter(),
                Text(&hurt.what),
                hurt.lost,
                hurt.late,
                hurt.cut
            );
        }
    }
    let words: Vec<String> = comparison.command.iter().map(|word| quoted(word)).collect();
    let _ = write!(
        body,
        "</table></div></section>\n<section id=\"again\"><h2>To have it again</h2>\n<pre>{}</pre>\n<table><tr><td>anyvip-sim</td><td><code>{}</code></td></tr>\
         <tr><td>seed of the plan</td><td><code>{}</code></td></tr><tr><td>hash seed of the router</td><td><code>{:#x}</code></td></tr></table></section>\n",
        Text(&words.join(" ")),
        comparison.version,
        plan.seed,
        comparison.hash_seed
    );
    document(&format!("Designs compared: {}", plan.title), &body, json)
}

/// Where a result comes from.
fn by(result: &Outcome) -> &'static str {
    match result.by {
        Source::Kernel => "kernel",
        Source::Model => "model",
    }
}

/// One column a second.
fn bars(hurt: &[u64], most: u64, comparison: &Comparison) -> String {
    let (top, tall) = (24.0, 72.0);
    let base = top + tall;
    let end = comparison.plan.duration.as_secs_f64().max(1.0);
    let across = |second: f64| LEFT + second / end * (WIDTH - LEFT - RIGHT);
    let mut svg = format!(
        "<div class=\"scroll\"><svg viewBox=\"0 0 {WIDTH} {0}\" width=\"{WIDTH}\" height=\"{0}\" role=\"img\" aria-label=\"Requests lost or late\">\n",
        base + 24.0
    );
    for (value, y) in [(0, base), (most, top)] {
        let _ = writeln!(
            svg,
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text class=\"soft\" x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            y + 4.0,
            count(usize::try_from(value).unwrap_or(0))
        );
    }
    let by = step(end, 10);
    let mut tick = 0.0;
    while tick <= end {
        let _ = writeln!(
            svg,
            "<text class=\"soft\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{tick} s</text>",
            across(tick),
            base + 17.0
        );
        tick += by;
    }
    // Those that are near share a label.
    let mut labels: Vec<(f64, String)> = Vec::new();
    for (number, happening) in comparison.plan.happens.iter().enumerate() {
        let x = across(happening.at.as_secs_f64());
        match labels.last_mut().filter(|(last, text)| x - *last < 8.0 * (text.len() + 3) as f64) {
            Some((_, text)) => {
                let first = text.split('–').next().unwrap_or_default().to_owned();
                *text = format!("{first}–{}", number + 1);
            }
            None => labels.push((x, (number + 1).to_string())),
        }
        let _ = writeln!(
            svg,
            "<line stroke=\"var(--quiet)\" stroke-dasharray=\"3 3\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top}\" y2=\"{base}\"><title>{}</title></line>",
            Text(&happening.what.to_string())
        );
    }
    for (x, text) in labels {
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"14\" text-anchor=\"middle\" font-weight=\"600\">{text}</text>"
        );
    }
    let wide = ((WIDTH - LEFT - RIGHT) / end).max(1.0);
    for (second, number) in hurt.iter().enumerate().filter(|(_, number)| **number > 0) {
        // What is hardly there must still be seen.
        let high = (*number as f64 / most as f64 * tall).max(1.0);
        let _ = writeln!(
            svg,
            "<rect class=\"lost\" x=\"{:.1}\" y=\"{:.1}\" width=\"{wide:.1}\" height=\"{high:.1}\" data-second=\"{second}\" data-count=\"{number}\"/>",
            across(second as f64),
            base - high
        );
    }
    svg + "</svg></div>"
}
