//! Runs every rule over the tree and reports what they found.

use std::path::Path;

use lifeboat_base::failure::{Failure, FailureKind};

use super::tree::{Finding, Tree};
use super::{build, names, pages, purity, rust, secrets, shape, words};
use crate::say::say;

/// Every finding, in the order of path and line.
fn check(tree: &Tree) -> Vec<Finding> {
    let (sources, mut findings) = rust::parse(tree);
    findings.extend(build::check(tree));
    findings.extend(pages::check(tree, &sources));
    findings.extend(words::check(tree));
    for source in &sources {
        findings.extend(shape::check(source));
        findings.extend(purity::check(source));
        findings.extend(secrets::check(source));
        findings.extend(names::check(source));
    }
    findings.sort();
    findings
}

/// Prints every finding; any is a failure.
pub(crate) fn report(root: &Path) -> Result<(), Failure> {
    let tree = Tree::read(root)?;
    let findings = check(&tree);
    for finding in &findings {
        say(&finding.to_string());
    }
    if findings.is_empty() {
        say(&format!("tidy: {} files, {} packages, nothing found", tree.texts.len(), tree.packages.len()));
        return Ok(());
    }
    Err(Failure::new(FailureKind::Findings, format!("tidy found {} things to put right", findings.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_repository_follows_its_own_rules() {
        let findings = check(&Tree::read(&crate::repository().unwrap()).unwrap());
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(lines.is_empty(), "\n{}", lines.join("\n"));
    }

    #[test]
    fn findings_read_as_compilers_print_them() {
        let finding = Finding::new("a.rs", 3, "units", "what, how to fix");
        assert_eq!(finding.to_string(), "a.rs:3: units: what, how to fix");
    }
}
