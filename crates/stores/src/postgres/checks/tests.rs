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

#[track_caller]
fn sql(server: &PgServer, database: &str, sql: &str) -> String {
    server.psql(&format!("\\connect {database}\n{sql}"))
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
fn damage_to_the_files_of_a_real_backup_is_found_and_named() {
    let source = server(16);
    let point = point(&source, "restored");
    let restored = &point.restored;
    let look = || check_files(restored, &Findings::new()).unwrap();
    assert_eq!(look().state, CheckState::Passed);
    let page = source.psql("SELECT pg_relation_filepath('pg_class')");
    let bytes = fs::read(restored.join(&page)).unwrap();
    let damages: [(&str, Box<dyn Fn()>, Box<dyn Fn()>); 5] = [
        (
            "changed: ",
            Box::new(|| {
                let mut bytes = bytes.clone();
                bytes[5000] ^= 1;
                source.write(&restored.join(&page), &bytes);
            }),
            Box::new(|| source.write(&restored.join(&page), &bytes)),
        ),
        (
            "changed: ",
            Box::new(|| source.write(&restored.join(&page), &bytes[..8192])),
            Box::new(|| source.write(&restored.join(&page), &bytes)),
        ),
        (
            "missing: ",
            Box::new(|| fs::remove_file(restored.join(&page)).unwrap()),
            Box::new(|| source.write(&restored.join(&page), &bytes)),
        ),
        (
            "extra: base/1/77777",
            Box::new(|| source.write(&restored.join("base/1/77777"), b"x")),
            Box::new(|| fs::remove_file(restored.join("base/1/77777")).unwrap()),
        ),
        (
            "neither file nor folder: base/9",
            Box::new(|| std::os::unix::fs::symlink("/etc", restored.join("base/9")).unwrap()),
            Box::new(|| fs::remove_file(restored.join("base/9")).unwrap()),
        ),
    ];
    for (needle, damage, undo) in damages {
        damage();
        let result = look();
        assert_eq!((result.state, result.differences), (CheckState::Failed, 1), "{needle}: {result:?}");
        assert!(result.detail[0].starts_with(needle), "{result:?}");
        undo();
        assert_eq!(look().state, CheckState::Passed, "{needle}");
    }
    let auto = restored.join("postgresql.auto.conf");
    let mut longer = fs::read(&auto).unwrap();
    longer.extend(b"# appended\n");
    source.write(&auto, &longer);
    assert_eq!(look().state, CheckState::Passed, "a restore may append settings");
    longer[0] ^= 1;
    source.write(&auto, &longer);
    assert_eq!(look().detail, ["changed: postgresql.auto.conf"]);
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

#[test]
fn a_role_that_may_do_little_gets_what_it_may_and_is_told_the_rest() {
    for major in MAJORS {
        let with_secrets = PgOptions::new(major)
            .set("primary_conninfo", "host=x password=hunter2-canary")
            .set("archive_command", "curl https://u:hunter2-canary@h/%f");
        let source = PgServer::start(with_secrets);
        source.psql(
            "CREATE ROLE backup LOGIN REPLICATION PASSWORD 'hunter2-canary'; GRANT pg_monitor TO backup; \
             CREATE DATABASE shut; REVOKE CONNECT ON DATABASE shut FROM public; CREATE DATABASE shop",
        );
        sql(&source, "shop", SHOP);
        sql(
            &source,
            "shop",
            "GRANT USAGE ON SCHEMA sales TO backup; GRANT SELECT ON sales.customers, sales.orders TO backup; \
             ALTER TABLE sales.orders ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON sales.orders USING (id < 10)",
        );
        let role = options(&source, "backup", "postgres");
        let known = read(&role).unwrap();
        let text = format!("{} {:?}", json!(known.environment), known.schema_texts);
        assert!(!text.contains("hunter2") && !text.contains("SCRAM"), "{major}");
        let environment = &known.environment;
        assert_eq!(environment["server_major"], json!(major));
        assert_eq!(environment["wal_segment_bytes"], json!(16 * 1024 * 1024));
        assert_eq!(
            environment["system_identifier"],
            json!(source.psql("SELECT system_identifier FROM pg_control_system()"))
        );
        assert_eq!(environment["settings"]["max_connections"]["setting"], json!("60"));
        assert_eq!(environment["settings"]["primary_conninfo"]["setting"], json!("[masked]"));
        assert_eq!(environment["roles"]["backup"]["member_of"], json!(["pg_monitor"]));
        assert_eq!(environment["roles"]["postgres"]["bootstrap"], json!(true));
        assert_eq!(environment["databases"]["shop"]["encoding"], json!("UTF8"));
        assert_eq!(environment["extensions"]["shop"]["plpgsql"], json!("1.0"));
        assert!(environment["migrations"]["shop"]["public.alembic_version"]["unknown"].is_string());
        let full = read(&options(&source, "postgres", "postgres")).unwrap();
        let history = &full.environment["migrations"]["shop"];
        assert_eq!(history["public.alembic_version"]["rows"], json!([["abc123"]]));
        assert_eq!(history["sales.schema_migrations"]["rows"].as_array().unwrap().len(), 50);
        assert_eq!(history["sales.schema_migrations"]["rows"][0], json!(["60", "false"]));
        let listing =
            |facts: &Facts| facts.schema_texts.iter().find(|(name, _)| name == "shop").unwrap().1.clone();
        assert_eq!(listing(&known), listing(&full), "the listing does not depend on who reads it");

        let seen = survey(&role).unwrap();
        assert_eq!(seen.tables["shop.sales.customers"].rows, Some(100));
        assert!(seen.tables["shop.sales.orders"].why_not.as_deref().unwrap().contains("row-level security"));
        assert!(seen.tables["shop.public.loose"].why_not.as_deref().unwrap().contains("permission denied"));
        assert!(seen.closed.contains_key("shut"));
        let all = survey(&options(&source, "postgres", "shop")).unwrap();
        assert_eq!(seen.tables["shop.sales.customers"].sum, all.tables["shop.sales.customers"].sum);
        assert!(all.tables["shop.public.later"].why_not.is_some());
        assert!(!all.tables.contains_key("shop.public.cache"), "an unlogged table is empty after recovery");
    }
}

#[test]
fn content_has_the_same_sum_on_every_version_in_any_order_and_duplicates_count() {
    let fill = "CREATE TABLE t (a int, b text, c timestamptz, d float8, e interval, f bytea, g numeric, h int[], i money, j jsonb); \
        INSERT INTO t SELECT i, repeat('ä', i % 7), timestamptz '2026-01-01 00:00Z' + i * interval '7 hours', i / 7.0, i * interval '1 hour', \
        decode(md5(i::text), 'hex'), i / 3::numeric, array[i, NULL], i::money, jsonb_build_object('k', i) FROM generate_series(1, 500) i";
    let sums = MAJORS.map(|major| {
        let server = PgServer::start(PgOptions::new(major));
        server.psql(fill);
        server.psql("CREATE TABLE u AS SELECT * FROM t ORDER BY a DESC; CREATE TABLE v AS SELECT * FROM t UNION ALL SELECT * FROM t WHERE a < 3; \
             CREATE TABLE w AS SELECT * FROM t UNION ALL SELECT * FROM t WHERE a IN (3, 4); \
             ALTER DATABASE postgres SET datestyle = 'German'; ALTER DATABASE postgres SET timezone = 'Asia/Tokyo'; \
             ALTER DATABASE postgres SET extra_float_digits = -3; ALTER DATABASE postgres SET bytea_output = 'escape'");
        let seen = survey(&options(&server, "postgres", "postgres")).unwrap();
        let sum = |name: &str| seen.tables[&format!("postgres.public.{name}")].sum.clone().unwrap();
        assert_eq!(sum("t"), sum("u"));
        assert_ne!(sum("v"), sum("w"));
        assert_ne!(sum("v"), sum("t"));
        sum("t")
    });
    assert_eq!(sums[0], sums[1]);
    assert_eq!(sums[1], sums[2]);
}

#[test]
fn what_changes_during_a_capture_is_a_range_and_what_stays_is_exact() {
    let source = server(18);
    let all = options(&source, "postgres", "postgres");
    let before = survey(&all).unwrap();
    sql(
        &source,
        "shop",
        "INSERT INTO sales.customers SELECT i, 'x' FROM generate_series(1001, 1010) i; DELETE FROM sales.customers WHERE id > 1003; \
         UPDATE parts_a SET id = id; INSERT INTO parts_b VALUES (1, 'b'); DELETE FROM parts_b WHERE ctid = (SELECT max(ctid) FROM parts_b); \
         CREATE TABLE appeared (a int); DROP TABLE loose",
    );
    let after = survey(&all).unwrap();
    let settled = settled(&before, &after);
    // Counters tell that there may have been 110 at some moment, and 93.
    assert_eq!(settled.ranges["shop.sales.customers"], (93, 110));
    assert_eq!(settled.ranges["shop.public.parts_b"], (49, 51), "it changed and changed back");
    assert_eq!(settled.counts["rows/shop.public.parts_a"], 50);
    assert!(settled.unchecked.contains_key("table/shop.public.parts_a"));
    assert!(!settled.sums.contains_key("table/shop.public.parts_b"));
    assert_eq!(settled.counts["rows/shop.sales.orders"], 5000);
    assert!(settled.sums.contains_key("table/shop.sales.orders"));
    for name in ["maybe/shop.public.appeared", "maybe/shop.public.loose", "schema/shop"] {
        assert!(settled.unchecked.contains_key(name), "{name}");
    }
    assert!(settled.sums.contains_key("schema/postgres"));
}

#[test]
fn tablespaces_are_compared_through_their_links() {
    let source = PgServer::start(PgOptions::new(15).tablespace("spare"));
    source.psql("CREATE TABLE t TABLESPACE spare AS SELECT generate_series(1, 100) AS a");
    let known = read(&options(&source, "postgres", "postgres")).unwrap();
    let seen = survey(&options(&source, "postgres", "postgres")).unwrap();
    let restored = source.dir("restored");
    let space = restored.join("lifeboat_tablespaces");
    let oid = source.psql("SELECT oid FROM pg_tablespace WHERE spcname = 'spare'");
    let mapping = format!(
        "--tablespace-mapping={}={}",
        source.tablespace_dir("spare").display(),
        source.dir("elsewhere").display()
    );
    source.run(
        "pg_basebackup",
        &[
            "-D",
            &restored.to_string_lossy(),
            "-X",
            "fetch",
            "-c",
            "fast",
            "--no-sync",
            "--manifest-checksums=SHA256",
            &mapping,
        ],
    );
    fs::create_dir(&space).unwrap();
    fs::rename(source.dir("elsewhere"), space.join(&oid)).unwrap();
    let link = restored.join("pg_tblspc").join(&oid);
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(space.join(&oid), &link).unwrap();
    lifeboat_postgres::server::give_tree(&restored, source.account()).unwrap();
    let facts = recorded(known.environment, settled(&seen, &seen), &manifest_end(&restored));
    let point = Point { restored, facts, texts: known.schema_texts.into_iter().collect() };
    let results = check(&point, 15, &[], &[], None);
    assert_eq!(failures(&results), Vec::<String>::new());
    assert_eq!(state(&results, "postgres.content/postgres.public.t"), CheckState::Passed);
}
