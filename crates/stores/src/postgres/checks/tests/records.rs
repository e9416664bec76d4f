//! What is recorded with a point: as much as a role may read, the same whoever reads it, and never a password.

use lifeboat_testkit::{PgOptions, PgServer};
use serde_json::json;

use super::{MAJORS, SHOP, options, server, sql};
use crate::postgres::facts::{Facts, read};
use crate::postgres::tables::{settled, survey};

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
