//! Facts, surveys and checks against real servers: what is sound passes, and each damage is found.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use lifeboat_base::capture::{CaptureFacts, Consistency, ConsistencyLevel};
use lifeboat_base::monitor::Findings;
use lifeboat_base::secret::Secret;
use lifeboat_base::time::{SystemClock, Timestamp};
use lifeboat_postgres::wire::ConnectOptions;
use lifeboat_testkit::{PgOptions, PgServer, pg_installation};
use serde_json::{Value, json};

use super::*;
use crate::adapter::CheckState;
use crate::postgres::canaries::run_with;
use crate::postgres::facts::{Facts, read};
use crate::postgres::tables::{Settled, settled, survey};

mod files;
mod inside;
mod records;

const MAJORS: [u32; 3] = [15, 16, 18];

const SHOP: &str = r#"
    CREATE SCHEMA sales;
    CREATE TABLE sales.customers (id int PRIMARY KEY, name text NOT NULL);
    CREATE TABLE sales.orders (id int PRIMARY KEY, no text UNIQUE, customer int REFERENCES sales.customers, at timestamptz, total numeric(10, 2), data jsonb, raw bytea, ratio float8);
    INSERT INTO sales.customers SELECT i, 'name ' || i FROM generate_series(1, 100) i;
    INSERT INTO sales.orders SELECT i, 'N-' || i, 1 + i % 100, timestamptz '2026-01-01 00:00:00+00' + i * interval '1 minute', i * 1.5, jsonb_build_object('i', i), decode(md5(i::text), 'hex'), i / 3.0 FROM generate_series(1, 5000) i;
    CREATE TABLE parts (id int, region text) PARTITION BY LIST (region);
    CREATE TABLE parts_a PARTITION OF parts FOR VALUES IN ('a');
    CREATE TABLE parts_b PARTITION OF parts FOR VALUES IN ('b');
    INSERT INTO parts SELECT i, CASE WHEN i % 2 = 0 THEN 'a' ELSE 'b' END FROM generate_series(1, 100) i;
    CREATE MATERIALIZED VIEW totals AS SELECT customer, sum(total) FROM sales.orders GROUP BY customer;
    CREATE MATERIALIZED VIEW later AS SELECT 1 AS a WITH NO DATA;
    CREATE UNLOGGED TABLE cache (a int);
    INSERT INTO cache VALUES (1);
    CREATE TABLE "Odd.Name" ("a""b" int, lifeboat int);
    INSERT INTO "Odd.Name" VALUES (1, 2), (1, 2);
    CREATE TABLE parent (a int); CREATE TABLE child (b int) INHERITS (parent);
    INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2, 3);
    CREATE TABLE empty ();
    CREATE VIEW v AS SELECT 1 AS one;
    CREATE TABLE loose (c int); INSERT INTO loose VALUES (9999);
    ALTER TABLE loose ADD CONSTRAINT loose_fk FOREIGN KEY (c) REFERENCES sales.customers NOT VALID;
    CREATE TABLE alembic_version (version_num text); INSERT INTO alembic_version VALUES ('abc123');
    CREATE TABLE sales.schema_migrations (version bigint, dirty bool); INSERT INTO sales.schema_migrations SELECT i, false FROM generate_series(1, 60) i;
"#;

fn options(server: &PgServer, user: &str, database: &str) -> ConnectOptions {
    let text = format!(
        "host={} port={} user={user} dbname={database}",
        server.socket_dir().display(),
        server.port()
    );
    ConnectOptions::parse(&Secret::new(text)).unwrap()
}

fn server(major: u32) -> PgServer {
    let server = PgServer::start(PgOptions::new(major).initdb("--data-checksums"));
    server.psql("CREATE DATABASE shop");
    sql(&server, "shop", SHOP);
    server
}

/// Runs SQL in a database; its counters are up to date when this returns.
#[track_caller]
fn sql(server: &PgServer, database: &str, sql: &str) {
    server.psql(&format!("\\connect {database}\n{sql};\nSELECT pg_stat_force_next_flush()"));
}

struct Point {
    restored: PathBuf,
    facts: CaptureFacts,
    texts: BTreeMap<String, String>,
}

/// A base backup as a capture and a restore would leave it, with everything recorded about it.
fn point(server: &PgServer, name: &str) -> Point {
    let all = options(server, "postgres", "postgres");
    let known = read(&all).unwrap();
    let before = survey(&all).unwrap();
    let restored = backup(server, name);
    let after = survey(&all).unwrap();
    let Facts { environment, schema_texts, .. } = known;
    let facts = recorded(environment, settled(&before, &after), &manifest_end(&restored));
    Point { restored, facts, texts: schema_texts.into_iter().collect() }
}

fn backup(server: &PgServer, name: &str) -> PathBuf {
    let restored = server.dir(name);
    let target = restored.to_string_lossy();
    server.run(
        "pg_basebackup",
        &["-D", &target, "-X", "fetch", "-c", "fast", "--no-sync", "--manifest-checksums=SHA256"],
    );
    restored
}

fn manifest_end(restored: &Path) -> String {
    let text: Value = serde_json::from_slice(&fs::read(restored.join("backup_manifest")).unwrap()).unwrap();
    text["WAL-Ranges"][0]["End-LSN"].as_str().unwrap().to_owned()
}

fn recorded(mut environment: BTreeMap<String, Value>, settled: Settled, position: &str) -> CaptureFacts {
    environment.insert("postgres.ranges".to_owned(), json!(settled.ranges));
    environment.insert("postgres.unchecked".to_owned(), json!(settled.unchecked));
    CaptureFacts {
        consistency: Consistency {
            level: ConsistencyLevel::PointInTime,
            moment: Timestamp::UNIX_EPOCH,
            position: Some(position.to_owned()),
            changes: 0,
        },
        logical_bytes: 0,
        counts: settled.counts,
        checksums: settled.sums,
        environment,
        unreadable: Vec::new(),
    }
}

fn check(
    point: &Point,
    major: u32,
    unique: &[&str],
    statements: &[&str],
    recovery: Option<&Recovery>,
) -> Vec<CheckResult> {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let (unique, statements, clock, monitor) =
        (owned(unique), owned(statements), SystemClock::new(), Findings::new());
    let subject = Subject {
        spaces: &[],
        programs: &[],
        unique: &unique,
        sql: &statements,
        database: Some("shop".to_owned()),
        clock: &clock,
        facts: &point.facts,
        monitor: &monitor,
    };
    check_with(&subject, &point.texts, &point.restored, Ok(pg_installation(major)), recovery).unwrap()
}

fn failures(results: &[CheckResult]) -> Vec<String> {
    results
        .iter()
        .filter(|result| result.state == CheckState::Failed)
        .map(|result| format!("{} {:?}", result.id, result.detail))
        .collect()
}

#[track_caller]
fn state(results: &[CheckResult], id: &str) -> CheckState {
    results.iter().find(|result| result.id == id).unwrap_or_else(|| panic!("{id} in {results:#?}")).state
}

#[test]
fn a_sound_restore_passes_every_check_and_is_left_as_it_was() {
    for major in MAJORS {
        let source = server(major);
        let point = point(&source, "restored");
        let auto = fs::read(point.restored.join("postgresql.auto.conf")).unwrap();
        let unique = ["sales.orders(no)", "shop:customers(id)", "\"Odd.Name\"(lifeboat)"];
        let statements = ["SELECT count(*) = 5000 FROM sales.orders;", "SELECT 1"];
        let results = check(&point, major, &unique, &statements, None);
        assert_eq!(failures(&results).len(), 1, "{major}: {:#?}", failures(&results));
        assert_eq!(state(&results, "postgres.unique/\"Odd.Name\"(lifeboat)"), CheckState::Failed);
        for id in [
            "postgres.files",
            "postgres.recovery",
            "postgres.system",
            "postgres.databases",
            "postgres.tables",
            "postgres.rows/shop.sales.orders",
            "postgres.content/shop.sales.orders",
            "postgres.rows/shop.public.\"Odd.Name\"",
            "postgres.content/shop.public.child",
            "postgres.content/shop.public.parts_a",
            "postgres.content/shop.public.totals",
            "postgres.content/shop.public.empty",
            "postgres.schema/shop",
            "postgres.schema/template1",
            "postgres.foreign_keys/shop",
            "postgres.invalid_indexes",
            "postgres.collation",
            "postgres.checksums",
            "postgres.sql/1",
            "postgres.sql/2",
        ] {
            assert_eq!(state(&results, id), CheckState::Passed, "{major} {id}");
        }
        assert_eq!(state(&results, "postgres.rows/shop.public.later"), CheckState::NotApplicable);
        let amcheck = if major == 15 { CheckState::Passed } else { CheckState::NotApplicable };
        assert_eq!(state(&results, "postgres.amcheck/shop"), amcheck);
        let loose = results.iter().find(|result| result.id == "postgres.foreign_keys/shop").unwrap();
        assert!(
            loose.measured.contains("loose_fk") && loose.measured.contains("1 rows without a parent"),
            "{loose:?}"
        );
        assert_eq!(fs::read(point.restored.join("postgresql.auto.conf")).unwrap(), auto);
        for gone in ["postmaster.opts", "postmaster.pid", "postgresql.auto.conf.before-sandbox"] {
            assert!(!point.restored.join(gone).exists(), "{gone}");
        }
        // The server wrote since, so the files are no longer those of the manifest; all else holds again.
        let again = check(&point, major, &unique[..2], &statements, None);
        let failed = failures(&again);
        assert!(failed.len() == 1 && failed[0].starts_with("postgres.files"), "{failed:#?}");
    }
}

#[test]
fn every_canary_is_caught_on_every_version() {
    for major in MAJORS {
        let scratch = tempfile::Builder::new().prefix("lb-test-").tempdir_in("/tmp").unwrap();
        fs::set_permissions(scratch.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
        let results = run_with(&pg_installation(major), scratch.path(), &SystemClock::new()).unwrap();
        let missed: Vec<_> = results.iter().filter(|canary| !canary.caught).collect();
        assert!(missed.is_empty(), "{major}: {missed:#?}");
        assert_eq!(results.len(), if major == 15 { 23 } else { 22 });
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_backup_whose_log_is_lost_is_not_called_recovered() {
    for major in MAJORS {
        let source = server(major);
        let point = point(&source, "restored");
        for entry in fs::read_dir(point.restored.join("pg_wal")).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::remove_file(path).unwrap();
            }
        }
        let results = check(&point, major, &["customers(id)"], &["SELECT 1"], None);
        for id in ["postgres.recovery", "postgres.tables", "postgres.unique/customers(id)", "postgres.sql/1"]
        {
            assert_eq!(state(&results, id), CheckState::Failed, "{major} {id}");
        }
        assert!(
            results.iter().all(|result| result.state != CheckState::Passed || result.id == "postgres.files")
        );
        assert!(!point.restored.join("postmaster.pid").exists());
    }
}

#[test]
fn a_directory_that_asks_for_a_recovery_is_compared_only_when_told_how() {
    let source = server(15);
    let point = point(&source, "restored");
    source.write(&point.restored.join("recovery.signal"), b"");
    let refused = check(&point, 15, &[], &[], None);
    assert_eq!(state(&refused, "postgres.recovery"), CheckState::Failed);
    assert!(point.restored.join("recovery.signal").exists());
    let settings = [("restore_command", "false"), ("recovery_target_timeline", "1")];
    let recovery = Recovery::new(settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    let results = check(&point, 15, &["customers(id)"], &["SELECT NOT pg_is_in_recovery()"], Some(&recovery));
    assert_eq!(failures(&results), Vec::<String>::new());
    for (id, expected) in [
        ("postgres.recovery", CheckState::Passed),
        ("postgres.sql/1", CheckState::Passed),
        ("postgres.unique/customers(id)", CheckState::Passed),
        ("postgres.rows", CheckState::NotApplicable),
        ("postgres.schema/shop", CheckState::NotApplicable),
        ("postgres.databases", CheckState::NotApplicable),
        ("postgres.amcheck/shop", CheckState::Passed),
    ] {
        assert_eq!(state(&results, id), expected, "{id}");
    }
    assert!(!point.restored.join("recovery.signal").exists(), "it was promoted");
}

#[test]
fn without_programs_of_its_version_nothing_is_proven_and_the_package_is_named() {
    let source = server(18);
    let point = point(&source, "restored");
    let (clock, monitor, unique) = (SystemClock::new(), Findings::new(), ["customers(id)".to_owned()]);
    let subject = Subject {
        spaces: &[],
        programs: &[],
        unique: &unique,
        sql: &[],
        database: None,
        clock: &clock,
        facts: &point.facts,
        monitor: &monitor,
    };
    let results = check_with(&subject, &point.texts, &point.restored, installation(12, &[]), None).unwrap();
    assert_eq!(state(&results, "postgres.files"), CheckState::Passed);
    let others: Vec<_> = results.iter().filter(|result| result.id != "postgres.files").collect();
    assert!(others.len() > 10 && others.iter().all(|result| result.state == CheckState::NotApplicable));
    assert!(others[0].detail[0].contains("postgresql-12"), "{others:?}");
}

#[test]
fn statements_and_promises_can_neither_write_nor_be_several() {
    let source = server(15);
    let point = point(&source, "restored");
    let bad = [
        "SELECT 1; DROP TABLE sales.orders",
        "COMMIT; DROP TABLE sales.orders",
        "DELETE FROM sales.orders RETURNING true",
        "SELECT nextval('s')",
        "SELECT 0",
        "SELECT false",
        "SELECT NULL",
        "SELECT 'true'",
        "SELECT 1, 1",
        "SELECT 1 UNION SELECT 2",
        "SELECT 1 WHERE false",
        "",
        "SET TRANSACTION READ WRITE",
        "SELECT set_config('transaction_read_only', 'off', false) <> 'x'",
        "$lifeboat$",
        "nonsense",
    ];
    let unique = [
        "nope(a)",
        "customers(nope)",
        "sales.customers",
        "customers(id) or 1",
        "nowhere:customers(id)",
        "other.customers(id)",
    ];
    let results = check(&point, 15, &unique, &bad, None);
    for (index, statement) in bad.iter().enumerate() {
        assert_eq!(
            state(&results, &format!("postgres.sql/{}", index + 1)),
            CheckState::Failed,
            "{statement}"
        );
    }
    for promise in unique {
        assert_eq!(state(&results, &format!("postgres.unique/{promise}")), CheckState::Failed, "{promise}");
    }
    let shown = format!("{results:?}");
    assert!(shown.contains("postgres.rows/shop.sales.orders"));
    let good = check(&point, 15, &["customers(id)"], &["SELECT count(*) = 5000 FROM sales.orders"], None);
    assert_eq!(state(&good, "postgres.sql/1"), CheckState::Passed);
}
