//! A secret written into a policy appears in nothing that is shown about it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use lifeboat_policy::parse;
use miette::Diagnostic as _;
use proptest::prelude::*;

use crate::examples::policies;

/// Everything a refused policy can show, the renderer of others included.
fn everything_shown(text: &str) -> String {
    let mut shown = String::new();
    let problems = match parse(text, "policy.toml") {
        Err(errors) => {
            write!(shown, "{errors} {errors:?} {} {}", errors.render(true), errors.render(false)).unwrap();
            errors.problems().to_vec()
        }
        Ok(policy) => policy.warnings.clone(),
    };
    for problem in problems {
        write!(shown, "{problem} {problem:?} {}", problem.offending()).unwrap();
        let source = problem.source_code().unwrap();
        for label in problem.labels().unwrap() {
            let contents = source.read_span(label.inner(), 100, 100).unwrap();
            shown.push_str(&String::from_utf8_lossy(contents.data()));
        }
    }
    shown
}

#[test]
fn no_planted_secret_of_the_invalid_policies_is_shown() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/invalid");
    let mut planted = 0;
    for path in policies(&folder) {
        let text = fs::read_to_string(&path).unwrap();
        if text.to_lowercase().contains("canary") {
            planted += 1;
            let shown = everything_shown(&text).to_lowercase();
            assert!(!shown.contains("canary") && !shown.contains("hunter2"), "{}", path.display());
            assert!(shown.contains("[hidden]"), "{}", path.display());
        }
    }
    assert!(planted >= 8, "the planted secrets are gone");
}

#[test]
fn a_plain_word_is_shown_so_that_the_search_above_means_something() {
    assert!(everything_shown("version = 1\nmistake = \"canary\"\n").contains("canary"));
}

/// Lines a person could write a secret in, each wrong in its own way; `@@` is the secret.
const LINES: &[&str] = &[
    "url = \"postgres://app:@@@db/app\"",
    "url = \"postgres://app:@@@db/app",
    "url = \"@@\"",
    "url = 'https://@@@git.example/a.git'",
    "url = \"https://index.example/v1?token=@@\"",
    "password = \"@@\"",
    "\"api-key\" = '@@'",
    "auth_token = \"\"\"\n@@\n\"\"\"",
    "checks = { password = \"@@\" }",
    "recipients = [\"passphrase:@@\"]",
    "passphrase:@@",
    "# passphrase = @@",
    "AGE-SECRET-KEY-1@@",
];

proptest! {
    #[test]
    fn a_secret_stays_hidden_wherever_it_is_written(
        lines in proptest::collection::vec(0..LINES.len(), 1..5),
        kind in prop_oneof![Just("postgres"), Just("files"), Just("postgress"), Just("git")],
    ) {
        let mut text = format!("version = 1\nextra = 1\n\n[store.app]\nkind = \"{kind}\"\n");
        for line in lines {
            text.push_str(&LINES[line].replace("@@", "hunter2canary"));
            text.push_str("\nmistake = 1\n");
        }
        let shown = everything_shown(&text);
        prop_assert!(!shown.contains("hunter2canary"), "{text}\n{shown}");
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in any::<String>()) {
        let _ = everything_shown(&text);
    }

    #[test]
    fn no_damage_to_an_example_makes_the_reader_panic(cut in 0usize..3000, add in "\\PC{0,3}") {
        let text = fs::read_to_string(crate::examples::root().join("examples/matrix.toml")).unwrap();
        let cut = text.floor_char_boundary(cut.min(text.len()));
        let (head, tail) = text.split_at(cut);
        let _ = everything_shown(&format!("{head}{add}{tail}"));
        let _ = everything_shown(head);
    }
}
