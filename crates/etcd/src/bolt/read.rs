//! Reads a bbolt file, page by page. Memory: the pages from the root to the current leaf.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::{
    BRANCH, BUCKET, BUCKET_BYTES, ELEMENT_BYTES, HEADER_BYTES, LEAF, MAGIC, META, META_BYTES, Pairs, VERSION,
    fnv64a,
};
use crate::error::EtcdError;

/// The smallest and the largest page that is believed.
const PAGE_SIZES: std::ops::RangeInclusive<u32> = 1024..=65_536;
/// Deeper than any tree can be that fits a disk.
const MAX_DEPTH: usize = 48;
/// The largest node that is read into memory: a value of etcd is far below it.
const MAX_NODE_BYTES: u64 = 512 * 1024 * 1024;

/// An open database file.
#[derive(Clone, Debug)]
pub struct Bolt {
    file: Arc<File>,
    page_bytes: u32,
    root: u64,
    page_count: u64,
}

/// Where the pairs of a bucket are.
#[derive(Clone, Debug)]
pub struct Bucket {
    place: Place,
    /// A counter that the bucket carries along.
    pub sequence: u64,
}

#[derive(Clone, Debug)]
enum Place {
    /// Its root page.
    Page(u64),
    /// Small buckets are one leaf inside the root's; with its place in the file.
    Inline(Vec<u8>, u64),
}

/// One of the two meta pages.
struct Meta {
    page_bytes: u32,
    root: u64,
    page_count: u64,
    transaction: u64,
}

/// What a walk meets: a pair with its flags, and where its value starts in the file.
type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8], u32, u64) -> Result<(), EtcdError>;

/// A page and what follows it; nothing in it is believed before it is used.
struct Node {
    bytes: Vec<u8>,
    /// Where it starts in the file.
    at: u64,
    leaf: bool,
    count: usize,
}

/// A pair of a leaf, with where its value starts in the file.
struct Pair<'a> {
    key: &'a [u8],
    value: &'a [u8],
    flags: u32,
    at: u64,
}

impl Bolt {
    /// Opens the first `length_bytes` of `file`, which must be exactly as long as the database says.
    pub fn open(file: Arc<File>, length_bytes: u64) -> Result<Self, EtcdError> {
        let meta = newest_meta(&file, length_bytes)?;
        let bolt = Self { file, page_bytes: meta.page_bytes, root: meta.root, page_count: meta.page_count };
        if bolt.length_bytes() != Some(length_bytes) {
            return Err(EtcdError::corrupt(format!(
                "it should have {} pages of {} bytes and has {length_bytes} bytes",
                meta.page_count, meta.page_bytes
            )));
        }
        Ok(bolt)
    }

    /// Opens a file that a server keeps: it may be longer than what is used of it.
    pub fn open_grown(file: Arc<File>) -> Result<Self, EtcdError> {
        let length_bytes = file.metadata().map_err(EtcdError::doing("look at the database"))?.len();
        let meta = newest_meta(&file, length_bytes)?;
        let bolt = Self { file, page_bytes: meta.page_bytes, root: meta.root, page_count: meta.page_count };
        if bolt.length_bytes().is_none_or(|used| used > length_bytes) {
            return Err(EtcdError::corrupt("it is shorter than what is used of it"));
        }
        Ok(bolt)
    }

    /// The size of a page in bytes.
    pub fn page_bytes(&self) -> u32 {
        self.page_bytes
    }

    fn length_bytes(&self) -> Option<u64> {
        self.page_count.checked_mul(u64::from(self.page_bytes))
    }

    /// Every bucket with its name, in order.
    pub fn buckets(&self) -> Result<Vec<(Vec<u8>, Bucket)>, EtcdError> {
        let mut buckets = Vec::new();
        self.walk_from(&Place::Page(self.root), &mut |name, value, flags, at| {
            if flags != BUCKET {
                return Err(EtcdError::corrupt("a pair lies outside all buckets"));
            }
            let (head, rest) = value.split_at_checked(BUCKET_BYTES).ok_or_else(short)?;
            let place = match number(head, 0)? {
                0 => Place::Inline(rest.to_vec(), at + BUCKET_BYTES as u64),
                page => Place::Page(page),
            };
            buckets.push((name.to_vec(), Bucket { place, sequence: number(head, 8)? }));
            Ok(())
        })?;
        Ok(buckets)
    }

    /// One bucket by its name.
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Bucket>, EtcdError> {
        Ok(self.buckets()?.into_iter().find(|(found, _)| found == name).map(|(_, bucket)| bucket))
    }

    /// Visits every pair of a bucket in the order of its keys.
    pub fn walk(&self, bucket: &Bucket, visit: &mut Pairs<'_>) -> Result<(), EtcdError> {
        self.walk_from(&bucket.place, &mut |key, value, flags, _at| {
            if flags != 0 {
                return Err(EtcdError::corrupt("a bucket lies inside another"));
            }
            visit(key, value)
        })
    }

    /// As [`Bolt::walk`], with each pair's flags. Each page is read once; keys must rise, so that no page comes twice.
    fn walk_from(&self, place: &Place, visit: Visit<'_>) -> Result<(), EtcdError> {
        let root = match place {
            Place::Page(page) => self.node(*page)?,
            Place::Inline(bytes, at) => Node::parse(bytes.clone(), *at)?,
        };
        let mut last: Option<Vec<u8>> = None;
        let mut pages = 0;
        let mut way = vec![(root, 0)];
        while let Some((node, next)) = way.last_mut() {
            let position = *next;
            if position >= node.count {
                way.pop();
                continue;
            }
            *next += 1;
            if node.leaf {
                let Pair { key, value, flags, at } = node.pair(position)?;
                if last.as_deref().is_some_and(|last| last >= key) {
                    return Err(EtcdError::corrupt("keys do not rise"));
                }
                visit(key, value, flags, at)?;
                let last = last.get_or_insert_default();
                last.clear();
                last.extend_from_slice(key);
            } else {
                let page = node.child(position)?;
                pages += 1;
                if way.len() >= MAX_DEPTH || pages > self.page_count {
                    return Err(EtcdError::corrupt("its pages lead in circles"));
                }
                way.push((self.node(page)?, 0));
            }
        }
        Ok(())
    }

    fn node(&self, page: u64) -> Result<Node, EtcdError> {
        let page_bytes = u64::from(self.page_bytes);
        if page < 2 || page >= self.page_count {
            return Err(EtcdError::corrupt(format!("page {page} does not exist")));
        }
        let mut head = [0; HEADER_BYTES];
        let at = page * page_bytes;
        read_at(&self.file, &mut head, at)?;
        if number(&head, 0)? != page {
            return Err(EtcdError::corrupt(format!("page {page} says that it is another")));
        }
        let pages = 1 + u64::from(number32(&head, 12)?);
        let length_bytes = pages * page_bytes;
        if pages > self.page_count - page || length_bytes > MAX_NODE_BYTES {
            return Err(EtcdError::corrupt(format!("page {page} is longer than the file")));
        }
        let length = usize::try_from(length_bytes).map_err(|_wide| short())?;
        let mut bytes = vec![0; length];
        read_at(&self.file, &mut bytes, at)?;
        Node::parse(bytes, at)
    }

    /// Where in the file the value of `key` in the bucket `name` starts.
    pub(crate) fn place_of(&self, name: &[u8], key: &[u8]) -> Result<Option<u64>, EtcdError> {
        let Some(bucket) = self.bucket(name)? else { return Ok(None) };
        let mut place = None;
        self.walk_from(&bucket.place, &mut |found, _value, _flags, at| {
            if found == key {
                place = Some(at);
            }
            Ok(())
        })?;
        Ok(place)
    }
}

impl Node {
    fn parse(bytes: Vec<u8>, at: u64) -> Result<Self, EtcdError> {
        let leaf = match number16(&bytes, 8)? {
            BRANCH => false,
            LEAF => true,
            other => return Err(EtcdError::corrupt(format!("a page of kind {other} lies in a tree"))),
        };
        let count = usize::from(number16(&bytes, 10)?);
        Ok(Self { bytes, at, leaf, count })
    }

    fn pair(&self, position: usize) -> Result<Pair<'_>, EtcdError> {
        let element = HEADER_BYTES + position * ELEMENT_BYTES;
        let read = |offset| number32(&self.bytes, element + offset).map(|number| number as usize);
        let (start, key_bytes, value_bytes) = (element + read(4)?, read(8)?, read(12)?);
        let middle = start.checked_add(key_bytes).ok_or_else(short)?;
        let end = middle.checked_add(value_bytes).ok_or_else(short)?;
        let slice = |from, to| self.bytes.get(from..to).ok_or_else(short);
        let flags = number32(&self.bytes, element)?;
        let (key, value) = (slice(start, middle)?, slice(middle, end)?);
        Ok(Pair { key, value, flags, at: self.at + middle as u64 })
    }

    /// The page that an element of a branch leads to.
    fn child(&self, position: usize) -> Result<u64, EtcdError> {
        number(&self.bytes, HEADER_BYTES + position * ELEMENT_BYTES + 8)
    }
}

/// The meta page of the last transaction; the other may be from one that broke off.
fn newest_meta(file: &File, length_bytes: u64) -> Result<Meta, EtcdError> {
    let first = meta(file, 0, length_bytes);
    let sizes: Vec<u32> = match &first {
        Ok(meta) => vec![meta.page_bytes],
        // Where the first is broken only trying tells where the second is.
        Err(_broken) => (10..=16).map(|power| 1 << power).collect(),
    };
    let second = sizes.into_iter().find_map(|size| {
        meta(file, u64::from(size), length_bytes).ok().filter(|meta| meta.page_bytes == size)
    });
    match (first, second) {
        (Ok(first), Some(second)) if second.transaction > first.transaction => Ok(second),
        (Ok(first), _) => Ok(first),
        (Err(_), Some(second)) => Ok(second),
        (Err(error), None) => Err(error),
    }
}

fn meta(file: &File, at: u64, length_bytes: u64) -> Result<Meta, EtcdError> {
    let mut bytes = [0; HEADER_BYTES + META_BYTES + 8];
    if length_bytes.checked_sub(at).is_none_or(|rest| rest < bytes.len() as u64) {
        return Err(EtcdError::corrupt("it is too short to be one"));
    }
    read_at(file, &mut bytes, at)?;
    let body = bytes.get(HEADER_BYTES..HEADER_BYTES + META_BYTES).ok_or_else(short)?;
    let sound = number16(&bytes, 8)? == META
        && number32(body, 0)? == MAGIC
        && number32(body, 4)? == VERSION
        && number(&bytes, HEADER_BYTES + META_BYTES)? == fnv64a(body);
    let page_bytes = number32(body, 8)?;
    if !sound || !PAGE_SIZES.contains(&page_bytes) || !page_bytes.is_power_of_two() {
        return Err(EtcdError::corrupt("it does not start as a database of etcd does"));
    }
    Ok(Meta {
        page_bytes,
        root: number(body, 16)?,
        page_count: number(body, 40)?,
        transaction: number(body, 48)?,
    })
}

fn read_at(file: &File, bytes: &mut [u8], at: u64) -> Result<(), EtcdError> {
    file.read_exact_at(bytes, at).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => EtcdError::corrupt("it ends before it should"),
        _ => EtcdError::doing("read the database")(error),
    })
}

fn short() -> EtcdError {
    EtcdError::corrupt("an element does not fit its page")
}

fn number(bytes: &[u8], at: usize) -> Result<u64, EtcdError> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map(|bytes| u64::from_le_bytes(*bytes))
        .ok_or_else(short)
}

fn number32(bytes: &[u8], at: usize) -> Result<u32, EtcdError> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map(|bytes| u32::from_le_bytes(*bytes))
        .ok_or_else(short)
}

fn number16(bytes: &[u8], at: usize) -> Result<u16, EtcdError> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map(|bytes| u16::from_le_bytes(*bytes))
        .ok_or_else(short)
}
