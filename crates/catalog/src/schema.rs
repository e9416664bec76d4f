//! The tables of the catalog and their version.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::CatalogError;

/// The version in `PRAGMA user_version`. An older file is discarded and rebuilt: it holds nothing of its own.
pub(crate) const VERSION: i64 = 4;

/// Times are nanoseconds since 1970 UTC.
const TABLES: &str = "
CREATE TABLE point (
    store TEXT NOT NULL, id TEXT NOT NULL, moment INTEGER NOT NULL, manifest TEXT NOT NULL,
    PRIMARY KEY (store, id)
) WITHOUT ROWID;
CREATE TABLE holding (
    store TEXT NOT NULL, point TEXT NOT NULL, copy TEXT NOT NULL, seen INTEGER NOT NULL, damaged TEXT,
    PRIMARY KEY (store, point, copy)
) WITHOUT ROWID;
CREATE TABLE proof (
    store TEXT NOT NULL, point TEXT NOT NULL, copy TEXT NOT NULL, level TEXT NOT NULL,
    at INTEGER NOT NULL, ok INTEGER NOT NULL, evidence INTEGER NOT NULL,
    PRIMARY KEY (store, point, copy, level, ok)
) WITHOUT ROWID;
CREATE TABLE run (
    evidence INTEGER NOT NULL, kind TEXT NOT NULL, store TEXT NOT NULL, at INTEGER NOT NULL, ok INTEGER NOT NULL,
    body TEXT NOT NULL, PRIMARY KEY (store, kind, evidence)
) WITHOUT ROWID;
CREATE TABLE dropped (store TEXT NOT NULL, point TEXT NOT NULL, PRIMARY KEY (store, point)) WITHOUT ROWID;
CREATE TABLE seen (id INTEGER PRIMARY KEY CHECK (id = 1), value INTEGER NOT NULL);
";

/// Makes the tables in an empty database; refuses a newer one; gives false if the file must be rebuilt.
pub(crate) fn prepare(connection: &Connection) -> Result<bool, CatalogError> {
    let fail = |source| CatalogError::Database { action: "prepare", source };
    connection.pragma_update(None, "journal_mode", "WAL").map_err(fail)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(fail)?;
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(fail)?;
    match found {
        VERSION => Ok(true),
        0 => {
            let transaction =
                Transaction::new_unchecked(connection, TransactionBehavior::Immediate).map_err(fail)?;
            // Another process may have made them since we looked.
            let now: i64 =
                transaction.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(fail)?;
            if now == 0 {
                let script = format!("{TABLES} PRAGMA user_version = {VERSION};");
                transaction.execute_batch(&script).map_err(fail)?;
            }
            transaction.commit().map_err(fail)?;
            Ok(true)
        }
        older if older < VERSION => Ok(false),
        newer => Err(CatalogError::Newer { found: newer, known: VERSION }),
    }
}
