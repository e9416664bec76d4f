//! The repository as the rules see it: texts by path, the other paths, and the packages of the workspace.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use lifeboat_base::failure::{Failure, FailureKind};

use crate::command::Task;

/// Something a rule does not accept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Finding {
    /// Where, from the root of the repository.
    pub(super) path: String,
    /// The line, counted from 1.
    pub(super) line: usize,
    /// The rule's name.
    pub(super) rule: &'static str,
    /// What is wrong and how to put it right.
    pub(super) what: String,
}

impl Finding {
    pub(super) fn new(path: &str, line: usize, rule: &'static str, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, rule, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path, self.line, self.rule, self.what)
    }
}

/// One package of the workspace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Package {
    /// Its folder below `crates/`, which is its name without the product's prefix.
    pub(super) name: String,
    /// The packages of this workspace it is built from, development aside.
    pub(super) edges: BTreeSet<String>,
    /// The packages from elsewhere it is built from, development aside.
    pub(super) foreign: BTreeSet<String>,
}

/// The whole repository.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    /// Every text file.
    pub(super) texts: BTreeMap<String, String>,
    /// Every other file.
    pub(super) others: BTreeSet<String>,
    /// The packages of the workspace.
    pub(super) packages: Vec<Package>,
}

/// The product's prefix of package names.
const PREFIX: &str = "lifeboat-";

impl Tree {
    /// Reads what git tracks or would take, and asks cargo for the packages.
    pub(super) fn read(root: &Path) -> Result<Self, Failure> {
        let listed = Task::new("git ls-files -z --cached --others --exclude-standard").output(root)?;
        let mut tree = Self::default();
        for path in listed.split(|byte| *byte == 0).filter(|path| !path.is_empty()) {
            let path = String::from_utf8_lossy(path).into_owned();
            let full = root.join(&path);
            // Deleted but still tracked, or a link whose target is another entry of the list.
            if !full.is_file() || full.is_symlink() {
                continue;
            }
            let bytes = std::fs::read(&full)
                .map_err(|error| Failure::io(format!("failed to read {}", full.display()), error))?;
            match String::from_utf8(bytes) {
                Ok(text) if !text.contains('\0') => {
                    tree.texts.insert(path, text);
                }
                _ => {
                    tree.others.insert(path);
                }
            }
        }
        tree.packages = packages(root)?;
        Ok(tree)
    }

    /// A tree of texts alone, for canaries.
    #[cfg(test)]
    pub(super) fn of(texts: &[(&str, &str)]) -> Self {
        let texts = texts.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        Self { texts, ..Self::default() }
    }

    /// Whether `path` is a file or a folder of the repository.
    pub(super) fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let below = format!("{path}/");
        let known = |name: &String| name == path || name.starts_with(&below);
        path.is_empty() || self.texts.keys().any(known) || self.others.iter().any(known)
    }
}

fn packages(root: &Path) -> Result<Vec<Package>, Failure> {
    let json = Task::new("cargo metadata --format-version 1 --no-deps --offline").output(root)?;
    let strange =
        |error: &str| Failure::with_source(FailureKind::Internal, "failed to read cargo metadata", error);
    let json: serde_json::Value =
        serde_json::from_slice(&json).map_err(|error| strange(&error.to_string()))?;
    let list =
        json.get("packages").and_then(serde_json::Value::as_array).ok_or_else(|| strange("no packages"))?;
    list.iter()
        .map(|package| read_package(package).ok_or_else(|| strange("a package without a name")))
        .collect()
}

fn read_package(json: &serde_json::Value) -> Option<Package> {
    let short = |json: &serde_json::Value| {
        let name = json.get("name")?.as_str()?;
        Some(name.strip_prefix(PREFIX).unwrap_or(name).to_owned())
    };
    let mut package = Package { name: short(json)?, ..Package::default() };
    for dependency in json.get("dependencies")?.as_array()? {
        if dependency.get("kind").and_then(serde_json::Value::as_str) == Some("dev") {
            continue;
        }
        let inside = dependency.get("path").is_some_and(|path| !path.is_null());
        let list = if inside { &mut package.edges } else { &mut package.foreign };
        list.insert(short(dependency)?);
    }
    Some(package)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn development_dependencies_are_no_edges() {
        let json = serde_json::json!({"name": "lifeboat-vault", "dependencies": [
            {"name": "lifeboat-base", "path": "/x/base", "kind": null},
            {"name": "lifeboat-stores", "path": "/x/stores", "kind": "dev"},
            {"name": "zstd", "kind": null},
        ]});
        let package = read_package(&json).unwrap();
        assert_eq!(package.name, "vault");
        assert_eq!(Vec::from_iter(package.edges), ["base"]);
        assert_eq!(Vec::from_iter(package.foreign), ["zstd"]);
    }

    #[test]
    fn folders_exist_through_their_files() {
        let tree = Tree::of(&[("docs/format.md", "")]);
        assert!(tree.has("docs") && tree.has("docs/") && tree.has("docs/format.md"));
        assert!(!tree.has("doc") && !tree.has("docs/format"));
    }
}
