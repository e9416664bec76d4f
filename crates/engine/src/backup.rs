//! Backup: capture a store once, seal the point, bring it to every copy, file it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::thread;

use lifeboat_base::capture::CaptureFacts;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{CopyName, PointId, RunId, StoreName};
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_base::time::Timestamp;
use lifeboat_catalog::{Proof, ProofLevel};
use lifeboat_policy::{Retention, Store};
use lifeboat_stores::CaptureContext;
use lifeboat_vault::storage::StorageError;
use lifeboat_vault::{PointManifest, SnapshotStamp, Vault, VaultError, WriteOptions, Written};
use serde::Serialize;
use serde_json::json;

use crate::context::Engine;
use crate::copies::{CopyVault, VaultSet};
use crate::error::{AtRisk, EngineError};
use crate::journal::Entry;
use crate::locks::{CopyLocks, Scope};
use crate::view::source_digest;

/// Stores captured at the same time unless asked otherwise.
const DEFAULT_JOBS: usize = 2;
/// More at the same time only makes them wait for each other.
const MAX_JOBS: usize = 16;

/// How to back up.
#[derive(Clone, Debug, Default)]
pub struct BackupOptions {
    /// Stores at the same time; 0 means two.
    pub jobs: usize,
    /// Fill copies again that held points before and are empty now.
    pub heal: bool,
}

/// What a backup of one store came to.
#[derive(Clone, Debug, Serialize)]
pub struct StoreBackup {
    /// The store.
    pub name: StoreName,
    /// `captured`, `not_retained` or `failed`.
    pub outcome: &'static str,
    /// The new recovery point.
    pub point: Option<PointId>,
    /// The moment it shows.
    pub moment: Option<Timestamp>,
    /// Bytes of content.
    pub logical_bytes: u64,
    /// Bytes of content that were not stored before.
    pub new_bytes: u64,
    /// Bytes written to the first copy.
    pub stored_bytes: u64,
    /// How long it took.
    pub seconds: f64,
    /// Copies that hold the point now.
    pub copies: Vec<CopyName>,
    /// What was locked, in each copy that locks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub locks: Vec<CopyLocks>,
    /// What is wrong although the point was made, or why it was not.
    pub findings: Vec<Finding>,
    /// Promises now at risk.
    pub at_risk: Vec<AtRisk>,
    /// What to do next.
    pub next: Option<String>,
    /// The record in the evidence chain.
    pub evidence: Option<u64>,
    /// What was counted in a store that is not retained.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub looked_at: BTreeMap<String, u64>,
}

/// The outcome of a backup command.
#[derive(Clone, Debug, Serialize)]
pub struct BackupReport {
    /// `lifeboat.backup/v1`.
    pub schema: &'static str,
    /// Each store, in the order of the policy.
    pub stores: Vec<StoreBackup>,
    /// What is wrong with what several stores make up together.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
}

impl BackupReport {
    /// The worst thing found; nothing if every promise touched was kept.
    pub fn worst(&self) -> Option<FailureKind> {
        worst(self.stores.iter().flat_map(|store| &store.findings).chain(&self.findings))
    }
}

/// The kind whose exit code tells most: damage, then defects, then places out of reach, then the rest.
pub(crate) fn worst<'a>(findings: impl Iterator<Item = &'a Finding>) -> Option<FailureKind> {
    let rank = |kind: FailureKind| match kind {
        FailureKind::Damaged => 5,
        FailureKind::Internal => 4,
        FailureKind::Unreachable => 3,
        FailureKind::Refused => 2,
        FailureKind::Findings => 1,
        FailureKind::Usage => 0,
    };
    findings.map(|finding| finding.kind).max_by_key(|kind| rank(*kind))
}

/// Passes progress on and keeps findings.
pub(crate) struct Collector {
    inner: Box<dyn Monitor>,
    findings: Mutex<Vec<Finding>>,
}

impl Collector {
    pub(crate) fn new(inner: Box<dyn Monitor>) -> Self {
        Self { inner, findings: Mutex::new(Vec::new()) }
    }

    pub(crate) fn take(&self) -> Vec<Finding> {
        std::mem::take(&mut self.findings.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl Monitor for Collector {
    fn phase(&self, name: &str, total_bytes: Option<u64>) {
        self.inner.phase(name, total_bytes);
    }

    fn advance(&self, bytes: u64, items: u64) {
        self.inner.advance(bytes, items);
    }

    fn finding(&self, finding: Finding) {
        self.inner.finding(finding.clone());
        self.findings.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(finding);
    }

    fn notice(&self, text: &str) {
        self.inner.notice(text);
    }

    fn cancelled(&self) -> bool {
        self.inner.cancelled()
    }
}

impl Engine {
    /// Captures the stores named, or all of them, a few at a time. Each store's outcome is its own: one failure does
    /// not stop the others.
    pub fn backup(&self, names: &[StoreName], options: &BackupOptions) -> Result<BackupReport, EngineError> {
        let rows = self.select(names)?;
        self.refuse_place_conflicts(&rows)?;
        let jobs = if options.jobs == 0 { DEFAULT_JOBS } else { options.jobs.min(MAX_JOBS) };
        let queue: Mutex<VecDeque<(usize, &Store)>> = Mutex::new(rows.iter().copied().enumerate().collect());
        let done: Mutex<Vec<(usize, StoreBackup)>> = Mutex::new(Vec::new());
        // Opened before the threads start, so that a broken catalog is one error and not one for each store.
        self.catalog()?;
        thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| {
                    loop {
                        let next =
                            queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop_front();
                        let Some((index, row)) = next else { break };
                        let result = self.backup_store(row, options);
                        done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((index, result));
                    }
                });
            }
        });
        let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        done.sort_by_key(|(index, _result)| *index);
        let stores = done.into_iter().map(|(_index, result)| result).collect();
        // The points are made, whatever comes of this.
        let findings = self.uncaptured(&rows).unwrap_or_else(|error| {
            let what = format!("nobody knows whether rows are missing: {}", error.failure.chain());
            vec![Finding::new("shares-unknown", "policy", what).with_kind(error.kind())]
        });
        Ok(BackupReport { schema: "lifeboat.backup/v1", stores, findings })
    }

    fn backup_store(&self, row: &Store, options: &BackupOptions) -> StoreBackup {
        let start = self.env.clock.monotonic();
        let mut report = StoreBackup {
            name: row.name.clone(),
            outcome: "not_retained",
            point: None,
            moment: None,
            logical_bytes: 0,
            new_bytes: 0,
            stored_bytes: 0,
            seconds: 0.0,
            copies: Vec::new(),
            locks: Vec::new(),
            findings: Vec::new(),
            at_risk: Vec::new(),
            next: None,
            evidence: None,
            looked_at: BTreeMap::new(),
        };
        if matches!(row.retention.value, Retention::None) {
            self.look_after(row, &mut report);
            return report;
        }
        let monitor = Collector::new(self.observer.job(&format!("backup {}", row.name)));
        let result = self.capture(row, options, &monitor, &mut report);
        report.findings.extend(monitor.take());
        report.seconds = self.env.clock.monotonic().saturating_sub(start).as_secs_f64();
        if let Err(error) = result {
            self.record_failure(row, error, &mut report);
        }
        report
    }

    fn record_failure(&self, row: &Store, error: EngineError, report: &mut StoreBackup) {
        if report.point.is_none() {
            report.outcome = "failed";
        }
        report.at_risk.clone_from(&error.at_risk);
        if report.at_risk.is_empty() {
            report.at_risk.push(AtRisk { store: row.name.clone(), promise: "rpo".to_owned() });
        }
        report.next.clone_from(&error.next);
        let chain = error.failure.chain();
        report
            .findings
            .push(Finding::new("backup-failed", row.name.as_str(), chain.clone()).with_kind(error.kind()));
        let body =
            json!({ "error": chain, "error_kind": error.kind().word(), "policy_hash": self.policy_hash });
        match self.file(Entry { kind: "backup", store: &row.name, ok: false, body }) {
            Ok(record) => report.evidence = Some(record.seq),
            Err(second) => report.findings.push(
                Finding::new("evidence-failed", row.name.as_str(), second.failure.chain())
                    .with_kind(second.kind()),
            ),
        }
    }

    fn capture(
        &self,
        row: &Store,
        options: &BackupOptions,
        monitor: &Collector,
        report: &mut StoreBackup,
    ) -> Result<(), EngineError> {
        let adapter = self.adapter(row)?;
        self.ready_to_file()?;
        let _lease = self.lease(&row.name, "backup")?;
        let set = self.ensure_vaults(row, options.heal)?;
        report.findings.extend(set.findings());
        if options.heal {
            // Asked for, so what comes back is not missing any more.
            report.findings.extend(fill_first(&set, monitor));
            report.findings.extend(fill_rest(&set, monitor));
            for copy in &set.healed {
                self.file(Entry { kind: "heal", store: &row.name, ok: true, body: json!({ "copy": copy }) })?;
                // What was damaged there is gone with the vault it lay in.
                self.catalog()?.clear_damage(&row.name, copy).map_err(Failure::from)?;
            }
        }
        report.findings.extend(self.reconcile(row, &set)?);
        report.findings.extend(fill_first(&set, monitor));
        let Some(primary) = set.open.first() else {
            return Err(EngineError::new(FailureKind::Usage, format!("`{}` has no copies", row.name)));
        };
        let started = self.env.clock.now();
        let point = PointId::generate(started, self.env.entropy.as_ref());
        let spool = self.spool()?;
        let known = self.identities(row, adapter.as_ref())?;
        let kept = self.kept(&row.name)?;
        let clock = self.env.clock.as_ref();
        let context = CaptureContext { clock, spool: &spool, kept: Some(&kept), known: &known };
        let capture = adapter.capture(&context)?;
        let parent = newest(&primary.vault)?;
        let stamp = SnapshotStamp {
            point: point.clone(),
            store: row.name.clone(),
            host: self.env.host.clone(),
            user: self.env.user.clone(),
            time: started,
            parent: parent.as_ref().map(|parent| parent.snapshot),
        };
        let written = primary
            .vault
            .write(capture, &stamp, &WriteOptions::new(&spool), monitor)
            .map_err(Failure::from)?;
        let emptied = parent.as_ref().is_some_and(|parent| parent.facts.logical_bytes > 0)
            && written.facts.logical_bytes == 0;
        let manifest = self.seal(row, &primary.vault, stamp, parent.map(|parent| parent.id), written)?;
        if emptied {
            let message =
                format!("{} is empty, and the point before it was not: is the store mounted?", manifest.id);
            report.findings.push(Finding::new("store-emptied", row.name.as_str(), message));
            report.at_risk.push(AtRisk { store: row.name.clone(), promise: "rpo".to_owned() });
        }
        report.outcome = "captured";
        report.point = Some(manifest.id.clone());
        report.moment = Some(manifest.facts.consistency.moment);
        report.logical_bytes = manifest.facts.logical_bytes;
        report.new_bytes = manifest.new_bytes;
        report.stored_bytes = manifest.stored_bytes;
        replicate(row, &manifest.id, &set, monitor, report);
        report.findings.extend(monitor.take());
        self.commit(row, &set, &manifest, report)?;
        let (locks, unlocked) = self.extend_locks(row, &set, Scope::Changed);
        report.locks = locks;
        if !unlocked.is_empty() {
            report.at_risk.push(AtRisk { store: row.name.clone(), promise: "immutability".to_owned() });
            report.findings.extend(unlocked);
        }
        self.doubt(row, &manifest.id, report)
    }

    /// Proves that the point can be opened and read back, then seals it: from here on it exists.
    fn seal(
        &self,
        row: &Store,
        vault: &Vault,
        stamp: SnapshotStamp,
        parent: Option<PointId>,
        written: Written,
    ) -> Result<PointManifest, EngineError> {
        let manifest = PointManifest {
            format: lifeboat_vault::POINT_FORMAT.to_owned(),
            id: stamp.point,
            store: stamp.store,
            kind: row.kind.word().to_owned(),
            vault: vault.vault_id().clone(),
            policy_hash: self.policy_hash,
            snapshot: written.snapshot,
            parent,
            started: stamp.time,
            ended: self.env.clock.now(),
            facts: written.facts,
            new_bytes: written.new_bytes,
            stored_bytes: written.stored_bytes,
            copies: row.copies.value.clone(),
            key_id: vault.secrets().signing.public().key_id(),
            tool: crate::context::TOOL.to_owned(),
            evidence_head: self
                .evidence_head()?
                .map(|head| lifeboat_vault::EvidenceHead { seq: head.seq, digest: head.digest }),
            evidence_key: Some(self.signer()?.public().key_id()),
        };
        read_back(vault, &manifest)?;
        vault.seal_point(&manifest).map_err(Failure::from)?;
        Ok(manifest)
    }

    /// A point in a copy with damage that nothing has cleared may rest on what is damaged: it is not called sound.
    fn doubt(&self, row: &Store, point: &PointId, report: &mut StoreBackup) -> Result<(), EngineError> {
        let view = self.view(row)?;
        let held = view.points.iter().filter(|row| row.manifest.id == *point).flat_map(|row| &row.holdings);
        for (copy, why) in held.filter_map(|held| Some((&held.copy, held.damaged.as_ref()?))) {
            let message = format!("copy `{copy}`: {point} may rest on damaged objects: {why}");
            report.findings.push(
                Finding::new("point-doubtful", point.as_str(), message).with_kind(FailureKind::Damaged),
            );
            report.next = Some(format!(
                "run `lifeboat verify {}`; while another copy is sound, move this one aside and use --heal",
                row.name
            ));
        }
        Ok(())
    }

    fn commit(
        &self,
        row: &Store,
        set: &VaultSet,
        manifest: &PointManifest,
        report: &mut StoreBackup,
    ) -> Result<(), EngineError> {
        if !manifest.facts.unreadable.is_empty() {
            report.at_risk.push(AtRisk { store: row.name.clone(), promise: "rpo".to_owned() });
        }
        let damaged: Vec<&str> = report
            .findings
            .iter()
            .filter(|finding| finding.kind == FailureKind::Damaged)
            .map(|finding| finding.message.as_str())
            .collect();
        let emptied = report.findings.iter().any(|finding| finding.code == "store-emptied");
        let body = json!({
            "run": RunId::generate(manifest.started, self.env.entropy.as_ref()),
            "point": manifest.id, "vault": manifest.vault, "snapshot": manifest.snapshot,
            "moment": manifest.facts.consistency.moment, "consistency": manifest.facts.consistency.level,
            "started": manifest.started, "ended": manifest.ended,
            "logical_bytes": manifest.facts.logical_bytes, "new_bytes": manifest.new_bytes,
            "stored_bytes": manifest.stored_bytes, "counts": manifest.facts.counts,
            "unreadable": manifest.facts.unreadable.len(), "copies": report.copies,
            "policy_hash": self.policy_hash, "source": source_digest(row), "damaged": damaged, "emptied": emptied,
        });
        let ok = damaged.is_empty()
            && !emptied
            && report.copies.len() == row.copies.value.len()
            && manifest.facts.unreadable.is_empty();
        let record = self.file(Entry { kind: "backup", store: &row.name, ok, body })?;
        report.evidence = Some(record.seq);
        let catalog = self.catalog()?;
        catalog.put_point(manifest, &report.copies, record.at).map_err(Failure::from)?;
        for entry in set.open.iter().filter(|entry| report.copies.contains(&entry.copy)) {
            let proof = Proof {
                store: row.name.clone(),
                point: manifest.id.clone(),
                copy: entry.copy.clone(),
                level: ProofLevel::Captured,
                at: record.at,
                ok: true,
                evidence: record.seq,
            };
            catalog.put_proof(&proof).map_err(Failure::from)?;
        }
        Ok(())
    }
}

/// Brings everything that the other copies hold to the first one, so that it misses nothing; gives what went wrong.
pub(crate) fn fill_first(set: &VaultSet, monitor: &Collector) -> Vec<Finding> {
    let Some((first, rest)) = set.open.split_first() else { return Vec::new() };
    // Damaged objects of the other copy reach the monitor; the points they belong to stay where they are.
    let failed = rest.iter().filter_map(|other| other.vault.copy_to(&first.vault, monitor).err());
    failed.map(|error| copy_finding(&first.copy, error)).collect()
}

/// Brings everything that the first copy holds to the others; gives what went wrong.
pub(crate) fn fill_rest(set: &VaultSet, monitor: &Collector) -> Vec<Finding> {
    let Some((first, rest)) = set.open.split_first() else { return Vec::new() };
    let failed = |other: &CopyVault| {
        let error = first.vault.copy_to(&other.vault, monitor).err()?;
        Some(copy_finding(&other.copy, error))
    };
    rest.iter().filter_map(failed).collect()
}

/// After a capture: the sealed objects go to every other copy, manifests last.
fn replicate(row: &Store, point: &PointId, set: &VaultSet, monitor: &Collector, report: &mut StoreBackup) {
    let Some((first, rest)) = set.open.split_first() else { return };
    report.copies.push(first.copy.clone());
    for other in rest {
        match first.vault.copy_to(&other.vault, monitor) {
            // A withheld point would not be restorable there; the monitor was told which object is to blame.
            Ok(stats) if stats.withheld.contains(point) => {}
            Ok(_stats) => report.copies.push(other.copy.clone()),
            Err(error) => report.findings.push(copy_finding(&other.copy, error)),
        }
    }
    if report.copies.len() < row.copies.value.len() {
        report.at_risk.push(AtRisk { store: row.name.clone(), promise: "copies".to_owned() });
    }
}

/// The newest point of a vault that is sound.
fn newest(vault: &Vault) -> Result<Option<PointManifest>, Failure> {
    let points = vault.points()?;
    let sound = points.iter().filter_map(lifeboat_vault::PointEntry::manifest);
    Ok(sound.max_by_key(|manifest| manifest.facts.consistency.moment).cloned())
}

/// A copy that does not get what it lacks.
pub(crate) const COPY_BEHIND: &str = "copy-behind";
/// The same, because it has no room.
const COPY_FULL: &str = "copy-full";

fn copy_finding(copy: &CopyName, error: VaultError) -> Finding {
    let full = matches!(error, VaultError::Storage { source: StorageError::Full { .. }, .. });
    let failure = Failure::from(error);
    let message = format!("copy `{copy}` does not hold every recovery point: {}", failure.chain());
    Finding::new(if full { COPY_FULL } else { COPY_BEHIND }, copy.as_str(), message).with_kind(failure.kind())
}

/// Opens the point as a restore would and reads its first entries, so that a key or format fault shows before the
/// point is believed.
fn read_back(vault: &Vault, manifest: &PointManifest) -> Result<(), Failure> {
    use lifeboat_base::capture::{META, RestoreSource, StoredKind};
    use lifeboat_base::path::RelPath;
    let reader = vault.open_point(manifest)?;
    let facts: &CaptureFacts = &manifest.facts;
    let meta = RelPath::new(META).map_err(|error| {
        Failure::with_source(FailureKind::Internal, "failed to name the meta folder", error)
    })?;
    let mut files = Vec::new();
    reader.walk(&meta, &mut |entry| {
        if let StoredKind::File(_) = entry.kind {
            files.push(entry.path);
        }
        Ok(())
    })?;
    if files.is_empty() && facts.logical_bytes > 0 {
        return Err(Failure::new(FailureKind::Internal, "the new point holds no description of its content"));
    }
    for path in files {
        let mut content = reader.open(&path)?;
        std::io::copy(&mut content, &mut std::io::sink()).map_err(|error| {
            Failure::with_source(FailureKind::Damaged, format!("failed to read back {path}"), error)
        })?;
    }
    Ok(())
}
