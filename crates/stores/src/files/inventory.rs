//! The lines of `meta/inventory.jsonl`: one JSON object per captured entry, in capture order.
//!
//! In: a node. Out: a line, and back. `docs/stores.md` documents the fields.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lifeboat_base::capture::Xattr;
use lifeboat_base::digest::{Digest, Hasher};
use lifeboat_base::path::RelPath;
use rustix::fs::FileType;
use serde::{Deserialize, Serialize};

use super::node::{Node, Version};

/// No line is longer: a path of a few thousand names, encoded, is far below it.
const MAX_LINE_BYTES: u64 = 16 * 1024 * 1024;

/// What an entry is, as the inventory says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LineType {
    File,
    Dir,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

impl LineType {
    /// Nothing for a type no file system entry should have.
    pub(crate) fn of(node: &Node) -> Option<Self> {
        Some(match node.file_type {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Dir,
            FileType::Symlink => Self::Symlink,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            FileType::CharacterDevice => Self::CharDevice,
            FileType::BlockDevice => Self::BlockDevice,
            FileType::Unknown => return None,
        })
    }
}

/// Bytes as text where they are text, else as base64: exactly one of the two fields is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Name {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

impl Name {
    pub(crate) fn new(name: &OsStr) -> Self {
        match name.to_str() {
            Some(text) => Self { text: Some(text.to_owned()), base64: None },
            None => Self { text: None, base64: Some(BASE64.encode(name.as_bytes())) },
        }
    }

    pub(crate) fn bytes(&self) -> Option<OsString> {
        match (&self.text, &self.base64) {
            (Some(text), None) => Some(OsString::from(text)),
            (None, Some(base64)) => BASE64.decode(base64).ok().map(OsString::from_vec),
            _ => None,
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Line {
    /// Relative to the root of the tree, which is itself the empty text.
    pub(crate) path: Name,
    #[serde(rename = "type")]
    pub(crate) kind: LineType,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds.
    pub(crate) mtime: (i64, u32),
    /// Content bytes given to the vault; files only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) size_bytes: Option<u64>,
    /// Of the content given to the vault; files only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sha256: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<Name>,
    /// Device number; devices only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rdev: Option<u64>,
    /// The same for all names of one file; only where there is more than one name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) link_group: Option<(u64, u64)>,
    /// Of all extended attributes; only where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) xattrs_sha256: Option<Digest>,
    /// How the source looked when the entry was read; not compared after a restore.
    pub(crate) source: SourceState,
}

/// Identifies the state of a node on the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SourceState {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) size_bytes: u64,
    pub(crate) ctime: (i64, u32),
    /// It was seen to change while it was read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) changed: bool,
}

impl Line {
    /// A line for a node without content; nothing for a node of unknown type.
    pub(crate) fn new(path: &RelPath, node: &Node, xattrs: &[Xattr], target: Option<&OsStr>) -> Option<Self> {
        let kind = LineType::of(node)?;
        let is_device = matches!(kind, LineType::CharDevice | LineType::BlockDevice);
        Some(Self {
            path: Name::new(path.to_path().as_os_str()),
            kind,
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            mtime: node.mtime,
            size_bytes: None,
            sha256: None,
            target: target.map(Name::new),
            rdev: is_device.then_some(node.rdev),
            link_group: node.is_hard_linked().then_some((node.device, node.inode)),
            xattrs_sha256: digest_of_xattrs(xattrs),
            source: SourceState {
                device: node.device,
                inode: node.inode,
                size_bytes: node.size_bytes,
                ctime: node.ctime,
                changed: false,
            },
        })
    }

    /// The path, if it is one that cannot leave the tree.
    pub(crate) fn rel_path(&self) -> Option<RelPath> {
        RelPath::new(self.path.bytes()?).ok()
    }

    /// The state to compare the source with.
    pub(crate) fn version(&self) -> Version {
        Version {
            device: self.source.device,
            inode: self.source.inode,
            size_bytes: self.source.size_bytes,
            mtime: self.mtime,
            ctime: self.source.ctime,
        }
    }

    /// The line with its newline.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = serde_json::to_vec(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

/// The digest of names and values with their lengths; nothing for no attributes.
pub(crate) fn digest_of_xattrs(xattrs: &[Xattr]) -> Option<Digest> {
    if xattrs.is_empty() {
        return None;
    }
    let mut hasher = Hasher::new();
    for xattr in xattrs {
        for part in [xattr.name.as_bytes(), &xattr.value] {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
    }
    Some(hasher.finish())
}

/// Why an inventory cannot be used any further.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InventoryError {
    #[error("failed to read the inventory")]
    Read(#[source] std::io::Error),
    #[error("line {0} of the inventory is longer than {MAX_LINE_BYTES} bytes or not ended")]
    Unending(u64),
    #[error("line {0} of the inventory is not an entry")]
    NotALine(u64),
    #[error("line {0} of the inventory names an unsafe or repeated path or is out of order")]
    Order(u64),
}

/// Reads lines one by one, checking their form and their order, and hashes every byte.
pub(crate) struct InventoryReader<R> {
    reader: R,
    hasher: Hasher,
    number: u64,
    last: Option<RelPath>,
}

impl<R: BufRead> InventoryReader<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, hasher: Hasher::new(), number: 0, last: None }
    }

    /// The next line, or nothing at the end. After an error nothing more can be had.
    pub(crate) fn next_line(&mut self) -> Result<Option<(RelPath, Line)>, InventoryError> {
        let mut bytes = Vec::new();
        (&mut self.reader)
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut bytes)
            .map_err(InventoryError::Read)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        self.hasher.update(&bytes);
        if bytes.pop() != Some(b'\n') {
            return Err(InventoryError::Unending(self.number));
        }
        let line: Line =
            serde_json::from_slice(&bytes).map_err(|_error| InventoryError::NotALine(self.number))?;
        let path = line.rel_path().ok_or(InventoryError::Order(self.number))?;
        if self.last.as_ref().is_some_and(|last| *last >= path) {
            return Err(InventoryError::Order(self.number));
        }
        self.last = Some(path.clone());
        Ok(Some((path, line)))
    }

    /// The digest of everything read.
    pub(crate) fn digest(self) -> Digest {
        self.hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_survive_as_a_name(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let name = OsString::from_vec(bytes);
            let json = serde_json::to_string(&Name::new(&name)).unwrap();
            let back: Name = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(back.bytes(), Some(name));
        }
    }

    #[test]
    fn lines_that_escape_repeat_or_end_early_are_refused() {
        let line = |path: &str| {
            format!(
                r#"{{"path":{{"text":"{path}"}},"type":"dir","mode":493,"uid":0,"gid":0,"mtime":[0,0],"source":{{"device":1,"inode":1,"size_bytes":0,"ctime":[0,0]}}}}"#
            )
        };
        let read = |text: String| {
            let mut reader = InventoryReader::new(std::io::Cursor::new(text));
            loop {
                match reader.next_line() {
                    Ok(Some(_)) => {}
                    Ok(None) => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        };
        assert!(read(format!("{}\n{}\n", line(""), line("a"))).is_ok());
        for bad in [
            format!("{}\n", line("../etc")),
            format!("{}\n", line("/etc")),
            format!("{}\n{}\n", line("a"), line("a")),
            format!("{}\n{}\n", line("b"), line("a")),
            line("a"),
            "{}\n".to_owned(),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }
}
