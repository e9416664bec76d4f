//! Every policy that ships and every valid one of the tests is read without an error and fits the schema.

use std::fs;
use std::path::{Path, PathBuf};

use lifeboat_policy::{json_schema, parse};
use serde_json::Value;

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The files of a folder that end in `.toml`, sorted; never empty.
pub(crate) fn policies(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{}", folder.display());
    files
}

fn good_policies() -> Vec<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    [policies(&root().join("examples")), policies(&here.join("tests/valid"))].concat()
}

fn as_json(text: &str) -> Value {
    serde_json::to_value(toml::from_str::<toml::Table>(text).unwrap()).unwrap()
}

#[test]
fn every_example_and_every_valid_policy_is_read() {
    for path in good_policies() {
        let text = fs::read_to_string(&path).unwrap();
        if let Err(errors) = parse(&text, &path.display().to_string()) {
            panic!("{}", errors.render(false));
        }
    }
}

#[test]
fn no_example_earns_a_warning() {
    for path in policies(&root().join("examples")) {
        let policy = parse(&fs::read_to_string(&path).unwrap(), &path.display().to_string()).unwrap();
        let warnings: Vec<String> = policy.warnings.iter().map(|warning| warning.render(false)).collect();
        assert!(warnings.is_empty(), "{}", warnings.join("\n"));
    }
}

#[test]
fn every_example_and_every_valid_policy_fits_the_schema() {
    let validator = jsonschema::validator_for(&json_schema()).unwrap();
    for path in good_policies() {
        let json = as_json(&fs::read_to_string(&path).unwrap());
        let errors: Vec<String> =
            validator.iter_errors(&json).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{}: {}", path.display(), errors.join("\n"));
    }
}

#[test]
fn the_schema_refuses_what_one_value_alone_makes_wrong() {
    let validator = jsonschema::validator_for(&json_schema()).unwrap();
    for name in [
        "unknown_key_in_a_store",
        "unknown_key_at_the_top",
        "unknown_kind",
        "missing_kind",
        "missing_path",
        "key_of_another_kind",
        "copy_listed_twice",
        "duration_without_unit",
        "retention_in_minutes",
        "schedule_time_out_of_range",
        "lock_without_min",
        "encryption_switched_off",
        "passphrase_in_the_clear",
        "version_of_the_future",
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/invalid").join(format!("{name}.toml"));
        assert!(!validator.is_valid(&as_json(&fs::read_to_string(path).unwrap())), "{name}");
    }
}
