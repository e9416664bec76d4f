//! The schema as text, and what common tools have written down about migrations.

use rusqlite::Connection;
use rusqlite::types::ValueRef;
use serde_json::{Map, Value, json};

use super::identifier::quoted;
use super::tables::columns;

/// Rows of one migration table that are kept, the latest inserted.
const MAX_MIGRATIONS: u32 = 1_000;
/// A migration's name or version longer than this is cut.
const MAX_VALUE_CHARS: usize = 200;

/// The migration tables of common tools, and the columns that say what was applied. Logs are left out.
const MIGRATION_TABLES: [(&str, &[&str]); 10] = [
    ("__diesel_schema_migrations", &["version", "run_on"]),
    ("_prisma_migrations", &["migration_name", "checksum", "finished_at"]),
    ("_sqlx_migrations", &["version", "description", "installed_on", "success", "checksum"]),
    ("alembic_version", &["version_num"]),
    ("django_migrations", &["app", "name", "applied"]),
    (
        "flyway_schema_history",
        &["installed_rank", "version", "description", "checksum", "installed_on", "success"],
    ),
    ("goose_db_version", &["version_id", "is_applied", "tstamp"]),
    ("knex_migrations", &["name", "batch", "migration_time"]),
    ("refinery_schema_history", &["version", "name", "applied_on", "checksum"]),
    ("schema_migrations", &["version", "dirty"]),
];

/// Every object of the schema with the statement that made it, in the order of type and name. Where things lie in
/// the file is not part of it.
pub(crate) fn schema_text(connection: &Connection) -> rusqlite::Result<String> {
    let sql = "SELECT type, name, tbl_name, sql FROM main.sqlite_schema ORDER BY type, name, tbl_name";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut text = String::new();
    while let Some(row) = rows.next()? {
        let field = |index| -> rusqlite::Result<Option<String>> {
            Ok(match row.get_ref(index)? {
                ValueRef::Text(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
                _ => None,
            })
        };
        let word = |index| Ok::<_, rusqlite::Error>(field(index)?.unwrap_or_default());
        let statement =
            field(3)?.map_or_else(|| "-- made by SQLite itself".to_owned(), |sql| format!("{sql};"));
        // Names are quoted, so that none can look like the start of another entry.
        let line = format!("-- {} {:?} on {:?}\n{statement}\n", word(0)?, word(1)?, word(2)?);
        text.push_str(&line);
    }
    Ok(text)
}

/// Applied migrations by table, for every known tool that left some.
pub(crate) fn migrations(connection: &Connection, tables: &[String]) -> rusqlite::Result<Map<String, Value>> {
    let mut history = Map::new();
    for (table, wanted) in MIGRATION_TABLES {
        if !tables.iter().any(|name| name == table) {
            continue;
        }
        let present = columns(connection, table)?;
        let kept: Vec<&str> =
            wanted.iter().copied().filter(|column| present.iter().any(|name| name == column)).collect();
        if kept.is_empty() {
            continue;
        }
        let list: Vec<String> = kept.iter().map(|column| quoted(column)).collect();
        let sql = format!("SELECT {} FROM main.{}", list.join(", "), quoted(table));
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query([])?;
        let mut applied = std::collections::VecDeque::new();
        while let Some(row) = rows.next()? {
            if applied.len() >= MAX_MIGRATIONS as usize {
                applied.pop_front();
            }
            let values =
                (0..kept.len()).map(|index| row.get_ref(index).map(shown)).collect::<Result<Vec<_>, _>>()?;
            applied.push_back(Value::Array(values));
        }
        history.insert(table.to_owned(), json!({ "columns": kept, "rows": applied }));
    }
    Ok(history)
}

fn shown(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => json!(number),
        ValueRef::Real(number) => json!(number),
        ValueRef::Text(bytes) => {
            String::from_utf8_lossy(bytes).chars().take(MAX_VALUE_CHARS).collect::<String>().into()
        }
        ValueRef::Blob(bytes) => hex::encode(bytes).chars().take(MAX_VALUE_CHARS).collect::<String>().into(),
    }
}
