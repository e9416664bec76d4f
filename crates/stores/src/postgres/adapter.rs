//! The adapter of kind `postgres`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_base::capture::{Capture, CaptureFacts, RestoreSource};
use lifeboat_base::failure::Failure;
use lifeboat_base::monitor::Monitor;
use lifeboat_base::time::{Clock, SystemClock};
use lifeboat_postgres::server::{RUNTIME, sweep};
use lifeboat_postgres::wire::ConnectOptions;

use super::canaries;
use super::capture::PostgresCapture;
use super::checks::{RECOVERY, Subject, check_cluster};
use super::error;
use super::extract::Workshop;
use super::feed::PostgresFeed;
use super::restore::{restore_cluster, settle};
use super::select::Asked;
use super::{placing, preflight, replay, select};
use crate::adapter::{
    Adapter, Address, CanaryResult, CaptureContext, CheckResult, Inspection, RestoreReport,
};
use crate::archive::LogFiles;
use crate::continuous::{Continuous, Goal, LogFeed, LogPosition, LogSource, Resume, Stop};
use crate::inplace::{InPlace, Place, Standing};
use crate::parts::{Part, PartReport, Parts};
use crate::select::{Select, Selection, Take};
use crate::serve::Serve;

/// How a cluster is reached and what is checked after a restore.
#[derive(Clone)]
pub struct PostgresOptions {
    /// Gives the address of the primary; called only to inspect or capture, never to restore or check.
    pub url: Address,
    /// The replication slot that keeps the log for us; of `a` to `z`, `0` to `9` and `_`.
    pub slot: String,
    /// Folders with programs of a server, besides those where packages put them.
    pub programs: Vec<PathBuf>,
    /// Column sets that must be unique, such as `orders(order_no)`.
    pub unique: Vec<String>,
    /// Statements that must each give one true value.
    pub sql: Vec<String>,
    /// Where a restore places tablespaces, by name or object id; the others come to lie inside the data directory.
    pub tablespaces: Vec<(String, PathBuf)>,
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions").field("unique", &self.unique).finish_non_exhaustive()
    }
}

/// Captures and restores one cluster.
#[derive(Clone)]
pub struct PostgresAdapter {
    options: PostgresOptions,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for PostgresAdapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresAdapter").field("options", &self.options).finish_non_exhaustive()
    }
}

impl PostgresAdapter {
    /// An adapter for one cluster. Nothing is contacted yet.
    pub fn new(options: PostgresOptions) -> Self {
        Self { options, clock: Arc::new(SystemClock::new()) }
    }

    fn workshop<'a>(&'a self, facts: &'a CaptureFacts) -> Workshop<'a> {
        Workshop { programs: &self.options.programs, clock: self.clock.as_ref(), facts }
    }

    /// Where tablespaces of the cluster were placed, besides its own folder.
    fn spaces(&self, facts: &CaptureFacts) -> Result<Vec<PathBuf>, Failure> {
        Ok(self.places(facts)?.into_iter().map(|place| place.folder).collect())
    }

    fn asked<'a>(
        &'a self,
        facts: &'a CaptureFacts,
        spaces: &'a [PathBuf],
        monitor: &'a dyn Monitor,
    ) -> Asked<'a> {
        let (programs, clock) = (self.options.programs.as_slice(), self.clock.as_ref());
        Asked { facts, programs, spaces, clock, monitor }
    }

    fn connect_options(&self) -> Result<ConnectOptions, Failure> {
        let parsed = ConnectOptions::parse(&(self.options.url)()?);
        parsed.map_err(error::connection("failed to understand the address of the server"))
    }
}

impl Adapter for PostgresAdapter {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    fn inspect(&self) -> Result<Inspection, Failure> {
        preflight::inspect(&self.connect_options()?, &self.options.slot)
    }

    fn capture(&self, at: &CaptureContext<'_>) -> Result<Box<dyn Capture>, Failure> {
        let options = self.connect_options()?;
        preflight::ready(&options)?;
        Ok(Box::new(PostgresCapture::start(&options, &self.options.slot, at)?))
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
        restore_cluster(from, facts, into, monitor)
    }

    fn essential(&self) -> &'static [&'static str] {
        &[RECOVERY]
    }

    fn continuous(&self) -> Option<&dyn Continuous> {
        Some(self)
    }

    fn parts(&self) -> Option<&dyn Parts> {
        Some(self)
    }

    fn sweep(&self) -> Result<(), Failure> {
        let swept = sweep(Path::new(RUNTIME), self.clock.as_ref());
        swept.map(drop).map_err(error::server("failed to end throwaway servers that a dead run left"))
    }

    fn in_place(&self) -> Option<&dyn InPlace> {
        Some(self)
    }

    fn settle(&self, restored: &Path, target: &Path) -> Result<(), Failure> {
        settle(restored, target)
    }

    fn checks(
        &self,
        from: &dyn RestoreSource,
        facts: &CaptureFacts,
        restored: &Path,
        monitor: &dyn Monitor,
    ) -> Result<Vec<CheckResult>, Failure> {
        let spaces: Vec<PathBuf> = self.places(facts)?.into_iter().map(|place| place.folder).collect();
        let subject = Subject {
            spaces: &spaces,
            unique: &self.options.unique,
            sql: &self.options.sql,
            programs: &self.options.programs,
            database: facts.environment.get("database").and_then(|name| name.as_str()).map(str::to_owned),
            clock: self.clock.as_ref(),
            facts,
            monitor,
        };
        check_cluster(&subject, from, restored)
    }

    fn canaries(&self, scratch: &Path) -> Result<Vec<CanaryResult>, Failure> {
        canaries::run(scratch, &self.options.programs, self.clock.as_ref())
    }
}

impl Select for PostgresAdapter {
    fn select(
        &self,
        facts: &CaptureFacts,
        artefact: &Path,
        wanted: &[Selection],
        monitor: &dyn Monitor,
        take: &mut Take<'_>,
    ) -> Result<Vec<Result<(), Failure>>, Failure> {
        let spaces = self.spaces(facts)?;
        select::select(&self.asked(facts, &spaces, monitor), artefact, wanted, take)
    }
}

impl Serve for PostgresAdapter {
    fn address(&self, facts: &CaptureFacts, at: &Path) -> String {
        select::address(facts, at)
    }

    fn serve(
        &self,
        facts: &CaptureFacts,
        artefact: &Path,
        monitor: &dyn Monitor,
        work: &mut dyn FnMut(&Path) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let spaces = self.spaces(facts)?;
        select::serve(&self.asked(facts, &spaces, monitor), artefact, work)
    }
}

impl Parts for PostgresAdapter {
    fn ready(&self, facts: &CaptureFacts) -> Result<(), Failure> {
        self.workshop(facts).ready()
    }

    fn extract(
        &self,
        facts: &CaptureFacts,
        restored: &Path,
        part: &Part,
        into: &Path,
        monitor: &dyn Monitor,
    ) -> Result<PartReport, Failure> {
        self.workshop(facts).extract(restored, part, into, monitor)
    }
}

impl InPlace for PostgresAdapter {
    fn keystone(&self) -> &'static str {
        placing::KEYSTONE
    }

    fn places(&self, facts: &CaptureFacts) -> Result<Vec<Place>, Failure> {
        placing::places(facts, &self.options.tablespaces)
    }

    fn standing(&self, facts: &CaptureFacts, folder: &Path) -> Result<Standing, Failure> {
        Ok(placing::standing(Continuous::identity(self, facts).as_deref(), folder))
    }

    fn outside(&self, folder: &Path) -> Result<Vec<Place>, Failure> {
        placing::outside(folder).map_err(|error| {
            Failure::io(format!("failed to look at the links in {}", folder.display()), error)
        })
    }

    fn is_part(&self, folder: &Path) -> bool {
        placing::is_tablespace(folder)
    }
}

impl Continuous for PostgresAdapter {
    fn stream(&self) -> &'static str {
        "wal"
    }

    fn identity(&self, facts: &CaptureFacts) -> Option<String> {
        let found = facts.environment.get("system_identifier")?;
        found.as_str().map(str::to_owned).or_else(|| found.as_u64().map(|number| number.to_string()))
    }

    fn follow(&self, resume: Option<Resume>, known: &[String]) -> Result<Box<dyn LogFeed>, Failure> {
        let options = self.connect_options()?;
        preflight::ready(&options)?;
        Ok(Box::new(PostgresFeed::start(&options, &self.options.slot, resume, known)?))
    }

    fn refusal(&self, failure: &Failure) -> Option<String> {
        error::is_refused_login(failure).then(|| {
            "put the role, its password and its line for `replication` in pg_hba.conf right, or the address in the row, and \
             see it with `lifeboat check`"
                .to_owned()
        })
    }

    fn files(&self) -> Option<&dyn LogFiles> {
        Some(self)
    }

    fn base_end(&self, facts: &CaptureFacts) -> Result<LogPosition, Failure> {
        replay::base_end(facts)
    }

    fn replay(
        &self,
        facts: &CaptureFacts,
        restored: &Path,
        log: &dyn LogSource,
        goal: &Goal,
    ) -> Result<Stop, Failure> {
        replay::replay(facts, restored, log, goal)
    }
}

/// Where a restored cluster keeps the tablespaces that lay outside its data directory.
pub(crate) const TABLESPACES: &str = "lifeboat_tablespaces";
