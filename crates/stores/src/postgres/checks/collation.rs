//! Whether texts sort on this machine as they did where they were indexed. Where they do not, an index silently misses
//! rows.

use lifeboat_base::capture::CaptureFacts;
use lifeboat_postgres::wire::{PgError, Row, quote_identifier};
use serde_json::Value;

use super::COLLATION;
use crate::adapter::CheckResult;
use crate::postgres::facts::databases_sql;
use crate::postgres::session::{Session, dotted, qualified, text};
use crate::tally::{Tally, not_applicable};

/// Collations that a column, an index or a domain of the database names.
const USED: &str = "SELECT n.nspname, c.collname, c.collversion, pg_catalog.pg_collation_actual_version(c.oid) \
     FROM pg_catalog.pg_collation c JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace \
     WHERE c.collversion IS NOT NULL AND (c.oid >= 16384 OR EXISTS (SELECT FROM pg_catalog.pg_attribute a \
     WHERE a.attcollation = c.oid AND a.attrelid >= 16384) \
     OR EXISTS (SELECT FROM pg_catalog.pg_type t WHERE t.typcollation = c.oid AND t.oid >= 16384))";

/// Versions compared so far.
#[derive(Default)]
pub(super) struct Collations {
    tally: Tally,
    compared: u64,
    /// Databases whose collation has no version anywhere, and is none that never changes.
    unversioned: Vec<String>,
}

impl Collations {
    /// The default collation of every database: the version it was last indexed with, by its own catalog and by what the
    /// captured server's machine had, against this machine's.
    pub(super) fn databases(&mut self, session: &mut Session, facts: &CaptureFacts) -> Result<(), PgError> {
        for row in session.ask(&databases_sql(session.version()))? {
            let database = text(&row, 0);
            let captured = facts.environment.get("databases").and_then(|all| all.get(database));
            let captured = captured.and_then(|value| value.get("actual_version")).and_then(Value::as_str);
            let here = row.by_name("actual_version");
            let known: Vec<&str> = row.by_name("recorded_version").into_iter().chain(captured).collect();
            self.compared += u64::from(!known.is_empty());
            if known.is_empty() && here.is_none() && !is_plain(&row) {
                self.unversioned.push(database.to_owned());
            }
            if let Some(wrong) = known.into_iter().find(|version| Some(*version) != here) {
                let name = quote_identifier(database);
                let locale = row.by_name("locale").or(row.by_name("collate")).unwrap_or_default();
                self.tally.add(|| {
                    format!(
                        "database {name} was indexed with version {wrong} of its collation {locale}, this machine has {}: \
                         run REINDEX DATABASE {name}, then ALTER DATABASE {name} REFRESH COLLATION VERSION",
                        here.unwrap_or("none")
                    )
                });
            }
        }
        Ok(())
    }

    /// The collations that the session's database names itself.
    pub(super) fn inside(&mut self, session: &mut Session, database: &str) -> Result<(), PgError> {
        for row in session.ask(USED)? {
            self.compared += 1;
            if row.get(2) != row.get(3) {
                let (name, wrong) = (dotted(&[database, text(&row, 0), text(&row, 1)]), text(&row, 2));
                let here = row.get(3).unwrap_or("none");
                let sql = qualified(text(&row, 0), text(&row, 1));
                self.tally.add(|| {
                    format!(
                        "collation {name} was used in version {wrong}, this machine has {here}: run REINDEX on the \
                         indexes that use it, then ALTER COLLATION {sql} REFRESH VERSION"
                    )
                });
            }
        }
        Ok(())
    }

    /// Remembers what could not be compared.
    pub(super) fn broke_off(&mut self, why: String) {
        self.tally.add(|| why);
    }

    pub(super) fn finish(self) -> CheckResult {
        const EXPECTED: &str = "this machine sorts as the captured one did";
        if self.tally.count() == 0 && !self.unversioned.is_empty() {
            let names = self.unversioned.join(", ");
            return not_applicable(
                COLLATION,
                EXPECTED,
                format!("the collation of {names} has no version to compare"),
            );
        }
        let measured = format!("{} of {} versions differ", self.tally.count(), self.compared);
        self.tally.result(COLLATION, measured, EXPECTED)
    }
}

/// Whether a database sorts by bytes or code points, which no library changes.
fn is_plain(row: &Row) -> bool {
    let sorts = row.by_name("collate").unwrap_or_default();
    row.by_name("provider") == Some("c")
        && (matches!(sorts, "C" | "POSIX") || sorts.starts_with("C.") || sorts.starts_with("POSIX."))
}
