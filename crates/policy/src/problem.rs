//! What is wrong with a policy, where, and what to write instead.
//!
//! In: places in the text, already masked of secrets. Out: plain text, text for a terminal, and the
//! [`miette::Diagnostic`] shape for whoever prefers its renderer.

use std::fmt;
use std::sync::Arc;

use lifeboat_base::failure::FailureKind;
use lifeboat_base::human::printable;

/// Columns of a source line that are shown; longer lines are cut around the problem.
const SHOWN_COLUMNS: usize = 120;
/// Columns kept before the problem when a line is cut.
const LEAD_COLUMNS: usize = 30;
/// Characters of the offending text that are kept.
const MAX_OFFENDING: usize = 80;

/// Whether a policy can be used in spite of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The policy is refused.
    Error,
    /// The policy is accepted.
    Warning,
}

/// A place in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Bytes before it.
    pub offset_bytes: usize,
    /// Bytes it covers.
    pub len_bytes: usize,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

/// The text of a policy after masking; shared by all of its problems.
#[derive(Debug)]
pub(crate) struct MaskedText {
    pub(crate) file_name: String,
    pub(crate) text: String,
}

/// One thing that is wrong. Nothing in it, its `Debug` included, holds a secret of the file.
#[derive(Debug, Clone)]
pub struct Problem {
    pub(crate) code: &'static str,
    pub(crate) severity: Severity,
    pub(crate) message: String,
    pub(crate) help: String,
    pub(crate) position: Position,
    pub(crate) offending: String,
    pub(crate) source: Arc<MaskedText>,
}

impl Problem {
    pub(crate) fn new(found: crate::reader::Found, source: &Arc<MaskedText>) -> Self {
        let text = source.text.as_str();
        let start = floor_boundary(text, found.at.start);
        let end = floor_boundary(text, found.at.end.max(start));
        let before = text.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let position = Position {
            offset_bytes: start,
            len_bytes: end - start,
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
        };
        let offending = text.get(start..end).unwrap_or_default();
        let offending = offending.lines().next().unwrap_or_default().trim_end();
        let offending = printable(&offending.chars().take(MAX_OFFENDING).collect::<String>());
        Self {
            code: found.code,
            severity: found.severity,
            message: found.message,
            help: found.help,
            position,
            offending,
            source: Arc::clone(source),
        }
    }

    /// A stable word for the rule that was broken, such as `unknown-key`.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// Whether the policy is refused.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// What is wrong, without its place.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to write instead.
    pub fn help(&self) -> &str {
        &self.help
    }

    /// Where.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The text at that place, masked when it may be a secret, cut after the first line.
    pub fn offending(&self) -> &str {
        &self.offending
    }

    /// The name of the file, as given to `parse`.
    pub fn file_name(&self) -> &str {
        &self.source.file_name
    }

    /// Several lines for a person: the message, the place, the line with the text marked, the help.
    pub fn render(&self, colour: bool) -> String {
        let paint = Paint { colour };
        let (word, shade) = match self.severity {
            Severity::Error => ("error", RED),
            Severity::Warning => ("warning", YELLOW),
        };
        let Position { line, column, .. } = self.position;
        let gutter = " ".repeat(line.to_string().len());
        let (shown, mark_at, mark_len) = self.excerpt();
        let head = paint.with(shade, &format!("{word}[{}]", self.code));
        let bar = paint.with(BLUE, "|");
        let marks = paint.with(shade, &"^".repeat(mark_len));
        let place = format!("{}:{line}:{column}", printable(&self.source.file_name));
        let line_number = paint.with(BLUE, &line.to_string());
        let arrow = paint.with(BLUE, "-->");
        let message = paint.with(BOLD, &self.message);
        let source = format!("{line_number} {bar} {shown}");
        let indent = " ".repeat(mark_at);
        let help = format!("{} {}", paint.with(BLUE, "= help:"), self.help);
        [
            format!("{head}: {message}\n"),
            format!("{gutter}{arrow} {place}\n{gutter} {bar}\n"),
            format!("{}\n", source.trim_end()),
            format!("{gutter} {bar} {indent}{marks}\n"),
            format!("{gutter} {help}\n"),
        ]
        .concat()
    }

    /// The line to show, the column its mark starts at (from 0) and the mark's length.
    fn excerpt(&self) -> (String, usize, usize) {
        let line = self.source.text.lines().nth(self.position.line - 1).unwrap_or_default();
        let characters: Vec<char> = line.chars().collect();
        let start = (self.position.column - 1).min(characters.len());
        let first = if characters.len() > SHOWN_COLUMNS { start.saturating_sub(LEAD_COLUMNS) } else { 0 };
        let shown: String = characters.iter().skip(first).take(SHOWN_COLUMNS).collect();
        let room = characters.len().min(first + SHOWN_COLUMNS).saturating_sub(start).max(1);
        let marked = self.offending.chars().count().clamp(1, room);
        let shown: String = shown.chars().map(|c| if c == '\t' { ' ' } else { c }).collect();
        (printable(&shown), start - first, marked)
    }
}

impl fmt::Display for Problem {
    /// One line: `FILE:LINE:COLUMN: MESSAGE: HELP`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { line, column, .. } = self.position;
        write!(f, "{}:{line}:{column}: {} ({})", printable(&self.source.file_name), self.message, self.help)
    }
}

impl std::error::Error for Problem {}

impl miette::Diagnostic for Problem {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(format!("policy::{}", self.code)))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.help))
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        Some(self.source.as_ref())
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = miette::LabeledSpan> + '_>> {
        let Position { offset_bytes, len_bytes, .. } = self.position;
        Some(Box::new(std::iter::once(miette::LabeledSpan::new(None, offset_bytes, len_bytes))))
    }
}

impl miette::SourceCode for MaskedText {
    fn read_span<'a>(
        &'a self,
        span: &miette::SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn miette::SpanContents<'a> + 'a>, miette::MietteError> {
        let inner = self.text.as_str().read_span(span, before, after)?;
        Ok(Box::new(miette::MietteSpanContents::new_named(
            self.file_name.clone(),
            inner.data(),
            *inner.span(),
            inner.line(),
            inner.column(),
            inner.line_count(),
        )))
    }
}

/// Every problem that makes a policy unusable, in the order of the file; never empty.
#[derive(Debug, Clone)]
pub struct PolicyErrors {
    problems: Vec<Problem>,
}

impl PolicyErrors {
    pub(crate) fn new(problems: Vec<Problem>) -> Self {
        Self { problems }
    }

    /// The problems, in the order of the file.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Always a usage failure: nothing was read but the policy.
    pub fn kind(&self) -> FailureKind {
        FailureKind::Usage
    }

    /// Every problem for a person, with the marked line and the help, and a last line that counts them.
    pub fn render(&self, colour: bool) -> String {
        let mut out = String::new();
        for problem in &self.problems {
            out.push_str(&problem.render(colour));
            out.push('\n');
        }
        let noun = if self.problems.len() == 1 { "problem" } else { "problems" };
        out + &format!("{} {noun} in the policy; nothing was done\n", self.problems.len())
    }
}

impl fmt::Display for PolicyErrors {
    /// One line a problem.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for PolicyErrors {}

impl miette::Diagnostic for PolicyErrors {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn miette::Diagnostic> + 'a>> {
        Some(Box::new(self.problems.iter().map(|problem| problem as &dyn miette::Diagnostic)))
    }
}

const RED: &str = "1;31";
const YELLOW: &str = "1;33";
const BLUE: &str = "1;34";
const BOLD: &str = "1";

struct Paint {
    colour: bool,
}

impl Paint {
    fn with(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// The nearest character boundary at or before `at`.
fn floor_boundary(text: &str, at: usize) -> usize {
    text.floor_char_boundary(at)
}
