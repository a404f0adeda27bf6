//! How the log looks: a line per change for people, or JSON.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

/// `--log-format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// One sentence per line.
    Human,
    /// One JSON object per line, with the parts of the sentence as fields.
    Json,
}

/// `--log-level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Lines that may wait for a slow reader.
const LINES: usize = 1024;
/// How long the end of the process waits for the last lines to be read.
const PATIENCE: Duration = Duration::from_millis(500);

/// Begins to log to standard error; the last lines are written when the answer is dropped.
///
/// A thread of its own writes: whoever reads our log may stop reading, and then a full pipe would stop the loop, the
/// keepalives with it. Lines that find no room are counted and told of.
pub(crate) fn begin(format: LogFormat, level: LogLevel) -> Option<LogThread> {
    let started = LogThread::start(io::stderr(), move |count| lost_lines(format, count));
    let (lines, thread) = match started {
        Ok((lines, thread)) => (Some(lines), Some(thread)),
        Err(_) => (None, None),
    };
    subscribe(format, level, move || match &lines {
        Some(lines) => LogLine::Queued(lines.make_writer()),
        // Without a thread a log that may block is better than none.
        None => LogLine::Direct(io::stderr()),
    });
    thread
}

fn lost_lines(format: LogFormat, count: u64) -> String {
    let text = format!("{count} lines of this log were lost: it is read too slowly");
    match format {
        LogFormat::Human => text,
        LogFormat::Json => {
            serde_json::json!({ "level": "WARN", "message": text, "kind": "log_lost" }).to_string()
        }
    }
}

fn subscribe<W: Write + 'static>(
    format: LogFormat,
    level: LogLevel,
    writer: impl Fn() -> W + Send + Sync + 'static,
) {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let builder = tracing_subscriber::fmt().with_max_level(level).with_writer(writer);
    // Only a second call in one process can fail, and then there is a log already.
    let _ = match format {
        LogFormat::Json => {
            builder.json().flatten_event(true).with_current_span(false).with_target(false).try_init()
        }
        LogFormat::Human => {
            // The journal has its own clock and reads the weight from the prefix (sd-daemon(3)).
            let journal = std::env::var_os("JOURNAL_STREAM").is_some();
            builder.event_format(Sentence { journal }).try_init()
        }
    };
}

/// One line on its way.
enum LogLine {
    Queued(QueuedLine),
    Direct(io::Stderr),
}

impl Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            LogLine::Queued(line) => line.write(bytes),
            LogLine::Direct(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where lines wait for the thread that writes them.
#[derive(Clone, Debug)]
struct Lines {
    queue: SyncSender<Written>,
    lost: Arc<AtomicU64>,
}

/// One event's text, handed over when dropped.
struct QueuedLine {
    text: Vec<u8>,
    lines: Lines,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = QueuedLine;

    fn make_writer(&'a self) -> QueuedLine {
        QueuedLine { text: Vec::new(), lines: self.clone() }
    }
}

impl Write for QueuedLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for QueuedLine {
    fn drop(&mut self) {
        let text = std::mem::take(&mut self.text);
        if !text.is_empty()
            && let Err(TrySendError::Full(_)) = self.lines.queue.try_send(Written::Line(text))
        {
            self.lines.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The thread that writes the log.
#[derive(Debug)]
pub(crate) struct LogThread {
    queue: SyncSender<Written>,
    thread: Option<JoinHandle<()>>,
}

/// What goes to the thread.
#[derive(Debug)]
enum Written {
    Line(Vec<u8>),
    End,
}

impl LogThread {
    /// `lost` words how many lines found no room.
    fn start(
        stream: impl Write + Send + 'static,
        lost: impl Fn(u64) -> String + Send + 'static,
    ) -> io::Result<(Lines, LogThread)> {
        let (queue, written) = sync_channel(LINES);
        let lines = Lines { queue: queue.clone(), lost: Arc::new(AtomicU64::new(0)) };
        let counter = lines.lost.clone();
        let thread = std::thread::Builder::new()
            .name("log".to_owned())
            .stack_size(64 * 1024)
            .spawn(move || write_lines(stream, &written, &counter, lost))?;
        Ok((lines, LogThread { queue, thread: Some(thread) }))
    }
}

impl Drop for LogThread {
    fn drop(&mut self) {
        let until = Instant::now() + PATIENCE;
        let Some(thread) = self.thread.take() else { return };
        let mut told = false;
        while !thread.is_finished() && Instant::now() < until {
            told = told || !matches!(self.queue.try_send(Written::End), Err(TrySendError::Full(_)));
            std::thread::sleep(Duration::from_millis(1));
        }
        // A thread whose reader is stuck is left behind and ends with the process.
    }
}

/// Writes until told to end.
fn write_lines(
    mut stream: impl Write,
    written: &Receiver<Written>,
    counter: &AtomicU64,
    lost: impl Fn(u64) -> String,
) {
    while let Ok(Written::Line(line)) = written.recv() {
        // Nobody is left to be told that the log cannot be written.
        let _ = stream.write_all(&line);
        let count = counter.swap(0, Ordering::Relaxed);
        if count > 0 {
            let _ = writeln!(stream, "{}", lost(count));
        }
    }
}

/// The message alone: the fields repeat its parts.
struct Sentence {
    journal: bool,
}

impl<S, N> FormatEvent<S, N> for Sentence
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = *event.metadata().level();
        if self.journal {
            let weight = match level {
                Level::ERROR => 3,
                Level::WARN => 4,
                Level::INFO => 6,
                _ => 7,
            };
            write!(writer, "<{weight}>")?;
        } else {
            SystemTime.format_time(&mut writer)?;
            write!(writer, " {level:>5} ")?;
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        // What comes from outside must not be able to forge a line.
        for part in message.0.trim_end().split('\n') {
            writeln!(writer, "{}", part.replace(|c: char| c.is_control(), "\u{fffd}"))?;
        }
        Ok(())
    }
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::mpsc::Sender;

    /// A stream that takes nothing until it is let.
    struct Stuck {
        gate: Receiver<()>,
        open: bool,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if !self.open {
                let _ = self.gate.recv();
                self.open = true;
            }
            self.taken.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn stuck() -> (Stuck, Sender<()>, Arc<Mutex<Vec<u8>>>) {
        let (opener, gate) = std::sync::mpsc::channel();
        let taken = Arc::new(Mutex::new(Vec::new()));
        (Stuck { gate, open: false, taken: taken.clone() }, opener, taken)
    }

    fn say(lines: &Lines, text: &str) {
        writeln!(lines.make_writer(), "{text}").unwrap();
    }

    #[test]
    fn a_reader_that_stands_still_stops_nobody_and_what_was_lost_is_counted() {
        let (stream, opener, taken) = stuck();
        let (lines, thread) = LogThread::start(stream, |count| lost_lines(LogFormat::Human, count)).unwrap();
        // More than fits: were one of these to wait, this test would never end.
        for number in 0..LINES + 50 {
            say(&lines, &format!("line {number}"));
        }
        let lost = lines.lost.load(Ordering::Relaxed);
        assert!((49..=50).contains(&lost), "one line may be in the writer's hands: {lost}");
        opener.send(()).unwrap();
        drop(thread);
        let text = String::from_utf8(taken.lock().unwrap().clone()).unwrap();
        assert!(text.starts_with("line 0\n"), "the oldest are kept");
        assert!(text.contains(&format!("{lost} lines of this log were lost")), "{text}");
    }

    #[test]
    fn the_last_lines_are_written_before_the_end() {
        let (stream, opener, taken) = stuck();
        opener.send(()).unwrap();
        let (lines, thread) = LogThread::start(stream, |_| String::new()).unwrap();
        for number in 0..100 {
            say(&lines, &number.to_string());
        }
        drop(thread);
        assert!(taken.lock().unwrap().ends_with(b"98\n99\n"));
    }

    #[test]
    fn what_is_said_of_lost_lines_is_json_where_the_log_is() {
        let line: serde_json::Value = serde_json::from_str(&lost_lines(LogFormat::Json, 7)).unwrap();
        assert_eq!((line["kind"].as_str(), line["level"].as_str()), (Some("log_lost"), Some("WARN")));
    }
}
