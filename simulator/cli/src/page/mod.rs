//! `--report`: a run as one page of HTML that needs nothing else: no script, no font, no picture from elsewhere.
//!
//! It shows the [`Journal`], just what `--json` writes, and carries it along. Marks in the page (`data-…`) hold the figures as
//! numbers, so that what is drawn can be compared with what was measured. Colours follow the reader's light or dark setting and
//! are light on paper. What is lost is hatched, so that nothing is told by colour alone.
//!
//! - `compare`: the page of a comparison of designs;
//! - `topology`, `flows`, `moves`, `timeline`, `latency`: a part each; `markup`: escaping, numbers, colours; `style.css`: looks.

use std::fmt::Write as _;

use self::markup::{Servers, Text, by_number, count, time_ms};
use crate::journal::{Entry, Journal, Kind};

pub(crate) mod compare;
mod flows;
mod latency;
pub(crate) mod markup;
mod moves;
mod timeline;
mod topology;

const STYLE: &str = include_str!("style.css");
/// Longer lists of events are cut, and the page says so.
const EVENTS: usize = 400;

/// The whole document.
pub(crate) fn page(journal: &Journal) -> String {
    let of_lab =
        journal.topology.nodes.iter().filter(|(_, node)| node.role == "server").map(|(name, _)| name.clone());
    let seen = journal.measurements.values().flat_map(|one| one.per_server.keys().cloned());
    let held =
        journal.connections.values().flat_map(|one| one.keys().filter(|name| !name.is_empty()).cloned());
    let servers = Servers::new(of_lab.chain(seen).chain(held));
    let mut body = header(journal);
    let _ = write!(
        body,
        "<section id=\"topology\"><h2>The network</h2>\n<div class=\"scroll\">{}</div></section>\n",
        topology::picture(&journal.topology, &servers)
    );
    expectations(&mut body, journal);
    let groups = flows::groups(&journal.measurements);
    if !groups.is_empty() {
        body.push_str(
            "<section id=\"flows\"><h2>Flows per server</h2>\n<p class=\"soft\">A flow is one source port of the client. The line in \
             each bar is an equal share among those who answered.</p>\n",
        );
        groups.iter().for_each(|group| body.push_str(&flows::table(group, &servers)));
        body.push_str("</section>\n");
    }
    if !journal.moves.is_empty() {
        body.push_str("<section id=\"moves\"><h2>Where flows moved</h2>\n");
        journal.moves.iter().for_each(|moves| body.push_str(&moves::figure(moves, &servers)));
        body.push_str("</section>\n");
    }
    if !journal.connections.is_empty() {
        let _ = write!(
            body,
            "<section id=\"connections\"><h2>Connections kept open</h2>\n{}</section>\n",
            flows::connections(&journal.connections, &servers)
        );
    }
    let _ = write!(body, "<section id=\"time\"><h2>Time line</h2>\n{}", timeline::whole(journal));
    for (name, one) in groups.iter().flatten() {
        body.push_str(&timeline::close_up(name, one, journal, &servers).unwrap_or_default());
    }
    body.push_str("</section>\n");
    latencies(&mut body, journal);
    events(&mut body, journal);
    again(&mut body, journal);
    document(&format!("{}: {}", journal.lab, journal.title), &body, &journal.json())
}

/// A document around this body, with what it shows as data. Nothing in it may run or be fetched.
pub(crate) fn document(title: &str, body: &str, json: &str) -> String {
    // Inside a data block only the end of the block matters.
    let data = json.replace('<', "\\u003c");
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n\
         </head>\n<body>\n\
         <svg width=\"0\" height=\"0\" style=\"position:absolute\" aria-hidden=\"true\"><defs><pattern id=\"hatch\" width=\"5\" height=\"5\" \
         patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\"><rect width=\"5\" height=\"5\" fill=\"var(--card)\"/>\
         <rect width=\"3\" height=\"5\" fill=\"var(--lost)\"/></pattern></defs></svg>\n\
         <main>\n{body}</main>\n<script type=\"application/json\" id=\"data\">{data}</script>\n</body>\n</html>\n",
        Text(title)
    )
}

fn header(journal: &Journal) -> String {
    let failed = journal.verdicts.iter().filter(|verdict| !verdict.met).count();
    let (class, verdict) = match (failed, journal.verdicts.len()) {
        (0, 0) => ("soft", "nothing was expected".to_owned()),
        (0, all) => ("good", format!("✓ all {all} expectations met")),
        (failed, all) => ("bad", format!("✗ {failed} of {all} expectations not met")),
    };
    let asked: usize = journal.measurements.values().map(|one| one.asked).sum();
    let lost: usize = journal.measurements.values().map(|one| one.lost).sum();
    let kept = || journal.connections.values().flat_map(|one| one.values());
    let cut: usize = kept().map(|kept| kept.closed + kept.reset + kept.stalled).sum();
    let open: usize = kept().map(|kept| kept.kept).sum::<usize>() + cut;
    let mut tiles = vec![
        (time_ms(journal.took_ms), "the whole run".to_owned()),
        (count(asked), "questions asked".to_owned()),
        (count(lost), "without an answer".to_owned()),
    ];
    let last = journal
        .measurements
        .values()
        // What is lost without anything being done meanwhile is lost for another reason.
        .filter(|one| {
            let done = |entry: &Entry| {
                entry.kind == Kind::Cause && (one.begin_ms..=one.end_ms).contains(&entry.at_ms)
            };
            journal.timeline.iter().any(done)
        })
        .filter_map(|one| one.lost_after_ms)
        .map(|(_, last)| last)
        .filter(|last| *last >= 0.0);
    if let Some(last) = last.max_by(f64::total_cmp) {
        tiles.push((time_ms(last), "longest from a cause to the last lost question".to_owned()));
    }
    if open > 0 {
        tiles.push((format!("{} of {}", count(cut), count(open)), "kept connections cut".to_owned()));
    }
    let tiles: String = tiles
        .iter()
        .map(|(number, what)| format!("<li><b>{number}</b><span class=\"soft\">{what}</span></li>"))
        .collect();
    let backend = match journal.run.backend {
        "virtual" => "in virtual time: the agent is the real one, networks and servers are models",
        _ => "in network namespaces: real agents, the real kernel's choice of next hops",
    };
    let began = journal.run.began.as_ref().map(|began| format!(" · {}", Text(began))).unwrap_or_default();
    format!(
        "<header data-passed=\"{}\" data-expectations=\"{}\" data-failed=\"{failed}\" data-asked=\"{asked}\" data-lost=\"{lost}\">\n\
         <h1>{}</h1>\n<p class=\"soft\">lab <b>{}</b> · {backend}{began}</p>\n\
         <span class=\"verdict {class}\">{verdict}</span>\n<ul class=\"tiles\">{tiles}</ul></header>\n",
        journal.passed,
        journal.verdicts.len(),
        Text(if journal.title.is_empty() { &journal.lab } else { &journal.title }),
        Text(&journal.lab)
    )
}

fn expectations(body: &mut String, journal: &Journal) {
    if journal.verdicts.is_empty() {
        return;
    }
    body.push_str("<section id=\"expectations\"><h2>Expectations</h2>\n<table>\n");
    for verdict in &journal.verdicts {
        let (class, word) = if verdict.met { ("good", "✓ met") } else { ("bad", "✗ not met") };
        let _ = writeln!(
            body,
            "<tr data-met=\"{}\"><td class=\"{class}\" style=\"white-space:nowrap\"><b>{word}</b></td><td>{}</td></tr>",
            verdict.met,
            Text(&verdict.text)
        );
    }
    body.push_str("</table></section>\n");
}

fn latencies(body: &mut String, journal: &Journal) {
    if journal.measurements.is_empty() {
        return;
    }
    body.push_str("<section id=\"latency\"><h2>How long answers took</h2>\n");
    let mut all: Vec<_> = journal
        .measurements
        .iter()
        .filter_map(|(name, one)| Some((name, one.number, one.latency_us.as_ref()?)))
        .collect();
    all.sort_by_key(|(_, number, _)| *number);
    if all.is_empty() {
        body.push_str("<p class=\"soft\">Not measured: answers take no time in a virtual lab.</p>\n");
    } else {
        body.push_str(
            "<p class=\"soft\">From the client's question to its answer, through its own socket: on a busy machine mostly the time \
             until a processor was free. Widths grow by 1, 2, 5, 10.</p>\n<div class=\"pair\">",
        );
        all.iter().for_each(|(name, _, latency)| body.push_str(&latency::figure(name, latency)));
        body.push_str("</div>\n");
    }
    body.push_str("</section>\n");
}

fn events(body: &mut String, journal: &Journal) {
    let _ = write!(
        body,
        "<section id=\"events\" data-events=\"{}\"><h2>Everything that happened</h2>\n\
         <table><tr><th class=\"number\">at</th><th class=\"number\">since the cause</th><th>what</th></tr>\n",
        journal.timeline.len()
    );
    for entry in journal.timeline.iter().take(EVENTS) {
        let text = Text(&entry.text);
        let what = match entry.kind {
            Kind::Cause => format!("<b>{text}</b>"),
            Kind::Effect | Kind::Finding => text.to_string(),
            Kind::Trouble => format!("<span class=\"bad\">trouble: {text}</span>"),
        };
        let after =
            entry.after_ms.filter(|_| entry.kind != Kind::Cause).map(|after| format!("+{}", time_ms(after)));
        let _ = writeln!(
            body,
            "<tr><td class=\"number soft\">{}</td><td class=\"number\">{}</td><td>{what}</td></tr>",
            time_ms(entry.at_ms),
            after.unwrap_or_default()
        );
    }
    body.push_str("</table>\n");
    if journal.timeline.len() > EVENTS {
        let _ = writeln!(
            body,
            "<p class=\"soft\">{} more are in the data of this page.</p>",
            count(journal.timeline.len() - EVENTS)
        );
    }
    body.push_str("</section>\n");
}

fn again(body: &mut String, journal: &Journal) {
    let run = &journal.run;
    let words: Vec<String> = run.command.iter().map(|word| quoted(word)).collect();
    let _ = write!(
        body,
        "<section id=\"again\"><h2>To have it again</h2>\n<pre>{}</pre>\n<table>\n<tr><td>scenario</td><td><code>{}</code></td></tr>\n",
        Text(&words.join(" ")),
        Text(&run.scenario)
    );
    for (name, version) in &run.versions {
        let _ = writeln!(body, "<tr><td>{}</td><td><code>{}</code></td></tr>", Text(name), Text(version));
    }
    if let Some(seed) = run.seed {
        let _ = writeln!(
            body,
            "<tr><td>seed of the world</td><td><code data-seed=\"{seed}\">{seed}</code></td></tr>"
        );
    }
    let mut seeds: Vec<_> = run.hash_seeds.iter().collect();
    seeds.sort_by(|a, b| by_number(a.0, b.0));
    for (router, seed) in seeds {
        let _ = writeln!(body, "<tr><td>hash seed of {}</td><td><code>{seed}</code></td></tr>", Text(router));
    }
    body.push_str("</table></section>\n");
}

/// A word for a shell.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_be_copied_into_a_shell() {
        assert_eq!(quoted("topology/x.clab.yml"), "topology/x.clab.yml");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn data_cannot_end_its_block() {
        let page = document("t", "", "{\"a\":\"</script><script>alert(1)</script>\"}");
        assert_eq!(page.matches("</script>").count(), 1);
        assert!(page.contains("\\u003c/script>"));
    }
}
