//! The adapter of rows of kind `redis` with `capture = "files"`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_base::capture::{Capture, CaptureFacts, RestoreSource};
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Monitor;
use lifeboat_redis::files::{Chosen, FilesError, Settings, choose};

use super::canaries;
use super::capture::FilesCapture;
use crate::adapter::{Adapter, CanaryResult, CaptureContext, CheckResult, Inspection, RestoreReport};
use crate::load::Loader;
use crate::redis::adapter::{RedisAdapter, RedisOptions};
use crate::redis::duties::Upkeep;
use crate::select::Select;
use crate::serve::Serve;

/// Where the files are and what is checked after a restore.
#[derive(Clone, Debug)]
pub struct RedisFilesOptions {
    /// The server's folder, with its dump or its log.
    pub dir: PathBuf,
    /// The server's configuration, where it is known.
    pub config: Option<PathBuf>,
    /// Folders with programs of a server, besides those where packages put them.
    pub programs: Vec<PathBuf>,
    /// Commands that only read, with what they must answer.
    pub commands: Vec<String>,
}

/// Captures the files of one server; restores as any other point of a server is.
#[derive(Clone, Debug)]
pub struct RedisFilesAdapter {
    options: RedisFilesOptions,
    restored: RedisAdapter,
}

/// A failed look at the files.
pub(super) fn failed(what: &'static str) -> impl FnOnce(FilesError) -> Failure {
    move |error| Failure::with_source(error.kind(), what, error)
}

impl RedisFilesAdapter {
    /// An adapter for one folder. Nothing is opened yet.
    pub fn new(options: RedisFilesOptions) -> Self {
        let nowhere = || Err(Failure::new(FailureKind::Internal, "a row of files has no address"));
        let restored = RedisAdapter::new(RedisOptions {
            url: Arc::new(nowhere),
            programs: options.programs.clone(),
            commands: options.commands.clone(),
            upkeep: Upkeep::default(),
            scan: None,
            token: None,
        });
        Self { options, restored }
    }

    fn chosen(&self) -> Result<Chosen, Failure> {
        let fail = || failed("the files of the server cannot be taken");
        let settings = match &self.options.config {
            Some(path) => Settings::read(path, &self.options.dir).map_err(fail())?,
            None => Settings::default(),
        };
        choose(&self.options.dir, &settings).map_err(fail())
    }
}

/// The version that a dump says made it.
pub(super) fn version(chosen: &Chosen) -> Option<String> {
    chosen.about()?.aux.get("redis-ver").cloned()
}

impl Adapter for RedisFilesAdapter {
    fn kind(&self) -> &'static str {
        "redis"
    }

    fn inspect(&self) -> Result<Inspection, Failure> {
        let chosen = self.chosen()?;
        let version = version(&chosen).unwrap_or_else(|| "of an unknown version".to_owned());
        Ok(Inspection {
            version: format!("files of Redis {version} ({})", chosen.origin().word()),
            logical_bytes: Some(chosen.bytes()),
            items: vec![("files".to_owned(), chosen.count())],
            findings: Vec::new(),
            share: None,
        })
    }

    fn capture(&self, at: &CaptureContext<'_>) -> Result<Box<dyn Capture>, Failure> {
        // Before anything is looked at: what was acknowledged by now is in the files.
        let asked = at.clock.now();
        Ok(Box::new(FilesCapture::start(self.chosen()?, asked)?))
    }

    fn restore(
        &self,
        from: &dyn RestoreSource,
        facts: &CaptureFacts,
        into: &Path,
        monitor: &dyn Monitor,
    ) -> Result<RestoreReport, Failure> {
        self.restored.restore(from, facts, into, monitor)
    }

    fn essential(&self) -> &'static [&'static str] {
        self.restored.essential()
    }

    fn loader(&self) -> Option<&dyn Loader> {
        Some(&self.restored)
    }

    fn selects(&self) -> Option<&dyn Select> {
        Some(&self.restored)
    }

    fn serves(&self) -> Option<&dyn Serve> {
        Some(&self.restored)
    }

    fn sweep(&self) -> Result<(), Failure> {
        self.restored.sweep()
    }

    fn checks(
        &self,
        from: &dyn RestoreSource,
        facts: &CaptureFacts,
        restored: &Path,
        monitor: &dyn Monitor,
    ) -> Result<Vec<CheckResult>, Failure> {
        self.restored.checks(from, facts, restored, monitor)
    }

    fn canaries(&self, scratch: &Path) -> Result<Vec<CanaryResult>, Failure> {
        let mut results = self.restored.canaries(scratch)?;
        results.extend(canaries::run(scratch, &self.options.programs)?);
        Ok(results)
    }
}
