//! Rows of a restored database, for comparing them with what another store says.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Monitor;
use lifeboat_base::time::Clock;
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::open::open_restored;
use super::promises::{guard, release};
use crate::select::{LIMIT, Selected, Selection, Take, foreign, going_on, moment};

/// Each statement by itself, fenced as a policy's other statements are.
pub(crate) fn select(
    database: &Path,
    wanted: &[Selection],
    (clock, monitor): (&Arc<dyn Clock>, &dyn Monitor),
    take: &mut Take<'_>,
) -> Result<Vec<Result<(), Failure>>, Failure> {
    let mut connection = open_restored(database).map_err(asked("failed to open the restored database"))?;
    let mut results = Vec::new();
    for (number, selection) in wanted.iter().enumerate() {
        let Selection::Sql { text, .. } = selection else {
            results.push(Err(foreign("sqlite")));
            continue;
        };
        guard(&mut connection, clock, &Arc::new(AtomicBool::new(false)), LIMIT)?;
        let read = rows(&connection, text, &mut |row| {
            going_on(monitor)?;
            take(number, row)
        });
        release(&mut connection)?;
        match read {
            Ok(read) => results.push(read),
            Err(taken) => return Err(taken),
        }
    }
    Ok(results)
}

/// The outer error is the taker's.
fn rows(
    connection: &Connection,
    text: &str,
    take: &mut dyn FnMut(Selected) -> Result<(), Failure>,
) -> Result<Result<(), Failure>, Failure> {
    const WHAT: &str = "the statement cannot be run";
    let mut statement = match connection.prepare(text).map_err(asked(WHAT)) {
        Ok(statement) => statement,
        Err(error) => return Ok(Err(error)),
    };
    let column = |name: &str| statement.column_index(name).ok().filter(|index| *index > 0);
    let (value, at) = (column("value"), column("at"));
    let mut rows = match statement.query([]).map_err(asked(WHAT)) {
        Ok(rows) => rows,
        Err(error) => return Ok(Err(error)),
    };
    loop {
        let read = (|| {
            let Some(row) = rows.next().map_err(asked(WHAT))? else { return Ok(None) };
            let cell = |index: usize| row.get_ref(index).map(bytes).map_err(asked(WHAT));
            let optional = |index: Option<usize>| index.map_or(Ok(None), cell);
            let at = match optional(at)? {
                Some(text) => Some(moment(&String::from_utf8_lossy(&text))?),
                None => None,
            };
            Ok(Some((cell(0)?, optional(value)?, at)))
        })();
        match read {
            Ok(Some((Some(name), value, at))) => take(Selected { name, value, at })?,
            Ok(Some((None, ..))) => {}
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        }
    }
}

/// A value as text; nothing for NULL.
fn bytes(value: ValueRef<'_>) -> Option<Vec<u8>> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string().into_bytes()),
        ValueRef::Real(number) => Some(number.to_string().into_bytes()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes.to_vec()),
    }
}

fn asked(what: &'static str) -> impl Fn(rusqlite::Error) -> Failure {
    move |error| Failure::with_source(FailureKind::Findings, what, error)
}
