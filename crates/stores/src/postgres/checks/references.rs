//! Every foreign key of a database, checked against the tables themselves and not against what the server believes.

use lifeboat_postgres::wire::{PgError, Row, quote_identifier};
use serde::Deserialize;

use super::FOREIGN_KEYS;
use crate::adapter::CheckResult;
use crate::postgres::session::{Session, dotted, is_lost, number, qualified, reason, text};
use crate::tally::Tally;

const EXPECTED: &str = "0 rows without the row they refer to";

/// Columns of both sides and the operator that compares them: parent's column, schema and name of the operator,
/// child's column.
#[derive(Deserialize)]
struct Pair(String, String, String, String);

/// One row per foreign key, those that a partition has from its table left out.
fn keys_sql(version: u32) -> String {
    let (period, enforced) =
        if version >= 180_000 { ("o.conperiod", "o.conenforced") } else { ("false", "true") };
    format!(
        "SELECT o.conname, cn.nspname, c.relname, c.relkind, pn.nspname, p.relname, p.relkind, \
         o.convalidated AND {enforced}, o.confmatchtype, {period}, \
         (SELECT pg_catalog.json_agg(pg_catalog.json_build_array(pa.attname, opn.nspname, op.oprname, ca.attname) \
         ORDER BY k.at) FROM ROWS FROM (pg_catalog.unnest(o.conkey), pg_catalog.unnest(o.confkey), \
         pg_catalog.unnest(o.conpfeqop)) WITH ORDINALITY AS k(child, parent, operator, at) \
         JOIN pg_catalog.pg_attribute ca ON ca.attrelid = o.conrelid AND ca.attnum = k.child \
         JOIN pg_catalog.pg_attribute pa ON pa.attrelid = o.confrelid AND pa.attnum = k.parent \
         JOIN pg_catalog.pg_operator op ON op.oid = k.operator \
         JOIN pg_catalog.pg_namespace opn ON opn.oid = op.oprnamespace) \
         FROM pg_catalog.pg_constraint o \
         JOIN pg_catalog.pg_class c ON c.oid = o.conrelid JOIN pg_catalog.pg_namespace cn ON cn.oid = c.relnamespace \
         JOIN pg_catalog.pg_class p ON p.oid = o.confrelid JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace \
         WHERE o.contype = 'f' AND o.conparentid = 0 ORDER BY cn.nspname, c.relname, o.conname"
    )
}

/// Counts, for every foreign key of the session's database, the rows without the row they refer to. Keys that the
/// captured server itself did not hold for true (`NOT VALID`, `NOT ENFORCED`) are counted apart: they prove nothing.
pub(super) fn check_foreign_keys(session: &mut Session, database: &str) -> Result<CheckResult, PgError> {
    let mut tally = Tally::default();
    let (mut rows_missing, mut keys, mut apart) = (0u64, 0u64, Vec::new());
    for row in session.ask(&keys_sql(session.version()))? {
        let name = format!("{} of {}", text(&row, 0), dotted(&[text(&row, 1), text(&row, 2)]));
        if text(&row, 9) == "t" {
            apart.push(format!("{name}: a key over periods is not checked"));
            continue;
        }
        let Some(sql) = orphans_sql(&row) else {
            tally.add(|| format!("{name}: the catalog does not say what it compares"));
            continue;
        };
        let orphans = match session.ask(&sql) {
            Ok(rows) => rows.first().and_then(|row| number::<u64>(row, 0)),
            Err(error) if is_lost(&error) => return Err(error),
            Err(error) => {
                tally.add(|| format!("{name}: {}", reason(&error)));
                continue;
            }
        };
        let parent = dotted(&[text(&row, 4), text(&row, 5)]);
        match (orphans, text(&row, 7) == "t") {
            (None, _) => tally.add(|| format!("{name}: the server gave no number")),
            (Some(count), false) => apart.push(format!("{name} is not valid; {count} rows without a parent")),
            (Some(0), true) => {}
            (Some(count), true) => {
                rows_missing += count;
                tally.add(|| format!("{name}: {count} rows refer to rows of {parent} that are not there"));
            }
        }
        keys += 1;
    }
    let mut measured = format!("{rows_missing} rows; {keys} keys looked at");
    if !apart.is_empty() {
        measured = format!("{measured}; not counted: {}", apart.join(", "));
    }
    Ok(tally.result(&format!("{FOREIGN_KEYS}/{database}"), measured, EXPECTED))
}

/// Counts the rows of the child that refer to nothing: all columns given (or, with `MATCH FULL`, any), and no parent.
fn orphans_sql(row: &Row) -> Option<String> {
    let pairs: Vec<Pair> = serde_json::from_str(row.get(10)?).ok()?;
    let side = |schema: usize, table: usize, kind: usize| {
        // A partitioned table has its rows in its partitions; others may have children that do not count.
        let only = if text(row, kind) == "p" { "" } else { "ONLY " };
        format!("{only}{}", qualified(text(row, schema), text(row, table)))
    };
    let given: Vec<String> =
        pairs.iter().map(|pair| format!("child.{} IS NOT NULL", quote_identifier(&pair.3))).collect();
    let same: Vec<String> = pairs
        .iter()
        .map(|Pair(parent, schema, operator, child)| {
            let (parent, child) = (quote_identifier(parent), quote_identifier(child));
            format!("parent.{parent} OPERATOR({}.{operator}) child.{child}", quote_identifier(schema))
        })
        .collect();
    let join = if text(row, 8) == "f" { " OR " } else { " AND " };
    (!pairs.is_empty()).then(|| {
        format!(
            "SELECT count(*) FROM {} AS child WHERE ({}) AND NOT EXISTS (SELECT FROM {} AS parent WHERE {})",
            side(1, 2, 3),
            given.join(join),
            side(4, 5, 6),
            same.join(" AND ")
        )
    })
}
