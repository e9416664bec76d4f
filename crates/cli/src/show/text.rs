//! Building blocks of a page: lines, findings, times.

use lifeboat_base::human::{self, printable};
use lifeboat_base::monitor::Finding;
use lifeboat_base::time::Timestamp;
use lifeboat_engine::AtRisk;

/// Findings shown before the rest is only counted.
const MAX_FINDINGS: usize = 20;

/// A page under construction.
#[derive(Debug, Default)]
pub(crate) struct Page(String);

impl Page {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a line. Content that came from outside is made safe for a terminal.
    pub(crate) fn line(&mut self, text: impl AsRef<str>) -> &mut Self {
        self.0 += &printable(text.as_ref());
        self.0.push('\n');
        self
    }

    /// Adds text that is already safe, such as a table. Tables fill their last column with spaces, which go.
    pub(crate) fn raw(&mut self, text: impl std::fmt::Display) -> &mut Self {
        for line in text.to_string().lines() {
            self.0 += line.trim_end();
            self.0.push('\n');
        }
        self
    }

    pub(crate) fn findings(&mut self, findings: &[Finding]) -> &mut Self {
        for finding in findings.iter().take(MAX_FINDINGS) {
            let Finding { subject, message, .. } = finding;
            if message.contains(subject.as_str()) {
                self.line(format!("  ! {message}"));
            } else {
                self.line(format!("  ! {subject}: {message}"));
            }
        }
        if findings.len() > MAX_FINDINGS {
            self.line(format!("  ! and {} more (use --json for all)", findings.len() - MAX_FINDINGS));
        }
        self
    }

    pub(crate) fn at_risk(&mut self, risks: &[AtRisk]) -> &mut Self {
        for risk in risks {
            self.line(format!("  at risk: {} of `{}`", risk.promise, risk.store));
        }
        self
    }

    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.0)
    }
}

/// `2026-11-21 02:00:00 UTC`, which `--at` takes as it is.
pub(crate) fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// `1 copy`, `2 copies`.
pub(crate) fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", human::count(count), if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_shown_with_what_it_is_about() {
        let findings = [
            Finding::new("file-unreadable", "a/b.txt", "permission denied"),
            Finding::new("copy-absent", "offsite", "copy `offsite` is not there"),
        ];
        let text = Page::new().findings(&findings).finish();
        assert_eq!(text, "  ! a/b.txt: permission denied\n  ! copy `offsite` is not there\n");
    }

    #[test]
    fn tables_carry_no_spaces_at_the_end_of_their_lines() {
        assert_eq!(Page::new().raw("a  b   \n────\n").finish(), "a  b\n────\n");
    }
}
