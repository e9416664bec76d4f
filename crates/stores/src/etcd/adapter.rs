//! The adapter of kind `etcd`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_base::capture::{Capture, CaptureFacts, RestoreSource};
use lifeboat_base::failure::Failure;
use lifeboat_base::monitor::Monitor;
use lifeboat_base::time::{Clock, SystemClock};
use lifeboat_etcd::{RUNTIME, sweep};

use super::canaries;
use super::capture::{CLUSTER, EtcdCapture};
use super::checks::{START, Subject, check_all};
use super::error::etcd;
use super::restore::{Way, restore_snapshot};
use super::source::EtcdSource;
use super::{select, serve};
use crate::adapter::{Adapter, CanaryResult, CaptureContext, CheckResult, Inspection, RestoreReport};
use crate::select::{Select, Selection, Take};
use crate::serve::Serve;

/// How a cluster is reached and restored.
#[derive(Clone, Debug)]
pub struct EtcdOptions {
    /// Where snapshots come from; asked only to inspect or capture, never to restore or check.
    pub source: EtcdSource,
    /// Folders with programs of etcd, besides those where packages put them.
    pub programs: Vec<PathBuf>,
    /// By how much a restore raises the revision, with everything before marked as compacted.
    pub bump_revision: Option<u64>,
}

/// Captures and restores one cluster.
#[derive(Clone)]
pub struct EtcdAdapter {
    options: EtcdOptions,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for EtcdAdapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdAdapter").field("options", &self.options).finish_non_exhaustive()
    }
}

impl EtcdAdapter {
    /// An adapter for one cluster. Nothing is contacted yet.
    pub fn new(options: EtcdOptions) -> Self {
        Self { options, clock: Arc::new(SystemClock::new()) }
    }
}

impl Adapter for EtcdAdapter {
    fn kind(&self) -> &'static str {
        "etcd"
    }

    fn inspect(&self) -> Result<Inspection, Failure> {
        self.options.source.inspect()
    }

    fn capture(&self, at: &CaptureContext<'_>) -> Result<Box<dyn Capture>, Failure> {
        let now = at.clock.now();
        let ready = self.options.source.ready()?;
        Ok(Box::new(EtcdCapture::start(ready, (at.spool, at.known), now, Arc::clone(&self.clock))))
    }

    fn identity(&self, facts: &CaptureFacts) -> Option<String> {
        facts.environment.get(CLUSTER)?.as_str().map(str::to_owned)
    }

    fn selects(&self) -> Option<&dyn Select> {
        Some(self)
    }

    fn serves(&self) -> Option<&dyn Serve> {
        Some(self)
    }

    fn restore(
        &self,
        from: &dyn RestoreSource,
        facts: &CaptureFacts,
        into: &Path,
        monitor: &dyn Monitor,
    ) -> Result<RestoreReport, Failure> {
        let way = Way {
            programs: &self.options.programs,
            bump_revision: self.options.bump_revision,
            clock: self.clock.as_ref(),
        };
        restore_snapshot(&way, from, facts, into, monitor)
    }

    fn essential(&self) -> &'static [&'static str] {
        &[START]
    }

    fn sweep(&self) -> Result<(), Failure> {
        let swept = sweep(Path::new(RUNTIME), self.clock.as_ref());
        swept.map(drop).map_err(etcd("failed to end throwaway servers that a dead run left"))
    }

    fn checks(
        &self,
        from: &dyn RestoreSource,
        facts: &CaptureFacts,
        restored: &Path,
        monitor: &dyn Monitor,
    ) -> Result<Vec<CheckResult>, Failure> {
        let subject = Subject {
            facts,
            from,
            restored,
            programs: &self.options.programs,
            bump_revision: self.options.bump_revision,
            clock: self.clock.as_ref(),
            monitor,
        };
        check_all(&subject)
    }

    fn canaries(&self, scratch: &Path) -> Result<Vec<CanaryResult>, Failure> {
        canaries::run(scratch, &self.options.programs, &self.clock)
    }
}

impl Select for EtcdAdapter {
    fn select(
        &self,
        _facts: &CaptureFacts,
        artefact: &Path,
        wanted: &[Selection],
        monitor: &dyn Monitor,
        take: &mut Take<'_>,
    ) -> Result<Vec<Result<(), Failure>>, Failure> {
        select::select(artefact, wanted, monitor, take)
    }
}

impl Serve for EtcdAdapter {
    fn address(&self, _facts: &CaptureFacts, at: &Path) -> String {
        format!("unix://{}", at.display())
    }

    fn serve(
        &self,
        facts: &CaptureFacts,
        artefact: &Path,
        monitor: &dyn Monitor,
        work: &mut dyn FnMut(&Path) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        serve::serve((facts, &self.options.programs), artefact, (self.clock.as_ref(), monitor), work)
    }
}
