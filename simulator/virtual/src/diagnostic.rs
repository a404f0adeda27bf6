//! What is wrong with a file, and where: all of it at once.

use std::fmt;

/// Line and column in a file, from 1; both 0 where the place is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line, from 1.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
}

/// Whether a lab can run in spite of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing is started.
    Error,
    /// The key has no meaning here; said once.
    Warning,
}

/// One thing that is wrong, printed as `FILE:LINE:COLUMN: error: TEXT`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// File as given on the command line.
    pub file: String,
    /// Where in it.
    pub place: Place,
    /// How bad.
    pub severity: Severity,
    /// What, for people.
    pub text: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{}:{}:{}: {word}: {}", self.file, self.place.line, self.place.column, self.text)
    }
}

/// The diagnostics of one file while it is read.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    file: String,
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// None yet, for this file.
    pub fn new(file: &str) -> Diagnostics {
        Diagnostics { file: file.to_owned(), list: Vec::new() }
    }

    /// Adds an error.
    pub fn error(&mut self, place: Place, text: impl Into<String>) {
        self.push(place, Severity::Error, text.into());
    }

    /// Adds a warning.
    pub fn warning(&mut self, place: Place, text: impl Into<String>) {
        self.push(place, Severity::Warning, text.into());
    }

    fn push(&mut self, place: Place, severity: Severity, text: String) {
        let diagnostic = Diagnostic { file: self.file.clone(), place, severity, text };
        // A default that several nodes inherit is wrong once, not once a node.
        if !self.list.contains(&diagnostic) {
            self.list.push(diagnostic);
        }
    }

    /// Whether something was found that forbids a start.
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// All of them in the order of the file.
    pub fn into_sorted(mut self) -> Vec<Diagnostic> {
        self.list.sort_by_key(|diagnostic| diagnostic.place);
        self.list
    }
}
