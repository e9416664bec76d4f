//! Options are read as libpq reads them, and no error shows a piece of the text.

use lifeboat_base::failure::{FailureKind, chain};
use lifeboat_base::secret::Secret;
use lifeboat_postgres::wire::{ConnectOptions, Host, OptionsError, PgError};
use proptest::prelude::*;

fn parse(text: &str) -> Result<ConnectOptions, PgError> {
    ConnectOptions::parse(&Secret::new(text.to_owned()))
}

fn error(text: &str) -> OptionsError {
    match parse(text).unwrap_err() {
        PgError::Options(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn both_forms_name_the_same_target() {
    for (text, target) in [
        ("postgres://app@db.example/orders", "app@db.example:5432/orders"),
        ("postgresql://app:pw@db.example:6543/orders?sslmode=verify-full", "app@db.example:6543/orders"),
        ("postgres://app@[::1]:7000", "app@[::1]:7000/app"),
        ("postgres://app@%2Fvar%2Frun%2Fpg:1/x", "app@/var/run/pg:1/x"),
        ("postgres:///x?host=/run/pg&user=app", "app@/run/pg:5432/x"),
        ("postgres://app@a:1,b:2,[::1]/x", "app@a:1,b:2,[::1]:5432/x"),
        ("postgres://a%40b:p%40ss@h/d%2Fe", "a@b@h:5432/d/e"),
        ("host=/run/pg user=app", "app@/run/pg:5432/app"),
        (" host = 'a,b'  port=7 user='my app' dbname = 'it\\'s' password=''", "my app@a:7,b:7/it's"),
    ] {
        assert_eq!(parse(text).unwrap().target(), target, "{text}");
    }
    let host = parse("postgres://app@%2Frun/x").unwrap().hosts()[0].clone();
    assert_eq!(host, Host::Unix { directory: "/run".into(), port: 5432 });
    assert_eq!(parse("postgres://app@h/x").unwrap().with_database("y").target(), "app@h:5432/y");
}

#[test]
fn what_cannot_be_obeyed_is_refused_by_name() {
    use OptionsError::{
        Conflict, Encoding, Form, Missing, Pair, Twice, UnknownParameter, Unsupported, Value,
    };
    for (text, expected) in [
        ("", Missing("user")),
        ("db.example", Pair { position: 1 }),
        ("https://db.example", Form),
        ("postgres://h/d", Missing("user")),
        ("postgres://u@/d", Missing("host")),
        ("postgres://u:p@ss@h/d", Encoding("password")),
        ("postgres://u:p/ss@h/d", Encoding("password or database")),
        ("postgres://u:12?a@h/d", Pair { position: 1 }),
        ("postgres://u:%ZZ@h/d", Encoding("password")),
        ("postgres://u:%00@h/d", Encoding("password")),
        ("postgres://u@h/d?user=v", Twice("user")),
        ("host=h user=u sslmod=require", UnknownParameter { position: 3, nearest: Some("sslmode") }),
        ("host=h user=u secret=x", UnknownParameter { position: 3, nearest: None }),
        ("host=h user=u target_session_attrs=any", Unsupported("target_session_attrs")),
        ("host=h user=u password='open", Pair { position: 3 }),
        ("host=h user=u password=two words", Pair { position: 4 }),
        ("host=h user=u sslcert=/c", Conflict("`sslcert` and `sslkey` need each other")),
    ] {
        assert_eq!(error(text), expected, "{text}");
    }
    for (text, parameter) in [
        ("host=h user=u sslmode=on", "sslmode"),
        ("host=h user=u port=0", "port"),
        ("host=h user=u port=1,2", "port"),
        ("host=h user=u connect_timeout=0", "connect_timeout"),
        ("host=h user=u channel_binding=yes", "channel_binding"),
        ("host=h user=u client_encoding=LATIN1", "client_encoding"),
        ("host='h d' user=u", "host"),
    ] {
        assert!(matches!(error(text), Value { name, .. } if name == parameter), "{text}: {:?}", error(text));
    }
    assert_eq!(parse("host=h").unwrap_err().kind(), FailureKind::Usage);
}

/// Text that mostly is almost right, with a canary where passwords and other text go.
fn nearly_right() -> impl Strategy<Value = String> {
    let noise = "[-@:/?#%&=,' \\\\\\[\\]a-z0-9]{0,6}";
    (0usize..8, noise, noise).prop_map(|(form, a, b)| {
        let canary = format!("{a}cAnArY{b}");
        match form {
            0 => format!("postgres://app:{canary}@host/db?sslmode=require"),
            1 => format!("postgres://{canary}@host/db"),
            2 => format!("postgres://app:pw@host:{canary}/db"),
            3 => format!("postgres://app:pw@host/db?{canary}=x"),
            4 => format!("postgres://app:pw@host/db?sslmode={canary}"),
            5 => format!("host=h user=u password={canary} dbname=d"),
            6 => format!("host=h user=u {canary} sslmode={canary}"),
            _ => canary,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn no_error_shows_a_piece_of_the_text(text in nearly_right()) {
        if let Err(error) = parse(&text) {
            let shown = format!("{error} {error:?} {}", chain(&error)).to_lowercase();
            prop_assert!(!shown.contains("canary"), "{shown}");
        }
    }

    #[test]
    fn a_password_is_shown_neither_by_options_nor_by_their_target(password in "[!-~]{0,12}") {
        let encoded = password.bytes().map(|byte| format!("%{byte:02x}")).collect::<Vec<_>>().concat();
        let options = parse(&format!("postgres://app:{encoded}cAnArY@host/db")).unwrap();
        let shown = format!("{options:?} {}", options.target()).to_lowercase();
        prop_assert!(!shown.contains("canary"), "{shown}");
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,80}") {
        drop(parse(&text));
    }
}
