//! The shape of a Rust file: it opens by saying what it is for, stays short, and `lib.rs` and `mod.rs` hold no code.

use syn::Item;
use syn::spanned::Spanned;

use super::rust::Source;
use super::tree::Finding;

const MAX_DOC_LINES_COUNT: usize = 10;
const MAX_SHIPPED_LINES_COUNT: usize = 800;

/// Module doc, size, and empty roots.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(module_doc(source));
    if source.shipped_lines_count > MAX_SHIPPED_LINES_COUNT {
        let what = format!(
            "{} lines ship from this file, the limit is {MAX_SHIPPED_LINES_COUNT}: move one noun to a file of its own",
            source.shipped_lines_count
        );
        findings.push(Finding::new(&source.path, MAX_SHIPPED_LINES_COUNT + 1, "file-size", what));
    }
    findings.extend(root_file(source));
    findings
}

fn module_doc(source: &Source) -> Option<Finding> {
    let docs = source.text.lines().take_while(|line| line.starts_with("//!"));
    let (mut lines_count, mut has_words) = (0, false);
    for line in docs {
        lines_count += 1;
        has_words |= line.trim_start_matches("//!").trim() != "";
    }
    let what = match lines_count {
        0 => {
            "the file does not open with `//!`: say in 1 to 10 lines what it is for, what goes in, what comes out"
        }
        _ if !has_words => "the module doc is empty: say what the file is for, what goes in, what comes out",
        1..=MAX_DOC_LINES_COUNT => return None,
        _ => "the module doc is longer than 10 lines: keep purpose, in and out, move the rest to docs/",
    };
    Some(Finding::new(&source.path, 1, "module-doc", what))
}

fn root_file(source: &Source) -> Option<Finding> {
    let advice = match source.file_name() {
        "lib.rs" => "move it to files named after it",
        "mod.rs" => "move it to files named after it, or this file to FOLDER.rs beside its folder",
        _ => return None,
    };
    let mut code = source.shipped.iter().filter(|item| !is_sign(item));
    let first = code.next()?;
    let what = format!(
        "{} holds docs, `mod` and `use` only, and this one {} more items: {advice}",
        source.file_name(),
        code.count() + 1
    );
    Some(Finding::new(&source.path, first.span().start().line, "root-file", what))
}

/// Whether an item only points elsewhere.
fn is_sign(item: &Item) -> bool {
    match item {
        Item::Use(_) | Item::ExternCrate(_) => true,
        Item::Mod(module) => module.content.is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::rust::sample;

    fn rules(path: &str, text: &str) -> Vec<&'static str> {
        check(&sample(path, text)).into_iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn a_file_must_open_with_a_short_doc() {
        let path = "crates/base/src/a.rs";
        assert!(rules(path, "//! What it is.\n").is_empty());
        assert_eq!(rules(path, "use std::fmt;\n"), ["module-doc"]);
        assert_eq!(rules(path, "//!\n//!\n"), ["module-doc"]);
        assert_eq!(rules(path, &"//! Line.\n".repeat(11)), ["module-doc"]);
        assert!(rules(path, &"//! Line.\n".repeat(10)).is_empty());
        assert_eq!(rules("crates/base/tests/main.rs", "fn x() {}\n"), ["module-doc"]);
    }

    #[test]
    fn a_file_must_stay_below_its_limit_and_tests_do_not_count() {
        let path = "crates/base/src/a.rs";
        let long = format!("//! Doc.\n{}", "const A: u8 = 1;\n".repeat(800));
        assert_eq!(rules(path, &long), ["file-size"]);
        let tests = format!("//! Doc.\n#[cfg(test)]\nmod tests {{\n{}}}\n", "const A: u8 = 1;\n".repeat(800));
        assert!(rules(path, &tests).is_empty());
    }

    #[test]
    fn roots_hold_no_code() {
        let sign = "//! Doc.\n#![forbid(unsafe_code)]\nmod a;\npub use a::B;\n";
        assert!(rules("crates/base/src/lib.rs", sign).is_empty());
        for code in ["fn x() {}\n", "mod a { fn x() {} }\n", "pub struct A;\n"] {
            assert_eq!(rules("crates/base/src/lib.rs", &format!("//! Doc.\n{code}")), ["root-file"]);
            assert_eq!(rules("crates/base/src/a/mod.rs", &format!("//! Doc.\n{code}")), ["root-file"]);
            assert!(rules("crates/base/src/main.rs", &format!("//! Doc.\n{code}")).is_empty());
        }
    }
}
