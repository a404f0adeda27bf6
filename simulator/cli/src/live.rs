//! The lower lines of a terminal, which change while a lab runs: what it is at, and what clients get.
//!
//! They are drawn below what was printed and removed before anything more is printed. The terminal is never put into another
//! mode, so that nothing has to be put back, however the program ends. Without a terminal there is nothing here but plain lines.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::{Duration, Instant};

use crate::page::markup::by_number;

/// So often the lower lines are drawn anew.
const PERIOD: Duration = Duration::from_millis(200);
/// Of the longest bar.
const BAR: usize = 32;
/// Servers that get a bar; on small terminals fewer.
const MOST: usize = 16;

/// What printing goes through.
pub(crate) struct Live {
    terminal: bool,
    colour: bool,
    state: RefCell<State>,
}

struct State {
    /// Lines below what was printed.
    drawn: usize,
    step: Option<(usize, usize)>,
    doing: String,
    since: Instant,
    traffic: BTreeMap<String, Asking>,
}

/// What a client gets at the moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asking {
    /// Answered and not, since it began.
    pub(crate) answered: usize,
    pub(crate) lost: usize,
    /// Answers a second by server, lately.
    pub(crate) rates: BTreeMap<String, usize>,
}

impl Live {
    pub(crate) fn new() -> Live {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let terminal = std::io::stdout().is_terminal();
        Live {
            terminal: terminal && !dumb,
            colour: terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            state: RefCell::new(State {
                drawn: 0,
                step: None,
                doing: String::new(),
                since: Instant::now(),
                traffic: BTreeMap::new(),
            }),
        }
    }

    /// Whether there is something to look at.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    pub(crate) fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A line that stays.
    pub(crate) fn print(&self, text: &str) {
        let mut state = self.state.borrow_mut();
        let mut out = erase(&mut state);
        let _ = writeln!(out, "{text}");
        self.draw(&mut state, &mut out);
        write(&out);
    }

    /// Which step of how many begins, and what it is.
    pub(crate) fn step(&self, number: usize, of: usize, doing: &str) {
        let mut state = self.state.borrow_mut();
        state.step = Some((number, of));
        doing.clone_into(&mut state.doing);
        state.since = Instant::now();
        self.redraw(&mut state);
    }

    /// Something that has no steps.
    pub(crate) fn doing(&self, doing: &str) {
        let mut state = self.state.borrow_mut();
        doing.clone_into(&mut state.doing);
        state.since = Instant::now();
        self.redraw(&mut state);
    }

    /// A client tells what it gets; nothing when it has ended.
    pub(crate) fn asking(&self, name: &str, asking: Option<Asking>) {
        let mut state = self.state.borrow_mut();
        match asking {
            Some(asking) => state.traffic.insert(name.to_owned(), asking),
            None => state.traffic.remove(name),
        };
        self.redraw(&mut state);
    }

    /// The lower lines are over.
    pub(crate) fn end(&self) {
        let mut state = self.state.borrow_mut();
        let out = erase(&mut state);
        write(&out);
        state.doing.clear();
        state.traffic.clear();
    }

    /// Time passes also when nothing happens.
    pub(crate) async fn animate(&self) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(PERIOD).await;
            self.redraw(&mut self.state.borrow_mut());
        }
    }

    fn redraw(&self, state: &mut State) {
        if self.terminal {
            let mut out = erase(state);
            self.draw(state, &mut out);
            write(&out);
        }
    }

    fn draw(&self, state: &mut State, out: &mut String) {
        if !self.terminal || state.doing.is_empty() {
            return;
        }
        let (columns, rows) = size();
        for line in lines(state, columns, rows) {
            let (plain, bar, rest) = line;
            let _ = writeln!(out, "{}{}{}", self.paint("2", &plain), self.paint("32", &bar), rest);
            state.drawn += 1;
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.end();
    }
}

/// Moves up over the lower lines and removes them.
fn erase(state: &mut State) -> String {
    match std::mem::take(&mut state.drawn) {
        0 => String::new(),
        lines => format!("\x1b[{lines}F\x1b[J"),
    }
}

/// The lower lines, each as text, bar and more text, no wider and no more than the terminal takes.
fn lines(state: &State, columns: usize, rows: usize) -> Vec<(String, String, String)> {
    let room = columns.saturating_sub(1);
    let mut lines = vec![];
    let step = state.step.map(|(number, of)| format!("step {number} of {of}  ")).unwrap_or_default();
    let took = format!("  {:.1} s", state.since.elapsed().as_secs_f64());
    let head = clip(&format!("{step}{}", state.doing), room.saturating_sub(took.chars().count()));
    lines.push((format!("{head}{took}"), String::new(), String::new()));
    let most_lines = rows.saturating_sub(2).max(1);
    for (name, asking) in &state.traffic {
        let text = format!("  {name}: {} answered, {} not", asking.answered, asking.lost);
        lines.push((clip(&text, room), String::new(), String::new()));
        let mut servers: Vec<(&String, &usize)> = asking.rates.iter().collect();
        servers.sort_by(|a, b| by_number(a.0, b.0));
        let most = servers.iter().map(|(_, rate)| **rate).max().unwrap_or(1).max(1);
        for (server, rate) in servers.iter().take(MOST) {
            let label = format!("    {:<10} ", clip(server, 10));
            let number = format!(" {rate:>6}/s");
            let wide = BAR.min(room.saturating_sub(label.chars().count() + number.chars().count()));
            let bar = "█".repeat((*rate * wide).div_ceil(most));
            lines.push((label, format!("{bar:<wide$}"), number));
        }
        if servers.len() > MOST {
            lines.push((
                format!("    and {} more servers", servers.len() - MOST),
                String::new(),
                String::new(),
            ));
        }
    }
    lines.truncate(most_lines);
    lines
}

fn clip(text: &str, letters: usize) -> String {
    crate::page::markup::clip(text, letters)
}

/// Columns and rows of the terminal.
fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}

/// At once, so that nothing half-drawn is seen. A reader that went away (a closed pipe) must not end the lab before it is
/// cleaned up.
fn write(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(servers: usize) -> State {
        let rates = (1..=servers).map(|number| (format!("h{number}"), number * 10)).collect();
        let asking = Asking { answered: 1200, lost: 3, rates };
        State {
            drawn: 0,
            step: Some((3, 47)),
            doing: "wait for: router sends 192.0.2.53/32 to h1, h2, h3, h4, h5, h6, h7, h8".to_owned(),
            since: Instant::now(),
            traffic: BTreeMap::from([("dying".to_owned(), asking)]),
        }
    }

    #[test]
    fn lower_lines_are_never_wider_or_more_than_the_terminal_takes() {
        for (columns, rows, servers) in [(80, 24, 4), (40, 10, 64), (20, 3, 8), (1, 1, 8), (200, 60, 64)] {
            let lines = lines(&state(servers), columns, rows);
            assert!(lines.len() <= rows.saturating_sub(2).max(1), "{columns}×{rows}");
            for (plain, bar, rest) in lines.iter().filter(|_| columns >= 30) {
                let wide = [plain, bar, rest].iter().map(|part| part.chars().count()).sum::<usize>();
                assert!(wide < columns, "{columns}×{rows}: {plain}{bar}{rest}");
            }
        }
    }

    #[test]
    fn the_fullest_server_has_the_longest_bar_and_nobody_is_left_out_silently() {
        let lines = lines(&state(64), 100, 60);
        assert!(lines.iter().any(|(text, ..)| text == "    and 48 more servers"));
        let bars: Vec<usize> = lines.iter().map(|(_, bar, _)| bar.trim().chars().count()).collect();
        assert!(bars[2..18].windows(2).all(|pair| pair[0] <= pair[1]), "{bars:?}");
    }
}
