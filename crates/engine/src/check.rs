//! Check: is the policy sound, and can every store, copy and secret be reached? Changes nothing.

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{CopyName, StoreName};
use lifeboat_base::monitor::Finding;
use lifeboat_policy::{Retention, Store};
use serde::Serialize;

use crate::backup::worst;
use crate::context::Engine;
use crate::duties::owed;
use crate::error::EngineError;
use crate::shares::{Held, unkept};

/// A schedule is a promise about time: something has to watch the clock.
const UNSCHEDULED: &str =
    "schedules run while `lifeboat serve` runs; else call `lifeboat serve --once` from cron or a timer";

/// A store that nobody wrote down is missing from every drill, too.
const UNLOOKED: &str = "nothing looks for stores that have no row: say under `[inventory]` where applications are told of theirs";

/// What was found about a store.
#[derive(Clone, Debug, Serialize)]
pub struct CheckedStore {
    /// The store.
    pub name: StoreName,
    /// Its kind.
    pub kind: &'static str,
    /// Whether it can be captured now; nothing for a row that is not retained.
    pub ok: Option<bool>,
    /// The engine and its version.
    pub version: Option<String>,
    /// Its size in bytes, where it is cheap to know.
    pub logical_bytes: Option<u64>,
    /// What is inside.
    pub items: Vec<(String, u64)>,
    /// Why it cannot be captured, or why the row needs no capture.
    pub reason: Option<String>,
}

/// What was found about a store's vault in a copy.
#[derive(Clone, Debug, Serialize)]
pub struct CheckedCopy {
    /// The copy.
    pub copy: CopyName,
    /// The store.
    pub store: StoreName,
    /// `open`, `empty` or `unusable`.
    pub state: &'static str,
    /// Where it lies.
    pub location: Option<String>,
    /// Why it is unusable.
    pub reason: Option<String>,
}

/// What was found about a recipient.
#[derive(Clone, Debug, Serialize)]
pub struct CheckedRecipient {
    /// The recipient as the policy writes it.
    pub name: String,
    /// Why it cannot be used.
    pub reason: Option<String>,
}

/// The outcome of a check.
#[derive(Clone, Debug, Serialize)]
pub struct CheckReport {
    /// `lifeboat.check/v1`.
    pub schema: &'static str,
    /// Warnings of the policy, as text.
    pub warnings: Vec<String>,
    /// Each recipient.
    pub recipients: Vec<CheckedRecipient>,
    /// Each store.
    pub stores: Vec<CheckedStore>,
    /// Each store in each of its copies.
    pub copies: Vec<CheckedCopy>,
    /// Everything that is wrong.
    pub findings: Vec<Finding>,
}

impl CheckReport {
    /// The worst thing found.
    pub fn worst(&self) -> Option<FailureKind> {
        worst(self.findings.iter())
    }
}

impl Engine {
    /// Reaches every store, copy and secret the policy names.
    pub fn check(&self) -> Result<CheckReport, EngineError> {
        let mut report = CheckReport {
            schema: "lifeboat.check/v1",
            warnings: self.policy.warnings.iter().map(ToString::to_string).collect(),
            recipients: Vec::new(),
            stores: Vec::new(),
            copies: Vec::new(),
            findings: Vec::new(),
        };
        if self.policy.stores.values().any(|row| row.schedule.value.is_some()) {
            report.warnings.push(UNSCHEDULED.to_owned());
        }
        report.findings.extend(self.place_conflicts());
        report.findings.extend(self.contradictions());
        let openable = self.check_recipients(&mut report);
        let mut shares = Vec::new();
        for row in self.policy.stores.values() {
            self.check_store(row, &mut report, &mut shares);
            if !row.copies.value.is_empty() && openable {
                self.check_copies(row, &mut report)?;
            }
        }
        report.findings.extend(unkept(&shares));
        let inventory = self.inventory();
        if !inventory.looked {
            report.warnings.push(UNLOOKED.to_owned());
        }
        report.findings.extend(inventory.findings);
        Ok(report)
    }

    /// Promises that contradict each other: a lock that lasts longer than the row may keep what it locks.
    fn contradictions(&self) -> impl Iterator<Item = Finding> {
        let told = self.policy.warnings.iter().filter(|warning| warning.code() == "lock-outlives-retention");
        told.map(|warning| Finding::new(warning.code(), "policy", warning.message()))
    }

    fn check_recipients(&self, report: &mut CheckReport) -> bool {
        if self.policy.keys.recipients.is_empty() {
            return false;
        }
        let failed = match self.recipients() {
            Ok(found) => found.missing,
            Err(error) => {
                report.findings.push(
                    Finding::new(
                        "no-recipient",
                        "keys",
                        format!("no vault can be opened: {}", error.failure.chain()),
                    )
                    .with_kind(error.kind()),
                );
                report.recipients = self
                    .policy
                    .keys
                    .recipients
                    .iter()
                    .map(|key| CheckedRecipient {
                        name: key.to_string(),
                        reason: self.recipient(key).err().map(|failure| failure.chain()),
                    })
                    .collect();
                return false;
            }
        };
        for recipient in &self.policy.keys.recipients {
            let label = recipient.to_string();
            let why = failed.iter().find(|(name, _failure)| *name == label).map(|(_name, failure)| failure);
            if let Some(failure) = why {
                report.findings.push(
                    Finding::new(
                        "recipient-unusable",
                        &label,
                        format!("recipient {label}: {}", failure.chain()),
                    )
                    .with_kind(failure.kind()),
                );
            }
            report.recipients.push(CheckedRecipient { name: label, reason: why.map(Failure::chain) });
        }
        true
    }

    fn check_store(&self, row: &Store, report: &mut CheckReport, shares: &mut Vec<Held>) {
        let mut checked = CheckedStore {
            name: row.name.clone(),
            kind: row.kind.word(),
            ok: None,
            version: None,
            logical_bytes: None,
            items: Vec::new(),
            reason: None,
        };
        let inspected = if matches!(row.retention.value, Retention::None) {
            checked.reason = Some("not retained by policy".to_owned());
            let Some(adapter) = owed(self, row) else {
                report.stores.push(checked);
                return;
            };
            let Some(duties) = adapter.duties() else { return };
            duties.reach().map_err(EngineError::from)
        } else {
            self.adapter(row).and_then(|adapter| adapter.inspect().map_err(EngineError::from))
        };
        match inspected {
            Ok(inspection) => {
                shares.extend(inspection.share.map(|share| Held { store: row.name.clone(), share }));
                checked.ok = Some(inspection.findings.is_empty());
                checked.version = Some(inspection.version);
                checked.logical_bytes = inspection.logical_bytes;
                checked.items = inspection.items;
                report.findings.extend(inspection.findings);
            }
            Err(error) => {
                let why = error.failure.chain();
                report.findings.push(
                    Finding::new(
                        "store-unreachable",
                        row.name.as_str(),
                        format!("store `{}`: {why}", row.name),
                    )
                    .with_kind(error.kind()),
                );
                checked.ok = Some(false);
                checked.reason = Some(why);
            }
        }
        report.stores.push(checked);
    }

    fn check_copies(&self, row: &Store, report: &mut CheckReport) -> Result<(), EngineError> {
        let set = self.open_vaults(row)?;
        report.findings.extend(set.findings());
        for copy in &row.copies.value {
            for label in self.unnamed_recipients(row, copy) {
                let message = format!("the vault of `{}` in `{copy}` was sealed without {label}", row.name);
                report.findings.push(Finding::new("recipient-unnamed", label, message));
            }
            let failed = set.failed.iter().find(|(name, _failure)| name == copy);
            report.copies.push(CheckedCopy {
                copy: copy.clone(),
                store: row.name.clone(),
                state: match (set.get(copy), failed) {
                    (Some(_), _) => "open",
                    (None, Some(_)) => "unusable",
                    (None, None) => "empty",
                },
                location: self.storage(row, copy).ok().map(|storage| storage.location()),
                reason: failed.map(|(_name, failure)| failure.chain()),
            });
        }
        Ok(())
    }
}
