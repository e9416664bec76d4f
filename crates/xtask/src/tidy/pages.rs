//! Pages stay true: links and paths lead somewhere, tests they name exist, examples are tested, the changelog is open.

use std::collections::BTreeSet;

use super::rust::Source;
use super::tree::{Finding, Tree};

const CHANGELOG: &str = "CHANGELOG.md";
/// A word in back quotes that starts like this is a path of the repository.
const FOLDERS: &[&str] = &["crates/", "docs/", "examples/", "recovery-kit/", "scripts/", ".ci/", ".cargo/"];
/// Stands in a path for what the reader puts there.
const PLACEHOLDER: &str = "NAME";
/// The word of a row that no test guards.
const NOT_YET: &str = "not yet";

/// Everything about pages and examples.
pub(super) fn check(tree: &Tree, sources: &[Source]) -> Vec<Finding> {
    let tests = functions(tree);
    let mut findings = Vec::new();
    for (path, text) in tree.texts.iter().filter(|(path, _)| has_extension(path, "md")) {
        for (line, number) in prose(text) {
            findings.extend(links(tree, path, line, number));
            // A changelog tells of files as they were.
            if path != CHANGELOG {
                findings.extend(paths(tree, path, line, number));
            }
        }
        findings.extend(named_tests(&tests, path, text));
    }
    findings.extend(examples(tree, sources));
    findings.extend(changelog(tree));
    findings
}

fn has_extension(path: &str, extension: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(_, found)| found == extension)
}

/// The lines outside fenced blocks and their numbers.
fn prose(text: &str) -> impl Iterator<Item = (&str, usize)> {
    let mut fenced = false;
    text.lines().zip(1..).filter(move |(line, _)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// The words of a line that stand in back quotes.
pub(super) fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Where a link of `page` leads, as a path of the repository; nothing if it leaves it.
fn resolve(page: &str, target: &str) -> Option<String> {
    let mut names: Vec<&str> = page.split('/').collect();
    names.pop();
    for name in target.split('/').filter(|name| !matches!(*name, "" | ".")) {
        if name == ".." {
            names.pop()?;
        } else {
            names.push(name);
        }
    }
    Some(names.join("/"))
}

fn links(tree: &Tree, page: &str, line: &str, number: usize) -> Vec<Finding> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ', '#']).next());
    let inside = targets.filter(|target| !target.is_empty() && !target.contains(':'));
    let dead = inside.filter(|target| !resolve(page, target).is_some_and(|path| tree.has(&path)));
    let found = dead.map(|target| {
        let what = format!("the link to `{target}` leads nowhere: mend it, relative to this page");
        Finding::new(page, number, "link", what)
    });
    found.collect()
}

fn paths(tree: &Tree, page: &str, line: &str, number: usize) -> Vec<Finding> {
    let plain = |word: &&str| {
        word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte))
            && FOLDERS.iter().any(|folder| word.starts_with(folder))
            && !word.contains(PLACEHOLDER)
    };
    let found = quoted(line).filter(plain).filter(|word| !tree.has(word)).map(|word| {
        Finding::new(page, number, "path", format!("there is no `{word}` here: name what exists"))
    });
    found.collect()
}

/// The names of all functions, Rust's and Python's.
fn functions(tree: &Tree) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for (path, text) in &tree.texts {
        let keyword = match path.rsplit_once('.') {
            Some((_, "rs")) => "fn ",
            Some((_, "py")) => "def ",
            _ => continue,
        };
        let after = text.lines().filter_map(|line| line.split_once(keyword));
        names.extend(after.filter_map(|(_, rest)| rest.split(['(', '<', ' ']).next()));
    }
    names
}

/// Tables whose last column is `test`: each row names functions that exist, or says that none guards it yet.
fn named_tests(functions: &BTreeSet<&str>, page: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut in_table = false;
    for (line, number) in prose(text) {
        let Some(last) =
            line.trim().strip_suffix('|').and_then(|line| line.rsplit('|').next()).map(str::trim)
        else {
            in_table = false;
            continue;
        };
        if !in_table {
            in_table = last == "test";
            continue;
        }
        if last.bytes().all(|byte| b"-:".contains(&byte)) && !last.is_empty() {
            continue;
        }
        let names: Vec<&str> = quoted(last).collect();
        if names.is_empty() && !last.contains(NOT_YET) {
            let what = format!("the row names no test: name one in back quotes, or say `{NOT_YET}`");
            findings.push(Finding::new(page, number, "named-test", what));
        }
        for name in names.into_iter().filter(|name| !functions.contains(name)) {
            let what = format!(
                "there is no function `{name}`: name the test that guards this row, or say `{NOT_YET}`"
            );
            findings.push(Finding::new(page, number, "named-test", what));
        }
    }
    findings
}

/// An example is tested by a test that names it, or by one that walks through the folder.
fn examples(tree: &Tree, sources: &[Source]) -> Vec<Finding> {
    let tests: Vec<&str> = sources
        .iter()
        .filter(|source| source.is_test || source.text.contains("#[cfg(test)]"))
        .map(|source| source.text.as_str())
        .collect();
    let walked = tests.iter().any(|text| text.contains("examples\"") && text.contains("read_dir"));
    let all = tree.texts.keys().filter(|path| path.starts_with("examples/") && has_extension(path, "toml"));
    let untested = all.filter(|path| !walked && !tests.iter().any(|text| text.contains(path.as_str())));
    let found = untested.map(|path| {
        Finding::new(path, 1, "example", "no test reads this example: parse it in one, under this path")
    });
    found.collect()
}

fn changelog(tree: &Tree) -> Option<Finding> {
    let open = |text: &String| {
        text.lines().any(|line| matches!(line.trim_end(), "## [Unreleased]" | "## Unreleased"))
    };
    let what = "no `## [Unreleased]` section: add one and say there what changes for a user";
    (!tree.texts.get(CHANGELOG).is_some_and(open)).then(|| Finding::new(CHANGELOG, 1, "changelog", what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::rust::parse;

    const OPEN: (&str, &str) = (CHANGELOG, "# Changelog\n\n## [Unreleased]\n");

    fn found(texts: &[(&str, &str)]) -> Vec<String> {
        let tree = Tree::of(texts);
        let (sources, _) = parse(&tree);
        check(&tree, &sources).iter().map(|finding| format!("{}:{}", finding.rule, finding.line)).collect()
    }

    #[test]
    fn dead_links_are_found_and_live_ones_are_not() {
        let page = "[a](format.md) [b](../README.md#top) [c](https://example.org/x) [d](#here)\n";
        let good = [OPEN, ("docs/a.md", page), ("docs/format.md", ""), ("README.md", "")];
        assert!(found(&good).is_empty());
        assert_eq!(found(&[OPEN, ("docs/a.md", page)]), ["link:1", "link:1"]);
        assert_eq!(found(&[OPEN, ("docs/a.md", "\n[up](../../x)\n")]), ["link:2"]);
        assert!(found(&[OPEN, ("docs/a.md", "```\n[a](gone.md)\n```\n")]).is_empty());
    }

    #[test]
    fn paths_that_do_not_exist_are_found() {
        let page =
            "See `crates/base/src/a.rs`, `crates/NAME/src`, `lifeboat/envelope.json` and `docs/*.md`.\n";
        assert_eq!(found(&[OPEN, ("ARCHITECTURE.md", page)]), ["path:1"]);
        assert!(found(&[OPEN, ("ARCHITECTURE.md", page), ("crates/base/src/a.rs", "//! Doc.\n")]).is_empty());
        assert!(found(&[(CHANGELOG, "## Unreleased\n\n- Removed `docs/old.md`.\n")]).is_empty());
    }

    #[test]
    fn tests_named_in_a_table_must_exist() {
        let page =
            "| case | test |\n|---|---|\n| 1 | `it_holds` |\n| 2 | not yet |\n| 3 | |\n| 4 | `it_leaks` |\n";
        let code = "//! Doc.\n#[test]\nfn it_holds() {}\n";
        let all = found(&[OPEN, ("docs/a.md", page), ("crates/a/tests/main.rs", code)]);
        assert_eq!(all, ["named-test:5", "named-test:6"]);
        assert!(
            found(&[OPEN, ("docs/a.md", "| test | case |\n|---|---|\n| `gone` | `gone` |\n")]).is_empty()
        );
    }

    #[test]
    fn examples_no_test_reads_are_found() {
        let example = ("examples/small.toml", "version = 1\n");
        assert_eq!(found(&[OPEN, example]), ["example:1"]);
        let named = "//! Doc.\nconst A: &str = include_str!(\"../../../examples/small.toml\");\n";
        assert!(found(&[OPEN, example, ("crates/a/tests/main.rs", named)]).is_empty());
        let walk = "//! Doc.\nfn a() { read_dir(root.join(\"examples\")) }\n";
        assert!(found(&[OPEN, example, ("crates/a/tests/main.rs", walk)]).is_empty());
        assert_eq!(found(&[OPEN, example, ("crates/a/src/a.rs", walk)]), ["example:1"]);
    }

    #[test]
    fn a_changelog_without_an_open_section_is_found() {
        assert_eq!(found(&[(CHANGELOG, "# Changelog\n\n## [0.1.0]\n")]), ["changelog:1"]);
        assert_eq!(found(&[]), ["changelog:1"]);
        assert!(found(&[OPEN]).is_empty());
    }
}
