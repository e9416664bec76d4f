//! Words no file may hold: the hosts of package registries and folders of one person's machine.
//!
//! Registries are reached through their clients as each machine has them set up, by package name alone. The words are
//! put together here from pieces, so that this file passes its own rule.

use super::tree::{Finding, Tree};

/// Cargo itself writes where packages come from into this file; `cargo deny` checks it.
const EXEMPT: &str = "Cargo.lock";

/// The pieces of each word, and what stands between them.
const WORDS: &[(&[&str], &str)] = &[
    (&["crates", "io"], "."),
    (&["pypi", "org"], "."),
    (&["pythonhosted", "org"], "."),
    (&["npmjs", "org"], "."),
    (&["deb", "debian", "org"], "."),
    (&["security", "debian", "org"], "."),
    (&["snapshot", "debian", "org"], "."),
    (&["proxy", "golang", "org"], "."),
    (&["", "work", "shared"], "/"),
    (&["", "tmp", "brief"], "/"),
];

/// Every line that holds one.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let words: Vec<String> = WORDS.iter().map(|(pieces, between)| pieces.join(between)).collect();
    let mut findings = Vec::new();
    for (path, text) in tree.texts.iter().filter(|(path, _)| *path != EXEMPT) {
        for word in words.iter().filter(|word| text.contains(*word)) {
            for (line, number) in text.lines().zip(1..) {
                if line.contains(word) {
                    let what = format!(
                        "`{word}` depends on one machine: name the package or a path of the repository"
                    );
                    findings.push(Finding::new(path, number, "word", what));
                }
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_found_in_every_file_but_the_lock_file() {
        for (pieces, between) in WORDS {
            let text = format!("first\nsee {} there\n", pieces.join(between));
            let found = check(&Tree::of(&[("docs/a.md", &text), ("Cargo.lock", &text)]));
            assert!(matches!(&found[..], [one] if one.path == "docs/a.md" && one.line == 2), "{pieces:?}");
        }
    }

    #[test]
    fn other_words_are_fine() {
        let text = "the crate registry, crates, io, docs.rs, /work, deb packages";
        assert!(check(&Tree::of(&[("docs/a.md", text)])).is_empty());
    }
}
