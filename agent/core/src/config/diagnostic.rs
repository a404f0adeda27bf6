//! What is wrong with a configuration, and where.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// One file of the configuration; the first one is the main file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Path, as it shall be shown.
    pub name: String,
    /// Contents.
    pub text: String,
}

/// Something in a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Index into the sources.
    pub source: usize,
    /// Bytes of its text.
    pub span: Range<usize>,
}

/// A value and where it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// The value itself, or for a table its name.
    pub place: Place,
}

/// Whether a diagnostic refuses the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// It is taken, but is hardly what was meant.
    Warning,
}

/// One thing that is wrong, with its place and its remedy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Whether the configuration is refused.
    pub severity: Severity,
    /// Index into the sources.
    pub source: usize,
    /// Name of that source.
    pub name: String,
    /// Bytes of its text; inside it, on character boundaries.
    pub span: Range<usize>,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// Path of the key, as `bgp.peer.tor1.asn`; empty for the whole file.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Other places that have to do with it.
    pub related: Vec<Related>,
    /// Says that something is not there: it may only have been lost by a syntax error elsewhere.
    #[serde(skip)]
    pub(crate) absence: bool,
}

/// Another place that a diagnostic speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Related {
    /// Index into the sources.
    pub source: usize,
    /// Name of that source.
    pub name: String,
    /// Bytes of its text.
    pub span: Range<usize>,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is there.
    pub text: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.name, self.line, self.column)?;
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        for related in &self.related {
            write!(f, " ({} at {}:{}:{})", related.text, related.name, related.line, related.column)?;
        }
        if let Some(help) = &self.help {
            write!(f, "; {help}")?;
        }
        Ok(())
    }
}

impl Diagnostic {
    /// With this remedy.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help = Some(help.into());
        self
    }

    /// Only a warning.
    pub(crate) fn warning(mut self) -> Diagnostic {
        self.severity = Severity::Warning;
        self
    }

    /// About something that is not there.
    pub(crate) fn absent(mut self) -> Diagnostic {
        self.absence = true;
        self
    }

    /// With another place.
    pub(crate) fn related(
        mut self,
        sources: &[Source],
        place: &Place,
        text: impl Into<String>,
    ) -> Diagnostic {
        let (name, span, line, column) = locate(sources, place);
        self.related.push(Related { source: place.source, name, span, line, column, text: text.into() });
        self
    }
}

/// An error at this place.
pub(crate) fn error(
    sources: &[Source],
    place: &Place,
    key: impl Into<String>,
    message: impl Into<String>,
) -> Diagnostic {
    let (name, span, line, column) = locate(sources, place);
    Diagnostic {
        severity: Severity::Error,
        source: place.source,
        name,
        span,
        line,
        column,
        key: key.into(),
        message: message.into(),
        help: None,
        related: Vec::new(),
        absence: false,
    }
}

/// Name, span held to the text, line and column.
fn locate(sources: &[Source], place: &Place) -> (String, Range<usize>, usize, usize) {
    let Some(source) = sources.get(place.source) else {
        return ("configuration".to_owned(), 0..0, 1, 1);
    };
    let start = source.text.floor_char_boundary(place.span.start);
    let end = source.text.ceil_char_boundary(place.span.end).max(start);
    let before = &source.text[..start];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    let column = before[line_start..].chars().count() + 1;
    (source.name.clone(), start..end, line, column)
}

/// By place; what is at the same place keeps its order.
pub(crate) fn sort(diagnostics: &mut [Diagnostic]) {
    diagnostics.sort_by_key(|diagnostic| (diagnostic.source, diagnostic.span.start));
}

/// The candidate that was most likely meant, if any is near.
pub(crate) fn did_you_mean<'a>(
    written: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let reach = match written.chars().count() {
        0..=2 => 1,
        3..=5 => 2,
        _ => 3,
    };
    candidates
        .into_iter()
        .map(|candidate| (distance(written, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= reach && *distance < candidate.chars().count())
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace, swap of neighbours) between two words, letter case apart.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().flat_map(char::to_lowercase).take(64).collect();
    let b: Vec<char> = b.chars().flat_map(char::to_lowercase).take(64).collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_and_column_count_characters_from_one() {
        let sources = [Source { name: "a".into(), text: "x\nüy = 1\n".into() }];
        let at = error(&sources, &Place { source: 0, span: 4..5 }, "y", "m");
        assert_eq!((at.line, at.column), (2, 2));
        // A span outside, or inside a character, is pulled in.
        let out = error(&sources, &Place { source: 0, span: 3..900 }, "y", "m");
        assert_eq!(out.span, 2..sources[0].text.len());
        assert_eq!(error(&[], &Place::default(), "", "m").to_string(), "configuration:1:1: m");
    }

    #[test]
    fn near_words_are_suggested_and_far_ones_are_not() {
        let keys = ["address", "asn", "hold_time", "port"];
        assert_eq!(did_you_mean("adress", keys), Some("address"));
        assert_eq!(did_you_mean("ans", keys), Some("asn"));
        assert_eq!(did_you_mean("holdtime", keys), Some("hold_time"));
        assert_eq!(did_you_mean("Port", keys), Some("port"));
        assert_eq!(did_you_mean("colour", keys), None);
        assert_eq!(did_you_mean("x", keys), None);
    }
}
