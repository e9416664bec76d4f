//! Directory listings, built while entries stream by: only the directories on the current path are in memory.
//!
//! Memory: the JSON of the listings of the open directories, about 400 bytes per entry.

use std::ffi::{OsStr, OsString};

use lifeboat_base::capture::{Meta, StoredKind};
use lifeboat_base::digest::Digest;
use lifeboat_base::path::RelPath;

use crate::error::VaultError;
use crate::format::node;
use crate::restore::MAX_DEPTH;

const OPENING: &[u8] = b"{\"nodes\":[";
/// Ends a listing the way other tools do, so that equal directories have equal ids.
const CLOSING: &[u8] = b"]}\n";

struct OpenDir {
    name: OsString,
    meta: Meta,
    json: Vec<u8>,
    last_name: Option<OsString>,
}

impl OpenDir {
    fn new(name: OsString, meta: Meta) -> Self {
        Self { name, meta, json: OPENING.to_vec(), last_name: None }
    }

    fn separate(&mut self) {
        if self.json.len() > OPENING.len() {
            self.json.push(b',');
        }
    }

    fn push(&mut self, node: &rustic_core::repofile::Node) -> Result<(), VaultError> {
        self.separate();
        serde_json::to_writer(&mut self.json, node)
            .map_err(|error| VaultError::Internal(format!("an entry cannot be written as JSON: {error}")))
    }
}

struct OpenFile {
    name: OsString,
    meta: Meta,
    content: Vec<Digest>,
}

/// Builds the tree of a snapshot. `store` receives every finished listing and gives its id.
pub(super) struct TreeBuilder {
    /// The open directories, the root first.
    stack: Vec<OpenDir>,
    file: Option<OpenFile>,
}

impl TreeBuilder {
    pub(super) fn new() -> Self {
        Self { stack: vec![OpenDir::new(OsString::new(), Meta::default())], file: None }
    }

    /// Takes the next entry: closes the directories it is not in, and opens it if it is a directory or a file.
    pub(super) fn entry(
        &mut self,
        path: &RelPath,
        meta: Meta,
        kind: &StoredKind,
        store: &mut dyn FnMut(Vec<u8>) -> Result<Digest, VaultError>,
    ) -> Result<(), VaultError> {
        let name = self.turn_to(path, store)?;
        match kind {
            StoredKind::Dir => self.stack.push(OpenDir::new(name.to_owned(), meta)),
            StoredKind::File(_) => {
                self.file = Some(OpenFile { name: name.to_owned(), meta, content: Vec::new() });
            }
            other => self.push(&node::build(name, &meta, other, None, None))?,
        }
        Ok(())
    }

    /// Takes an entry whose node is finished.
    pub(super) fn finished(
        &mut self,
        path: &RelPath,
        json: &[u8],
        store: &mut dyn FnMut(Vec<u8>) -> Result<Digest, VaultError>,
    ) -> Result<(), VaultError> {
        self.turn_to(path, store)?;
        match self.stack.last_mut() {
            Some(dir) => {
                dir.separate();
                dir.json.extend_from_slice(json);
                Ok(())
            }
            None => Err(VaultError::Internal("no directory is open".to_owned())),
        }
    }

    /// Closes the directories `path` is not in and claims its name.
    fn turn_to<'p>(
        &mut self,
        path: &'p RelPath,
        store: &mut dyn FnMut(Vec<u8>) -> Result<Digest, VaultError>,
    ) -> Result<&'p OsStr, VaultError> {
        let refuse = |why: &str| VaultError::BadCapture(format!("{path}: {why}"));
        if self.file.is_some() {
            return Err(refuse("an entry before the end of a file"));
        }
        if path.depth() >= MAX_DEPTH {
            return Err(refuse("it is deeper than any restore follows"));
        }
        let Some((parent, name)) = path.split_last() else {
            return Err(refuse("the root is not an entry"));
        };
        while !self.is_open(&parent) {
            if self.stack.len() <= 1 {
                return Err(refuse("its directory did not come before it, or was left already"));
            }
            self.close_last(store)?;
        }
        self.claim(name).map_err(|why| refuse(&why))?;
        Ok(name)
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
        let Some(file) = self.file.take() else {
            return Err(VaultError::Internal("the end of no file".to_owned()));
        };
        let kind = StoredKind::File(size_bytes);
        self.push(&node::build(&file.name, &file.meta, &kind, Some(&file.content), None))
    }

    /// The open file is left out.
    pub(super) fn file_lost(&mut self) {
        self.file = None;
    }

    /// Closes everything; gives the id of the root.
    pub(super) fn finish(
        mut self,
        store: &mut dyn FnMut(Vec<u8>) -> Result<Digest, VaultError>,
    ) -> Result<Digest, VaultError> {
        while self.stack.len() > 1 {
            self.close_last(store)?;
        }
        match self.stack.pop() {
            Some(root) => store(closed(root.json)),
            None => Err(VaultError::Internal("a tree without a root".to_owned())),
        }
    }

    fn is_open(&self, dir: &RelPath) -> bool {
        let open = self.stack.iter().skip(1).map(|dir| dir.name.as_os_str());
        dir.depth() + 1 == self.stack.len() && dir.names().eq(open)
    }

    /// Names in a directory must be strictly ascending: order is part of the format, and equal names are two files in one.
    fn claim(&mut self, name: &OsStr) -> Result<(), String> {
        let Some(dir) = self.stack.last_mut() else {
            return Err("no directory is open".to_owned());
        };
        if dir.last_name.as_deref().is_some_and(|last| last >= name) {
            return Err("it comes out of order or twice".to_owned());
        }
        dir.last_name = Some(name.to_owned());
        Ok(())
    }

    fn push(&mut self, node: &rustic_core::repofile::Node) -> Result<(), VaultError> {
        match self.stack.last_mut() {
            Some(dir) => dir.push(node),
            None => Err(VaultError::Internal("no directory is open".to_owned())),
        }
    }

    fn close_last(
        &mut self,
        store: &mut dyn FnMut(Vec<u8>) -> Result<Digest, VaultError>,
    ) -> Result<(), VaultError> {
        let Some(dir) = self.stack.pop() else { return Ok(()) };
        let id = store(closed(dir.json))?;
        self.push(&node::build(&dir.name, &dir.meta, &StoredKind::Dir, None, Some(&id)))
    }
}

fn closed(mut json: Vec<u8>) -> Vec<u8> {
    json.extend_from_slice(CLOSING);
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(entries: &[(&str, StoredKind)]) -> Result<Digest, VaultError> {
        let mut store = |json: Vec<u8>| Ok(Digest::of(&json));
        let mut builder = TreeBuilder::new();
        for (path, kind) in entries {
            let path = RelPath::new(path).unwrap();
            builder.entry(&path, Meta::default(), kind, &mut store)?;
            if let StoredKind::File(size_bytes) = kind {
                builder.file_end(*size_bytes)?;
            }
        }
        builder.finish(&mut store)
    }

    #[test]
    fn order_is_enforced() {
        let (dir, file) = (StoredKind::Dir, StoredKind::File(0));
        let good = [("a", dir.clone()), ("a/b", file.clone()), ("a-", file.clone()), ("a.b", file.clone())];
        assert!(build(&good).is_ok());
        for bad in [
            vec![("a/b", file.clone())],
            vec![("b", file.clone()), ("a", file.clone())],
            vec![("a", file.clone()), ("a", file.clone())],
            vec![("a", file.clone()), ("a/b", file.clone())],
            vec![("a", dir.clone()), ("b", file.clone()), ("a/c", file)],
        ] {
            assert!(matches!(build(&bad), Err(VaultError::BadCapture(_))), "{bad:?}");
        }
    }
}
