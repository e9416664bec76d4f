//! Shredding: every key of a store's vault destroyed in every copy, on a person's word, and shown to be.
//!
//! Nothing begins unless every copy is at hand, no hold and no promised immutability keeps anything, and the name of the store
//! was typed twice. What is stored is left where it is: nobody can read it, and its space is freed by deleting the folder.

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{CopyName, PointId, StoreName, VaultId};
use lifeboat_base::monitor::Finding;
use lifeboat_base::time::Timestamp;
use lifeboat_catalog::RunRow;
use lifeboat_keys::RecipientKey;
use lifeboat_policy::{Reason, Retention, Store, Verdict};
use lifeboat_vault::shred::{SHREDDING_FORMAT, Shredding};
use lifeboat_vault::storage::{ObjectName, WriteLock};
use lifeboat_vault::{Vault, VaultError};
use serde::Serialize;
use serde_json::json;

use crate::backup::worst;
use crate::context::Engine;
use crate::copies::{CopyVault, VaultSet};
use crate::error::EngineError;
use crate::journal::Entry;

/// What a finished shredding is filed as.
pub(crate) const SHRED: &str = "shred";
/// The most points one record names; what it leaves out is told as lost by a rebuild.
const MAX_FILED: usize = 50_000;

/// What a person asks for.
#[derive(Clone, Debug)]
pub struct ShredRequest {
    /// The store.
    pub store: StoreName,
    /// Its name once more.
    pub confirm: String,
    /// Why.
    pub reason: String,
    /// By whom.
    pub by: String,
}

/// What a fresh look at a copy showed afterwards.
#[derive(Clone, Debug, Serialize)]
pub struct ShreddedCopy {
    /// The copy.
    pub copy: CopyName,
    /// Envelope and key files that are still there.
    pub left: Vec<ObjectName>,
    /// Recipients that were tried and do not open it.
    pub closed_to: Vec<String>,
    /// Whether even the password that was in the envelope opens it no more; nothing if another run had destroyed that before.
    pub closed_to_password: Option<bool>,
}

impl ShreddedCopy {
    fn holds(&self) -> bool {
        self.left.is_empty() && self.closed_to_password != Some(false)
    }
}

/// The answer of `lifeboat shred`.
#[derive(Clone, Debug, Serialize)]
pub struct ShredReport {
    /// `lifeboat.shred/v1`.
    pub schema: &'static str,
    /// The store.
    pub store: StoreName,
    /// The vault.
    pub vault: VaultId,
    /// When it was begun.
    pub at: Timestamp,
    /// Recovery points that nobody can read any more.
    pub points: usize,
    /// Each copy.
    pub copies: Vec<ShreddedCopy>,
    /// Recipients of the policy that were not at hand, so that they could not be tried.
    pub not_tried: Vec<String>,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
    /// The record in the evidence chain.
    pub evidence: u64,
}

impl ShredReport {
    /// The worst thing found.
    pub fn worst(&self) -> Option<FailureKind> {
        worst(self.findings.iter())
    }
}

/// A copy at work: one that opens, or one whose keys another run began to destroy.
struct Doomed<'a> {
    copy: &'a CopyName,
    open: Option<&'a CopyVault>,
    _lock: Box<dyn WriteLock>,
}

impl Engine {
    /// Destroys every key of a store's vault in every copy. `Refused`, with nothing touched, if a copy is not at hand, if a hold
    /// or promised immutability keeps something, or if the name was not typed twice. A run that was killed is completed by the
    /// same again.
    pub fn shred(&self, request: &ShredRequest) -> Result<ShredReport, EngineError> {
        let row = self.store(&request.store)?;
        if request.confirm != row.name.as_str() {
            return Err(refused(format!("`{}` is not the name of the store", request.confirm)).next(
                format!("this cannot be undone; if it is meant: lifeboat shred {0} --confirm {0}", row.name),
            ));
        }
        self.ready_to_file()?;
        let _lease = self.lease(&row.name, "shredding")?;
        if let Retention::Keep(keep) = row.retention.value {
            self.doubt_locks(row, keep, false)?;
        }
        let set = self.open_vaults(row)?;
        let mut findings = self.reconcile(row, &set)?;
        let (doomed, begun) = self.doomed(row, &set)?;
        self.nothing_keeps(row, &set)?;
        let notice = self.notice(request, &set, begun)?;
        let points: Vec<PointId> =
            self.view(row)?.points.into_iter().map(|point| point.manifest.id).collect();
        let names: Vec<&CopyName> = doomed.iter().map(|doomed| doomed.copy).collect();
        let body = json!({ "notice": notice, "copies": names, "points": points.len() });
        let intent = self.file(Entry { kind: "shred-intent", store: &row.name, ok: true, body })?;
        for Doomed { copy, open, .. } in &doomed {
            let done = match open {
                Some(entry) => entry.vault.shred(&notice),
                None => Vault::finish_shredding(self.storage(row, copy)?.as_ref()),
            };
            done.map_err(|error| {
                EngineError::from(Failure::from(error)).next(format!(
                    "run it again: keys are left in `{copy}` (lifeboat shred {0} --confirm {0})",
                    row.name
                ))
            })?;
        }
        let (copies, not_tried) = self.look_at_keys(row, &doomed)?;
        for copy in copies.iter().filter(|copy| !copy.holds()) {
            let message = format!("copy `{}` can still be opened, or has keys left", copy.copy);
            findings.push(Finding::new("keys-left", copy.copy.as_str(), message));
        }
        let ok = copies.iter().all(ShreddedCopy::holds);
        let filed: Vec<&PointId> = points.iter().take(MAX_FILED).collect();
        let body = json!({
            "notice": notice, "intent": intent.seq, "copies": copies, "not_tried": not_tried, "points": points.len(),
            "dropped": if ok { filed } else { Vec::new() },
        });
        let record = self.file(Entry { kind: SHRED, store: &row.name, ok, body })?;
        if ok {
            self.catalog()?.drop_points(&row.name, &points).map_err(Failure::from)?;
        }
        Ok(ShredReport {
            schema: "lifeboat.shred/v1",
            store: row.name.clone(),
            vault: notice.vault,
            at: notice.at,
            points: points.len(),
            copies,
            not_tried,
            findings,
            evidence: record.seq,
        })
    }

    /// Every copy that has keys or had them, locked; and the notice of a run that was killed.
    fn doomed<'a>(
        &self,
        row: &'a Store,
        set: &'a VaultSet,
    ) -> Result<(Vec<Doomed<'a>>, Option<Shredding>), EngineError> {
        let known = self.catalog()?.points(&row.name).map_err(Failure::from)?;
        let held = |copy: &CopyName| {
            known.iter().any(|point| point.holdings.iter().any(|holding| holding.copy == *copy))
        };
        let (mut doomed, mut begun) = (Vec::new(), None);
        for copy in &row.copies.value {
            let storage = self.storage(row, copy)?;
            let open = set.get(copy);
            let notice = Vault::shredded(storage.as_ref()).map_err(Failure::from);
            let notice = if open.is_some() { notice? } else { notice.ok().flatten() };
            if open.is_none() && notice.is_none() {
                if set.absent.contains(copy) && !held(copy) {
                    continue;
                }
                return Err(refused(format!(
                    "copy `{copy}` of `{}` is not at hand, and its keys would open what it holds: nothing was destroyed",
                    row.name
                ))
                .next("bring it back, or take it out of the row once it is destroyed otherwise"));
            }
            let lock = storage.lock().map_err(|source| {
                Failure::from(VaultError::Storage { doing: format!("lock copy `{copy}`"), source })
            })?;
            if let Some(why) = Vault::keys_locked(storage.as_ref()).map_err(Failure::from)? {
                return Err(refused(format!("in copy `{copy}` {why}: nothing was destroyed"))
                    .next("wait for the end of the lock"));
            }
            begun = begun.or(notice);
            doomed.push(Doomed { copy, open, _lock: lock });
        }
        if doomed.is_empty() {
            return Err(refused(format!(
                "`{}` has no vault in any copy: there is no key to destroy",
                row.name
            )));
        }
        Ok((doomed, begun))
    }

    /// That neither a hold nor promised immutability keeps anything.
    fn nothing_keeps(&self, row: &Store, set: &VaultSet) -> Result<(), EngineError> {
        let (holds, _copies) = self.gather(row, set)?;
        if let Some(id) = holds.active().map(|hold| &hold.id).chain(holds.unreadable.keys()).next() {
            return Err(refused(format!("{id} holds something of `{}`: nothing was destroyed", row.name))
                .next(format!("lifeboat hold list {}", row.name)));
        }
        let Retention::Keep(keep) = row.retention.value else { return Ok(()) };
        let points = self.view(row)?.points;
        let decided = self.decide(row, keep, &points, self.env.clock.now())?;
        let locked = |reason: &Reason| matches!(reason, Reason::Minimum { .. });
        let first = decided.points.iter().find_map(|point| match &point.verdict {
            Verdict::Kept(reasons) => {
                reasons.iter().find(|reason| locked(reason)).map(|why| (&point.id, why))
            }
            Verdict::Deletable { .. } => None,
        });
        match first {
            None => Ok(()),
            Some((id, why)) => {
                Err(refused(format!("{id} of `{}` is {why}: nothing was destroyed", row.name)))
            }
        }
    }

    fn notice(
        &self,
        request: &ShredRequest,
        set: &VaultSet,
        begun: Option<Shredding>,
    ) -> Result<Shredding, EngineError> {
        let Some(first) = set.open.first() else {
            return begun
                .ok_or_else(|| refused("there is no vault whose keys could be destroyed".to_owned()));
        };
        if let Some(begun) = begun {
            if begun.vault != *first.vault.vault_id() {
                return Err(refused("copies hold two different vaults of the same store".to_owned()));
            }
            return Ok(begun);
        }
        Ok(Shredding {
            format: SHREDDING_FORMAT.to_owned(),
            vault: first.vault.vault_id().clone(),
            store: request.store.clone(),
            at: self.env.clock.now(),
            reason: request.reason.clone(),
            by: request.by.clone(),
            public_key: first.vault.secrets().signing.public().to_string(),
        })
    }

    /// Looks at each copy anew and tries to open it with everything that is known.
    fn look_at_keys(
        &self,
        row: &Store,
        doomed: &[Doomed<'_>],
    ) -> Result<(Vec<ShreddedCopy>, Vec<String>), EngineError> {
        let tried = self.recipients()?;
        let not_tried = tried.missing.iter().map(|(label, _why)| label.clone()).collect();
        let mut copies = Vec::new();
        for Doomed { copy, open, .. } in doomed {
            let storage = self.storage(row, copy)?;
            let left = Vault::keys_left(storage.as_ref()).map_err(Failure::from)?;
            let envelope = Vault::read_envelope(storage.as_ref()).ok().flatten();
            let opens = |recipient: &dyn RecipientKey| {
                envelope.as_ref().is_some_and(|envelope| envelope.open(&[recipient]).is_ok())
            };
            let closed_to = tried.refs().into_iter().filter(|recipient| !opens(*recipient));
            copies.push(ShreddedCopy {
                copy: (*copy).clone(),
                left,
                closed_to: closed_to.map(RecipientKey::label).collect(),
                closed_to_password: open.map(|entry| !entry.vault.password_opens(storage.as_ref())),
            });
        }
        Ok((copies, not_tried))
    }

    /// The shredding that ended this row, if nothing was captured since.
    pub(crate) fn shredded(&self, row: &Store) -> Result<Option<RunRow>, EngineError> {
        let catalog = self.catalog()?;
        let Some(run) = catalog.last_run(&row.name, SHRED, true).map_err(Failure::from)? else {
            return Ok(None);
        };
        let captured = catalog.last_capture(&row.name).map_err(Failure::from)?;
        Ok(Some(run).filter(|run| captured.is_none_or(|captured| captured.evidence < run.evidence)))
    }
}

/// What a shredded row is, for people.
pub(crate) fn shredded_says(run: &RunRow) -> String {
    let text = |field: &str| run.body.pointer(&format!("/notice/{field}")).and_then(|value| value.as_str());
    format!(
        "every key of it was destroyed at {:.0} by {} ({}): nothing of it can be restored; take the row out of the policy",
        run.at,
        text("by").unwrap_or("somebody"),
        text("reason").unwrap_or("no reason given"),
    )
}

fn refused(message: String) -> EngineError {
    EngineError::new(FailureKind::Refused, message)
}
