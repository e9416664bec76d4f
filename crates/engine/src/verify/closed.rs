//! Verifying copies whose vault does not open: what can be read without a key is read, and no point there is believed.

use std::collections::BTreeSet;
use std::error::Error;

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{CopyName, PointId};
use lifeboat_keys::KeysError;
use lifeboat_policy::Store;
use lifeboat_vault::{VaultError, check_without_key};

use super::{DamageView, Found, VerifyOptions, VerifyReport};
use crate::backup::Collector;
use crate::context::Engine;
use crate::copies::VaultSet;
use crate::error::EngineError;

const CONFIG: &str = "config";
const ENVELOPE: &str = "lifeboat/envelope.json";
const KEYS: &str = "keys/";

impl Engine {
    /// Files what is known about every copy that should hold points and does not open.
    pub(super) fn verify_closed(
        &self,
        row: &Store,
        set: &VaultSet,
        options: &VerifyOptions,
        report: &mut VerifyReport,
    ) -> Result<(), EngineError> {
        let gone: Vec<(CopyName, Failure)> = set
            .absent
            .iter()
            .map(|copy| (copy.clone(), Failure::new(FailureKind::Damaged, self.absence(row, copy).chain())))
            .collect();
        for (copy, failure) in gone.iter().chain(&set.failed) {
            let held = self.held(row, copy)?;
            if options.copy.as_ref().is_some_and(|only| only != copy) || held.is_empty() {
                continue;
            }
            let mut found = Found { error: Some(failure.chain()), ..Found::default() };
            if failure.kind() == FailureKind::Damaged {
                let object = set.absent.contains(copy).then_some(CONFIG);
                found = self.look_without_key(row, copy, failure, object, held)?;
                // With nothing opened at all, the key that was given may be the wrong one and the copies whole.
                if set.open.is_empty() && key_is_wrong(failure) {
                    found.broken.clear();
                }
            }
            let view =
                self.file_verification(row, (copy, options.level), found, 0.0, &mut report.findings)?;
            report.copies.push(view);
        }
        Ok(())
    }

    fn look_without_key(
        &self,
        row: &Store,
        copy: &CopyName,
        failure: &Failure,
        object: Option<&str>,
        held: BTreeSet<PointId>,
    ) -> Result<Found, EngineError> {
        let monitor =
            Collector::new(self.observer.job(&format!("verify {} in {copy} without its key", row.name)));
        let storage = self.storage(row, copy)?;
        let check = check_without_key(storage.as_ref(), &monitor).map_err(Failure::from)?;
        let mut found = Found { error: Some(failure.chain()), ..Found::new(check, &BTreeSet::new()) };
        let key_file =
            || found.damaged.iter().map(|damage| &damage.object).find(|name| name.starts_with(KEYS));
        let object = object.map_or_else(
            || blamed(failure).or_else(|| key_file().cloned()).unwrap_or_else(|| ENVELOPE.to_owned()),
            str::to_owned,
        );
        found.damaged.retain(|damage| damage.object != object);
        let points = held.iter().cloned().collect();
        found.damaged.insert(0, DamageView { object, why: failure.chain(), points });
        found.broken = held;
        Ok(found)
    }
}

/// The object that a failure to open names.
fn blamed(failure: &Failure) -> Option<String> {
    let error = failure.source()?.downcast_ref::<VaultError>()?;
    error.object().map(ToString::to_string)
}

fn key_is_wrong(failure: &Failure) -> bool {
    let error = failure.source().and_then(|error| error.downcast_ref::<KeysError>());
    matches!(error, Some(KeysError::WrongKey { .. } | KeysError::NotOpened { .. }))
}
