//! What a person sees: tables of at most 100 columns, colour only on a terminal.

use std::io::{IsTerminal, Write};

use tabled::builder::Builder;
use tabled::settings::peaker::Priority;
use tabled::settings::{Color, Padding, Style, Width, object::Cell, object::Rows};

use crate::complaint::Complaint;

/// Nothing is wider.
pub(crate) const WIDTH: usize = 100;

/// What a word means to the eye.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Careful,
    Bad,
}

/// Whether standard output is for eyes that want colour (<https://no-color.org>).
pub(crate) fn color_on_stdout() -> bool {
    std::io::stdout().is_terminal() && wanted()
}

/// The same of standard error.
pub(crate) fn color_on_stderr() -> bool {
    std::io::stderr().is_terminal() && wanted()
}

fn wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Writes to standard output. A reader that has gone (`| head`) is no error.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    if !text.ends_with('\n') {
        let _ = out.write_all(b"\n");
    }
    let _ = out.flush();
}

/// Like [`say`], and whether anybody still reads.
pub(crate) fn say_line(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).is_ok()
}

/// Writes a complaint to standard error.
pub(crate) fn complain(complaint: &Complaint) {
    let _ = writeln!(std::io::stderr().lock(), "{complaint}");
}

/// Writes a text to standard error as it is.
pub(crate) fn warn(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", text.trim_end());
}

/// Writes a note to standard error, beside output that scripts read.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "anyvip: {text}");
}

/// A table with a title row.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<(String, Tone)>>,
}

impl Table {
    pub(crate) fn new(titles: &[&str]) -> Table {
        Table { rows: vec![titles.iter().map(|title| ((*title).to_owned(), Tone::Plain)).collect()] }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [(String, Tone); N]) {
        self.rows.push(cells.into());
    }

    /// As text; wide columns are wrapped until the whole fits.
    pub(crate) fn render(&self, color: bool) -> String {
        let mut builder = Builder::default();
        for row in &self.rows {
            builder.push_record(row.iter().map(|(text, _)| text.as_str()));
        }
        let mut table = builder.build();
        table
            .with(Style::blank())
            .with(Padding::new(0, 1, 0, 0))
            .with(Width::wrap(WIDTH - 2).priority(Priority::max(true)).keep_words(true));
        if color {
            table.modify(Rows::first(), Color::BOLD);
            for (number, row) in self.rows.iter().enumerate() {
                for (column, (_, tone)) in row.iter().enumerate() {
                    let color = match tone {
                        Tone::Plain => continue,
                        Tone::Good => Color::FG_GREEN,
                        Tone::Careful => Color::FG_YELLOW,
                        Tone::Bad => Color::FG_RED,
                    };
                    table.modify(Cell::new(number, column), color);
                }
            }
        }
        let mut text = String::new();
        for line in table.to_string().lines() {
            text.push_str("  ");
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A heading above a table.
pub(crate) fn heading(text: &str, color: bool) -> String {
    if color { format!("\x1b[1m{text}\x1b[0m\n") } else { format!("{text}\n") }
}

/// Breaks a paragraph into lines that fit, each behind this indent.
pub(crate) fn paragraph(first: &str, indent: &str, text: &str) -> String {
    let mut lines = String::new();
    let mut line = first.to_owned();
    let mut empty = true;
    for word in text.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push_str(&line);
            lines.push('\n');
            line = indent.to_owned();
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    lines.push_str(&line);
    lines.push('\n');
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_never_gets_wider_than_100_columns() {
        let mut table = Table::new(&["what", "why"]);
        table.row([("x".to_owned(), Tone::Good), ("a long reason ".repeat(20), Tone::Bad)]);
        let text = table.render(false);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(!text.contains('\x1b'));
        assert!(table.render(true).contains('\x1b'));
    }

    #[test]
    fn a_paragraph_is_broken_between_words() {
        let text = paragraph("- ", "  ", &"word ".repeat(30));
        assert!(text.lines().all(|line| line.len() <= WIDTH));
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().nth(1).is_some_and(|line| line.starts_with("  word")));
    }
}
