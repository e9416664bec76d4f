//! What is in the tables: how many rows, and a checksum of their content that does not depend on their order.
//!
//! In: connection options. Out: a [`Survey`] of every database, and what two surveys around a capture prove about the
//! moment between them. Memory: about 300 bytes per table; rows stay on the server.
//!
//! Sampling: a table is counted while it has at most [`MAX_TABLE_ROWS`] and the cluster's counted ones together at most
//! [`MAX_CLUSTER_ROWS`]; its content is summed while it takes at most [`MAX_TABLE_BYTES`] and the summed ones together
//! [`MAX_CLUSTER_BYTES`]. Small tables come first. What is left out is named with the reason.

use std::collections::BTreeMap;
use std::time::Duration;

use lifeboat_base::failure::Failure;
use lifeboat_base::human;
use lifeboat_postgres::wire::{ConnectOptions, PgError, Row};

use super::error;
use super::schema::{fingerprint, schema_text};
use super::session::{Patience, Session, dotted, number, qualified, reason, refused, text};

/// Tables with more rows, by the server's estimate, are not counted.
const MAX_TABLE_ROWS: u64 = 20_000_000;
/// Rows counted in all databases together.
const MAX_CLUSTER_ROWS: u64 = 100_000_000;
/// Tables that take more on disk, TOAST included, are not summed.
const MAX_TABLE_BYTES: u64 = 64 * 1024 * 1024;
/// Bytes summed in all databases together.
const MAX_CLUSTER_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// How long one table may take, and how long it may keep us waiting for its lock: nothing waits behind us for longer.
const PATIENCE: Patience =
    Patience { statement: Duration::from_secs(60), lock: Duration::from_millis(2_000) };
/// The least a row takes on a page, for tables the server has no estimate of.
const MIN_ROW_BYTES: u64 = 28;

/// Every table with rows of its own that outlives a crash: ordinary ones, partitions, materialized views. Smallest
/// first. `pg_` is reserved for the server's own schemas.
const TABLES: &str = "SELECT c.oid, n.nspname, c.relname, c.relispopulated, c.reltuples::bigint, c.relpages, \
     pg_catalog.pg_stat_get_tuples_inserted(c.oid), pg_catalog.pg_stat_get_tuples_updated(c.oid), \
     pg_catalog.pg_stat_get_tuples_deleted(c.oid) \
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind IN ('r', 'm') AND c.relpersistence = 'p' \
     AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY c.relpages, c.oid";

/// Databases that can be entered at all; `template0` cannot, nor can one whose dropping broke off.
const DATABASES: &str = "SELECT datname, pg_catalog.has_database_privilege(oid, 'CONNECT') \
                         FROM pg_catalog.pg_database WHERE datallowconn AND datconnlimit <> -2 ORDER BY datname";

/// Rows inserted, updated and deleted since the server last forgot; transactions that failed count as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) inserted: u64,
    pub(crate) updated: u64,
    pub(crate) deleted: u64,
}

/// What is known of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TableState {
    pub(crate) rows: Option<u64>,
    pub(crate) sum: Option<String>,
    pub(crate) why_not: Option<String>,
    /// The server's counters, which arrive some seconds late; nothing where it keeps none.
    pub(crate) changes: Option<Changes>,
}

/// What is in a cluster at one moment per database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Survey {
    /// By `database.schema.table`.
    pub(crate) tables: BTreeMap<String, TableState>,
    /// The fingerprint of each database's schema, or why there is none.
    pub(crate) schemas: BTreeMap<String, Result<String, String>>,
    /// Databases that could not be entered, and why.
    pub(crate) closed: BTreeMap<String, String>,
}

/// A table of one database, as the catalog lists it.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) oid: u32,
    pub(crate) schema: String,
    pub(crate) name: String,
    populated: bool,
    rows_estimate: Option<u64>,
    page_count: u64,
    changes: Option<Changes>,
}

impl Listed {
    /// Its name in facts and checks.
    pub(crate) fn key(&self, database: &str) -> String {
        dotted(&[database, &self.schema, &self.name])
    }
}

/// What may still be counted and summed.
#[derive(Clone, Copy, Debug)]
struct Budget {
    rows: u64,
    bytes: u64,
}

/// Surveys every database the role may enter. A database or table it may not read is part of the answer, with the
/// reason; only a lost connection is an error.
pub(crate) fn survey(options: &ConnectOptions) -> Result<Survey, Failure> {
    let fail = || error::connection("failed to survey the tables");
    let mut session = Session::open(options, PATIENCE).map_err(fail())?;
    let mut survey = Survey::default();
    let mut budget = Budget { rows: MAX_CLUSTER_ROWS, bytes: MAX_CLUSTER_BYTES };
    for row in session.ask(DATABASES).map_err(fail())? {
        let database = text(&row, 0);
        if text(&row, 1) != "t" {
            survey.closed.insert(database.to_owned(), "the role may not connect to it".to_owned());
            continue;
        }
        match Session::open(&options.with_database(database), PATIENCE) {
            Ok(mut inside) => {
                let done = survey_database(&mut inside, database, &mut budget, &mut survey);
                if let Err(why) = refused(done).map_err(fail())? {
                    survey.closed.insert(database.to_owned(), why);
                }
            }
            Err(error) if error.server().is_some() => {
                survey.closed.insert(database.to_owned(), reason(&error));
            }
            Err(error) => return Err(fail()(error)),
        }
    }
    Ok(survey)
}

fn survey_database(
    session: &mut Session,
    database: &str,
    budget: &mut Budget,
    survey: &mut Survey,
) -> Result<(), PgError> {
    session.ask("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
    for table in list(session)? {
        let state = sample(session, &table, budget)?;
        survey.tables.insert(table.key(database), state);
    }
    session.ask("COMMIT")?;
    let schema = refused(schema_text(session))?.map(|text| fingerprint(&text));
    survey.schemas.insert(database.to_owned(), schema);
    Ok(())
}

/// The tables of the session's database.
pub(crate) fn list(session: &mut Session) -> Result<Vec<Listed>, PgError> {
    let rows = session.ask(TABLES)?;
    Ok(rows.iter().filter_map(listed).collect())
}

fn listed(row: &Row) -> Option<Listed> {
    let changes = match (number(row, 6), number(row, 7), number(row, 8)) {
        (Some(inserted), Some(updated), Some(deleted)) => Some(Changes { inserted, updated, deleted }),
        _ => None,
    };
    Some(Listed {
        oid: number(row, 0)?,
        schema: text(row, 1).to_owned(),
        name: text(row, 2).to_owned(),
        populated: text(row, 3) == "t",
        rows_estimate: number::<u64>(row, 4).filter(|rows| *rows > 0),
        page_count: number(row, 5).unwrap_or_default(),
        changes,
    })
}

/// Counts and sums as far as the budget goes.
fn sample(session: &mut Session, table: &Listed, budget: &mut Budget) -> Result<TableState, PgError> {
    let mut state = TableState { changes: table.changes, ..TableState::default() };
    if !table.populated {
        state.why_not = Some("it is a materialized view without data".to_owned());
        return Ok(state);
    }
    let sizes = format!(
        "SELECT pg_catalog.pg_table_size({oid}), pg_catalog.pg_relation_size({oid}), \
         pg_catalog.current_setting('block_size')",
        oid = table.oid
    );
    let sizes = match refused(session.guarded(&sizes))? {
        Ok(rows) => rows,
        Err(why) => return Ok(TableState { why_not: Some(why), ..state }),
    };
    let size = |index| sizes.first().and_then(|row| number::<u64>(row, index));
    let (Some(total_bytes), Some(heap_bytes), Some(block_bytes)) = (size(0), size(1), size(2)) else {
        return Ok(TableState { why_not: Some("it is gone".to_owned()), ..state });
    };
    let rows = estimate(table, heap_bytes, block_bytes);
    if rows > MAX_TABLE_ROWS || rows > budget.rows {
        state.why_not = Some(format!("it has about {} rows, too many to count", human::count(rows)));
        return Ok(state);
    }
    let summed = total_bytes <= MAX_TABLE_BYTES && total_bytes <= budget.bytes;
    if !summed {
        let size = human::bytes(total_bytes);
        state.why_not = Some(format!("its content takes {size}, too much to sum"));
    }
    match refused(measure(session, table, summed))? {
        Ok((rows, sum)) => {
            budget.rows = budget.rows.saturating_sub(rows);
            budget.bytes = budget.bytes.saturating_sub(if summed { total_bytes } else { 0 });
            (state.rows, state.sum) = (Some(rows), sum);
        }
        Err(why) => state.why_not = Some(why),
    }
    Ok(state)
}

/// Rows by the density the server last saw, or by the least a row can take.
fn estimate(table: &Listed, heap_bytes: u64, block_bytes: u64) -> u64 {
    let pages = heap_bytes / block_bytes.max(1);
    match table.rows_estimate {
        Some(rows) if table.page_count > 0 => {
            let rows = u128::from(rows) * u128::from(pages) / u128::from(table.page_count);
            u64::try_from(rows).unwrap_or(u64::MAX)
        }
        _ => heap_bytes / MIN_ROW_BYTES,
    }
}

/// Counts the rows of a table of its own (not of those that inherit from it), and sums its content if asked to.
///
/// The sum adds up two 64-bit hashes, with different seeds, of every row's text. A sum, because rows have no order, and
/// not XOR, under which two equal rows cancel. Text and hashes are the same on every supported version.
pub(crate) fn measure(
    session: &mut Session,
    table: &Listed,
    summed: bool,
) -> Result<(u64, Option<String>), PgError> {
    let name = qualified(&table.schema, &table.name);
    let sql = if summed {
        // `OFFSET 0` keeps the text from being made twice.
        format!(
            "SELECT count(*), coalesce(sum(pg_catalog.hashtextextended(r, 0)), 0), \
             coalesce(sum(pg_catalog.hashtextextended(r, 7046029254386353131)), 0) \
             FROM (SELECT ROW(lifeboat.*)::text COLLATE pg_catalog.\"C\" AS r FROM ONLY {name} AS lifeboat OFFSET 0) rows"
        )
    } else {
        format!("SELECT count(*) FROM ONLY {name}")
    };
    let rows = session.guarded(&sql)?;
    let Some(row) = rows.first() else { return Err(PgError::Protocol { what: "no answer to a count" }) };
    let count = number(row, 0).ok_or(PgError::Protocol { what: "a count that is not a number" })?;
    let sum = summed.then(|| format!("pg-hashtext64x2:{}:{}", text(row, 1), text(row, 2)));
    Ok((count, sum))
}

/// What two surveys prove about every moment between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    /// Exact numbers of rows, by `rows/TABLE`.
    pub(crate) counts: BTreeMap<String, u64>,
    /// Exact content by `table/TABLE`, and fingerprints by `schema/DATABASE`.
    pub(crate) sums: BTreeMap<String, String>,
    /// Least and most rows of tables that changed meanwhile.
    pub(crate) ranges: BTreeMap<String, (u64, u64)>,
    /// Why there is no count (`rows/TABLE`), no content (`table/TABLE`), no schema (`schema/DATABASE`), and why a table
    /// may be there or not (`maybe/TABLE`) and nothing is known of a database (`database/DATABASE`).
    pub(crate) unchecked: BTreeMap<String, String>,
}

/// Compares a survey before a capture with one after it. Equal on both sides, and untouched by the server's counters,
/// is what the capture must show; numbers that moved are bounded by what was inserted and deleted meanwhile.
pub(crate) fn settled(before: &Survey, after: &Survey) -> Settled {
    let mut settled = Settled::default();
    let names = before.tables.keys().chain(after.tables.keys());
    for name in names.collect::<std::collections::BTreeSet<_>>() {
        match (before.tables.get(name), after.tables.get(name)) {
            (Some(before), Some(after)) => settle_table(&mut settled, name, before, after),
            (before, _) => {
                let what = if before.is_some() { "vanished" } else { "appeared" };
                settled.unchecked.insert(format!("maybe/{name}"), format!("it {what} during the capture"));
            }
        }
    }
    for (name, why) in before.closed.iter().chain(&after.closed) {
        settled.unchecked.insert(format!("database/{name}"), why.clone());
    }
    let names = before.schemas.keys().chain(after.schemas.keys());
    for name in names.collect::<std::collections::BTreeSet<_>>() {
        let key = format!("schema/{name}");
        let why = match (before.schemas.get(name), after.schemas.get(name)) {
            (Some(Ok(before)), Some(Ok(after))) if before == after => {
                settled.sums.insert(key, before.clone());
                continue;
            }
            (Some(Err(why)), _) | (_, Some(Err(why))) => why.clone(),
            (Some(Ok(_)), Some(Ok(_))) => "it changed during the capture".to_owned(),
            _ => "the database appeared or vanished during the capture".to_owned(),
        };
        settled.unchecked.insert(key, why);
    }
    settled
}

fn settle_table(settled: &mut Settled, name: &str, before: &TableState, after: &TableState) {
    let (rows_key, content_key) = (format!("rows/{name}"), format!("table/{name}"));
    let why_not = || before.why_not.clone().or_else(|| after.why_not.clone());
    let (Some(first), Some(last)) = (before.rows, after.rows) else {
        let why = why_not().unwrap_or_else(|| "it was not counted".to_owned());
        settled.unchecked.insert(rows_key, why);
        return;
    };
    // Without counters equal numbers have to do; counters that were reset go back.
    let moved = match (before.changes, after.changes) {
        (Some(before), Some(after)) => Changes {
            inserted: after.inserted.wrapping_sub(before.inserted),
            updated: after.updated.wrapping_sub(before.updated),
            deleted: after.deleted.wrapping_sub(before.deleted),
        },
        _ => Changes::default(),
    };
    if first == last && moved.inserted == 0 && moved.deleted == 0 {
        settled.counts.insert(rows_key, first);
    } else {
        let least = first.min(last).min(first.saturating_sub(moved.deleted));
        let most = first.max(last).max(first.saturating_add(moved.inserted));
        settled.ranges.insert(name.to_owned(), (least, most));
    }
    match (&before.sum, &after.sum) {
        (Some(before), Some(after)) if before == after && moved == Changes::default() => {
            settled.sums.insert(content_key, before.clone());
        }
        (Some(_), Some(_)) => {
            settled.unchecked.insert(content_key, "it changed during the capture".to_owned());
        }
        _ => {
            let why = why_not().unwrap_or_else(|| "it was not summed".to_owned());
            settled.unchecked.insert(content_key, why);
        }
    }
}
