//! Legal holds: placed in the vaults of every copy, filed in the evidence chain, respected by retention until released.

use std::collections::BTreeSet;

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{CopyName, HoldId, PointId, StoreName};
use lifeboat_base::monitor::Finding;
use lifeboat_base::time::Timestamp;
use lifeboat_policy::Store;
use lifeboat_vault::holds::{HOLD_FORMAT, Hold, HoldScope, Holds, RELEASE_FORMAT, Release};
use serde::Serialize;
use serde_json::{Value, json};

use crate::backup::worst;
use crate::context::Engine;
use crate::copies::{VaultSet, no_copy};
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
pub(crate) struct Held {
    active: Vec<Hold>,
    /// Holds that no copy can read: they may keep anything.
    unreadable: Vec<HoldId>,
}

impl Held {
    /// The holds that cover a point.
    pub(crate) fn of(&self, id: &PointId, moment: Timestamp) -> Vec<String> {
        let covering = self.active.iter().filter(|hold| hold.scope.covers(id, moment)).map(|hold| &hold.id);
        covering.chain(&self.unreadable).map(ToString::to_string).collect()
    }

    /// Whether the log is covered.
    pub(crate) fn covers_log(&self) -> bool {
        !self.unreadable.is_empty() || self.active.iter().any(|hold| hold.scope.covers_log())
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
        let copies = put_everywhere(&set, row, &mut report, |vault| vault.put_hold(&hold));
        report.holds.push(HoldView { hold, release: None, copies });
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
                report.holds.push(HoldView { hold, release, copies: there.collect() });
            }
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
            let copies = put_everywhere(&set, row, &mut report, |vault| {
                vault.put_hold(hold).and_then(|()| vault.put_release(&release))
            });
            report.holds.push(HoldView { hold: hold.clone(), release: Some(release), copies });
            return Ok(report);
        }
        Err(EngineError::new(FailureKind::Refused, format!("there is no hold {id}"))
            .next("lifeboat hold list"))
    }

    /// What keeps the points of a row: what its open copies say, and what was filed here, for a copy that took a hold may be
    /// away.
    pub(crate) fn on_hold(&self, row: &Store, set: &VaultSet) -> Result<Held, EngineError> {
        let (holds, _copies) = self.gather(row, set)?;
        Ok(Held {
            active: holds.active().cloned().collect(),
            unreadable: holds.unreadable.into_keys().collect(),
        })
    }

    #[expect(clippy::type_complexity, reason = "holds, and which copy has which of them")]
    fn gather(
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

    fn filed_holds(&self, row: &Store) -> Result<Holds, EngineError> {
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

/// Does it in every open copy; tells of the others.
fn put_everywhere(
    set: &VaultSet,
    row: &Store,
    report: &mut HoldReport,
    put: impl Fn(&lifeboat_vault::Vault) -> Result<(), lifeboat_vault::VaultError>,
) -> Vec<CopyName> {
    report.findings.extend(set.findings());
    let mut copies = Vec::new();
    for entry in &set.open {
        match put(&entry.vault) {
            Ok(()) => copies.push(entry.copy.clone()),
            Err(error) => {
                let failure = Failure::from(error);
                let message = format!("copy `{}` does not have it yet: {}", entry.copy, failure.chain());
                report.findings.push(
                    Finding::new("hold-missing", entry.copy.as_str(), message).with_kind(failure.kind()),
                );
            }
        }
    }
    for copy in set.absent.iter().filter(|copy| row.copies.value.contains(copy)) {
        let message = format!("copy `{copy}` has no vault now and gets it with the next backup");
        report.findings.push(Finding::new("hold-missing", copy.as_str(), message));
    }
    copies
}
