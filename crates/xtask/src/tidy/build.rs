//! How the crates hang together: edges, asynchronous dependencies, the shared lint table, the number of packages.
//!
//! In: `cargo metadata`, manifests, `Cargo.lock` and the table of edges in ARCHITECTURE.md, which is the rule itself.

use std::collections::{BTreeMap, BTreeSet};

use super::pages::quoted;
use super::purity::SYNCHRONOUS;
use super::tree::{Finding, Package, Tree};

const PAGE: &str = "ARCHITECTURE.md";
/// Stands on the line before the table in the page.
const MARK: &str = "<!-- edges: checked by `cargo xtask tidy` -->";
const LOCK: &str = "Cargo.lock";
const MAX_LOCKED_PACKAGES_COUNT: usize = 450;
const ASYNC_RUNTIMES: &[&str] =
    &["tokio", "async-std", "smol", "futures", "futures-executor", "async-trait", "pollster"];

/// Everything about the workspace as a whole.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = edges(tree);
    for package in &tree.packages {
        findings.extend(runtimes(package));
        findings.extend(lints(tree, package));
    }
    findings.extend(locked(tree));
    findings
}

fn manifest(package: &Package) -> String {
    format!("crates/{}/Cargo.toml", package.name)
}

/// The rows of the table: the crate, its line, the crates it may be built from.
fn table(page: &str) -> BTreeMap<String, (usize, BTreeSet<String>)> {
    let lines = page.lines().zip(1usize..).skip_while(|(line, _)| line.trim() != MARK).skip(1);
    let rows =
        lines.skip_while(|(line, _)| line.trim().is_empty()).take_while(|(line, _)| line.starts_with('|'));
    rows.filter_map(|(line, number)| {
        let mut cells = line.trim_matches('|').split('|');
        let name = quoted(cells.next()?).next()?.to_owned();
        Some((name, (number, quoted(cells.next()?).map(str::to_owned).collect())))
    })
    .collect()
}

fn edges(tree: &Tree) -> Vec<Finding> {
    let rule = "edges";
    let mut rows = tree.texts.get(PAGE).map(|page| table(page)).unwrap_or_default();
    if rows.is_empty() {
        let what = format!("no table of edges, put one right after the line `{MARK}`");
        return vec![Finding::new(PAGE, 1, rule, what)];
    }
    let mut findings = Vec::new();
    for package in &tree.packages {
        let name = &package.name;
        let Some((line, allowed)) = rows.remove(name) else {
            let what = format!("crate `{name}` is not in the table of edges in {PAGE}, add its row");
            findings.push(Finding::new(&manifest(package), 1, rule, what));
            continue;
        };
        for edge in package.edges.difference(&allowed) {
            let what = format!(
                "`{name}` uses `{edge}`, which {PAGE} does not allow: remove it, or change the table"
            );
            findings.push(Finding::new(&manifest(package), 1, rule, what));
        }
        for edge in allowed.difference(&package.edges) {
            let what = format!("`{name}` does not use `{edge}`: take it out of the row");
            findings.push(Finding::new(PAGE, line, rule, what));
        }
    }
    findings.extend(rows.into_iter().map(|(name, (line, _))| {
        Finding::new(PAGE, line, rule, format!("there is no crate `{name}`: take its row out"))
    }));
    findings
}

fn runtimes(package: &Package) -> Vec<Finding> {
    if !SYNCHRONOUS.contains(&package.name.as_str()) {
        return Vec::new();
    }
    let runtimes = package.foreign.iter().filter(|name| ASYNC_RUNTIMES.contains(&name.as_str()));
    let found = runtimes.map(|name| {
        let what =
            format!("`{}` is synchronous and must not use `{name}`: move the call outwards", package.name);
        Finding::new(&manifest(package), 1, "async", what)
    });
    found.collect()
}

fn lints(tree: &Tree, package: &Package) -> Option<Finding> {
    let path = manifest(package);
    let shared = tree.texts.get(&path).is_some_and(|text| text.contains("\n[lints]\nworkspace = true\n"));
    let what = "the crate does not take the workspace's lints: add `[lints]` with `workspace = true`";
    (!shared).then(|| Finding::new(&path, 1, "lints", what))
}

fn locked(tree: &Tree) -> Option<Finding> {
    let count =
        tree.texts.get(LOCK).map_or(0, |text| text.lines().filter(|line| *line == "[[package]]").count());
    let what = match count {
        0 => "no locked packages: commit the lock file".to_owned(),
        1..=MAX_LOCKED_PACKAGES_COUNT => return None,
        _ => format!("{count} locked packages, the limit is {MAX_LOCKED_PACKAGES_COUNT}: drop a dependency"),
    };
    Some(Finding::new(LOCK, 1, "packages", what))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "[package]\nname = \"x\"\n\n[lints]\nworkspace = true\n";

    fn package(name: &str, edges: &[&str]) -> Package {
        let edges = edges.iter().map(|edge| (*edge).to_owned()).collect();
        Package { name: name.to_owned(), edges, foreign: BTreeSet::new() }
    }

    fn tree(rows: &str, packages: Vec<Package>) -> Tree {
        let page = format!("# Page\n\n{MARK}\n| crate | built from |\n|---|---|\n{rows}\nAfter.\n");
        let mut texts =
            BTreeMap::from([(PAGE.to_owned(), page), (LOCK.to_owned(), "[[package]]\n".to_owned())]);
        texts.extend(packages.iter().map(|package| (manifest(package), MANIFEST.to_owned())));
        Tree { texts, packages, others: BTreeSet::new() }
    }

    fn found(tree: &Tree) -> Vec<String> {
        check(tree).iter().map(ToString::to_string).collect()
    }

    const ROWS: &str = "| `base` | nothing |\n| `vault` | `base` |\n";

    #[test]
    fn a_workspace_like_its_table_is_fine() {
        let tree = tree(ROWS, vec![package("base", &[]), package("vault", &["base"])]);
        assert_eq!(found(&tree), Vec::<String>::new());
    }

    #[test]
    fn an_edge_too_many_or_too_few_is_found() {
        let many = found(&tree(ROWS, vec![package("base", &["vault"]), package("vault", &["base"])]));
        assert!(
            matches!(&many[..], [one] if one.starts_with("crates/base/Cargo.toml:1: edges: `base` uses `vault`"))
        );
        let few = found(&tree(ROWS, vec![package("base", &[]), package("vault", &[])]));
        assert!(
            matches!(&few[..], [one] if one.starts_with("ARCHITECTURE.md:7: edges: `vault` does not use")),
            "{few:?}"
        );
    }

    #[test]
    fn a_crate_without_a_row_and_a_row_without_a_crate_are_found() {
        let all = found(&tree(ROWS, vec![package("base", &[]), package("stray", &[])]));
        assert_eq!(all.len(), 2, "{all:?}");
        let none = Tree::of(&[(PAGE, "# Page without a table\n"), (LOCK, "[[package]]\n")]);
        assert_eq!(found(&none).len(), 1);
    }

    #[test]
    fn a_synchronous_crate_with_a_runtime_is_found() {
        let mut tree = tree("| `vault` | nothing |\n", vec![package("vault", &[])]);
        for package in &mut tree.packages {
            package.foreign = BTreeSet::from(["tokio".to_owned()]);
        }
        let all = found(&tree);
        assert!(matches!(&all[..], [one] if one.contains("async: `vault` is synchronous")), "{all:?}");
    }

    #[test]
    fn a_crate_outside_the_lint_table_is_found() {
        let mut tree = tree("| `base` | nothing |\n", vec![package("base", &[])]);
        tree.texts.insert("crates/base/Cargo.toml".to_owned(), "[package]\n".to_owned());
        assert!(matches!(&found(&tree)[..], [one] if one.contains(": lints: ")));
    }

    #[test]
    fn too_many_locked_packages_are_found() {
        let mut tree = tree("| `base` | nothing |\n", vec![package("base", &[])]);
        tree.texts.insert(LOCK.to_owned(), "[[package]]\n".repeat(450));
        assert!(found(&tree).is_empty());
        tree.texts.insert(LOCK.to_owned(), "[[package]]\n".repeat(451));
        assert!(matches!(&found(&tree)[..], [one] if one.contains(": packages: 451")));
    }
}
