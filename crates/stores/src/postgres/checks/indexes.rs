//! Indexes and tables from inside: indexes that are unusable, and what `amcheck` finds.

use std::collections::BTreeSet;

use lifeboat_base::capture::CaptureFacts;
use lifeboat_base::monitor::Monitor;
use lifeboat_postgres::wire::{PgError, quote_identifier};
use serde_json::Value;

use super::{AMCHECK, INVALID_INDEXES};
use crate::adapter::CheckResult;
use crate::postgres::session::{Session, dotted, is_lost, reason, text};
use crate::tally::{Tally, not_applicable};

/// The schema that the extension lives in until the transaction is rolled back.
const SCHEMA: &str = "lifeboat_amcheck";
/// The first version whose `amcheck` reads tables.
const READS_TABLES: u32 = 140_000;

const BTREES: &str = "SELECT i.indexrelid, n.nspname, c.relname FROM pg_catalog.pg_index i \
     JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     JOIN pg_catalog.pg_am a ON a.oid = c.relam WHERE a.amname = 'btree' AND c.relkind = 'i' \
     AND c.relpersistence = 'p' AND i.indisvalid AND i.indisready AND i.indislive ORDER BY 1";

const HEAPS: &str = "SELECT c.oid, n.nspname, c.relname FROM pg_catalog.pg_class c \
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_am a ON a.oid = c.relam \
     WHERE a.amname = 'heap' AND c.relkind IN ('r', 'm', 't') AND c.relpersistence = 'p' ORDER BY 1";

/// Indexes that cannot be used, but for those that could not be used when they were captured.
pub(super) fn check_invalid(facts: &CaptureFacts, found: &BTreeSet<String>) -> CheckResult {
    let recorded = facts.environment.get("invalid_indexes").and_then(Value::as_object);
    let before: BTreeSet<&str> = recorded
        .into_iter()
        .flat_map(|databases| databases.values())
        .filter_map(Value::as_array)
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut tally = Tally::default();
    for name in found.iter().filter(|name| !before.contains(name.as_str())) {
        tally.add(|| format!("{name} is invalid: run REINDEX INDEX"));
    }
    let measured = format!("{} invalid indexes, {} of them when captured", found.len(), before.len());
    tally.result(INVALID_INDEXES, measured, "no invalid index but those of the captured cluster")
}

/// Runs `amcheck` on every B-tree index (each row of its table must be in it) and every table of the session's database,
/// the server's own included. The extension is made in a transaction that is rolled back: nothing stays.
pub(super) fn check_amcheck(
    session: &mut Session,
    database: &str,
    monitor: &dyn Monitor,
) -> Result<CheckResult, PgError> {
    const EXPECTED: &str = "no complaint of amcheck";
    let id = format!("{AMCHECK}/{database}");
    let offered = "SELECT 1 FROM pg_catalog.pg_available_extensions WHERE name = 'amcheck'";
    if session.value(offered)?.is_none() {
        let why = "this machine's server has no amcheck: install the contrib modules of its package";
        return Ok(not_applicable(&id, EXPECTED, why));
    }
    // Event triggers of the cluster are somebody else's code: they do not run for a replica.
    session.ask("BEGIN TRANSACTION READ WRITE; SET LOCAL session_replication_role = replica")?;
    let installed = installed_in(session)?;
    if installed.is_none() {
        session.ask(&format!("CREATE SCHEMA {SCHEMA}; CREATE EXTENSION amcheck WITH SCHEMA {SCHEMA}"))?;
    }
    let schema = quote_identifier(installed.as_deref().unwrap_or(SCHEMA));
    let mut tally = Tally::default();
    let mut looked_at = 0u64;
    for row in session.ask(BTREES)? {
        let sql = format!("SELECT {schema}.bt_index_check({}::pg_catalog.regclass, true)", text(&row, 0));
        if let Err(error) = session.guarded(&sql) {
            if is_lost(&error) {
                return Err(error);
            }
            tally.add(|| format!("index {}: {}", dotted(&[text(&row, 1), text(&row, 2)]), reason(&error)));
        }
        looked_at += 1;
        monitor.advance(0, 1);
    }
    let heaps = if session.version() >= READS_TABLES { session.ask(HEAPS)? } else { Vec::new() };
    for row in heaps {
        let name = || dotted(&[text(&row, 1), text(&row, 2)]);
        let sql = format!(
            "SELECT blkno, msg FROM {schema}.verify_heapam({}::pg_catalog.regclass, check_toast => true) LIMIT 1000",
            text(&row, 0)
        );
        match session.guarded(&sql) {
            Ok(complaints) => {
                for complaint in complaints {
                    tally.add(|| {
                        format!("table {}, page {}: {}", name(), text(&complaint, 0), text(&complaint, 1))
                    });
                }
            }
            Err(error) if is_lost(&error) => return Err(error),
            Err(error) => tally.add(|| format!("table {}: {}", name(), reason(&error))),
        }
        looked_at += 1;
        monitor.advance(0, 1);
    }
    session.ask("ROLLBACK")?;
    let measured = format!("{} complaints about {looked_at} indexes and tables", tally.count());
    Ok(tally.result(&id, measured, EXPECTED))
}

fn installed_in(session: &mut Session) -> Result<Option<String>, PgError> {
    session.value(
        "SELECT n.nspname FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace \
         WHERE e.extname = 'amcheck'",
    )
}
