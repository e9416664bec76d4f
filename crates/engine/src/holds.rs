//! Legal holds: placed in the vaults of every copy, filed in the evidence chain, respected by retention until released.

use std::collections::BTreeSet;

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{CopyName, HoldId, PointId, StoreName};
use lifeboat_base::monitor::Finding;
use lifeboat_base::time::Timestamp;
use lifeboat_policy::Store;
use lifeboat_vault::holds::{HOLD_FORMAT, Hold, HoldScope, Holds, RELEASE_FORMAT, Release};
use lifeboat_vault::storage::WriteLock;
use lifeboat_vault::{PointEntry, VaultError};
use serde::Serialize;
use serde_json::{Value, json};

use crate::backup::worst;
use crate::context::Engine;
use crate::copies::{CopyVault, VaultSet, no_copy};
use crate::error::EngineError;
use crate::journal::Entry;
use crate::when;

/// A hold to be placed.
#[derive(Clone, Debug)]
pub struct HoldRequest {
    /// The store.
    pub store: StoreName,
    /// Only this point.
    pub point: Option<PointId>,
    /// Only what shows a moment up to this one; as a person writes it.
    pub before: Option<String>,
    /// Why.
    pub reason: String,
    /// For whom.
    pub holder: String,
}

/// One hold, as shown.
#[derive(Clone, Debug, Serialize)]
pub struct HoldView {
    /// The hold.
    #[serde(flatten)]
    pub hold: Hold,
    /// Its release, if it was released.
    pub release: Option<Release>,
    /// Copies that hold it now.
    pub copies: Vec<CopyName>,
    /// What it covers and was dropped before it was placed; told when it is placed.
    #[serde(skip_serializing_if = "Dropped::is_empty")]
    pub dropped: Dropped,
}

/// Points that a hold covers and that were recorded as dropped before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// How many are in none of the copies at hand.
    pub gone_count: u64,
    /// Those that a copy still had: they stay there from now on, and come back to the others.
    pub still: Vec<PointId>,
}

impl Dropped {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.gone_count == 0 && self.still.is_empty()
    }
}

/// The answer of `lifeboat hold`.
#[derive(Clone, Debug, Serialize)]
pub struct HoldReport {
    /// `lifeboat.hold/v1`.
    pub schema: &'static str,
    /// The holds asked for, oldest first.
    pub holds: Vec<HoldView>,
    /// Copies that could not be reached, and holds that cannot be read.
    pub findings: Vec<Finding>,
}

impl HoldReport {
    fn new() -> Self {
        Self { schema: "lifeboat.hold/v1", holds: Vec::new(), findings: Vec::new() }
    }

    /// The worst thing found.
    pub fn worst(&self) -> Option<FailureKind> {
        worst(self.findings.iter())
    }
}

/// What keeps the points of one store.
pub(crate) struct Held(Holds);

impl Held {
    /// The holds that cover a point; one that no copy can read may keep anything.
    pub(crate) fn of(&self, id: &PointId, moment: Timestamp) -> Vec<String> {
        self.0.covering(id, moment).map(ToString::to_string).collect()
    }

    /// Whether the log is covered.
    pub(crate) fn covers_log(&self) -> bool {
        self.0.cover_log()
    }
}

impl Engine {
    /// Places a hold in every copy that can be reached. In force when this returns, if one of them took it.
    pub fn place_hold(&self, request: &HoldRequest) -> Result<HoldReport, EngineError> {
        let row = self.store(&request.store)?;
        self.ready_to_file()?;
        let _lease = self.lease(&row.name, "hold")?;
        let set = self.open_vaults(row)?;
        let mut report = HoldReport::new();
        report.findings.extend(self.reconcile(row, &set)?);
        let now = self.env.clock.now();
        let scope = match (&request.point, &request.before) {
            (Some(point), _) => {
                let known = self.catalog()?.points(&row.name).map_err(Failure::from)?;
                if !known.iter().any(|row| row.manifest.id == *point) {
                    let what = format!("`{}` has no recovery point {point}", row.name);
                    return Err(EngineError::new(FailureKind::Refused, what)
                        .next(format!("lifeboat points {}", row.name)));
                }
                HoldScope::Point { point: point.clone() }
            }
            (None, Some(text)) => {
                HoldScope::Before { before: when::parse(text, now, &self.policy.timezone)? }
            }
            (None, None) => HoldScope::Store,
        };
        let Some(first) = set.open.first() else { return Err(no_copy(row, set)) };
        // From here on no removal is under way in these copies that does not know of it.
        let (locked, busy) = lock_each(&set);
        if locked.is_empty() {
            let why = busy.first().map(|finding| finding.message.clone()).unwrap_or_default();
            return Err(EngineError::new(FailureKind::Refused, format!("no hold was placed: {why}"))
                .next("when the other run is done, place it again"));
        }
        report.findings.extend(busy);
        let hold = Hold {
            format: HOLD_FORMAT.to_owned(),
            id: HoldId::generate(now, self.env.entropy.as_ref()),
            vault: first.vault.vault_id().clone(),
            store: row.name.clone(),
            scope,
            reason: request.reason.clone(),
            holder: request.holder.clone(),
            placed: now,
        };
        // Filed first: from here on retention respects it, even if no copy can be written.
        self.file(Entry { kind: "hold", store: &row.name, ok: true, body: json!({ "hold": hold }) })?;
        let copies = put_everywhere(&locked, (row, &set), &mut report, |vault| vault.put_hold(&hold));
        let dropped = dropped_before(&set, &hold)?;
        report.holds.push(HoldView { hold, release: None, copies, dropped });
        Ok(report)
    }

    /// The holds of the stores named, or of all.
    pub fn list_holds(&self, names: &[StoreName]) -> Result<HoldReport, EngineError> {
        let mut report = HoldReport::new();
        for row in self.select(names)? {
            if row.copies.value.is_empty() {
                continue;
            }
            let set = self.open_vaults(row)?;
            report.findings.extend(set.findings());
            let (holds, copies) = self.gather(row, &set)?;
            for (id, why) in &holds.unreadable {
                let message =
                    format!("{id} of `{}` cannot be read in any copy ({why}): everything stays", row.name);
                let finding = Finding::new("hold-unreadable", id.as_str(), message);
                report.findings.push(finding.with_kind(FailureKind::Damaged));
            }
            for (id, (hold, release)) in holds.known {
                let there = copies.iter().filter(|(_, ids)| ids.contains(&id)).map(|(copy, _)| copy.clone());
                let dropped = Dropped::default();
                report.holds.push(HoldView { hold, release, copies: there.collect(), dropped });
            }
            report.findings.extend(self.lacking_holds(row, &set)?);
        }
        Ok(report)
    }

    /// Releases a hold in every copy that can be reached; elsewhere when the copy is back.
    pub fn release_hold(&self, id: &HoldId, reason: &str, by: &str) -> Result<HoldReport, EngineError> {
        self.ready_to_file()?;
        for row in self.select(&[])? {
            if row.copies.value.is_empty() {
                continue;
            }
            let set = self.open_vaults(row)?;
            let (holds, _copies) = self.gather(row, &set)?;
            let Some((hold, release)) = holds.known.get(id) else { continue };
            if release.is_some() {
                return Err(EngineError::new(FailureKind::Refused, format!("{id} was released before")));
            }
            let _lease = self.lease(&row.name, "release of a hold")?;
            let mut report = HoldReport::new();
            let release = Release {
                format: RELEASE_FORMAT.to_owned(),
                id: id.clone(),
                vault: hold.vault.clone(),
                reason: reason.to_owned(),
                by: by.to_owned(),
                released: self.env.clock.now(),
            };
            let body = json!({ "hold": hold, "release": release });
            self.file(Entry { kind: "hold-release", store: &row.name, ok: true, body })?;
            // A copy that was away when it was placed gets both.
            let (locked, busy) = lock_each(&set);
            report.findings.extend(busy);
            let copies = put_everywhere(&locked, (row, &set), &mut report, |vault| {
                vault.put_hold(hold).and_then(|()| vault.put_release(&release))
            });
            let (hold, dropped) = (hold.clone(), Dropped::default());
            report.holds.push(HoldView { hold, release: Some(release), copies, dropped });
            return Ok(report);
        }
        Err(EngineError::new(FailureKind::Refused, format!("there is no hold {id}"))
            .next("lifeboat hold list"))
    }

    /// What keeps the points of a row: what its open copies say, and what was filed here, for a copy that took a hold may be
    /// away.
    pub(crate) fn on_hold(&self, row: &Store, set: &VaultSet) -> Result<Held, EngineError> {
        Ok(Held(self.gather(row, set)?.0))
    }

    #[expect(clippy::type_complexity, reason = "holds, and which copy has which of them")]
    pub(crate) fn gather(
        &self,
        row: &Store,
        set: &VaultSet,
    ) -> Result<(Holds, Vec<(CopyName, BTreeSet<HoldId>)>), EngineError> {
        let mut holds = self.filed_holds(row)?;
        let mut copies = Vec::new();
        for entry in &set.open {
            let own = entry.vault.holds().map_err(Failure::from)?;
            copies.push((entry.copy.clone(), own.known.keys().cloned().collect()));
            holds.merge(own);
        }
        Ok((holds, copies))
    }

    pub(crate) fn filed_holds(&self, row: &Store) -> Result<Holds, EngineError> {
        let mut holds = Holds::default();
        let catalog = self.catalog()?;
        let parsed = |body: &Value, field: &str| body.get(field).cloned().unwrap_or_default();
        for run in catalog.runs(&row.name, "hold").map_err(Failure::from)? {
            if let Ok(hold) = serde_json::from_value::<Hold>(parsed(&run.body, "hold")) {
                holds.known.insert(hold.id.clone(), (hold, None));
            }
        }
        for run in catalog.runs(&row.name, "hold-release").map_err(Failure::from)? {
            if let Ok(release) = serde_json::from_value::<Release>(parsed(&run.body, "release"))
                && let Some(known) = holds.known.get_mut(&release.id)
            {
                known.1 = Some(release);
            }
        }
        Ok(holds)
    }
}

/// A copy nobody else writes to while this lives.
struct Locked<'a> {
    entry: &'a CopyVault,
    _lock: Box<dyn WriteLock>,
}

/// Takes the write lock of every open copy that is free; tells of the others.
fn lock_each(set: &VaultSet) -> (Vec<Locked<'_>>, Vec<Finding>) {
    let (mut locked, mut busy) = (Vec::new(), Vec::new());
    for entry in &set.open {
        match entry.vault.lock("place a hold") {
            Ok(lock) => locked.push(Locked { entry, _lock: lock }),
            Err(error) => busy.push(not_there(&entry.copy, error)),
        }
    }
    (locked, busy)
}

fn not_there(copy: &CopyName, error: VaultError) -> Finding {
    let failure = Failure::from(error);
    let message = format!("copy `{copy}` does not have it yet: {}", failure.chain());
    Finding::new("hold-missing", copy.as_str(), message).with_kind(failure.kind())
}

/// What a hold covers of that which records name.
fn dropped_before(set: &VaultSet, hold: &Hold) -> Result<Dropped, Failure> {
    let (mut named, mut still) = (BTreeSet::new(), BTreeSet::new());
    for entry in &set.open {
        let retired = entry.vault.retired()?;
        let covered = |id: &PointId, moment| hold.scope.covers(id, moment);
        let points = retired.points().iter().filter(|(id, gone)| covered(id, gone.point.moment));
        named.extend(points.map(|(id, _)| id.clone()));
    }
    for entry in &set.open {
        let listed = entry.vault.points()?;
        still.extend(listed.iter().filter_map(PointEntry::id).filter(|id| named.contains(*id)).cloned());
    }
    Ok(Dropped { gone_count: (named.len() - still.len()) as u64, still: still.into_iter().collect() })
}

/// Does it in every copy that is locked; tells of those that are not there.
fn put_everywhere(
    locked: &[Locked<'_>],
    (row, set): (&Store, &VaultSet),
    report: &mut HoldReport,
    put: impl Fn(&lifeboat_vault::Vault) -> Result<(), VaultError>,
) -> Vec<CopyName> {
    report.findings.extend(set.findings());
    let mut copies = Vec::new();
    for Locked { entry, .. } in locked {
        match put(&entry.vault) {
            Ok(()) => copies.push(entry.copy.clone()),
            Err(error) => report.findings.push(not_there(&entry.copy, error)),
        }
    }
    for copy in set.absent.iter().filter(|copy| row.copies.value.contains(copy)) {
        let message = format!("copy `{copy}` has no vault now and gets it with the next backup");
        report.findings.push(Finding::new("hold-missing", copy.as_str(), message));
    }
    copies
}
