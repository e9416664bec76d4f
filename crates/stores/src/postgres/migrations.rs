//! What common migration tools have written down about a database.
//!
//! In: a session. Out: the newest entries of every such table, in any schema, as text.

use lifeboat_postgres::wire::{PgError, quote_identifier, quote_literal};
use serde_json::{Map, Value, json};

use super::session::{Session, dotted, qualified, refused, text};

/// Entries kept of one table, the newest.
const MAX_ENTRIES: u32 = 50;
/// A longer value is cut.
const MAX_VALUE_CHARS: u32 = 200;

/// The tables, and the columns that say what was applied, of which some may be missing. The first one that is there says
/// which entries are the newest. Logs and scripts are left out.
const TABLES: [(&str, &[&str]); 8] = [
    ("_prisma_migrations", &["started_at", "migration_name", "checksum", "finished_at", "rolled_back_at"]),
    ("_sqlx_migrations", &["version", "description", "installed_on", "success", "checksum"]),
    ("alembic_version", &["version_num"]),
    ("ar_internal_metadata", &["key", "value"]),
    (
        "databasechangelog",
        &["orderexecuted", "id", "author", "filename", "dateexecuted", "exectype", "md5sum"],
    ),
    ("django_migrations", &["id", "app", "name", "applied"]),
    (
        "flyway_schema_history",
        &["installed_rank", "version", "description", "checksum", "installed_on", "success"],
    ),
    ("schema_migrations", &["version", "dirty"]),
];

/// By `schema.table`: its columns and newest entries, or why they cannot be read.
pub(crate) fn migrations(session: &mut Session) -> Result<Map<String, Value>, PgError> {
    let names: Vec<String> = TABLES.iter().map(|(name, _)| quote_literal(name)).collect();
    let found = session.ask(&format!(
        "SELECT n.nspname, c.relname, a.attname FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
         WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND c.relname IN ({}) \
         ORDER BY n.nspname, c.relname, a.attnum",
        names.join(", ")
    ))?;
    let mut history = Map::new();
    for (table, wanted) in TABLES {
        let mut schemas: Vec<&str> =
            found.iter().filter(|row| text(row, 1) == table).map(|row| text(row, 0)).collect();
        schemas.dedup();
        for schema in schemas {
            let present = |column: &&str| {
                found.iter().any(|row| (text(row, 0), text(row, 1), text(row, 2)) == (schema, table, column))
            };
            let columns: Vec<&str> = wanted.iter().copied().filter(present).collect();
            if columns.is_empty() {
                continue;
            }
            let entries = match refused(session.ask(&newest(schema, table, &columns)))? {
                Ok(rows) => {
                    let values = |row| {
                        (0..columns.len()).map(|at| lifeboat_postgres::wire::Row::get(row, at)).collect()
                    };
                    let rows: Vec<Vec<Option<&str>>> = rows.iter().map(values).collect();
                    json!({ "columns": columns, "rows": rows })
                }
                Err(why) => json!({ "unknown": why }),
            };
            history.insert(dotted(&[schema, table]), entries);
        }
    }
    Ok(history)
}

fn newest(schema: &str, table: &str, columns: &[&str]) -> String {
    let values: Vec<String> = columns
        .iter()
        .map(|column| format!("pg_catalog.left({}::text, {MAX_VALUE_CHARS})", quote_identifier(column)))
        .collect();
    let first = columns.first().map(|column| quote_identifier(column)).unwrap_or_default();
    format!(
        "SELECT {} FROM {} ORDER BY {first} DESC LIMIT {MAX_ENTRIES}",
        values.join(", "),
        qualified(schema, table)
    )
}
