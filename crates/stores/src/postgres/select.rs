//! Rows of a restored cluster, for comparing them with what another store says: asked of a throwaway server.
//!
//! A statement runs as one cursor inside a read-only transaction, so it can neither be several nor write.

use std::fs;
use std::path::{Path, PathBuf};

use lifeboat_base::capture::CaptureFacts;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Monitor;
use lifeboat_base::time::Clock;
use lifeboat_postgres::server::{CLIENT_OPTIONS, PORT, installation};
use lifeboat_postgres::wire::{PgError, Row, quote_literal};
use serde_json::Value;

use super::checks::{Cluster, Recovery, major, superuser};
use super::error;
use super::extract::not_started;
use super::replay::recovery_target;
use super::session::{Session, is_lost, reason};
use crate::select::{LIMIT, Selected, Selection, Take, foreign, going_on, moment};
use crate::serve::encoded;

/// Rows that are fetched at once: with 64 MiB for an answer, rows of up to 32 KiB.
const PAGE_ROWS: usize = 2000;

/// What the questions are asked of.
pub(crate) struct Asked<'a> {
    pub(crate) facts: &'a CaptureFacts,
    /// Folders with programs of a server, besides those where packages put them.
    pub(crate) programs: &'a [PathBuf],
    /// Tablespaces that were placed outside the restored directory.
    pub(crate) spaces: &'a [PathBuf],
    pub(crate) clock: &'a dyn Clock,
    pub(crate) monitor: &'a dyn Monitor,
}

/// Starts the cluster, asks everything, and stops it in order.
pub(crate) fn select(
    asked: &Asked<'_>,
    restored: &Path,
    wanted: &[Selection],
    take: &mut Take<'_>,
) -> Result<Vec<Result<(), Failure>>, Failure> {
    let cluster = start(asked, restored)?;
    let captured = captured(asked.facts);
    let mut results = Vec::new();
    for (number, selection) in wanted.iter().enumerate() {
        let Selection::Sql { database, text } = selection else {
            results.push(Err(foreign("postgres")));
            continue;
        };
        let database = database.as_deref().unwrap_or(captured);
        let mut each = |found| {
            going_on(asked.monitor)?;
            take(number, found)
        };
        let read = cluster.session_as_set(database).map_err(Trouble::Server);
        match read.and_then(|mut session| rows(&mut session, text, &mut each)) {
            Ok(()) => results.push(Ok(())),
            Err(Trouble::Taker(error)) => return Err(error),
            Err(Trouble::Value(error)) => results.push(Err(error)),
            Err(Trouble::Server(error)) if !is_lost(&error) => {
                let why = format!("the statement cannot be run in `{database}`: {}", reason(&error));
                results.push(Err(Failure::new(FailureKind::Findings, why)));
            }
            Err(Trouble::Server(error)) => {
                let what = format!("the restored cluster does not answer in `{database}`");
                results.push(Err(error::connection(what)(error)));
            }
        }
    }
    stop(cluster, asked)?;
    Ok(results)
}

/// Lets an application use the cluster; whatever it writes stays in the sandbox.
pub(crate) fn serve(
    asked: &Asked<'_>,
    restored: &Path,
    work: &mut dyn FnMut(&Path) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let cluster = start(asked, restored)?;
    work(&cluster.socket_dir())?;
    stop(cluster, asked)
}

/// The address of a server whose socket is in the folder `at`, as `libpq` and most drivers take it.
pub(crate) fn address(facts: &CaptureFacts, at: &Path) -> String {
    format!(
        "postgresql:///{}?host={}&port={PORT}&user={}&options={}",
        encoded(captured(facts)),
        encoded(&at.to_string_lossy()),
        encoded(&superuser(facts)),
        encoded(CLIENT_OPTIONS)
    )
}

/// The database that was captured with.
fn captured(facts: &CaptureFacts) -> &str {
    facts.environment.get("database").and_then(Value::as_str).unwrap_or("postgres")
}

fn start(asked: &Asked<'_>, restored: &Path) -> Result<Cluster, Failure> {
    let restored = fs::canonicalize(restored)
        .map_err(|error| Failure::io("failed to find the restored cluster", error))?;
    let told = recovery_target(&restored)?;
    let recovery = (!told.is_empty()).then(|| Recovery::new(told));
    let installed = installation(major(&restored), asked.programs)
        .map_err(error::server("the restored cluster cannot be asked on this machine"))?;
    let (user, cancelled) = (superuser(asked.facts), || asked.monitor.cancelled());
    let place = (restored.as_path(), asked.spaces);
    Cluster::start(&installed, place, &user, recovery.as_ref(), asked.clock, &cancelled).map_err(not_started)
}

fn stop(cluster: Cluster, asked: &Asked<'_>) -> Result<(), Failure> {
    cluster.stop(asked.clock).map_err(error::server("failed to stop the throwaway server"))
}

/// What can go wrong while rows are read.
enum Trouble {
    Server(PgError),
    Value(Failure),
    Taker(Failure),
}

impl From<PgError> for Trouble {
    fn from(error: PgError) -> Self {
        Self::Server(error)
    }
}

fn rows(
    session: &mut Session,
    text: &str,
    take: &mut dyn FnMut(Selected) -> Result<(), Failure>,
) -> Result<(), Trouble> {
    // The first query fixes the transaction as read-only: it cannot be changed after it.
    session.ask(&format!(
        "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL datestyle = 'ISO, YMD'; \
         SET LOCAL timezone = 'UTC'; SET LOCAL statement_timeout = {}; SELECT 1",
        LIMIT.as_millis()
    ))?;
    let statement = text.trim().trim_end_matches(';');
    let open = format!(
        "DECLARE answer refcursor := 'lifeboat_rows'; BEGIN OPEN answer NO SCROLL FOR EXECUTE {}; END",
        quote_literal(statement)
    );
    session.ask(&format!("DO LANGUAGE plpgsql {}", quote_literal(&open)))?;
    loop {
        let rows = session.ask(&format!("FETCH {PAGE_ROWS} FROM lifeboat_rows"))?;
        for row in &rows {
            if let Some(found) = selected(row).map_err(Trouble::Value)? {
                take(found).map_err(Trouble::Taker)?;
            }
        }
        if rows.len() < PAGE_ROWS {
            return Ok(());
        }
    }
}

/// Nothing for a row whose name is NULL.
fn selected(row: &Row) -> Result<Option<Selected>, Failure> {
    let column = |name: &str| {
        let index = row.columns().iter().skip(1).position(|column| column == name)?;
        row.get(index + 1)
    };
    let Some(name) = row.get(0) else { return Ok(None) };
    let at = column("at").map(moment).transpose()?;
    let value = column("value").map(|value| value.as_bytes().to_vec());
    Ok(Some(Selected { name: name.as_bytes().to_vec(), value, at }))
}
