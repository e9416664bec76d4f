//! Checks that a policy promises for one database: unique columns, and statements that must be true.
//!
//! In: text from a policy. Out: check results that never contain a value from the database. Statements run under
//! an authorizer that lets them read and nothing else, and under a deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::time::Clock;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode};

use super::identifier::{UniqueSpec, quoted};
use super::tables::table_names;
use crate::adapter::CheckResult;
use crate::tally::{Tally, equal, failed};

/// How long one statement of a policy may run.
pub(crate) const STATEMENT_DEADLINE: Duration = Duration::from_secs(60);
/// Instructions of SQLite's machine between two looks at the clock; a few milliseconds.
const INSTRUCTIONS_PER_LOOK: i32 = 100_000;

/// Whether no two rows share the same values in the columns of `text`. As in SQL, NULL equals nothing.
pub(crate) fn check_unique(connection: &Connection, text: &str) -> CheckResult {
    const EXPECTED: &str = "0 values that occur more than once";
    let id = format!("sqlite.unique/{text}");
    let Some(spec) = UniqueSpec::parse(text) else {
        return failed(&id, EXPECTED, "it must have the form `table(column, column)`");
    };
    match duplicates(connection, &spec) {
        Ok(Ok((values, rows))) => {
            let mut tally = Tally::default();
            if values > 0 {
                tally.add(|| format!("{values} values occur more than once; {rows} rows are too many"));
            }
            tally.result(&id, format!("{values} values that occur more than once"), EXPECTED)
        }
        Ok(Err(missing)) => failed(&id, EXPECTED, missing),
        Err(error) => failed(&id, EXPECTED, error.to_string()),
    }
}

/// Values that occur more than once and the rows too many, or the name that does not exist.
fn duplicates(connection: &Connection, spec: &UniqueSpec) -> rusqlite::Result<Result<(i64, i64), String>> {
    let (tables, _) = table_names(connection)?;
    let Some(table) = tables.iter().find(|name| name.eq_ignore_ascii_case(&spec.table)) else {
        return Ok(Err(format!("there is no table `{}`", spec.table)));
    };
    let sql = "SELECT name FROM pragma_table_xinfo(?1, 'main') WHERE name = ?2 COLLATE NOCASE";
    let mut names = Vec::with_capacity(spec.columns.len());
    for column in &spec.columns {
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query([table, column])?;
        match rows.next()? {
            Some(row) => names.push(quoted(&row.get::<_, String>(0)?)),
            None => return Ok(Err(format!("there is no column `{column}` in `{table}`"))),
        }
    }
    let known: Vec<String> = names.iter().map(|name| format!("{name} IS NOT NULL")).collect();
    let sql = format!(
        "SELECT count(*), coalesce(sum(n - 1), 0) FROM (SELECT count(*) AS n FROM main.{} WHERE {} GROUP BY {} HAVING n > 1)",
        quoted(table),
        known.join(" AND "),
        names.join(", ")
    );
    connection.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?))).map(Ok)
}

/// Whether statement `number` (from 1) gives exactly one true value.
pub(crate) fn check_statement(
    connection: &mut Connection,
    number: usize,
    statement: &str,
    clock: &Arc<dyn Clock>,
) -> Result<CheckResult, Failure> {
    const EXPECTED: &str = "one true value";
    let id = format!("sqlite.sql/{number}");
    let late = Arc::new(AtomicBool::new(false));
    guard(connection, clock, &late, STATEMENT_DEADLINE)?;
    let outcome = truth(connection, statement);
    release(connection)?;
    Ok(match outcome {
        Ok(measured) => equal(&id, measured, EXPECTED),
        Err(error)
            if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted)
                && late.load(Ordering::Relaxed) =>
        {
            failed(&id, EXPECTED, format!("it ran for more than {} seconds", STATEMENT_DEADLINE.as_secs()))
        }
        Err(error) => failed(&id, EXPECTED, error.to_string()),
    })
}

/// Statements may only read, and no longer than `limit`; `late` tells that they did.
pub(super) fn guard(
    connection: &mut Connection,
    clock: &Arc<dyn Clock>,
    late: &Arc<AtomicBool>,
    limit: Duration,
) -> Result<(), Failure> {
    let (clock, late) = (Arc::clone(clock), Arc::clone(late));
    let end = clock.monotonic() + limit;
    let stop = move || {
        let over = clock.monotonic() > end;
        late.fetch_or(over, Ordering::Relaxed);
        over
    };
    connection
        .progress_handler(INSTRUCTIONS_PER_LOOK, Some(stop))
        .and_then(|()| connection.authorizer(Some(may)))
        .map_err(|error| {
            Failure::with_source(FailureKind::Internal, "failed to fence a policy's statement", error)
        })
}

pub(super) fn release(connection: &mut Connection) -> Result<(), Failure> {
    connection
        .progress_handler(0, None::<fn() -> bool>)
        .and_then(|()| connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>))
        .map_err(|error| {
            Failure::with_source(FailureKind::Internal, "failed to unfence the connection", error)
        })
}

fn may(context: AuthContext<'_>) -> Authorization {
    let allowed = match context.action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Recursive => true,
        AuthAction::Function { function_name } => !function_name.eq_ignore_ascii_case("load_extension"),
        // Full-text tables ask this of themselves.
        AuthAction::Pragma { pragma_name, pragma_value } => {
            pragma_name == "data_version" && pragma_value.is_none()
        }
        _ => false,
    };
    if allowed { Authorization::Allow } else { Authorization::Deny }
}

/// What a statement gave, in words; the value itself is not shown.
fn truth(connection: &Connection, statement: &str) -> rusqlite::Result<&'static str> {
    let mut statement = connection.prepare(statement)?;
    if statement.column_count() != 1 {
        return Ok("not one column");
    }
    let mut rows = statement.query([])?;
    let Some(row) = rows.next()? else { return Ok("no row") };
    let value = match row.get_ref(0)? {
        ValueRef::Integer(0) | ValueRef::Real(0.0) => "a false value",
        ValueRef::Integer(_) | ValueRef::Real(_) => "one true value",
        ValueRef::Null => "no value",
        ValueRef::Text(_) | ValueRef::Blob(_) => "a value that is not a number",
    };
    Ok(if rows.next()?.is_some() { "more than one row" } else { value })
}

#[cfg(test)]
mod tests {
    use lifeboat_base::time::{SystemClock, Timestamp};

    use super::*;
    use crate::adapter::CheckState;

    fn sample() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE orders(id INTEGER PRIMARY KEY, no TEXT, region TEXT, \"odd\"\"col\" INT);
                 INSERT INTO orders(no, region) VALUES ('a', 'x'), ('b', 'x'), ('a', 'y'), (NULL, 'x'), (NULL, 'x');",
            )
            .unwrap();
        connection
    }

    fn state(text: &str) -> (CheckState, Vec<String>) {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let result = check_statement(&mut sample(), 1, text, &clock).unwrap();
        (result.state, result.detail)
    }

    #[test]
    fn only_one_true_number_passes() {
        assert_eq!(state("select count(*) = 5 from orders").0, CheckState::Passed);
        assert_eq!(state("select 0.5").0, CheckState::Passed);
        for text in ["select 0", "select NULL", "select 'true'", "select 1, 1", "select 1 union select 2", ""]
        {
            assert_eq!(state(text).0, CheckState::Failed, "{text}");
        }
        assert_eq!(state("select 1 from orders where 0").1, ["found no row, expected one true value"]);
    }

    #[test]
    fn a_statement_can_only_read() {
        for text in [
            "delete from orders returning 1",
            "update orders set no = 1 returning 1",
            "insert into orders(no) values (1) returning 1",
            "attach '/tmp/x' as x",
            "pragma journal_mode = delete",
            "select load_extension('x')",
            "create table x(a)",
            "select 1; drop table orders",
            "begin",
            "vacuum into '/tmp/lifeboat-never'",
        ] {
            assert_eq!(state(text).0, CheckState::Failed, "{text}");
        }
        assert!(!std::path::Path::new("/tmp/lifeboat-never").exists());
    }

    #[test]
    fn a_statement_that_never_ends_is_stopped() {
        #[derive(Debug)]
        struct Rushing(SystemClock);
        impl Clock for Rushing {
            fn now(&self) -> Timestamp {
                self.0.now()
            }
            fn monotonic(&self) -> Duration {
                self.0.monotonic() * 1_000_000
            }
        }
        let clock: Arc<dyn Clock> = Arc::new(Rushing(SystemClock::new()));
        let endless =
            "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n";
        let mut connection = sample();
        let result = check_statement(&mut connection, 1, endless, &clock).unwrap();
        assert_eq!(
            (result.state, result.detail),
            (CheckState::Failed, vec!["it ran for more than 60 seconds".to_owned()])
        );
        assert!(connection.execute_batch("CREATE TABLE after(a)").is_ok());
    }

    #[test]
    fn duplicates_are_counted_and_names_are_never_trusted() {
        let connection = sample();
        let check = |text: &str| check_unique(&connection, text);
        assert_eq!(check("orders(id)").state, CheckState::Passed);
        assert_eq!(check("ORDERS(No, region)").state, CheckState::Passed);
        assert_eq!(check("orders(\"odd\"\"col\")").state, CheckState::Passed);
        let twice = check("orders(no)");
        assert_eq!(twice.state, CheckState::Failed);
        assert_eq!(twice.detail, ["1 values occur more than once; 1 rows are too many"]);
        for bad in ["orders(nope)", "nope(no)", "orders", "orders(no) or 1", "sqlite_schema(name)"] {
            assert_eq!(check(bad).state, CheckState::Failed, "{bad}");
        }
    }
}
