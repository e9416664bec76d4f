//! Every invalid policy is refused, and what a person reads is kept as a snapshot beside it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use lifeboat_policy::parse;

use crate::examples::policies;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn every_invalid_policy_is_refused_with_a_message_that_helps() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for path in policies(&folder("invalid")) {
            let name = stem(&path);
            let text = fs::read_to_string(&path).unwrap();
            let errors = parse(&text, &format!("{name}.toml")).expect_err(&name);
            for problem in errors.problems() {
                assert!(!problem.message().is_empty() && !problem.help().is_empty(), "{name}");
                assert!(problem.position().line >= 1 && problem.position().column >= 1, "{name}");
            }
            insta::assert_snapshot!(name, errors.render(false));
        }
    });
}

#[test]
fn every_snapshot_belongs_to_an_invalid_policy() {
    let cases: BTreeSet<String> = policies(&folder("invalid")).iter().map(|path| stem(path)).collect();
    for entry in fs::read_dir(folder("snapshots")).unwrap() {
        assert!(cases.contains(&stem(&entry.unwrap().path())), "a snapshot without its policy");
    }
}
