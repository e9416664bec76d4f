//! What is in the tables: how many rows, and a checksum of their content that does not depend on their order.
//!
//! In: a connection inside a transaction. Out: a [`Summary`] per table. Memory: one row at a time.

use lifeboat_base::digest::Hasher;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Monitor;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Statement};

use super::identifier::quoted;
use crate::sum::Sum;

/// Rows between two questions whether the work was cancelled.
const ROWS_PER_QUESTION: u64 = 4096;

/// The content of one table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) rows: u64,
    pub(crate) sum: Sum,
}

/// Why a table has no summary.
#[derive(Debug)]
pub(crate) enum SummaryError {
    /// The work was cancelled.
    Cancelled(Failure),
    /// SQLite refused or failed.
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for SummaryError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// The names of all tables that have rows of their own, sorted: ordinary ones, those without row ids, those inside
/// virtual tables (which are never queried themselves) and SQLite's own. Names that are not UTF-8 come back as the
/// second list, readable but not usable.
pub(crate) fn table_names(connection: &Connection) -> rusqlite::Result<(Vec<String>, Vec<String>)> {
    names(connection, "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY name")
}

/// The names of virtual tables.
pub(crate) fn virtual_tables(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let sql =
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND coalesce(rootpage, 0) = 0 ORDER BY name";
    names(connection, sql).map(|(usable, _)| usable)
}

fn names(connection: &Connection, sql: &str) -> rusqlite::Result<(Vec<String>, Vec<String>)> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let (mut usable, mut unusable) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        let bytes = row.get_ref(0)?.as_bytes()?;
        match std::str::from_utf8(bytes) {
            Ok(name) => usable.push(name.to_owned()),
            Err(_) => unusable.push(String::from_utf8_lossy(bytes).into_owned()),
        }
    }
    Ok((usable, unusable))
}

/// The stored columns of a table in their order: generated ones are a consequence of the others.
pub(crate) fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT name FROM pragma_table_xinfo(?1, 'main') WHERE hidden NOT IN (2, 3) ORDER BY cid";
    let mut statement = connection.prepare_cached(sql)?;
    let columns = statement.query_map([table], |row| row.get(0))?;
    columns.collect()
}

/// Reads every row of a table.
pub(crate) fn summarise(
    connection: &Connection,
    table: &str,
    monitor: &dyn Monitor,
) -> Result<Summary, SummaryError> {
    let columns: Vec<String> = columns(connection, table)?.iter().map(|column| quoted(column)).collect();
    // Not from an index: an index can differ from its table, and then the table is what counts.
    let sql = format!("SELECT {} FROM main.{} NOT INDEXED", columns.join(", "), quoted(table));
    let statement = connection.prepare(&sql)?;
    read_rows(statement, columns.len(), monitor)
}

fn read_rows(
    mut statement: Statement<'_>,
    column_count: usize,
    monitor: &dyn Monitor,
) -> Result<Summary, SummaryError> {
    let mut summary = Summary::default();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let mut hasher = Hasher::new();
        let mut bytes = 0;
        for index in 0..column_count {
            bytes += encode(row.get_ref(index)?, &mut hasher);
        }
        summary.sum.add(hasher.finish().as_bytes());
        summary.rows += 1;
        monitor.advance(bytes, 0);
        if summary.rows.is_multiple_of(ROWS_PER_QUESTION) && monitor.cancelled() {
            let cancelled = Failure::new(FailureKind::Refused, "reading the tables was cancelled");
            return Err(SummaryError::Cancelled(cancelled));
        }
    }
    Ok(summary)
}

/// One value: a byte for its type, then its content; texts and blobs with their length in front, so that no two
/// rows have the same encoding. Gives the number of bytes of content.
fn encode(value: ValueRef<'_>, hasher: &mut Hasher) -> u64 {
    const NULL: u8 = 0;
    const INTEGER: u8 = 1;
    const REAL: u8 = 2;
    const TEXT: u8 = 3;
    const BLOB: u8 = 4;
    let mut fixed = |kind: u8, number: u64| {
        let mut head = [kind; 9];
        head[1..].copy_from_slice(&number.to_be_bytes());
        hasher.update(&head);
    };
    match value {
        ValueRef::Null => {
            hasher.update(&[NULL]);
            0
        }
        ValueRef::Integer(number) => {
            fixed(INTEGER, number.cast_unsigned());
            8
        }
        // The bits: no rounding, and -0.0 stays apart from 0.0. SQLite stores NaN as NULL.
        ValueRef::Real(number) => {
            fixed(REAL, number.to_bits());
            8
        }
        ValueRef::Text(bytes) => {
            fixed(TEXT, bytes.len() as u64);
            hasher.update(bytes);
            bytes.len() as u64
        }
        ValueRef::Blob(bytes) => {
            fixed(BLOB, bytes.len() as u64);
            hasher.update(bytes);
            bytes.len() as u64
        }
    }
}

#[cfg(test)]
mod tests {
    use lifeboat_base::monitor::Findings;
    use proptest::prelude::*;

    use super::*;

    fn summary_of(statements: &str) -> Summary {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(statements).unwrap();
        summarise(&connection, "t", &Findings::new()).unwrap()
    }

    #[test]
    fn the_sum_ignores_order_but_not_duplicates() {
        let table = "CREATE TABLE t(a);";
        let one = summary_of(&format!("{table} INSERT INTO t VALUES (1), (2), (3)"));
        let other = summary_of(&format!("{table} INSERT INTO t VALUES (3), (1), (2)"));
        assert_eq!(one, other);
        let pair = summary_of(&format!("{table} INSERT INTO t VALUES (1), (7), (7)"));
        let none = summary_of(&format!("{table} INSERT INTO t VALUES (1), (8), (8)"));
        assert_ne!(pair.sum, none.sum);
    }

    #[test]
    fn types_and_column_borders_are_part_of_the_content() {
        let table = "CREATE TABLE t(a, b);";
        let values = [
            "(1, NULL)",
            "(1.0, NULL)",
            "('1', NULL)",
            "(x'31', NULL)",
            "(NULL, 1)",
            "('ab', 'c')",
            "('a', 'bc')",
            "('', 'abc')",
            "(0.0, NULL)",
            "(-0.0, NULL)",
            "(9e999, NULL)",
            "(-9e999, NULL)",
            "(0, NULL)",
            "('1' || char(0), NULL)",
        ];
        let sums: Vec<_> =
            values.iter().map(|row| summary_of(&format!("{table} INSERT INTO t VALUES {row}")).sum).collect();
        for (index, sum) in sums.iter().enumerate() {
            // SQLite stores -0.0 as the integer 0 in some columns; here it is a value of its own or equal to 0.0.
            let twins = sums.iter().filter(|other| *other == sum).count();
            assert!(twins == 1 || values[index].contains("0.0"), "{}", values[index]);
        }
    }

    #[test]
    fn tables_without_row_ids_and_with_generated_columns_are_read() {
        let summary = summary_of(
            "CREATE TABLE t(a TEXT PRIMARY KEY, b, c GENERATED ALWAYS AS (b * 2) STORED, d AS (b + 1)) WITHOUT ROWID;
             CREATE INDEX i ON t(b); INSERT INTO t VALUES ('x', 1), ('y', 2);",
        );
        let plain = summary_of("CREATE TABLE t(a, b); INSERT INTO t VALUES ('x', 1), ('y', 2);");
        assert_eq!(summary, plain);
    }

    proptest! {
        #[test]
        fn the_sum_is_that_of_the_numbers(digests in proptest::collection::vec(any::<[u8; 32]>(), 0..8)) {
            let mut sum = Sum::default();
            let mut expected = [0u8; 32];
            for digest in &digests {
                sum.add(digest);
                let mut carry = 0u16;
                for (byte, more) in expected.iter_mut().zip(digest).rev() {
                    let total = u16::from(*byte) + u16::from(*more) + carry;
                    *byte = total.to_le_bytes()[0];
                    carry = total >> 8;
                }
            }
            prop_assert_eq!(sum.shown(), format!("sum-sha256-v1:{}", hex::encode(expected)));
        }
    }
}
