//! What is looked at inside a database: collations, keys, and nothing that runs the cluster's own code.

use lifeboat_testkit::{PgOptions, PgServer};
use serde_json::json;

use super::{check, failures, point, server, sql, state};
use crate::adapter::{CheckResult, CheckState};

#[test]
fn texts_that_sort_otherwise_here_fail_with_what_to_reindex() {
    let source = server(15);
    source.psql(
        "CREATE DATABASE sorted TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en' LOCALE 'C.UTF-8'",
    );
    sql(
        &source,
        "shop",
        "CREATE COLLATION public.de (provider = icu, locale = 'de'); CREATE TABLE words (w text COLLATE public.de)",
    );
    let good = check(&point(&source, "good"), 15, &[], &[], None);
    assert_eq!(state(&good, "postgres.collation"), CheckState::Passed);
    let compared =
        good.iter().find(|result| result.id == "postgres.collation").map(|result| result.measured.clone());
    assert_eq!(compared.as_deref(), Some("0 of 2 versions differ"));

    let mut other = point(&source, "other-machine");
    other.facts.environment.get_mut("databases").unwrap()["sorted"]["actual_version"] = json!("153.0");
    sql(&source, "shop", "UPDATE pg_collation SET collversion = '1.2' WHERE collname = 'de'");
    let mut both = point(&source, "both");
    both.facts.environment.clone_from(&other.facts.environment);
    for (point, needles) in [
        (other, vec!["REINDEX DATABASE \"sorted\""]),
        (both, vec!["REINDEX DATABASE \"sorted\"", "ALTER COLLATION \"public\".\"de\" REFRESH VERSION"]),
    ] {
        let results = check(&point, 15, &[], &[], None);
        let result = results.iter().find(|result| result.id == "postgres.collation").unwrap();
        assert_eq!(
            (result.state, result.differences),
            (CheckState::Failed, needles.len() as u64),
            "{result:?}"
        );
        for needle in needles {
            assert!(result.detail.iter().any(|line| line.contains(needle)), "{result:?}");
        }
    }
}

#[test]
fn a_key_of_any_kind_is_followed_to_its_parent() {
    let source = PgServer::start(PgOptions::new(16));
    source.psql("CREATE DATABASE shop");
    let schema = "CREATE SCHEMA s; CREATE TABLE s.p (a int, b text, PRIMARY KEY (a, b)) PARTITION BY RANGE (a); \
         CREATE TABLE s.p1 PARTITION OF s.p FOR VALUES FROM (0) TO (10); CREATE TABLE s.p2 PARTITION OF s.p FOR VALUES FROM (10) TO (20); \
         CREATE TABLE c (x bigint, y text, FOREIGN KEY (x, y) REFERENCES s.p) PARTITION BY HASH (x); \
         CREATE TABLE c1 PARTITION OF c FOR VALUES WITH (modulus 1, remainder 0); \
         CREATE TABLE f (x int, y text, CONSTRAINT whole FOREIGN KEY (x, y) REFERENCES s.p MATCH FULL); \
         CREATE TABLE tree (id int PRIMARY KEY, up int REFERENCES tree); \
         INSERT INTO s.p VALUES (1, 'a'), (11, 'b'); INSERT INTO c VALUES (1, 'a'), (11, 'b'), (NULL, 'z'), (99, NULL); \
         INSERT INTO f VALUES (NULL, NULL), (11, 'b'); INSERT INTO tree VALUES (1, NULL), (2, 1), (3, 2)";
    sql(&source, "shop", schema);
    let keys = |results: &[CheckResult]| {
        let result = results.iter().find(|result| result.id == "postgres.foreign_keys/shop");
        result.map(|result| (result.state, result.measured.clone(), result.detail.clone())).unwrap()
    };
    let good = keys(&check(&point(&source, "good"), 16, &[], &[], None));
    assert_eq!((good.0, good.1.as_str()), (CheckState::Passed, "0 rows; 3 keys looked at"));
    sql(
        &source,
        "shop",
        "SET session_replication_role = replica; DELETE FROM s.p WHERE a = 11; INSERT INTO f VALUES (1, NULL); DELETE FROM tree WHERE id = 1",
    );
    let bad = keys(&check(&point(&source, "bad"), 16, &[], &[], None));
    assert_eq!((bad.0, bad.1.as_str()), (CheckState::Failed, "4 rows; 3 keys looked at"));
    assert_eq!(
        bad.2,
        [
            "c_x_y_fkey of public.c: 1 rows refer to rows of s.p that are not there",
            "whole of public.f: 2 rows refer to rows of s.p that are not there",
            "tree_up_fkey of public.tree: 1 rows refer to rows of public.tree that are not there",
        ]
    );
}

#[test]
fn code_of_the_cluster_does_not_run_while_it_is_checked() {
    let source = server(15);
    let trap = "CREATE FUNCTION trap() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''trapped''; END'; \
         CREATE EVENT TRIGGER trap ON ddl_command_start EXECUTE FUNCTION trap()";
    sql(&source, "shop", trap);
    let results = check(&point(&source, "restored"), 15, &[], &[], None);
    assert_eq!(failures(&results), Vec::<String>::new());
    assert_eq!(state(&results, "postgres.amcheck/shop"), CheckState::Passed);
}
