//! Puts the entries of a capture that come in any order into the order of a tree.
//!
//! Finished nodes wait in a nameless scratch file, in memory only their paths and places: about 150 bytes per entry.
//! A killed process leaves nothing behind.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use lifeboat_base::capture::{Meta, StoredKind};
use lifeboat_base::digest::Digest;
use lifeboat_base::path::RelPath;

use super::tree::TreeBuilder;
use crate::error::VaultError;
use crate::format::node;

/// What waits for its turn.
enum Waiting {
    /// A directory, whose listing is made when everything in it is known.
    Dir(Box<Meta>),
    /// Where the finished node stands in the scratch file.
    Node { at: u64, length: usize },
}

/// The file whose chunks arrive.
struct OpenFile {
    path: RelPath,
    meta: Meta,
    content: Vec<Digest>,
}

/// Entries in waiting.
pub(super) struct Arranger {
    scratch: BufWriter<File>,
    written_bytes: u64,
    waiting: BTreeMap<RelPath, Waiting>,
    file: Option<OpenFile>,
}

impl Arranger {
    /// With scratch space in the existing directory `dir`.
    pub(super) fn new(dir: &Path) -> Result<Self, VaultError> {
        let scratch = tempfile::tempfile_in(dir).map_err(|error| {
            VaultError::scratch(format!("failed to open a scratch file in {}", dir.display()), error)
        })?;
        let scratch = BufWriter::new(scratch);
        Ok(Self { scratch, written_bytes: 0, waiting: BTreeMap::new(), file: None })
    }

    /// Takes the next entry.
    pub(super) fn entry(&mut self, path: &RelPath, meta: Meta, kind: &StoredKind) -> Result<(), VaultError> {
        let refuse = |why: &str| VaultError::BadCapture(format!("{path}: {why}"));
        if self.file.is_some() {
            return Err(refuse("an entry before the end of a file"));
        }
        if path.depth() == 0 {
            return Err(refuse("the root is not an entry"));
        }
        if self.waiting.contains_key(path) {
            return Err(refuse("it comes twice"));
        }
        match kind {
            StoredKind::Dir => {
                self.waiting.insert(path.clone(), Waiting::Dir(Box::new(meta)));
                Ok(())
            }
            StoredKind::File(_) => {
                self.file = Some(OpenFile { path: path.clone(), meta, content: Vec::new() });
                Ok(())
            }
            other => self.keep(path.clone(), &meta, other, None),
        }
    }

    /// The next chunk of the open file.
    pub(super) fn chunk(&mut self, id: Digest) -> Result<(), VaultError> {
        match &mut self.file {
            Some(file) => file.content.push(id),
            None => return Err(VaultError::Internal("a chunk outside a file".to_owned())),
        }
        Ok(())
    }

    /// The open file is complete.
    pub(super) fn file_end(&mut self, size_bytes: u64) -> Result<(), VaultError> {
        let Some(OpenFile { path, meta, content }) = self.file.take() else {
            return Err(VaultError::Internal("the end of no file".to_owned()));
        };
        self.keep(path, &meta, &StoredKind::File(size_bytes), Some(&content))
    }

    /// The open file is left out.
    pub(super) fn file_lost(&mut self) {
        self.file = None;
    }

    fn keep(
        &mut self,
        path: RelPath,
        meta: &Meta,
        kind: &StoredKind,
        content: Option<&[Digest]>,
    ) -> Result<(), VaultError> {
        let Some((_, name)) = path.split_last() else {
            return Err(VaultError::Internal("an entry without a name".to_owned()));
        };
        let json = serde_json::to_vec(&node::build(name, meta, kind, content, None))
            .map_err(|error| VaultError::Internal(format!("an entry cannot be written as JSON: {error}")))?;
        self.scratch.write_all(&json).map_err(unwritten)?;
        self.waiting.insert(path, Waiting::Node { at: self.written_bytes, length: json.len() });
        self.written_bytes += json.len() as u64;
        Ok(())
    }

    /// Hands everything to a tree in its order; gives the id of the root.
    pub(super) fn finish(
        self,
        store: &mut dyn FnMut(Vec<u8>) -> Result<Digest, VaultError>,
    ) -> Result<Digest, VaultError> {
        let scratch = self.scratch.into_inner().map_err(|error| unwritten(error.into_error()))?;
        let mut tree = TreeBuilder::new();
        let mut json = Vec::new();
        for (path, waiting) in self.waiting {
            match waiting {
                Waiting::Dir(meta) => tree.entry(&path, *meta, &StoredKind::Dir, store)?,
                Waiting::Node { at, length } => {
                    json.resize(length, 0);
                    scratch.read_exact_at(&mut json, at).map_err(|error| {
                        VaultError::scratch("failed to read scratch data back".to_owned(), error)
                    })?;
                    tree.finished(&path, &json, store)?;
                }
            }
        }
        tree.finish(store)
    }
}

/// A tree under construction, for captures in either order.
pub(super) enum Assembly {
    /// Entries come in the order of the tree and pass through.
    Sorted(TreeBuilder),
    /// Entries come in any order and wait.
    Arranged(Arranger),
}

impl Assembly {
    /// See [`TreeBuilder::entry`].
    pub(super) fn entry(
        &mut self,
        path: &RelPath,
        meta: Meta,
        kind: &StoredKind,
        store: &mut dyn FnMut(Vec<u8>) -> Result<Digest, VaultError>,
    ) -> Result<(), VaultError> {
        match self {
            Self::Sorted(tree) => tree.entry(path, meta, kind, store),
            Self::Arranged(arranger) => arranger.entry(path, meta, kind),
        }
    }

    /// The next chunk of the open file.
    pub(super) fn chunk(&mut self, id: Digest) -> Result<(), VaultError> {
        match self {
            Self::Sorted(tree) => tree.chunk(id),
            Self::Arranged(arranger) => arranger.chunk(id),
        }
    }

    /// The open file is complete.
    pub(super) fn file_end(&mut self, size_bytes: u64) -> Result<(), VaultError> {
        match self {
            Self::Sorted(tree) => tree.file_end(size_bytes),
            Self::Arranged(arranger) => arranger.file_end(size_bytes),
        }
    }

    /// The open file is left out.
    pub(super) fn file_lost(&mut self) {
        match self {
            Self::Sorted(tree) => tree.file_lost(),
            Self::Arranged(arranger) => arranger.file_lost(),
        }
    }

    /// Closes everything; gives the id of the root.
    pub(super) fn finish(
        self,
        store: &mut dyn FnMut(Vec<u8>) -> Result<Digest, VaultError>,
    ) -> Result<Digest, VaultError> {
        match self {
            Self::Sorted(tree) => tree.finish(store),
            Self::Arranged(arranger) => arranger.finish(store),
        }
    }
}

fn unwritten(error: std::io::Error) -> VaultError {
    VaultError::scratch("failed to write scratch data".to_owned(), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Sample = (&'static str, StoredKind);

    fn arranged(entries: &[Sample]) -> Result<Digest, VaultError> {
        let dir = tempfile::tempdir().unwrap();
        let mut arranger = Arranger::new(dir.path())?;
        for (path, kind) in entries {
            arranger.entry(&RelPath::new(path).unwrap(), Meta::default(), kind)?;
            if let StoredKind::File(size_bytes) = kind {
                arranger.chunk(Digest::of(path.as_bytes()))?;
                arranger.file_end(*size_bytes)?;
            }
        }
        arranger.finish(&mut |json| Ok(Digest::of(&json)))
    }

    fn in_order(entries: &[Sample]) -> Digest {
        let mut store = |json: Vec<u8>| Ok(Digest::of(&json));
        let mut tree = TreeBuilder::new();
        for (path, kind) in entries {
            tree.entry(&RelPath::new(path).unwrap(), Meta::default(), kind, &mut store).unwrap();
            if let StoredKind::File(size_bytes) = kind {
                tree.chunk(Digest::of(path.as_bytes())).unwrap();
                tree.file_end(*size_bytes).unwrap();
            }
        }
        tree.finish(&mut store).unwrap()
    }

    #[test]
    fn any_order_gives_the_same_tree() {
        let (dir, file) = (StoredKind::Dir, |bytes| StoredKind::File(bytes));
        let sorted = [
            ("data", dir.clone()),
            ("data/base", dir.clone()),
            ("data/base/1", file(8192)),
            ("data/base/2", StoredKind::Fifo),
            ("data/base-", file(1)),
            ("meta", dir),
        ];
        let mut mixed = sorted.to_vec();
        mixed.reverse();
        mixed.rotate_left(2);
        assert_eq!(arranged(&mixed).unwrap(), in_order(&sorted));
        assert_eq!(arranged(&sorted).unwrap(), in_order(&sorted));
    }

    #[test]
    fn what_is_no_tree_is_refused() {
        let (dir, file) = (StoredKind::Dir, StoredKind::File(0));
        for bad in [
            vec![("a/b", file.clone())],
            vec![("a", dir.clone()), ("a", file.clone())],
            vec![("a", file.clone()), ("a/b", file)],
        ] {
            assert!(matches!(arranged(&bad), Err(VaultError::BadCapture(_))), "{bad:?}");
        }
    }
}
