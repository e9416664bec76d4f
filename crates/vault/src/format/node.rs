//! Tree nodes: one entry of a directory as the format stores it, and the tree blobs that list them.

use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use lifeboat_base::capture::{Meta, StoredKind, Xattr};
use lifeboat_base::digest::Digest;
use rustic_core::repofile::{Metadata, Node, NodeType};
use rustic_core::{DataId, Id};
use serde::Deserialize;
use serde_json::value::RawValue;

const PERMISSIONS: u32 = 0o777;
// Go's file mode bits, which the format stores.
const GO_DIR: u32 = 1 << 31;
const GO_SYMLINK: u32 = 1 << 27;
const GO_DEVICE: u32 = 1 << 26;
const GO_FIFO: u32 = 1 << 25;
const GO_SOCKET: u32 = 1 << 24;
const GO_SETUID: u32 = 1 << 23;
const GO_SETGID: u32 = 1 << 22;
const GO_CHARDEV: u32 = 1 << 21;
const GO_STICKY: u32 = 1 << 20;
/// Special bits of a Unix mode and their counterparts.
const SPECIAL: [(u32, u32); 3] = [(0o4000, GO_SETUID), (0o2000, GO_SETGID), (0o1000, GO_STICKY)];

fn go_mode(mode: u32, kind: &StoredKind) -> u32 {
    let kind_bits = match kind {
        StoredKind::Dir => GO_DIR,
        StoredKind::File(_) => 0,
        StoredKind::Symlink(_) => GO_SYMLINK,
        StoredKind::Fifo => GO_FIFO,
        StoredKind::Socket => GO_SOCKET,
        StoredKind::Device { character: true, .. } => GO_DEVICE | GO_CHARDEV,
        StoredKind::Device { .. } => GO_DEVICE,
    };
    let special = SPECIAL.iter().filter(|(unix, _)| mode & unix != 0);
    special.fold(kind_bits | mode & PERMISSIONS, |bits, (_, go)| bits | go)
}

fn unix_mode(go: u32) -> u32 {
    let special = SPECIAL.iter().filter(|(_, bit)| go & bit != 0);
    special.fold(go & PERMISSIONS, |bits, (unix, _)| bits | unix)
}

pub(crate) fn to_id(digest: &Digest) -> Id {
    Id::new(*digest.as_bytes())
}

/// The digest in an id of the library's own type.
pub(crate) fn from_id(id: Id) -> Option<Digest> {
    id.to_hex().as_str().parse().ok()
}

/// Builds a node. `content` lists a file's blobs; `subtree` a directory's tree.
pub(crate) fn build(
    name: &OsStr,
    meta: &Meta,
    kind: &StoredKind,
    content: Option<&[Digest]>,
    subtree: Option<&Digest>,
) -> Node {
    let node_type = match kind {
        StoredKind::Dir => NodeType::Dir,
        StoredKind::File(_) => NodeType::File,
        StoredKind::Symlink(target) => NodeType::from_link(Path::new(target)),
        StoredKind::Fifo => NodeType::Fifo,
        StoredKind::Socket => NodeType::Socket,
        StoredKind::Device { character: true, rdev } => NodeType::Chardev { device: *rdev },
        StoredKind::Device { rdev, .. } => NodeType::Dev { device: *rdev },
    };
    let size = if let StoredKind::File(bytes) = kind { *bytes } else { 0 };
    let metadata = Metadata {
        mode: Some(go_mode(meta.mode, kind)),
        mtime: meta.mtime,
        atime: meta.atime,
        ctime: meta.ctime,
        uid: Some(meta.uid),
        gid: Some(meta.gid),
        user: meta.user.clone(),
        group: meta.group.clone(),
        inode: meta.inode,
        device_id: meta.device,
        size,
        links: meta.links,
        ..Metadata::default()
    };
    let mut node = Node::new_node(name, node_type, metadata);
    node.meta.extended_attributes = meta.xattrs.iter().filter_map(xattr_json).collect();
    node.content = content.map(|ids| ids.iter().map(|id| DataId::from(to_id(id))).collect());
    node.subtree = subtree.map(|id| to_id(id).into());
    node
}

/// The library does not export its attribute type; JSON is the way in.
fn xattr_json<T: serde::de::DeserializeOwned>(xattr: &Xattr) -> Option<T> {
    use base64::Engine;
    let value = base64::engine::general_purpose::STANDARD.encode(&xattr.value);
    serde_json::from_value(serde_json::json!({ "name": xattr.name.to_str()?, "value": value })).ok()
}

/// Whether the format can hold an attribute's name.
pub(crate) fn storable(xattr: &Xattr) -> bool {
    xattr.name.to_str().is_some()
}

/// One entry read from a tree.
#[derive(Debug)]
pub(crate) struct ReadNode {
    pub name: OsString,
    pub meta: Meta,
    pub kind: StoredKind,
    pub content: Vec<Digest>,
    pub subtree: Option<Digest>,
}

fn read_node(json: &[u8]) -> Result<ReadNode, String> {
    let node: Node = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let name = node.name().into_owned();
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') || bytes.contains(&0) {
        return Err("an entry has a name that could leave its directory".to_owned());
    }
    let kind = match &node.node_type {
        NodeType::Dir => StoredKind::Dir,
        NodeType::File => StoredKind::File(node.meta.size),
        NodeType::Symlink { linktarget, linktarget_raw } => StoredKind::Symlink(match linktarget_raw {
            Some(raw) => OsString::from_vec(raw.clone()),
            None => OsString::from(linktarget),
        }),
        NodeType::Fifo => StoredKind::Fifo,
        NodeType::Socket => StoredKind::Socket,
        NodeType::Chardev { device } => StoredKind::Device { character: true, rdev: *device },
        NodeType::Dev { device } => StoredKind::Device { character: false, rdev: *device },
    };
    let subtree = node.subtree.and_then(|id| from_id(*id));
    if subtree.is_some() != (kind == StoredKind::Dir) {
        return Err("a directory has no tree, or something else has one".to_owned());
    }
    let content = node.content.unwrap_or_default().iter().filter_map(|id| from_id(**id)).collect();
    let source = node.meta;
    let meta = Meta {
        mode: unix_mode(source.mode.unwrap_or_default()),
        uid: source.uid.unwrap_or_default(),
        gid: source.gid.unwrap_or_default(),
        user: source.user,
        group: source.group,
        mtime: source.mtime,
        atime: source.atime,
        ctime: source.ctime,
        inode: source.inode,
        device: source.device_id,
        links: source.links,
        xattrs: source
            .extended_attributes
            .into_iter()
            .map(|xattr| Xattr { name: xattr.name.into(), value: xattr.value.unwrap_or_default() })
            .collect(),
    };
    Ok(ReadNode { name, meta, kind, content, subtree })
}

/// A tree blob read entry by entry: only the blob itself and 8 bytes per entry stay in memory.
#[derive(Debug)]
pub(crate) struct TreeCursor {
    json: Vec<u8>,
    spans: std::vec::IntoIter<Range<u32>>,
    last_name: Option<OsString>,
}

impl TreeCursor {
    /// Finds the entries of a tree blob.
    pub(crate) fn new(json: Vec<u8>) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Tree<'a> {
            #[serde(borrow)]
            nodes: Option<Vec<&'a RawValue>>,
        }
        let tree: Tree<'_> = serde_json::from_slice(&json).map_err(|error| error.to_string())?;
        let start = json.as_ptr().addr();
        let spans: Vec<Range<u32>> = tree
            .nodes
            .unwrap_or_default()
            .iter()
            .filter_map(|raw| {
                let from = raw.get().as_ptr().addr().checked_sub(start)?;
                Some(u32::try_from(from).ok()?..u32::try_from(from + raw.get().len()).ok()?)
            })
            .collect();
        Ok(Self { json, spans: spans.into_iter(), last_name: None })
    }

    /// The next entry. Names must be safe and strictly ascending, so that no two entries can be one file.
    pub(crate) fn next_node(&mut self) -> Result<Option<ReadNode>, String> {
        let Some(span) = self.spans.next() else { return Ok(None) };
        let json = self.json.get(span.start as usize..span.end as usize).unwrap_or_default();
        let node = read_node(json)?;
        if self.last_name.as_deref().is_some_and(|last| last >= node.name.as_os_str()) {
            return Err("its entries are not in strictly ascending order".to_owned());
        }
        self.last_name = Some(node.name.clone());
        Ok(Some(node))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tree(nodes: &[Node]) -> Vec<u8> {
        serde_json::to_vec(&serde_json::json!({ "nodes": nodes })).unwrap()
    }

    fn file(name: &[u8]) -> Node {
        build(OsStr::from_bytes(name), &Meta::default(), &StoredKind::File(0), Some(&[]), None)
    }

    proptest! {
        #[test]
        fn any_name_and_mode_survives_a_tree(
            name in prop::collection::vec(1u8.., 1..40).prop_filter("plain", |n| {
                !n.contains(&b'/') && n.as_slice() != b"." && n.as_slice() != b".."
            }),
            mode in 0u32..=0o7777,
            target in prop::collection::vec(1u8.., 1..40),
        ) {
            let meta = Meta { mode, ..Meta::default() };
            let kind = StoredKind::Symlink(OsString::from_vec(target));
            let node = build(OsStr::from_bytes(&name), &meta, &kind, None, None);
            let read = TreeCursor::new(tree(&[node])).unwrap().next_node().unwrap().unwrap();
            prop_assert_eq!(read.name.as_bytes(), name.as_slice());
            prop_assert_eq!(read.meta, meta);
            prop_assert_eq!(read.kind, kind);
        }
    }

    #[test]
    fn hostile_trees_are_refused() {
        for name in [r"\x2e\x2e", "..", ".", "a/b", r"a\x2fb", r"a\x00b", ""] {
            let mut node = file(b"x");
            node.name = name.to_owned();
            let mut cursor = TreeCursor::new(tree(&[node])).unwrap();
            assert!(cursor.next_node().is_err(), "{name:?}");
        }
        for pair in [[b"a", b"a"], [b"b", b"a"]] {
            let mut cursor = TreeCursor::new(tree(&[file(pair[0]), file(pair[1])])).unwrap();
            cursor.next_node().unwrap();
            assert!(cursor.next_node().is_err(), "{pair:?}");
        }
    }

    #[test]
    fn device_modes_are_those_of_go() {
        let character = StoredKind::Device { character: true, rdev: 1 };
        assert_eq!(go_mode(0o644, &character), GO_DEVICE | GO_CHARDEV | 0o644);
        assert_eq!(go_mode(0o1777, &StoredKind::Dir), GO_DIR | GO_STICKY | 0o777);
        assert_eq!(unix_mode(GO_DIR | GO_STICKY | 0o777), 0o1777);
    }
}
