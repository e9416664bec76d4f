//! Whether a server can be captured, found out before anything begins, with the line to change if it cannot.

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::human;
use lifeboat_postgres::wire::{ConnectOptions, Connection, Mode, PgError};

use super::{error, slot};
use crate::adapter::Inspection;

/// The first and the last major version that can be captured.
const MAJORS: std::ops::RangeInclusive<u32> = 13..=18;

/// What decides whether a capture can begin, in one row.
const STATE: &str = "SELECT current_setting('wal_level'), current_setting('max_wal_senders')::int, \
                     (SELECT count(*) FROM pg_catalog.pg_stat_replication), pg_catalog.pg_is_in_recovery(), \
                     (SELECT rolreplication OR rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)";

/// Databases and their sizes; a role without the right to connect does not see the size.
const DATABASES: &str = "SELECT count(*), sum(CASE WHEN pg_catalog.has_database_privilege(oid, 'CONNECT') \
                         OR pg_catalog.pg_has_role('pg_read_all_stats', 'MEMBER') \
                         THEN pg_catalog.pg_database_size(oid) END) FROM pg_catalog.pg_database WHERE datallowconn";

/// Refuses what cannot be captured.
pub(crate) fn ready(options: &ConnectOptions) -> Result<(), Failure> {
    let mut sql = connect(options)?;
    version(&sql)?;
    let rows = sql.query(STATE).map_err(error::connection("failed to read the server's settings"))?;
    let row = rows.first().ok_or_else(|| refuse("the server did not answer"))?;
    let field = |index| row.get(index).unwrap_or_default();
    if field(3) == "t" {
        return Err(refuse("the server is a standby: name the primary, or promote it first"));
    }
    if field(0) == "minimal" {
        return Err(refuse(
            "wal_level = minimal keeps too little log for a backup: set `wal_level = replica` in postgresql.conf and \
             restart the server",
        ));
    }
    let (senders, used): (u32, u32) = (field(1).parse().unwrap_or(0), field(2).parse().unwrap_or(0));
    if senders == 0 {
        return Err(refuse(
            "max_wal_senders = 0 allows no replication: set `max_wal_senders = 10` in postgresql.conf and restart the \
             server",
        ));
    }
    if used >= senders {
        return Err(refuse(format!(
            "all {senders} replication connections are in use: raise `max_wal_senders` in postgresql.conf and restart \
             the server"
        )));
    }
    if field(4) != "t" {
        let role = lifeboat_postgres::wire::quote_identifier(options.user());
        return Err(refuse(format!(
            "role {role} may not replicate: run `ALTER ROLE {role} REPLICATION` as a superuser"
        )));
    }
    Connection::connect(options, Mode::Replication)
        .map(drop)
        .map_err(|failed| no_replication(options, failed))
}

/// A role may pass `pg_hba.conf` for a database and not for replication, which has lines of its own.
fn no_replication(options: &ConnectOptions, failed: PgError) -> Failure {
    let hba = failed.server().is_some_and(|server| server.code == "28000");
    let what = if hba {
        let user = options.user();
        format!(
            "the server takes no replication connection: add `host replication {user} ADDRESS scram-sha-256` to \
             pg_hba.conf and reload it"
        )
    } else {
        "failed to open a replication connection".to_owned()
    };
    Failure::with_source(failed.kind(), what, failed)
}

/// What is cheap to know about a server.
pub(crate) fn inspect(options: &ConnectOptions, slot: &str) -> Result<Inspection, Failure> {
    ready(options)?;
    let mut sql = connect(options)?;
    let version = sql.parameter("server_version").unwrap_or("of an unknown version").to_owned();
    let findings = slot::look(&mut sql, slot)?.into_iter().collect();
    let rows = sql.query(DATABASES).map_err(error::connection("failed to list the databases"))?;
    let number = |index| rows.first().and_then(|row| row.get(index)).and_then(|text| text.parse().ok());
    let items = number(0).map(|count| ("databases".to_owned(), count)).into_iter().collect();
    Ok(Inspection {
        version: format!("PostgreSQL {version}"),
        logical_bytes: number(1),
        items,
        findings,
        share: None,
    })
}

fn connect(options: &ConnectOptions) -> Result<Connection, Failure> {
    Connection::connect(options, Mode::Sql).map_err(|failed| {
        let failure = error::connection("failed to reach the server")(failed);
        if !error::is_refused_login(&failure) {
            return failure;
        }
        let role = lifeboat_postgres::wire::quote_identifier(options.user());
        let what = format!(
            "role {role} is not let in: put its password into the address or a passfile, or set another with \
             `ALTER ROLE {role} PASSWORD '...'`, and see that pg_hba.conf has a line for it"
        );
        Failure::with_source(failure.kind(), what, failure)
    })
}

fn version(sql: &Connection) -> Result<u32, Failure> {
    let major = sql.server_version().map(|version| version / 10_000);
    if let Some(major) = major.filter(|major| MAJORS.contains(major)) {
        return Ok(major);
    }
    let shown = human::printable(sql.parameter("server_version").unwrap_or("of an unknown version"));
    Err(refuse(format!("PostgreSQL {shown} is not supported; {} to {} are", MAJORS.start(), MAJORS.end())))
}

fn refuse(what: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Refused, what)
}
