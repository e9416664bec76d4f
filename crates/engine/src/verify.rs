//! Verify: read what is stored and say, for every point in every copy, how far it is proven.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{CopyName, PointId, StoreName, VaultId};
use lifeboat_base::monitor::Finding;
use lifeboat_catalog::{PointRow, Proof, ProofLevel};
use lifeboat_policy::{Retention, Store};
use lifeboat_vault::{CheckLevel, CheckReport, DamagedObject};
use serde::Serialize;
use serde_json::json;

use crate::backup::{Collector, worst};
use crate::context::Engine;
use crate::copies::VaultSet;
use crate::error::EngineError;
use crate::journal::{Entry, Filed};
use crate::locks::CheckedLocks;
use crate::logs::Marks;

mod closed;

/// How to verify.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// `Checksummed` or `Readable`; a restore is proved by a drill.
    pub level: ProofLevel,
    /// Only this copy.
    pub copy: Option<CopyName>,
}

/// A damaged object and the points it takes with it.
#[derive(Clone, Debug, Serialize)]
pub struct DamageView {
    /// The object, relative to the vault.
    pub object: String,
    /// What is wrong with it.
    pub why: String,
    /// The recovery points that cannot be restored from this copy.
    pub points: Vec<PointId>,
}

/// What verifying one store in one copy found.
#[derive(Clone, Debug, Serialize)]
pub struct CopyVerification {
    /// The store.
    pub store: StoreName,
    /// The copy.
    pub copy: CopyName,
    /// The level asked for.
    pub level: ProofLevel,
    /// Files read.
    pub files: u64,
    /// Bytes read.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
    /// Points proven at this level.
    pub proven: Vec<PointId>,
    /// Points that are not.
    pub broken: Vec<PointId>,
    /// Damaged objects.
    pub damaged: Vec<DamageView>,
    /// What the place says of the locks of what is kept; nothing of a copy that locks nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locks: Option<CheckedLocks>,
    /// Why the vault could not be opened, if so; then only what needs no key was read.
    pub error: Option<String>,
    /// The record in the evidence chain.
    pub evidence: Option<u64>,
}

/// The outcome of a verification.
#[derive(Clone, Debug, Serialize)]
pub struct VerifyReport {
    /// `lifeboat.verify/v1`.
    pub schema: &'static str,
    /// Each store in each copy.
    pub copies: Vec<CopyVerification>,
    /// Everything that is wrong.
    pub findings: Vec<Finding>,
}

impl VerifyReport {
    /// The worst thing found.
    pub fn worst(&self) -> Option<FailureKind> {
        worst(self.findings.iter())
    }
}

/// What one copy showed, before it is filed.
#[derive(Default)]
struct Found {
    vault: Option<VaultId>,
    files: u64,
    bytes: u64,
    proven: BTreeSet<PointId>,
    broken: BTreeSet<PointId>,
    damaged: Vec<DamageView>,
    extra: Vec<String>,
    error: Option<String>,
}

impl Found {
    /// A finished check; points that are held and were not even listed are missing, and so broken.
    fn new(check: CheckReport, held: &BTreeSet<PointId>) -> Self {
        let of =
            |ok: bool| check.points.iter().filter(move |point| point.ok == ok).map(|point| point.id.clone());
        let mut found = Self {
            files: check.files_checked,
            bytes: check.bytes,
            proven: of(true).collect(),
            broken: of(false).collect(),
            extra: check.extra,
            ..Self::default()
        };
        for DamagedObject { object, why, points } in check.damaged {
            found.damaged.push(DamageView { object: object.to_string(), why, points });
        }
        for point in held {
            if !found.proven.contains(point) && found.broken.insert(point.clone()) {
                let object = format!("lifeboat/points/{point}.json");
                let why = "it is missing: the copy no longer lists the point".to_owned();
                found.damaged.push(DamageView { object, why, points: vec![point.clone()] });
            }
        }
        found
    }
}

impl Engine {
    /// Verifies the stores named, or all that are retained, in every copy. Goes on after damage.
    pub fn verify(&self, names: &[StoreName], options: &VerifyOptions) -> Result<VerifyReport, EngineError> {
        let level = match options.level {
            ProofLevel::Checksummed => CheckLevel::Checksummed,
            ProofLevel::Readable => CheckLevel::Readable,
            other => {
                return Err(EngineError::new(
                    FailureKind::Usage,
                    format!("a verification cannot prove `{other}`"),
                )
                .next("use --level checksummed or readable; `lifeboat drill` proves `restored`"));
            }
        };
        let mut report =
            VerifyReport { schema: "lifeboat.verify/v1", copies: Vec::new(), findings: Vec::new() };
        let mut asked = 0usize;
        self.ready_to_file()?;
        for row in self.select(names)? {
            if matches!(row.retention.value, Retention::None) {
                continue;
            }
            asked += 1;
            // A writer at work would look like damage.
            let _lease = self.lease(&row.name, "verification")?;
            self.verify_store(row, level, options, &mut report)?;
        }
        if asked > 0 && report.copies.is_empty() && report.findings.is_empty() {
            report.findings.push(Finding::new("nothing-verified", "", "there is no vault to verify yet"));
        }
        Ok(report)
    }

    fn verify_store(
        &self,
        row: &Store,
        level: CheckLevel,
        options: &VerifyOptions,
        report: &mut VerifyReport,
    ) -> Result<(), EngineError> {
        if let Some(only) = &options.copy
            && !row.copies.value.contains(only)
        {
            return Err(EngineError::new(FailureKind::Usage, format!("`{}` has no copy `{only}`", row.name)));
        }
        let set = self.open_vaults(row)?;
        report.findings.extend(set.findings());
        report.findings.extend(self.absent_findings(row, &set)?);
        report.findings.extend(self.reconcile(row, &set)?);
        report.findings.extend(self.lacking_holds(row, &set)?);
        report.findings.extend(self.lost_records(row, &set)?);
        for entry in &set.open {
            if options.copy.as_ref().is_some_and(|only| *only != entry.copy) {
                continue;
            }
            let name = format!("verify {} in {}", row.name, entry.copy);
            let monitor = Collector::new(self.observer.job(&name));
            let start = self.env.clock.monotonic();
            let check = entry.vault.check(level, &monitor).map_err(Failure::from)?;
            let seconds = self.env.clock.monotonic().saturating_sub(start).as_secs_f64();
            report.findings.extend(monitor.take());
            self.remember_log_damage(row, &entry.copy, &check)?;
            let held = self.held(row, &entry.copy)?;
            let found = Found { vault: Some(entry.vault.vault_id().clone()), ..Found::new(check, &held) };
            let mut view = self.file_verification(
                row,
                (&entry.copy, options.level),
                found,
                seconds,
                &mut report.findings,
            )?;
            view.locks = self.check_locks(row, entry, &mut report.findings)?;
            report.copies.push(view);
        }
        self.verify_closed(row, &set, options, report)
    }

    /// From here on exactly these log objects of the copy are known to be damaged, also to `status`, which has no key.
    fn remember_log_damage(&self, row: &Store, copy: &CopyName, check: &CheckReport) -> Result<(), Failure> {
        let Ok(adapter) = self.adapter(row) else { return Ok(()) };
        let Some(store) = adapter.continuous() else { return Ok(()) };
        let folder = format!("lifeboat/logs/{}/", store.stream());
        let name = |object: &str| object.strip_prefix(&folder).and_then(|name| name.parse().ok());
        let damaged = check
            .damaged
            .iter()
            .filter_map(|damage: &DamagedObject| Some((name(damage.object.as_str())?, damage.why.clone())));
        Marks::new(&self.log_folder(&row.name)).replace(copy, &damaged.collect())
    }

    /// Points that the catalog expects in a copy.
    fn held(&self, row: &Store, copy: &CopyName) -> Result<BTreeSet<PointId>, EngineError> {
        let known = self.catalog()?.points(&row.name).map_err(Failure::from)?;
        let here = |point: &PointRow| point.holdings.iter().any(|held| held.copy == *copy);
        Ok(known.into_iter().filter(here).map(|point| point.manifest.id).collect())
    }

    /// A copy that should hold points and has no vault at all.
    fn absent_findings(&self, row: &Store, set: &VaultSet) -> Result<Vec<Finding>, EngineError> {
        let known = self.catalog()?.points(&row.name).map_err(Failure::from)?;
        let held =
            |copy: &CopyName| known.iter().any(|point| point.holdings.iter().any(|held| held.copy == *copy));
        Ok(set
            .absent
            .iter()
            .map(|copy| {
                let (kind, what) = if held(copy) {
                    (FailureKind::Damaged, "held recovery points and has no vault now")
                } else {
                    (FailureKind::Findings, "has no vault yet")
                };
                Finding::new("copy-absent", copy.as_str(), format!("copy `{copy}` of `{}` {what}", row.name))
                    .with_kind(kind)
            })
            .collect())
    }

    fn file_verification(
        &self,
        row: &Store,
        (copy, level): (&CopyName, ProofLevel),
        found: Found,
        seconds: f64,
        findings: &mut Vec<Finding>,
    ) -> Result<CopyVerification, EngineError> {
        let Found { vault, files, bytes, proven, broken, damaged, extra, error } = found;
        let mut why: BTreeMap<PointId, String> = BTreeMap::new();
        for object in &damaged {
            for point in &object.points {
                why.entry(point.clone()).or_insert_with(|| format!("{}: {}", object.object, object.why));
            }
            let hit = object.points.len();
            let message = format!(
                "copy `{copy}`: {} is damaged ({}); {hit} recovery point{} affected",
                object.object,
                object.why,
                if hit == 1 { "" } else { "s" }
            );
            findings.push(
                Finding::new("object-damaged", &object.object, message).with_kind(FailureKind::Damaged),
            );
        }
        for stray in &extra {
            let message = format!("copy `{copy}` holds {stray}, which no vault needs");
            findings.push(Finding::new("object-unexpected", stray, message));
        }
        let body = json!({
            "copy": copy, "level": level, "vault": vault, "files": files, "bytes": bytes, "seconds": seconds,
            "proven": proven, "broken": broken, "damaged": damaged, "error": error,
        });
        let ok = broken.is_empty() && damaged.is_empty() && error.is_none();
        let record = self.file(Entry { kind: "verify", store: &row.name, ok, body })?;
        let catalog = self.catalog()?;
        for (point, ok) in proven.iter().map(|id| (id, true)).chain(broken.iter().map(|id| (id, false))) {
            self.prove(row, point, copy, level, ok, &record)?;
            let reason = why.get(point).map_or("it cannot be assembled from this copy", String::as_str);
            // A weaker verification does not clear damage that only a stronger one can see.
            if !ok || level == ProofLevel::Readable {
                let damaged = (!ok).then_some(reason);
                catalog.set_holding(&row.name, point, copy, record.at, damaged).map_err(Failure::from)?;
            }
        }
        Ok(CopyVerification {
            store: row.name.clone(),
            copy: copy.clone(),
            level,
            files,
            bytes,
            seconds,
            proven: proven.into_iter().collect(),
            broken: broken.into_iter().collect(),
            damaged,
            locks: None,
            error,
            evidence: Some(record.seq),
        })
    }

    /// Records an attempt at a level and at the weaker levels it includes.
    pub(crate) fn prove(
        &self,
        row: &Store,
        point: &PointId,
        copy: &CopyName,
        level: ProofLevel,
        ok: bool,
        record: &Filed,
    ) -> Result<(), EngineError> {
        let levels = ProofLevel::ALL.into_iter().filter(|lower| {
            *lower == level || (ok && level == ProofLevel::Readable && *lower == ProofLevel::Checksummed)
        });
        for level in levels {
            let proof = Proof {
                store: row.name.clone(),
                point: point.clone(),
                copy: copy.clone(),
                level,
                at: record.at,
                ok,
                evidence: record.seq,
            };
            self.catalog()?.put_proof(&proof).map_err(Failure::from)?;
        }
        Ok(())
    }
}
