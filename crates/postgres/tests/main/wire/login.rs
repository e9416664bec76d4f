//! Every way a server asks for a password, and every way it says no.

use std::net::{Ipv4Addr, SocketAddrV4};

use lifeboat_base::failure::{FailureKind, chain};
use lifeboat_base::secret::Secret;
use lifeboat_postgres::wire::{AuthFault, Connection, Mode, PgError};
use lifeboat_testkit::{PgOptions, PgServer};
use rustix::net::{AddressFamily, SocketType};

use super::support::{MAJORS, code, local, login, options, private_file, set_mode};

const PASSWORD: &str = "pä s'w\\ord";
/// The same, percent-encoded.
const ENCODED: &str = "p%C3%A4%20s'w%5Cord";

fn server(major: u32) -> PgServer {
    let mut wanted = PgOptions::new(major);
    for line in [
        "host all by_md5 127.0.0.1/32 md5",
        "host all by_scram 127.0.0.1/32 scram-sha-256",
        "host all ghost 127.0.0.1/32 scram-sha-256",
        "host all by_cleartext 127.0.0.1/32 password",
        "local all by_cleartext password",
        "host all nobody 127.0.0.1/32 reject",
    ] {
        wanted = wanted.hba(line);
    }
    let server = PgServer::start(wanted);
    let quoted = lifeboat_postgres::wire::quote_literal(PASSWORD);
    server.psql(&format!(
        "SET password_encryption = 'md5'; CREATE ROLE by_md5 LOGIN PASSWORD {quoted};
         SET password_encryption = 'scram-sha-256'; CREATE ROLE by_scram LOGIN PASSWORD {quoted};
         CREATE ROLE by_cleartext LOGIN PASSWORD {quoted}; CREATE ROLE by_trust LOGIN;"
    ));
    server
}

fn url(server: &PgServer, user: &str, password: &str) -> String {
    format!("postgres://{user}{password}@127.0.0.1:{}/postgres", server.port())
}

#[test]
fn every_method_lets_the_right_password_in_and_nothing_else() {
    for major in MAJORS {
        let server = server(major);
        let with = |user: &str, password: &str| login(&url(&server, user, password));
        assert_eq!(with("by_trust", "").unwrap(), "by_trust");
        for user in ["by_md5", "by_scram"] {
            assert_eq!(with(user, &format!(":{ENCODED}")).unwrap(), user);
            let error = with(user, ":cAnArY").unwrap_err();
            assert!(matches!(&error, PgError::Authentication { source: AuthFault::Rejected(_), .. }));
            assert_eq!((code(&error), error.kind()), ("28P01", FailureKind::Unreachable));
            let shown = format!("{} {error:?}", chain(&error));
            assert!(!shown.contains("cAnArY") && shown.contains(user), "{shown}");
            let error = with(user, "").unwrap_err();
            assert!(matches!(error, PgError::Authentication { source: AuthFault::NoPassword, .. }));
        }
        assert_eq!(code(&with("ghost", ":x").unwrap_err()), "28P01");
        assert_eq!(code(&with("ghost2", "").unwrap_err()), "28000");
        assert_eq!(code(&with("nobody", "").unwrap_err()), "28000");
    }
}

#[test]
fn a_password_in_the_clear_goes_over_a_unix_socket_only() {
    let server = server(15);
    let error = login(&url(&server, "by_cleartext", &format!(":{ENCODED}"))).unwrap_err();
    assert!(matches!(error, PgError::Authentication { source: AuthFault::Cleartext, .. }), "{error:?}");
    let socket = server.socket_dir().display().to_string().replace('/', "%2F");
    let text =
        |password: &str| format!("postgres://by_cleartext:{password}@{socket}:{}/postgres", server.port());
    assert_eq!(login(&text(ENCODED)).unwrap(), "by_cleartext");
    assert_eq!(code(&login(&text("wrong")).unwrap_err()), "28P01");
}

#[test]
fn a_database_that_is_not_there_and_a_missing_right_are_told_as_the_server_tells_them() {
    let server = server(18);
    let error = Connection::connect(&local(&server).with_database("ghost"), Mode::Sql).unwrap_err();
    assert_eq!((code(&error), error.kind()), ("3D000", FailureKind::Unreachable));
    assert!(chain(&error).contains("\"ghost\""), "{}", chain(&error));
    let plain = options(&url(&server, "by_trust", ""));
    let error = Connection::connect(&plain, Mode::Replication).unwrap_err();
    assert_eq!((code(&error), error.kind()), ("42501", FailureKind::Refused));
}

#[test]
fn a_password_file_counts_only_while_it_is_private() {
    let server = server(16);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pgpass");
    let line = format!("127.0.0.1:{}:*:by_scram:pä s'w\\\\ord\n", server.port());
    private_file(&path, format!("# ours\nother:*:*:*:wrong\n{line}").as_bytes());
    let text = url(&server, "by_scram", "") + &format!("?passfile={}", path.display());
    assert_eq!(login(&text).unwrap(), "by_scram");
    // A password of its own is stronger than the file.
    let wrong = options(&text).with_password(Secret::new("wrong".to_owned()));
    assert_eq!(code(&Connection::connect(&wrong, Mode::Sql).unwrap_err()), "28P01");
    set_mode(&path, 0o644);
    let error = login(&text).unwrap_err();
    assert!(matches!(error, PgError::Authentication { source: AuthFault::PassFile { .. }, .. }));
}

#[test]
fn the_next_host_is_tried_when_one_is_not_there_but_not_when_it_says_no() {
    let server = server(15);
    // Bound and not listening: nobody else can take it meanwhile.
    let holder = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&holder, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    let dead = SocketAddrV4::try_from(rustix::net::getsockname(&holder).unwrap()).unwrap().port();
    let port = server.port();
    let both = format!("host=127.0.0.1,127.0.0.1 port={dead},{port} user=by_trust dbname=postgres");
    assert_eq!(login(&both).unwrap(), "by_trust");
    let error = login(&format!("host=127.0.0.1,/nowhere port={dead} user=by_trust")).unwrap_err();
    assert!(matches!(&error, PgError::NoHost { tried } if tried.len() == 2), "{error}");
    let error = login(&format!("host=127.0.0.1 port={dead} user=by_trust")).unwrap_err();
    assert!(matches!(error, PgError::Unreachable { .. }), "{error}");
    let no = format!("host=127.0.0.1,127.0.0.1 port={port},{dead} user=nobody dbname=postgres");
    assert_eq!(code(&login(&no).unwrap_err()), "28000");
}
