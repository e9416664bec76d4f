//! Extraction: a recovery point restored into a sandbox, one part of it published as a file.
//!
//! In: the choice a restore makes. Out: the file, which appears whole or not at all. What a dead run left is removed by
//! the next: the sandbox by any drill or extraction, the unfinished file by a restore into the same folder.

use std::fs;
use std::io;
use std::path::Path;

use lifeboat_base::capture::MaterializeStats;
use lifeboat_base::crashsafe;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{DrillId, RunId};
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_drill::Sandbox;
use lifeboat_policy::Store;
use lifeboat_stores::{Adapter, Part, PartMissing, PartTable};
use serde::Serialize;

use crate::backup::Collector;
use crate::context::Engine;
use crate::copies::CopyVault;
use crate::error::EngineError;
use crate::restore::{Chosen, RestoreOptions, RestoreOutcome, Staging, Way, checked};

/// A file whose name ends so is written as plain SQL.
const PLAIN_SUFFIX: &str = "sql";

/// A part to extract instead of restoring everything.
#[derive(Clone, Debug)]
pub struct PartOptions {
    /// The database.
    pub database: String,
    /// Its tables, such as `public.orders`; none means all of it.
    pub tables: Vec<String>,
}

/// What was extracted.
#[derive(Clone, Debug, Serialize)]
pub struct PartOutcome {
    /// The database.
    pub database: String,
    /// `archive`, for `pg_restore`, or `sql`.
    pub format: &'static str,
    /// The tables asked for, with their rows; none for the whole database.
    pub tables: Vec<PartTable>,
    /// Bytes of content that were restored into the sandbox for it.
    pub restored_bytes: u64,
}

/// Refuses, before anything is opened, a kind that has no parts and a place that is taken.
fn check(row: &Store, adapter: &dyn Adapter, options: &RestoreOptions) -> Result<(), EngineError> {
    let target = &options.target;
    if adapter.parts().is_none() {
        let what = format!(
            "`{}` is of kind `{}`, which has no databases to extract: nothing was changed",
            row.name,
            adapter.kind()
        );
        return Err(EngineError::new(FailureKind::Refused, what)
            .next(format!("lifeboat restore {} --to FOLDER restores all of it", row.name)));
    }
    let refuse = |why: &str, next: &str| {
        let what = format!("{} {why}: nothing was changed", target.display());
        Err(EngineError::new(FailureKind::Refused, what).next(next))
    };
    match fs::symlink_metadata(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::io(format!("failed to look at {}", target.display()), error).into()),
        Ok(meta) if !meta.is_file() => {
            refuse("is there and is not a file", "name a file that does not exist yet")
        }
        Ok(_) if options.force => Ok(()),
        Ok(_) => {
            refuse("is there", "name a file that does not exist yet, or add --force to replace this one")
        }
    }
}

/// Whether the part that was asked for is not in what was restored: nothing older and no other copy has it for certain.
pub(crate) fn is_missing(failure: &Failure) -> bool {
    PartMissing::is_behind(failure)
}

/// No promise is at risk when something is asked for by a wrong name.
pub(crate) fn missing(failure: Failure) -> EngineError {
    EngineError::from(failure).next("name what was there, or another moment with --at")
}

impl Engine {
    /// How a part comes to its file: beside it, and then to its name in one step.
    pub(crate) fn extract_way(
        &self,
        row: &Store,
        adapter: &dyn Adapter,
        options: &RestoreOptions,
    ) -> Result<Way, EngineError> {
        check(row, adapter, options)?;
        self.refuse_own_places(&options.target)?;
        Ok(Way::Beside { replace: options.force })
    }

    /// As a restore from one copy, with the content in a sandbox and the part published.
    pub(crate) fn extract_from(
        &self,
        entry: &CopyVault,
        adapter: &dyn Adapter,
        chosen: &Chosen,
        run: &RunId,
        (options, asked): (&RestoreOptions, &PartOptions),
    ) -> Result<RestoreOutcome, Failure> {
        let manifest = &chosen.row.manifest;
        let facts = &manifest.facts;
        let parts = adapter.parts().ok_or_else(|| {
            Failure::new(FailureKind::Internal, format!("`{}` has no parts to extract", options.store))
        })?;
        parts.ready(facts)?;
        let reader = entry.vault.open_point(manifest)?;
        let staging = Staging::beside(&options.target, run)?;
        let sandbox = self.scratch()?;
        let content = sandbox.folder(options.store.as_str())?;
        let name = format!("extract {} of {} from {}", asked.database, options.store, entry.copy);
        let monitor = Collector::new(self.observer.job(&name));
        sandbox.swept().findings("sandbox-left").into_iter().for_each(|finding| monitor.finding(finding));
        let restored = adapter.restore(&reader, facts, &content, &monitor)?;
        let checks = if options.skip_checks {
            None
        } else {
            Some(checked(adapter.checks(&reader, facts, &content, &monitor)?)?)
        };
        let plain = options.target.extension().is_some_and(|suffix| suffix == PLAIN_SUFFIX);
        let part = Part { database: asked.database.clone(), tables: asked.tables.clone(), plain };
        let file = staging.dir.join("part");
        let report = parts.extract(facts, &content, &part, &file, &monitor)?;
        publish(&file, &options.target, options.force)?;
        if let Err(error) = sandbox.teardown() {
            let chain = lifeboat_base::failure::chain(&error);
            let message = format!("the sandbox could not be removed: {chain}");
            monitor.finding(Finding::new("sandbox-left", options.store.as_str(), message));
        }
        let written = MaterializeStats {
            files: 1,
            bytes: report.bytes,
            fetched_bytes: restored.stats.fetched_bytes,
            ..MaterializeStats::default()
        };
        let mut outcome = RestoreOutcome::new(options, (chosen, &entry.copy), (&written, checks));
        outcome.part = Some(PartOutcome {
            database: part.database,
            format: if plain { "sql" } else { "archive" },
            tables: report.tables,
            restored_bytes: restored.stats.bytes,
        });
        outcome.findings.splice(0..0, monitor.take());
        Ok(outcome)
    }

    /// A sandbox where drills have theirs.
    fn scratch(&self) -> Result<Sandbox, Failure> {
        let id = DrillId::generate(self.env.clock.now(), self.env.entropy.as_ref());
        Ok(Sandbox::create(&self.sandboxes()?, &id)?)
    }
}

/// Moves the file to its name.
fn publish(file: &Path, target: &Path, force: bool) -> Result<(), Failure> {
    let published =
        if force { crashsafe::publish_over(file, target) } else { crashsafe::publish(file, target) };
    published.map_err(|error| Failure::io(format!("failed to publish {}", target.display()), error))
}
