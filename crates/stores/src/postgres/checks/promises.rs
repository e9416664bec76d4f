//! Checks that a policy promises: unique columns, and statements that must be true.
//!
//! In: text from a policy. Out: check results that never contain a value from the database. A statement runs as one
//! cursor inside a read-only transaction, so it can neither be several nor write, and under a deadline.

use lifeboat_postgres::wire::{PgError, Row, quote_identifier, quote_literal};

use super::cluster::{Cluster, STATEMENT_LIMIT};
use super::{SQL, UNIQUE};
use crate::adapter::CheckResult;
use crate::names::Names;
use crate::postgres::session::{Session, number, qualified, reason, text};
use crate::tally::{Tally, equal, failed};

/// `database:schema.table(column, column)`, taken apart; database and schema may be left out.
#[derive(Clone, Debug, PartialEq, Eq)]
struct UniqueSpec {
    database: Option<String>,
    schema: Option<String>,
    table: String,
    columns: Vec<String>,
}

/// Names that are not quoted are folded to lower case, as the server does.
const NAMES: Names = Names { ends: &['(', ')', ',', '"', ':', '.'], fold: str::to_lowercase };

impl UniqueSpec {
    fn parse(text: &str) -> Option<Self> {
        let (first, mut rest) = NAMES.one(text)?;
        let (mut database, mut names) = (None, vec![first]);
        if let Some(after) = rest.strip_prefix(':') {
            database = names.pop();
            let (next, after) = NAMES.one(after)?;
            names.push(next);
            rest = after;
        }
        if let Some(after) = rest.strip_prefix('.') {
            let (next, after) = NAMES.one(after)?;
            names.push(next);
            rest = after;
        }
        let table = names.pop()?;
        Some(Self { database, schema: names.pop(), table, columns: NAMES.list(rest)? })
    }
}

/// Whether no two rows share the same values in the columns of `promise`. As in SQL, NULL equals nothing.
pub(super) fn check_unique(cluster: &Cluster, database: &str, promise: &str) -> CheckResult {
    const EXPECTED: &str = "0 values that occur more than once";
    let id = format!("{UNIQUE}/{promise}");
    let Some(spec) = UniqueSpec::parse(promise) else {
        return failed(&id, EXPECTED, "it must have the form `database:schema.table(column, column)`");
    };
    let session = cluster.session(spec.database.as_deref().unwrap_or(database));
    match session.and_then(|mut session| duplicates(&mut session, &spec)) {
        Ok(Ok((values, rows))) => {
            let mut tally = Tally::default();
            if values > 0 {
                tally.add(|| format!("{values} values occur more than once; {rows} rows are too many"));
            }
            tally.result(&id, format!("{values} values that occur more than once"), EXPECTED)
        }
        Ok(Err(missing)) => failed(&id, EXPECTED, missing),
        Err(error) => failed(&id, EXPECTED, reason(&error)),
    }
}

/// Values that occur more than once and the rows too many, or what is wrong with the names.
fn duplicates(session: &mut Session, spec: &UniqueSpec) -> Result<Result<(u64, u64), String>, PgError> {
    let table = match resolve(session, spec)? {
        Ok(table) => table,
        Err(why) => return Ok(Err(why)),
    };
    let columns: Vec<String> = spec.columns.iter().map(|column| quote_identifier(column)).collect();
    let known: Vec<String> = columns.iter().map(|column| format!("{column} IS NOT NULL")).collect();
    let rows = session.ask(&format!(
        "SELECT count(*), coalesce(sum(n - 1), 0) FROM (SELECT count(*) AS n FROM {table} WHERE {} GROUP BY {} \
         HAVING count(*) > 1) twice",
        known.join(" AND "),
        columns.join(", ")
    ))?;
    let answer = rows.first().and_then(|row| Some((number(row, 0)?, number(row, 1)?)));
    Ok(answer.ok_or_else(|| "the server did not answer with numbers".to_owned()))
}

/// The table's name for SQL; names are looked up and never trusted.
fn resolve(session: &mut Session, spec: &UniqueSpec) -> Result<Result<String, String>, PgError> {
    let rows = session.ask(&format!(
        "SELECT n.nspname, (SELECT pg_catalog.json_agg(a.attname) FROM pg_catalog.pg_attribute a \
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
         AND c.relname = {} ORDER BY n.nspname",
        quote_literal(&spec.table)
    ))?;
    let wanted = |row: &&Row| spec.schema.as_deref().is_none_or(|schema| text(row, 0) == schema);
    let found: Vec<&Row> = rows.iter().filter(wanted).collect();
    let public = found.iter().find(|row| text(row, 0) == "public");
    let row = match (found.as_slice(), public) {
        ([], _) => return Ok(Err(format!("there is no table `{}`", spec.table))),
        ([only], _) => only,
        (_, Some(public)) => public,
        _ => return Ok(Err(format!("several schemas have a table `{}`: name one", spec.table))),
    };
    let columns: Vec<String> = serde_json::from_str(text(row, 1)).unwrap_or_default();
    for column in &spec.columns {
        if !columns.contains(column) {
            return Ok(Err(format!("there is no column `{column}` in `{}`", spec.table)));
        }
    }
    Ok(Ok(qualified(text(row, 0), &spec.table)))
}

/// Whether statement `position` (from 1) gives exactly one true value.
pub(super) fn check_statement(
    cluster: &Cluster,
    database: &str,
    position: usize,
    statement: &str,
) -> CheckResult {
    const EXPECTED: &str = "one true value";
    let id = format!("{SQL}/{position}");
    let session = cluster.session_as_set(database);
    match session.and_then(|mut session| truth(&mut session, statement)) {
        Ok(measured) => equal(&id, measured, EXPECTED),
        Err(error) if error.server().is_some_and(|server| server.code == "57014") => {
            failed(&id, EXPECTED, format!("it ran for more than {} seconds", STATEMENT_LIMIT.as_secs()))
        }
        Err(error) => failed(&id, EXPECTED, reason(&error)),
    }
}

/// What a statement gave, in words; the value itself is not shown.
fn truth(session: &mut Session, statement: &str) -> Result<&'static str, PgError> {
    // The first query fixes the transaction as read-only: it cannot be changed after it.
    session.ask("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT 1")?;
    let statement = statement.trim().trim_end_matches(';');
    let open = format!(
        "DECLARE answer refcursor := 'lifeboat_answer'; BEGIN OPEN answer NO SCROLL FOR EXECUTE {}; END",
        quote_literal(statement)
    );
    session.ask(&format!("DO LANGUAGE plpgsql {}", quote_literal(&open)))?;
    let rows = session.ask("FETCH 2 FROM lifeboat_answer")?;
    let Some(row) = rows.first() else { return Ok("no row") };
    if row.len() != 1 {
        return Ok("not one column");
    }
    if rows.len() > 1 {
        return Ok("more than one row");
    }
    Ok(match row.get(0) {
        None => "no value",
        Some("t") => "one true value",
        Some("f") => "a false value",
        Some(value) => match value.parse::<f64>() {
            Ok(0.0) => "a false value",
            Ok(number) if number.is_finite() => "one true value",
            _ => "a value that is neither true nor false",
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(database: Option<&str>, schema: Option<&str>, table: &str, columns: &[&str]) -> UniqueSpec {
        UniqueSpec {
            database: database.map(str::to_owned),
            schema: schema.map(str::to_owned),
            table: table.to_owned(),
            columns: columns.iter().map(|column| (*column).to_owned()).collect(),
        }
    }

    #[test]
    fn promises_name_database_schema_table_and_columns() {
        assert_eq!(UniqueSpec::parse("orders(no)").unwrap(), spec(None, None, "orders", &["no"]));
        assert_eq!(
            UniqueSpec::parse(" Sales.Orders ( No , region ) ").unwrap(),
            spec(None, Some("sales"), "orders", &["no", "region"])
        );
        assert_eq!(
            UniqueSpec::parse("shop:public.orders(no)").unwrap(),
            spec(Some("shop"), Some("public"), "orders", &["no"])
        );
        assert_eq!(
            UniqueSpec::parse("\"my.shop\":\"A:b\".\"Odd\"\"t\"(\"C\")").unwrap(),
            spec(Some("my.shop"), Some("A:b"), "Odd\"t", &["C"])
        );
        for bad in [
            "",
            "orders",
            "orders()",
            "orders(a",
            "orders(a) or 1",
            "a.b.c(d)",
            "x:(a)",
            "orders(a,)",
            "a:b:c(d)",
        ] {
            assert_eq!(UniqueSpec::parse(bad), None, "{bad}");
        }
    }
}
