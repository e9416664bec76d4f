//! An adapter that does exactly as told: faults that no real store can be asked to have.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lifeboat_base::capture::{
    Capture, CaptureFacts, Consistency, ConsistencyLevel, MaterializeStats, RestoreSource, StoredEntry,
};
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Monitor;
use lifeboat_base::path::RelPath;
use lifeboat_base::time::{ManualClock, Timestamp};
use lifeboat_drill::TryReading;
use lifeboat_stores::{
    Adapter, CanaryResult, CaptureContext, CheckResult, CheckState, Inspection, RestoreReport, Select,
    Selected, Selection, Serve, Take,
};

/// What the adapter does wrong; the default does everything right.
#[expect(clippy::struct_excessive_bools, reason = "each is one way to go wrong")]
pub(crate) struct Told {
    pub(crate) restore_fails: bool,
    pub(crate) restore_takes: Duration,
    pub(crate) check_state: CheckState,
    pub(crate) checks_error: bool,
    pub(crate) canary: Option<bool>,
    pub(crate) canaries_error: bool,
    /// Whether what its points are read by notices damage.
    pub(crate) reads: bool,
    pub(crate) clock: Arc<ManualClock>,
    /// What the store holds, whatever it is asked.
    pub(crate) says: Result<Vec<Selected>, &'static str>,
}

impl Told {
    pub(crate) fn well() -> Self {
        Self {
            restore_fails: false,
            restore_takes: Duration::from_secs(5),
            check_state: CheckState::Passed,
            checks_error: false,
            canary: Some(true),
            canaries_error: false,
            reads: true,
            clock: Arc::new(ManualClock::at(now())),
            says: Ok(Vec::new()),
        }
    }
}

pub(crate) fn now() -> Timestamp {
    "2026-11-21T10:00:00Z".parse().unwrap()
}

/// Whether what points are read by notices what is done to one.
pub(crate) fn reading(caught: bool) -> TryReading<'static> {
    Box::new(move |scratch| {
        assert!(scratch.is_dir());
        let tried = |check: &str| CanaryResult {
            check: check.to_owned(),
            damage: "a pack is cut".to_owned(),
            caught,
        };
        Ok(vec![tried("vault.read"), tried("vault.log")])
    })
}

/// Facts of a capture that shows the store a minute ago.
pub(crate) fn facts() -> CaptureFacts {
    CaptureFacts {
        consistency: Consistency {
            level: ConsistencyLevel::PointInTime,
            moment: now() - Duration::from_secs(60),
            position: None,
            changes: 0,
        },
        logical_bytes: 3,
        counts: [].into(),
        checksums: [].into(),
        environment: [].into(),
        unreadable: Vec::new(),
    }
}

impl Adapter for Told {
    fn kind(&self) -> &'static str {
        "files"
    }

    fn inspect(&self) -> Result<Inspection, Failure> {
        Err(Failure::new(FailureKind::Internal, "a drill looked at the live store"))
    }

    fn capture(&self, _at: &CaptureContext<'_>) -> Result<Box<dyn Capture>, Failure> {
        Err(Failure::new(FailureKind::Internal, "a drill captured the live store"))
    }

    fn restore(
        &self,
        _from: &dyn RestoreSource,
        _facts: &CaptureFacts,
        into: &Path,
        _monitor: &dyn Monitor,
    ) -> Result<RestoreReport, Failure> {
        self.clock.advance(self.restore_takes);
        let artefact = into.join("content");
        lifeboat_base::crashsafe::write_new(&artefact, b"abc").unwrap();
        if self.restore_fails {
            return Err(Failure::new(FailureKind::Damaged, "the pack is cut short"));
        }
        Ok(RestoreReport {
            stats: MaterializeStats { files: 1, bytes: 3, ..MaterializeStats::default() },
            artefact,
        })
    }

    fn selects(&self) -> Option<&dyn Select> {
        Some(self)
    }

    fn serves(&self) -> Option<&dyn Serve> {
        Some(self)
    }

    fn checks(
        &self,
        _from: &dyn RestoreSource,
        _facts: &CaptureFacts,
        restored: &Path,
        _monitor: &dyn Monitor,
    ) -> Result<Vec<CheckResult>, Failure> {
        assert!(restored.join("content").is_file(), "checks look at what was restored");
        if self.checks_error {
            return Err(Failure::new(FailureKind::Internal, "the check crashed"));
        }
        Ok(vec![CheckResult {
            id: "told.rows/orders".to_owned(),
            state: self.check_state,
            measured: "3".to_owned(),
            expected: "3".to_owned(),
            detail: Vec::new(),
            differences: 0,
        }])
    }

    fn canaries(&self, scratch: &Path) -> Result<Vec<CanaryResult>, Failure> {
        assert!(scratch.is_dir(), "canaries get a folder of their own");
        if self.canaries_error {
            return Err(Failure::new(FailureKind::Internal, "no sample could be made"));
        }
        let canary = |caught| CanaryResult {
            check: "told.rows".to_owned(),
            damage: "one row missing".to_owned(),
            caught,
        };
        Ok(self.canary.map(canary).into_iter().collect())
    }
}

impl Select for Told {
    fn select(
        &self,
        _facts: &CaptureFacts,
        artefact: &Path,
        wanted: &[Selection],
        _monitor: &dyn Monitor,
        take: &mut Take<'_>,
    ) -> Result<Vec<Result<(), Failure>>, Failure> {
        assert!(artefact.is_file(), "what is asked is what was restored");
        let answer = |number: usize| match &self.says {
            Ok(says) => Ok(says.iter().try_for_each(|found| take(number, found.clone()))),
            Err(why) => Err(Failure::new(FailureKind::Findings, *why)),
        };
        let answers: Vec<_> = (0..wanted.len()).map(answer).collect();
        answers
            .into_iter()
            .map(|answer| answer.map_or_else(|error| Ok(Err(error)), |taken| taken.map(Ok)))
            .collect()
    }
}

impl Serve for Told {
    fn address(&self, _facts: &CaptureFacts, at: &Path) -> String {
        at.to_string_lossy().into_owned()
    }

    fn serve(
        &self,
        _facts: &CaptureFacts,
        artefact: &Path,
        _monitor: &dyn Monitor,
        work: &mut dyn FnMut(&Path) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        work(artefact)
    }
}

/// A point that holds nothing.
pub(crate) struct Empty;

impl RestoreSource for Empty {
    fn walk(
        &self,
        _under: &RelPath,
        _visit: &mut dyn FnMut(StoredEntry) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        Ok(())
    }

    fn open(&self, path: &RelPath) -> Result<Box<dyn std::io::Read + Send + '_>, Failure> {
        Err(Failure::new(FailureKind::Refused, format!("no {path}")))
    }

    fn materialize(
        &self,
        _under: &RelPath,
        _into: &Path,
        _monitor: &dyn Monitor,
    ) -> Result<MaterializeStats, Failure> {
        Ok(MaterializeStats::default())
    }
}

/// What lies in a folder.
pub(crate) fn listing(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}
