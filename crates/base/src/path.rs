//! Paths inside a capture: relative, made of plain names, never able to leave their root.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// A relative path of one or more plain names (no `.`, `..`, empty name, NUL or leading `/`); the root is the
/// empty path. Orders by component bytes, a parent before its children: the order of a capture.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RelPath(Vec<OsString>);

/// A path or name that could leave its root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a plain relative path")]
pub struct UnsafePath(String);

fn plain(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    !bytes.is_empty() && bytes != b"." && bytes != b".." && !bytes.contains(&b'/') && !bytes.contains(&0)
}

impl RelPath {
    /// The root of a capture.
    pub fn root() -> Self {
        Self::default()
    }

    /// Checks every component of `path`.
    pub fn new(path: impl AsRef<Path>) -> Result<Self, UnsafePath> {
        let path = path.as_ref();
        let refuse = || UnsafePath(path.to_string_lossy().into_owned());
        let mut names = Vec::new();
        for component in path.components() {
            match component {
                Component::Normal(name) if plain(name) => names.push(name.to_owned()),
                _ => return Err(refuse()),
            }
        }
        Ok(Self(names))
    }

    /// This path with one more name.
    pub fn join(&self, name: impl AsRef<OsStr>) -> Result<Self, UnsafePath> {
        let name = name.as_ref();
        if !plain(name) {
            return Err(UnsafePath(name.to_string_lossy().into_owned()));
        }
        let mut names = self.0.clone();
        names.push(name.to_owned());
        Ok(Self(names))
    }

    /// This path followed by all of `other`.
    #[must_use]
    pub fn concat(&self, other: &Self) -> Self {
        Self(self.0.iter().chain(&other.0).cloned().collect())
    }

    /// The part below `prefix`, if this path lies there (the root for the prefix itself).
    pub fn below(&self, prefix: &Self) -> Option<Self> {
        self.0.strip_prefix(prefix.0.as_slice()).map(|rest| Self(rest.to_vec()))
    }

    /// The parent and the last name; nothing for the root.
    pub fn split_last(&self) -> Option<(Self, &OsStr)> {
        self.0.split_last().map(|(name, parent)| (Self(parent.to_vec()), name.as_os_str()))
    }

    /// The names from the root down.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &OsStr> {
        self.0.iter().map(OsString::as_os_str)
    }

    /// How many names it has; 0 for the root.
    pub fn depth(&self) -> usize {
        self.0.len()
    }

    /// As a path of the standard library, still relative.
    pub fn to_path(&self) -> PathBuf {
        self.0.iter().collect()
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::human::printable(&self.to_path().to_string_lossy()))
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelPath({:?})", self.to_path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_their_root_are_refused() {
        for text in ["/etc/passwd", "../x", "a/../b", "a/../../b"] {
            assert!(RelPath::new(text).is_err(), "{text}");
        }
        assert!(RelPath::root().join("..").is_err());
        assert!(RelPath::root().join("a/b").is_err());
        assert_eq!(RelPath::new("a/b").unwrap().to_path(), Path::new("a/b"));
    }

    #[test]
    fn order_is_by_component_and_parents_come_first() {
        let mut paths = ["a.b", "a", "a/b", "a/b/c", "a-"].map(|text| RelPath::new(text).unwrap());
        paths.sort();
        assert_eq!(paths.map(|path| path.to_string()), ["a", "a/b", "a/b/c", "a-", "a.b"]);
    }

    #[test]
    fn below_strips_whole_names_only() {
        let path = RelPath::new("data/x").unwrap();
        assert_eq!(path.below(&RelPath::new("data").unwrap()), Some(RelPath::new("x").unwrap()));
        assert_eq!(path.below(&RelPath::new("dat").unwrap()), None);
    }
}
