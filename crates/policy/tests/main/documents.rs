//! The committed schema is the generated one, and the page names every key, kind and error.

use std::collections::BTreeSet;
use std::fs;

use lifeboat_policy::{Kind, json_schema};
use serde_json::Value;

use crate::examples::root;

#[test]
fn the_committed_schema_is_the_generated_one() {
    let path = root().join("docs/lifeboat.schema.json");
    let generated = format!("{}\n", serde_json::to_string_pretty(&json_schema()).unwrap());
    if std::option_env!("LIFEBOAT_WRITE_SCHEMA").is_some() {
        lifeboat_base::crashsafe::replace(&path, generated.as_bytes()).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == generated,
        "docs/lifeboat.schema.json is out of date: run the tests with LIFEBOAT_WRITE_SCHEMA=1"
    );
}

/// Every key of every object of the schema.
fn keys(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Object(properties)) = object.get("properties") {
                found.extend(properties.keys().cloned());
            }
            object.values().for_each(|value| keys(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| keys(value, found)),
        _ => {}
    }
}

#[test]
fn the_page_names_every_key_and_every_kind() {
    let page = fs::read_to_string(root().join("docs/policy.md")).unwrap();
    let mut names = Vec::new();
    keys(&json_schema(), &mut names);
    assert!(names.len() > 40);
    names.extend(Kind::all().iter().map(|kind| kind.word().to_owned()));
    for name in names {
        assert!(page.contains(&format!("`{name}`")), "docs/policy.md does not name `{name}`");
    }
}

/// What `Policy::warnings` can hold.
const WARNINGS: &[&str] = &[
    "no-schedule",
    "rpo-too-short",
    "pitr-without-logs",
    "logs-outlive-points",
    "not-immutable",
    "lock-outlives-retention",
    "no-effect",
];

#[test]
fn the_page_lists_every_error_and_every_warning() {
    let page = fs::read_to_string(root().join("docs/policy.md")).unwrap();
    let mut codes: BTreeSet<String> = WARNINGS.iter().map(|&code| code.to_owned()).collect();
    for entry in fs::read_dir(root().join("crates/policy/tests/snapshots")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        codes.extend(
            text.split("error[").skip(1).filter_map(|rest| rest.split(']').next()).map(str::to_owned),
        );
    }
    assert!(codes.len() > 35, "{codes:?}");
    for code in codes {
        assert!(page.contains(&format!("`{code}`")), "docs/policy.md does not list `{code}`");
    }
}
