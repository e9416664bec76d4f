//! What the tests of connections share.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use lifeboat_base::failure::chain;
use lifeboat_base::secret::Secret;
use lifeboat_postgres::wire::{ConnectOptions, Connection, Event, Mode, PgError};
use lifeboat_testkit::PgServer;

/// Every version of the fixtures.
pub(super) const MAJORS: [u32; 3] = [15, 16, 18];

pub(super) fn options(text: &str) -> ConnectOptions {
    ConnectOptions::parse(&Secret::new(text.to_owned())).unwrap()
}

/// The superuser over the unix socket.
pub(super) fn local(server: &PgServer) -> ConnectOptions {
    options(&server.conninfo())
}

pub(super) fn connect(server: &PgServer) -> Connection {
    Connection::connect(&local(server), Mode::Sql).unwrap()
}

/// The only value of the only row.
pub(super) fn value(connection: &mut Connection, sql: &str) -> String {
    let rows = connection.query(sql).unwrap();
    assert_eq!((rows.len(), rows[0].len()), (1, 1), "{sql}");
    rows[0].get(0).unwrap().to_owned()
}

/// Connects by text and says who it is.
pub(super) fn login(text: &str) -> Result<String, PgError> {
    let mut connection = Connection::connect(&options(text), Mode::Sql)?;
    Ok(connection.query("SELECT current_user")?[0].get(0).unwrap().to_owned())
}

/// The SQLSTATE of an error that is the server's.
pub(super) fn code(error: &PgError) -> &str {
    error.server().map_or_else(|| panic!("{}", chain(error)), |error| error.code.as_str())
}

/// Reads to the end of an answer.
pub(super) fn drain(connection: &mut Connection) {
    while !matches!(connection.next().unwrap(), Event::Ready) {}
}

/// A file only its owner can read, as keys and password files must be.
pub(super) fn private_file(path: &Path, content: &[u8]) {
    lifeboat_base::crashsafe::replace(path, content).unwrap();
    set_mode(path, 0o600);
}

pub(super) fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}
