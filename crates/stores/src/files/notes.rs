//! What went wrong during a capture: everything counted, the first of it named.
//!
//! In: findings about single entries. Out: findings for the monitor, names and counts for the facts. Memory: bounded
//! by [`MAX_TOLD`] and [`MAX_NAMED`], even when nothing at all can be read.

use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_base::path::RelPath;

/// Findings told one by one; after that only their number grows.
const MAX_TOLD: u64 = 1_000;
/// Unreadable entries named in the facts.
const MAX_NAMED: usize = 10_000;

/// Collects what a capture has to say.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    changes: u64,
    unreadable: Vec<String>,
    unreadable_count: u64,
}

/// A path for people; the root is a dot.
pub(crate) fn shown(path: &RelPath) -> String {
    if path.depth() == 0 { ".".to_owned() } else { path.to_string() }
}

impl Notes {
    /// An entry was seen to change, appear or vanish.
    pub(crate) fn changed(&mut self, finding: Finding, monitor: &dyn Monitor) {
        self.changes += 1;
        if self.changes <= MAX_TOLD {
            monitor.finding(finding);
        }
    }

    /// An entry, or `part` of it, is not captured, and that is told.
    pub(crate) fn unreadable(&mut self, path: &RelPath, part: &str, finding: Finding, monitor: &dyn Monitor) {
        self.lost(path, part);
        if self.changes <= MAX_TOLD {
            monitor.finding(finding);
        }
    }

    /// An entry, or `part` of it, is not captured; somebody else tells.
    pub(crate) fn lost(&mut self, path: &RelPath, part: &str) {
        self.unreadable_count += 1;
        self.changes += 1;
        if self.unreadable.len() < MAX_NAMED {
            self.unreadable.push(format!("{}{part}", shown(path)));
        }
    }

    /// Says how much was left unsaid.
    pub(crate) fn close(&self, monitor: &dyn Monitor) {
        if let Some(more) = self.changes.checked_sub(MAX_TOLD).filter(|more| *more > 0) {
            let message =
                format!("{more} more entries changed or could not be read; only the first are named");
            monitor.finding(Finding::new("findings-cut", ".", message));
        }
    }

    /// Everything counted so far.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// The names for the facts, with a last one for those that are not named.
    pub(crate) fn into_unreadable(mut self) -> Vec<String> {
        let named = self.unreadable.len() as u64;
        if self.unreadable_count > named {
            self.unreadable.push(format!("and {} more", self.unreadable_count - named));
        }
        self.unreadable
    }
}

#[cfg(test)]
mod tests {
    use lifeboat_base::monitor::Findings;

    use super::*;

    #[test]
    fn a_tree_of_which_nothing_can_be_read_does_not_fill_the_memory() {
        let (mut notes, monitor) = (Notes::default(), Findings::new());
        for _ in 0..20_000 {
            notes.unreadable(&RelPath::root(), "", Finding::new("file-unreadable", ".", "x"), &monitor);
        }
        notes.close(&monitor);
        assert_eq!(notes.changes(), 20_000);
        assert_eq!(monitor.list().len(), 1_001);
        let names = notes.into_unreadable();
        assert_eq!((names.len(), names.last().map(String::as_str)), (10_001, Some("and 10000 more")));
    }
}
