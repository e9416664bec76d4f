//! Keeps what a drill reports while it runs, so that its report can say what happened when.

use std::sync::{Mutex, PoisonError};

use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_base::time::Clock;

use crate::report::LogLine;

/// More says less: a drill of many stores has a few lines for each.
const MAX_LINES: usize = 1000;
/// A line is a sentence.
const MAX_LINE_CHARS: usize = 500;

/// Passes everything on, and remembers phases, notices and findings with their moments.
pub(crate) struct Recorder<'a> {
    clock: &'a dyn Clock,
    inner: &'a dyn Monitor,
    lines: Mutex<Vec<LogLine>>,
}

impl<'a> Recorder<'a> {
    pub(crate) fn new(clock: &'a dyn Clock, inner: &'a dyn Monitor) -> Self {
        Self { clock, inner, lines: Mutex::new(Vec::new()) }
    }

    pub(crate) fn into_lines(self) -> Vec<LogLine> {
        self.lines.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, text: &str) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let text = match lines.len() {
            0..MAX_LINES => text.chars().take(MAX_LINE_CHARS).collect(),
            MAX_LINES => "more happened than is kept here".to_owned(),
            _ => return,
        };
        lines.push(LogLine { at: self.clock.now(), text });
    }
}

impl Monitor for Recorder<'_> {
    fn phase(&self, name: &str, total_bytes: Option<u64>) {
        self.keep(name);
        self.inner.phase(name, total_bytes);
    }

    fn advance(&self, bytes: u64, items: u64) {
        self.inner.advance(bytes, items);
    }

    fn finding(&self, finding: Finding) {
        self.keep(&format!("{}: {}", finding.code, finding.message));
        self.inner.finding(finding);
    }

    fn notice(&self, text: &str) {
        self.keep(text);
        self.inner.notice(text);
    }

    fn cancelled(&self) -> bool {
        self.inner.cancelled()
    }
}
