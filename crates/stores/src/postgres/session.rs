//! A connection on which the same content reads the same, whatever roles and databases have set for themselves.
//!
//! In: connection options. Out: rows whose text depends on nothing but the data. A refusal by the server is told apart
//! from a lost connection: the first is something unknown, the second ends the work.

use std::time::Duration;

use lifeboat_base::failure::chain;
use lifeboat_postgres::wire::{ConnectOptions, Connection, Mode, PgError, Row, quote_identifier};

/// Everything that changes how values are printed or names are found. `row_security` off makes the server refuse where
/// it would otherwise hide rows.
const SETTINGS: &str = "SET search_path = ''; SET datestyle = 'ISO, YMD'; SET intervalstyle = 'postgres'; \
                        SET timezone = 'UTC'; SET extra_float_digits = 1; SET bytea_output = 'hex'; \
                        SET lc_monetary = 'C'; SET quote_all_identifiers = off; SET row_security = off; \
                        SET xmloption = 'content'; SET client_min_messages = warning; \
                        SET idle_in_transaction_session_timeout = 0; SET default_transaction_read_only = on";

/// How long statements may run and wait on a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// One statement.
    pub(crate) statement: Duration,
    /// One lock.
    pub(crate) lock: Duration,
}

/// A session with fixed settings.
pub(crate) struct Session(Connection);

impl Session {
    /// Logs in and fixes the settings.
    pub(crate) fn open(options: &ConnectOptions, patience: Patience) -> Result<Self, PgError> {
        let mut session = Self(Connection::connect(options, Mode::Sql)?);
        session.ask(SETTINGS)?;
        session.limit(patience)?;
        Ok(session)
    }

    /// Logs in and leaves all settings as the role and the database have them, but for the limits.
    pub(crate) fn open_as_set(options: &ConnectOptions, patience: Patience) -> Result<Self, PgError> {
        let mut session = Self(Connection::connect(options, Mode::Sql)?);
        session.limit(patience)?;
        Ok(session)
    }

    fn limit(&mut self, patience: Patience) -> Result<(), PgError> {
        let Patience { statement, lock } = patience;
        let sql = format!(
            "SET statement_timeout = {}; SET lock_timeout = {}",
            statement.as_millis(),
            lock.as_millis()
        );
        self.ask(&sql).map(drop)
    }

    /// The rows of the last statement.
    pub(crate) fn ask(&mut self, sql: &str) -> Result<Vec<Row>, PgError> {
        self.0.query(sql)
    }

    /// The first value of the first row.
    pub(crate) fn value(&mut self, sql: &str) -> Result<Option<String>, PgError> {
        Ok(self.ask(sql)?.first().and_then(|row| row.get(0)).map(str::to_owned))
    }

    /// Reads inside the open transaction so that an error does not end it, and gives back the locks this took: a table is
    /// not kept from its owner for as long as all the others take. Nothing that was written would stay.
    pub(crate) fn guarded(&mut self, sql: &str) -> Result<Vec<Row>, PgError> {
        self.ask("SAVEPOINT lifeboat")?;
        let rows = self.ask(sql);
        if !rows.as_ref().is_err_and(is_lost) {
            self.ask("ROLLBACK TO SAVEPOINT lifeboat; RELEASE SAVEPOINT lifeboat")?;
        }
        rows
    }

    /// The server's version as a number, 150018 for 15.18.
    pub(crate) fn version(&self) -> u32 {
        self.0.server_version().unwrap_or_default()
    }

    /// The server's version in its own words.
    pub(crate) fn version_text(&self) -> &str {
        self.0.parameter("server_version").unwrap_or("unknown")
    }
}

/// Whether the connection is of no more use after this error.
pub(crate) fn is_lost(error: &PgError) -> bool {
    match error {
        PgError::Server(server) => server.is_fatal(),
        _ => true,
    }
}

/// What the server refused becomes a reason; what ended the connection stays an error.
pub(crate) fn refused<T>(result: Result<T, PgError>) -> Result<Result<T, String>, PgError> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) if is_lost(&error) => Err(error),
        Err(error) => Ok(Err(reason(&error))),
    }
}

/// An error in one line; of a server's error the message alone, which does not depend on where it was met.
pub(crate) fn reason(error: &PgError) -> String {
    match error.server() {
        Some(server) => format!("{} [{}]", server.message, server.code),
        None => chain(error),
    }
}

/// Names joined by dots, each quoted only where it would otherwise read as something else.
pub(crate) fn dotted(names: &[&str]) -> String {
    let part = |name: &&str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
        if !name.is_empty() && name.chars().all(plain) { (*name).to_owned() } else { quote_identifier(name) }
    };
    names.iter().map(part).collect::<Vec<_>>().join(".")
}

/// `schema.table` for SQL.
pub(crate) fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", quote_identifier(schema), quote_identifier(name))
}

/// A column of a row, empty for NULL.
pub(crate) fn text(row: &Row, index: usize) -> &str {
    row.get(index).unwrap_or_default()
}

/// A column of a row as a number.
pub(crate) fn number<T: std::str::FromStr>(row: &Row, index: usize) -> Option<T> {
    row.get(index)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_tables_never_share_a_name() {
        assert_eq!(dotted(&["shop", "public", "orders"]), "shop.public.orders");
        assert_eq!(dotted(&["shop", "public.orders", "x"]), "shop.\"public.orders\".x");
        assert_eq!(dotted(&["a\"", "B"]), "\"a\"\"\".\"B\"");
    }
}
