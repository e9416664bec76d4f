//! What is recorded with each point besides its bytes: the server, its settings, roles, databases and schemas.
//!
//! In: connection options of a role that may do little. Out: [`Facts`]. Whatever the role may not read is recorded under
//! `unknown` with the server's reason; only a lost connection is an error. No password and no hash of one is read.

use std::collections::BTreeMap;
use std::time::Duration;

use lifeboat_base::failure::Failure;
use lifeboat_postgres::wire::{ConnectOptions, PgError, Row};
use serde_json::{Map, Value, json};

use super::error;
use super::masking::masked;
use super::migrations::migrations;
use super::schema::{fingerprint, schema_text};
use super::session::{Patience, Session, dotted, number, reason, refused, text};

/// Catalogs are small; whatever takes longer is waiting for somebody.
const PATIENCE: Patience =
    Patience { statement: Duration::from_secs(60), lock: Duration::from_millis(2_000) };
/// The segment size of nearly all clusters, for a server that does not tell.
const DEFAULT_SEGMENT_BYTES: u32 = 16 * 1024 * 1024;

/// What a new session gets: ours has changed some for itself, of which the source is not told any more.
const SETTINGS: &str = "SELECT name, reset_val, unit, nullif(source, 'session') FROM pg_catalog.pg_settings \
     WHERE reset_val IS DISTINCT FROM boot_val AND source NOT IN ('client', 'override') ORDER BY name";

const ROLES: &str = "SELECT r.rolname, r.oid = 10, r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb, \
     r.rolcanlogin, r.rolreplication, r.rolbypassrls, r.rolconnlimit, r.rolvaliduntil, \
     (SELECT pg_catalog.json_agg(g.rolname ORDER BY g.rolname) FROM pg_catalog.pg_auth_members m \
     JOIN pg_catalog.pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid) \
     FROM pg_catalog.pg_roles r WHERE r.oid >= 16384 OR r.oid = 10 ORDER BY r.rolname";
/// The columns of [`ROLES`] that are attributes when true.
const ATTRIBUTES: [(usize, &str); 7] = [
    (2, "superuser"),
    (3, "inherit"),
    (4, "createrole"),
    (5, "createdb"),
    (6, "login"),
    (7, "replication"),
    (8, "bypassrls"),
];

const TABLESPACES: &str =
    "SELECT oid, spcname, spcoptions::text FROM pg_catalog.pg_tablespace WHERE oid >= 16384";

const INVALID_INDEXES: &str = "SELECT n.nspname, c.relname FROM pg_catalog.pg_index i \
     JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind = 'i' AND c.relpersistence <> 't' AND NOT (i.indisvalid AND i.indisready AND i.indislive)";

const EXTENSIONS: &str = "SELECT extname, extversion FROM pg_catalog.pg_extension";

/// Single values, as JSON, and the statements that give them. The identifier is a text: it may exceed what readers of
/// JSON take for a number.
const VALUES: [(&str, &str); 6] = [
    (
        "system_identifier",
        "SELECT pg_catalog.to_json(system_identifier::text) FROM pg_catalog.pg_control_system()",
    ),
    ("data_checksums", "SELECT pg_catalog.to_json(pg_catalog.current_setting('data_checksums'))"),
    ("wal_level", "SELECT pg_catalog.to_json(pg_catalog.current_setting('wal_level'))"),
    ("block_bytes", "SELECT pg_catalog.current_setting('block_size')"),
    ("wal_segment_bytes", "SELECT pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size'))"),
    ("in_recovery", "SELECT pg_catalog.to_json(pg_catalog.pg_is_in_recovery())"),
];

/// Everything known about a cluster besides its files.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// For [`CaptureFacts::environment`](lifeboat_base::capture::CaptureFacts).
    pub(crate) environment: BTreeMap<String, Value>,
    /// Database and listing of its catalogs, for every database that could be read.
    pub(crate) schema_texts: Vec<(String, String)>,
    /// The size of a segment of the log.
    pub(crate) segment_bytes: u32,
}

/// Reads everything, with one connection per database, one after the other.
pub(crate) fn read(options: &ConnectOptions) -> Result<Facts, Failure> {
    collect(options).map_err(error::connection("failed to read what is known about the server"))
}

fn collect(options: &ConnectOptions) -> Result<Facts, PgError> {
    let mut session = Session::open(options, PATIENCE)?;
    let mut notes = Notes::default();
    let version = session.version();
    notes.put("server_version", json!(session.version_text()));
    notes.put("server_major", json!(version / 10_000));
    for (name, sql) in VALUES {
        let value = session.value(sql);
        let read = |text: &String| serde_json::from_str::<Value>(text).ok();
        notes.add(name, value.map(|value| value.as_ref().and_then(read).unwrap_or_default()))?;
    }
    notes.add("settings", session.ask(SETTINGS).map(|rows| settings(&rows)))?;
    notes.add("roles", session.ask(ROLES).map(|rows| roles(&rows)))?;
    notes.add("tablespace_names", session.ask(TABLESPACES).map(|rows| tablespaces(&rows)))?;
    let databases = session.ask(&databases_sql(version))?;
    notes.put("databases", databases_value(&databases));
    let mut schema_texts = Vec::new();
    for row in databases.iter().filter(|row| row.by_name("connectable") == Some("t")) {
        let database = text(row, 0);
        match Session::open(&options.with_database(database), PATIENCE) {
            Ok(mut inside) => inside_database(&mut inside, database, &mut notes, &mut schema_texts)?,
            Err(error) if error.server().is_some() => {
                notes.unknown.insert(format!("databases/{database}"), json!(reason(&error)));
            }
            Err(error) => return Err(error),
        }
    }
    let segment_bytes = notes.environment.get("wal_segment_bytes").and_then(Value::as_u64);
    let segment_bytes =
        segment_bytes.and_then(|bytes| u32::try_from(bytes).ok()).unwrap_or(DEFAULT_SEGMENT_BYTES);
    Ok(Facts { environment: notes.finish(), schema_texts, segment_bytes })
}

fn inside_database(
    session: &mut Session,
    database: &str,
    notes: &mut Notes,
    schema_texts: &mut Vec<(String, String)>,
) -> Result<(), PgError> {
    let extensions = session.ask(EXTENSIONS).map(|rows| {
        rows.iter().map(|row| (text(row, 0).to_owned(), json!(row.get(1)))).collect::<Map<_, _>>()
    });
    notes.add_inside("extensions", database, extensions.map(Value::Object))?;
    let history = migrations(session)?;
    if !history.is_empty() {
        notes.add_inside("migrations", database, Ok(Value::Object(history)))?;
    }
    let invalid = invalid_indexes(session, database);
    notes.add_inside("invalid_indexes", database, invalid.map(|names| json!(names)))?;
    match refused(schema_text(session))? {
        Ok(text) => {
            notes.inside("schemas").insert(database.to_owned(), json!(fingerprint(&text)));
            schema_texts.push((database.to_owned(), text));
        }
        Err(why) => drop(notes.unknown.insert(format!("schemas/{database}"), json!(why))),
    }
    Ok(())
}

/// The names of the indexes of a database that cannot be used as they are.
pub(crate) fn invalid_indexes(session: &mut Session, database: &str) -> Result<Vec<String>, PgError> {
    let rows = session.ask(INVALID_INDEXES)?;
    Ok(rows.iter().map(|row| dotted(&[database, text(row, 0), text(row, 1)])).collect())
}

/// What has been learnt so far.
#[derive(Default)]
struct Notes {
    environment: BTreeMap<String, Value>,
    unknown: Map<String, Value>,
}

impl Notes {
    fn put(&mut self, name: &str, value: Value) {
        self.environment.insert(name.to_owned(), value);
    }

    fn add(&mut self, name: &str, answer: Result<Value, PgError>) -> Result<(), PgError> {
        match refused(answer)? {
            Ok(value) => self.put(name, value),
            Err(why) => drop(self.unknown.insert(name.to_owned(), json!(why))),
        }
        Ok(())
    }

    /// A value of one database.
    fn add_inside(
        &mut self,
        name: &str,
        database: &str,
        answer: Result<Value, PgError>,
    ) -> Result<(), PgError> {
        match refused(answer)? {
            Ok(value) => drop(self.inside(name).insert(database.to_owned(), value)),
            Err(why) => drop(self.unknown.insert(format!("{name}/{database}"), json!(why))),
        }
        Ok(())
    }

    fn inside(&mut self, name: &str) -> &mut Map<String, Value> {
        let value = self.environment.entry(name.to_owned()).or_insert_with(|| Value::Object(Map::new()));
        if !value.is_object() {
            *value = Value::Object(Map::new());
        }
        match value {
            Value::Object(map) => map,
            _ => &mut self.unknown,
        }
    }

    fn finish(mut self) -> BTreeMap<String, Value> {
        self.environment.insert("unknown".to_owned(), Value::Object(self.unknown));
        self.environment
    }
}

fn settings(rows: &[Row]) -> Value {
    let setting = |row: &Row| {
        let (name, value) = (text(row, 0), text(row, 1));
        let value = json!({ "setting": masked(name, value), "unit": row.get(2), "source": row.get(3) });
        (name.to_owned(), value)
    };
    Value::Object(rows.iter().map(setting).collect())
}

fn roles(rows: &[Row]) -> Value {
    let role = |row: &Row| {
        let attributes: Vec<&str> =
            ATTRIBUTES.iter().filter(|(at, _)| text(row, *at) == "t").map(|(_, name)| *name).collect();
        let member_of: Value = serde_json::from_str(text(row, 11)).unwrap_or_else(|_| json!([]));
        let value = json!({
            "bootstrap": text(row, 1) == "t", "attributes": attributes, "member_of": member_of,
            "connection_limit": number::<i64>(row, 9), "valid_until": row.get(10),
        });
        (text(row, 0).to_owned(), value)
    };
    Value::Object(rows.iter().map(role).collect())
}

fn tablespaces(rows: &[Row]) -> Value {
    let space = |row: &Row| (text(row, 0).to_owned(), json!({ "name": row.get(1), "options": row.get(2) }));
    Value::Object(rows.iter().map(space).collect())
}

/// One row per database; one whose dropping broke off (limit -2) takes no connection. Versions of collations are kept since 15 for databases; before, the collation of the same name
/// tells which version the machine has. Since 17 the locale of all providers stands in one column.
pub(crate) fn databases_sql(version: u32) -> String {
    let provider = if version >= 150_000 { "d.datlocprovider" } else { "'c'" };
    let locale = match version {
        170_000.. => "d.datlocale",
        150_000.. => "d.daticulocale",
        _ => "NULL",
    };
    let (recorded, actual) = if version >= 150_000 {
        ("d.datcollversion", "pg_catalog.pg_database_collation_actual_version(d.oid)")
    } else {
        // All locales of the C library have its version; `C` and its kin have none.
        (
            "NULL",
            "(CASE WHEN d.datcollate !~ '^(C|POSIX)($|\\.)' THEN (SELECT pg_catalog.pg_collation_actual_version(c.oid) \
             FROM pg_catalog.pg_collation c WHERE c.collprovider = 'c' AND c.collcollate !~ '^(C|POSIX)?($|\\.)' \
             ORDER BY c.oid LIMIT 1) END)",
        )
    };
    format!(
        "SELECT d.datname, pg_catalog.pg_encoding_to_char(d.encoding) AS encoding, d.datcollate AS collate, \
         d.datctype AS ctype, {provider} AS provider, {locale} AS locale, {recorded} AS recorded_version, \
         {actual} AS actual_version, d.datallowconn AS allows_connections, \
         d.datallowconn AND d.datconnlimit <> -2 AND pg_catalog.has_database_privilege(d.oid, 'CONNECT') AS connectable, \
         d.datistemplate AS template FROM pg_catalog.pg_database d ORDER BY d.datname"
    )
}

fn databases_value(rows: &[Row]) -> Value {
    let database = |row: &Row| {
        let mut value = Map::new();
        for name in
            ["encoding", "collate", "ctype", "provider", "locale", "recorded_version", "actual_version"]
        {
            value.insert(name.to_owned(), json!(row.by_name(name)));
        }
        for name in ["allows_connections", "template"] {
            value.insert(name.to_owned(), json!(row.by_name(name) == Some("t")));
        }
        (text(row, 0).to_owned(), Value::Object(value))
    };
    Value::Object(rows.iter().map(database).collect())
}
