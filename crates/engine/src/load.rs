//! Restore into a running server: to a folder of our own first, with every check, and from there into the server.
//!
//! In: what a restore takes, and the address of a server. Out: what a restore gives, and what was loaded. The folder is gone
//! when it returns, also after a kill with the next drill or restore.

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::DrillId;
use lifeboat_base::monitor::Finding;
use lifeboat_drill::Sandbox;
use lifeboat_policy::Endpoint;
use lifeboat_stores::{Conflict, LoadOptions, MergeOptions};
use serde::Serialize;
use serde_json::json;

use crate::backup::Collector;
use crate::context::Engine;
use crate::error::EngineError;
use crate::journal::Entry;
use crate::restore::{RestoreOptions, RestoreOutcome};

/// What a restore into a running server did.
#[derive(Clone, Debug, Serialize)]
pub struct LoadOutcome {
    /// The server, without a password.
    pub server: String,
    /// Things that were loaded, such as keys.
    pub items: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Things whose time was over, and which were left out.
    pub passed: u64,
    /// Things compared with what was restored after all were loaded.
    pub compared: u64,
    /// Things that were there with the same content.
    pub unchanged: u64,
    /// Things that were there with other content, and stayed.
    pub skipped: u64,
    /// Things of those that were loaded that replaced others.
    pub replaced: u64,
    /// How long filling and comparing took.
    pub seconds: f64,
}

impl Engine {
    /// Restores a store into the server at `place`, which must be empty unless `options.force` says that its content may go.
    /// `options.target` is not used.
    pub fn restore_into_server(
        &self,
        options: &RestoreOptions,
        place: &Endpoint,
    ) -> Result<RestoreOutcome, EngineError> {
        let row = self.store(&options.store)?;
        let adapter = self.adapter(row)?;
        let Some(loader) = adapter.loader() else {
            let what = format!("a store of kind `{}` is not restored into a running server", row.kind.word());
            return Err(EngineError::new(FailureKind::Usage, what).next("name a folder with --to"));
        };
        if options.delta || options.part.is_some() || !options.tablespaces.is_empty() {
            let what = "a running server takes everything or nothing";
            return Err(EngineError::new(FailureKind::Usage, what).next("name a folder with --to"));
        }
        if let Some(wanted) = &options.merge {
            acceptable(wanted, options.force)?;
        }
        let how = LoadOptions { force: options.force, merge: options.merge.clone() };
        let risk = |error: EngineError| error.risking(&row.name, "rto");
        let address = self.address(place)().map_err(EngineError::from)?;
        loader.ready(&address, &how).map_err(EngineError::from).map_err(risk)?;
        self.ready_to_file()?;
        let root = self.sandboxes()?;
        let id = DrillId::generate(self.env.clock.now(), self.env.entropy.as_ref());
        let sandbox = Sandbox::create(&root, &id).map_err(Failure::from)?;
        let target = sandbox.folder(row.name.as_str()).map_err(Failure::from)?.join("restored");
        let inner = RestoreOptions { target: target.clone(), force: false, merge: None, ..options.clone() };
        let mut outcome = self.restore_inside(&inner)?;
        let monitor = Collector::new(self.observer.job(&format!("load {}", row.name)));
        let start = self.env.clock.monotonic();
        let loaded = loader.load(&target, &address, &how, &monitor);
        let seconds = self.env.clock.monotonic().saturating_sub(start).as_secs_f64();
        let (ok, body) = match &loaded {
            Ok(loaded) => (
                true,
                json!({
                    "point": outcome.point, "moment": outcome.moment, "server": loaded.server,
                    "items": loaded.items, "passed": loaded.passed, "compared": loaded.compared, "seconds": seconds,
                    "unchanged": loaded.unchanged, "skipped": loaded.skipped, "replaced": loaded.replaced,
                }),
            ),
            Err(failure) => (false, json!({ "point": outcome.point, "error": failure.chain() })),
        };
        let record = self.file(Entry { kind: "load", store: &row.name, ok, body })?;
        let loaded = loaded.map_err(|failure| {
            let next = match &options.merge {
                Some(wanted) => format!("lifeboat restore {} --to {place}{}", row.name, said(wanted)),
                None => format!("lifeboat restore {} --to {place} --force", row.name),
            };
            risk(EngineError::from(failure)).next(next)
        })?;
        outcome.findings.extend(monitor.take());
        outcome.findings.extend(sandbox.swept().findings("sandbox-left"));
        if let Err(error) = sandbox.teardown() {
            let message =
                format!("a folder with restored data stays: {}", lifeboat_base::failure::chain(&error));
            outcome.findings.push(Finding::new("sandbox-left", row.name.as_str(), message));
        }
        outcome.evidence = Some(record.seq);
        outcome.target = loaded.server.clone().into();
        outcome.artefact.clone_from(&outcome.target);
        outcome.seconds += seconds;
        outcome.loaded = Some(LoadOutcome {
            server: loaded.server,
            items: loaded.items,
            sent_bytes: loaded.bytes,
            passed: loaded.passed,
            compared: loaded.compared,
            unchanged: loaded.unchanged,
            skipped: loaded.skipped,
            replaced: loaded.replaced,
            seconds,
        });
        Ok(outcome)
    }
}

/// Wishes that contradict each other.
fn acceptable(wanted: &MergeOptions, force: bool) -> Result<(), EngineError> {
    let refused = |what: &str, next: &str| Err(EngineError::new(FailureKind::Usage, what).next(next));
    if force {
        return refused(
            "--force empties the server, and the other wishes are for keys beside what is there",
            "say --conflict replace for keys of the same names",
        );
    }
    if let Some((old, _)) = &wanted.rename
        && !wanted.prefix.is_empty()
        && !wanted.prefix.starts_with(old.as_str())
    {
        return refused(
            "no name begins with both --prefix and what --rename-prefix replaces",
            "let --prefix begin with what is replaced, or leave it out",
        );
    }
    Ok(())
}

/// The wishes as a command line has them.
fn said(wanted: &MergeOptions) -> String {
    let prefix = match wanted.prefix.as_str() {
        "" => String::new(),
        prefix => format!(" --prefix '{prefix}'"),
    };
    let rename = wanted.rename.as_ref().map(|(old, new)| format!(" --rename-prefix '{old}={new}'"));
    let word = match wanted.conflict {
        Conflict::Fail => "fail",
        Conflict::Skip => "skip",
        Conflict::Replace => "replace",
    };
    format!("{prefix}{} --conflict {word}", rename.unwrap_or_default())
}
