//! What is wrong while a log is followed: each told once when it begins and once when it is over.
//!
//! In: findings, again and again. Out: notices for whoever watches, and at the end what is still wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lifeboat_base::monitor::{Finding, Monitor};

/// What only a person can end is told again this often.
pub(super) const TOLD_AGAIN: Duration = Duration::from_secs(300);

/// By code and subject.
type Key = (String, String);

struct Trouble {
    finding: Finding,
    told: Duration,
    again: bool,
}

/// What is wrong now.
#[derive(Default)]
pub(super) struct Troubles {
    open: BTreeMap<Key, Trouble>,
}

fn key(finding: &Finding) -> Key {
    (finding.code.clone(), finding.subject.clone())
}

impl Troubles {
    /// It is wrong at the moment `now` of the stopwatch; told if it was not before, or with `again` if that is long ago.
    pub(super) fn begin(&mut self, finding: Finding, again: bool, now: Duration, monitor: &dyn Monitor) {
        let key = key(&finding);
        let due = self.open.get(&key).is_none_or(|known| again && now >= known.told + TOLD_AGAIN);
        let told = if due { now } else { self.open.get(&key).map_or(now, |known| known.told) };
        if due {
            monitor.notice(&finding.message);
        }
        self.open.insert(key, Trouble { finding, told, again });
    }

    /// It is over, and `how` says so, if it had begun.
    pub(super) fn end(&mut self, code: &str, subject: &str, how: &str, monitor: &dyn Monitor) {
        if self.open.remove(&(code.to_owned(), subject.to_owned())).is_some() {
            monitor.notice(how);
        }
    }

    /// Something else took its place.
    pub(super) fn forget(&mut self, code: &str, subject: &str) {
        self.open.remove(&(code.to_owned(), subject.to_owned()));
    }

    /// These are all that is wrong of one code.
    pub(super) fn are(
        &mut self,
        code: &str,
        findings: Vec<Finding>,
        how: impl Fn(&str) -> String,
        (now, monitor): (Duration, &dyn Monitor),
    ) {
        let found: BTreeSet<Key> = findings.iter().map(key).collect();
        let over: Vec<Key> =
            self.open.keys().filter(|key| key.0 == code && !found.contains(*key)).cloned().collect();
        for (code, subject) in over {
            self.end(&code, &subject, &how(&subject), monitor);
        }
        for finding in findings {
            self.begin(finding, false, now, monitor);
        }
    }

    /// Tells again what is to be told again.
    pub(super) fn remind(&mut self, now: Duration, monitor: &dyn Monitor) {
        for trouble in self.open.values_mut().filter(|trouble| trouble.again) {
            if now >= trouble.told + TOLD_AGAIN {
                trouble.told = now;
                monitor.notice(&trouble.finding.message);
            }
        }
    }

    /// What has troubles of this code now.
    pub(super) fn subjects(&self, code: &str) -> impl Iterator<Item = &str> {
        self.open.keys().filter(move |key| key.0 == code).map(|key| key.1.as_str())
    }

    /// What is wrong now.
    pub(super) fn findings(&self) -> Vec<Finding> {
        self.open.values().map(|trouble| trouble.finding.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Said(Mutex<Vec<String>>);

    impl Monitor for Said {
        fn phase(&self, _name: &str, _total_bytes: Option<u64>) {}

        fn advance(&self, _bytes: u64, _items: u64) {}

        fn finding(&self, _finding: Finding) {}

        fn notice(&self, text: &str) {
            self.0.lock().unwrap().push(text.to_owned());
        }
    }

    #[test]
    fn each_trouble_is_told_when_it_begins_and_when_it_is_over_and_what_needs_a_person_again() {
        let (said, mut troubles) = (Said::default(), Troubles::default());
        let second = Duration::from_secs;
        let away = |copy: &str, why: &str| Finding::new("copy-unusable", copy, format!("{copy} {why}"));
        let back = |copy: &str| format!("{copy} is back");
        let both = vec![away("one", "gone"), away("two", "gone")];
        troubles.are("copy-unusable", both, back, (second(0), &said));
        troubles.are("copy-unusable", vec![away("two", "still gone")], back, (second(1), &said));
        let refused = Finding::new("store-refuses", "shop", "no entry");
        troubles.begin(refused, true, second(2), &said);
        for n in 3..700 {
            troubles.remind(second(n), &said);
        }
        assert_eq!(troubles.findings().len(), 2);
        troubles.end("store-refuses", "shop", "let in", &said);
        troubles.end("store-refuses", "shop", "let in", &said);
        let expected = ["one gone", "two gone", "one is back", "no entry", "no entry", "no entry", "let in"];
        assert_eq!(*said.0.lock().unwrap(), expected);
        assert_eq!(troubles.findings(), [away("two", "still gone")]);
    }
}
