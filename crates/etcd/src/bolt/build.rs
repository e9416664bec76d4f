//! Writes a bbolt file from pairs that come in order: every page once, from the leaves to the root.
//!
//! Memory: one page, and a key per finished page. A file that breaks off has no meta pages and is no database.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;

use super::{
    BRANCH, BUCKET, BUCKET_BYTES, ELEMENT_BYTES, FREELIST, HEADER_BYTES, LEAF, MAGIC, META, META_BYTES,
    Pairs, VERSION, fnv64a,
};
use crate::error::EtcdError;

/// The page of the list of free pages, which is empty.
const FREELIST_PAGE: u64 = 2;
const FIRST_PAGE: u64 = 3;
/// The number of elements a page can count.
const MAX_ELEMENTS: usize = 0xFFFF;

/// A pair of a page being written.
struct Element {
    flags: u32,
    key: Vec<u8>,
    value: Vec<u8>,
}

/// A database file being written.
#[derive(Debug)]
pub struct Builder {
    out: BufWriter<File>,
    page_bytes: u32,
    next_page: u64,
    buckets: Vec<(Vec<u8>, u64, u64)>,
}

impl Builder {
    /// Starts in the empty `file`, which is read and written; `page_bytes` is a power of two from 1024 to 65536.
    pub fn new(file: File, page_bytes: u32) -> Result<Self, EtcdError> {
        let mut out = BufWriter::new(file);
        let head = vec![0; page_bytes as usize * 3];
        out.write_all(&head).map_err(write_failure())?;
        Ok(Self { out, page_bytes, next_page: FIRST_PAGE, buckets: Vec::new() })
    }

    /// Adds a bucket. `fill` gives its pairs to the function it gets, in rising order of their keys; buckets come in
    /// rising order of their names.
    pub fn bucket(
        &mut self,
        name: &[u8],
        sequence: u64,
        fill: &mut dyn FnMut(&mut Pairs<'_>) -> Result<(), EtcdError>,
    ) -> Result<(), EtcdError> {
        let root = {
            let mut level = Level::new(self, LEAF);
            fill(&mut |key, value| {
                level.add(Element { flags: 0, key: key.to_vec(), value: value.to_vec() }).map(drop)
            })?;
            level.root()?
        };
        self.buckets.push((name.to_vec(), root, sequence));
        Ok(())
    }

    /// Writes the root and what says where it is; gives the file and its length. Not synced.
    pub fn finish(mut self) -> Result<(File, u64), EtcdError> {
        let buckets = std::mem::take(&mut self.buckets);
        let mut level = Level::new(&mut self, LEAF);
        for (name, root, sequence) in buckets {
            let mut value = Vec::with_capacity(BUCKET_BYTES);
            value.extend_from_slice(&root.to_le_bytes());
            value.extend_from_slice(&sequence.to_le_bytes());
            level.add(Element { flags: BUCKET, key: name, value })?;
        }
        let root = level.root()?;
        let Self { out, page_bytes, next_page, .. } = self;
        let file = out.into_inner().map_err(|error| write_failure()(error.into_error()))?;
        let write = |page: u64, bytes: &[u8]| {
            file.write_all_at(bytes, page * u64::from(page_bytes)).map_err(write_failure())
        };
        write(FREELIST_PAGE, &header(FREELIST_PAGE, FREELIST, 0, 0))?;
        for transaction in [0_u64, 1] {
            let mut body = Vec::with_capacity(META_BYTES);
            for number in [MAGIC, VERSION, page_bytes, 0] {
                body.extend_from_slice(&number.to_le_bytes());
            }
            for number in [root, 0, FREELIST_PAGE, next_page, transaction] {
                body.extend_from_slice(&number.to_le_bytes());
            }
            let checksum = fnv64a(&body);
            let mut page = header(transaction, META, 0, 0);
            page.extend_from_slice(&body);
            page.extend_from_slice(&checksum.to_le_bytes());
            write(transaction, &page)?;
        }
        Ok((file, next_page * u64::from(page_bytes)))
    }

    /// Writes one page with what it overflows into; gives its number.
    fn page(&mut self, kind: u16, elements: &[Element]) -> Result<u64, EtcdError> {
        let used = bytes_of(kind, elements);
        let page_bytes = self.page_bytes as usize;
        let pages = used.div_ceil(page_bytes).max(1);
        let page = self.next_page;
        let too_large = |_wide| EtcdError::corrupt("a page is too large to be written");
        let overflow = u32::try_from(pages - 1).map_err(too_large)?;
        let count = u16::try_from(elements.len()).map_err(too_large)?;
        let mut bytes = header(page, kind, count, overflow);
        let mut data_at = elements.len() * ELEMENT_BYTES;
        for (position, element) in elements.iter().enumerate() {
            let offset = u32::try_from(data_at - position * ELEMENT_BYTES).map_err(too_large)?;
            let key_bytes = u32::try_from(element.key.len()).map_err(too_large)?;
            if kind == LEAF {
                let value_bytes = u32::try_from(element.value.len()).map_err(too_large)?;
                for number in [element.flags, offset, key_bytes, value_bytes] {
                    bytes.extend_from_slice(&number.to_le_bytes());
                }
                data_at += element.value.len();
            } else {
                bytes.extend_from_slice(&offset.to_le_bytes());
                bytes.extend_from_slice(&key_bytes.to_le_bytes());
                bytes.extend_from_slice(&element.value);
            }
            data_at += element.key.len();
        }
        for element in elements {
            bytes.extend_from_slice(&element.key);
            if kind == LEAF {
                bytes.extend_from_slice(&element.value);
            }
        }
        bytes.resize(pages * page_bytes, 0);
        self.out.write_all(&bytes).map_err(write_failure())?;
        self.next_page += pages as u64;
        Ok(page)
    }
}

/// The pages of one height of a tree.
struct Level<'a> {
    builder: &'a mut Builder,
    kind: u16,
    open: Vec<Element>,
    open_bytes: usize,
    /// The first key and the number of every finished page.
    done: Vec<(Vec<u8>, u64)>,
}

impl<'a> Level<'a> {
    fn new(builder: &'a mut Builder, kind: u16) -> Self {
        Self { builder, kind, open: Vec::new(), open_bytes: HEADER_BYTES, done: Vec::new() }
    }

    fn add(&mut self, element: Element) -> Result<(), EtcdError> {
        let more = element_bytes(self.kind, &element);
        let full =
            self.open_bytes + more > self.builder.page_bytes as usize || self.open.len() == MAX_ELEMENTS;
        if full && !self.open.is_empty() {
            self.close()?;
        }
        self.open_bytes += more;
        self.open.push(element);
        Ok(())
    }

    fn close(&mut self) -> Result<(), EtcdError> {
        let elements = std::mem::take(&mut self.open);
        self.open_bytes = HEADER_BYTES;
        let page = self.builder.page(self.kind, &elements)?;
        let first = elements.into_iter().next().map(|element| element.key).unwrap_or_default();
        self.done.push((first, page));
        Ok(())
    }

    /// Closes the last page and builds the heights above; gives the root.
    fn root(mut self) -> Result<u64, EtcdError> {
        if !self.open.is_empty() || self.done.is_empty() {
            self.close()?;
        }
        let Self { builder, mut done, .. } = self;
        while done.len() > 1 {
            let mut above = Level::new(builder, BRANCH);
            for (key, page) in done {
                above.add(Element { flags: 0, key, value: page.to_le_bytes().to_vec() })?;
            }
            above.close()?;
            done = above.done;
        }
        Ok(done.first().map_or(0, |(_, page)| *page))
    }
}

/// What an element takes; a branch keeps the number of the page it leads to in the element itself.
fn element_bytes(kind: u16, element: &Element) -> usize {
    ELEMENT_BYTES + element.key.len() + if kind == LEAF { element.value.len() } else { 0 }
}

fn bytes_of(kind: u16, elements: &[Element]) -> usize {
    HEADER_BYTES + elements.iter().map(|element| element_bytes(kind, element)).sum::<usize>()
}

fn header(page: u64, kind: u16, count: u16, overflow: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    bytes.extend_from_slice(&page.to_le_bytes());
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&overflow.to_le_bytes());
    bytes
}

fn write_failure() -> impl FnOnce(std::io::Error) -> EtcdError {
    EtcdError::doing("write a database")
}
