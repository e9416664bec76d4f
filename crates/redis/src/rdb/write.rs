//! Writes a dump of keys that come in parts: format 10, which servers of version 7 or later load.
//!
//! In: heads and parts in any order of databases. Out: a file that ends with its checksum. Numbers of elements that are known
//! only at the end of a key are put in afterwards, so the file must be one that can be sought in, and it is read once
//! more for the checksum. Memory: 256 KiB, and one part.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use super::crc64::crc64;
use super::listpack::Listpack;
use super::value::Kind;
use crate::scan::{Closed, Entry, Head, Id, Part, Sink, StreamHead};

const BUFFER_BYTES: usize = 256 * 1024;
/// A node of a stream ends behind so many entries, or so many bytes.
const NODE_ENTRIES: usize = 100;
const NODE_BYTES: usize = 4096;
/// The entry has the fields of the first one of its node.
const SAME_FIELDS: i64 = 2;

/// A key being written.
struct Open {
    start: u64,
    /// Where the number of elements, or of nodes, belongs.
    count_at: Option<u64>,
    count: u64,
    entries: u64,
    first: Option<Id>,
    node: Vec<Entry>,
    node_bytes: usize,
    stream: Option<StreamHead>,
}

/// A dump being written. Dropped without [`DumpWriter::finish`] the file is no dump.
pub struct DumpWriter {
    file: File,
    /// What was not written to the file yet: the end of what there is.
    buffer: Vec<u8>,
    at: u64,
    db: Option<u64>,
    open: Option<Open>,
    keys: u64,
}

impl std::fmt::Debug for DumpWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DumpWriter").field("at", &self.at).field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl DumpWriter {
    /// Begins in an empty file that may be read and written.
    pub fn new(file: File) -> io::Result<Self> {
        let buffer = Vec::with_capacity(BUFFER_BYTES);
        let mut writer = Self { file, buffer, at: 0, db: None, open: None, keys: 0 };
        writer.put(b"REDIS0010")?;
        Ok(writer)
    }

    /// Writes the end and the checksum, and syncs. Gives the number of keys and of bytes.
    pub fn finish(mut self) -> io::Result<(u64, u64)> {
        self.put(&[255])?;
        self.flush()?;
        let file = &mut self.file;
        file.seek(SeekFrom::Start(0))?;
        let (mut crc, mut buffer) = (0, vec![0; BUFFER_BYTES]);
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            crc = crc64(crc, buffer.get(..count).unwrap_or_default());
        }
        file.write_all(&crc.to_le_bytes())?;
        file.sync_all()?;
        Ok((self.keys, self.at + 8))
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
        }
        if bytes.len() > BUFFER_BYTES {
            return self.file.write_all(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    /// Puts bytes in place of others, wherever those are by now.
    fn patch(&mut self, place: u64, bytes: &[u8]) -> io::Result<()> {
        let written = self.at - self.buffer.len() as u64;
        let within = place.checked_sub(written).and_then(|from| usize::try_from(from).ok());
        if let Some(from) = within
            && let Some(room) = self.buffer.get_mut(from..from + bytes.len())
        {
            room.copy_from_slice(bytes);
            return Ok(());
        }
        self.flush()?;
        self.file.write_all_at(bytes, place)
    }

    fn number(&mut self, number: u64) -> io::Result<()> {
        match (u8::try_from(number), u16::try_from(number), u32::try_from(number)) {
            (Ok(byte), ..) if byte < 64 => self.put(&[byte]),
            (_, Ok(short), _) if short < 1 << 14 => self.put(&(short | 0x4000).to_be_bytes()),
            (_, _, Ok(word)) => {
                self.put(&[0x80])?;
                self.put(&word.to_be_bytes())
            }
            _ => self.wide(number),
        }
    }

    fn wide(&mut self, number: u64) -> io::Result<()> {
        self.put(&[0x81])?;
        self.put(&number.to_be_bytes())
    }

    fn text(&mut self, text: &[u8]) -> io::Result<()> {
        self.number(text.len() as u64)?;
        self.put(text)
    }

    fn id(&mut self, id: Id) -> io::Result<()> {
        self.number(id.ms)?;
        self.number(id.number)
    }

    /// Writes what was gathered of a stream's node.
    fn end_node(&mut self, open: &mut Open) -> io::Result<()> {
        let entries = std::mem::take(&mut open.node);
        open.node_bytes = 0;
        let Some(first) = entries.first() else { return Ok(()) };
        let mut head = Listpack::default();
        head.number(i64::try_from(entries.len()).unwrap_or(i64::MAX));
        head.number(0);
        head.number(i64::try_from(first.fields.len()).unwrap_or(i64::MAX));
        for (field, _) in &first.fields {
            head.text(field);
        }
        head.number(0);
        for entry in &entries {
            head.append(&packed(entry, first));
        }
        let mut key = first.id.ms.to_be_bytes().to_vec();
        key.extend_from_slice(&first.id.number.to_be_bytes());
        self.text(&key)?;
        self.text(&head.finish())?;
        open.count += 1;
        Ok(())
    }

    fn end_stream(&mut self, open: &Open, stream: &StreamHead) -> io::Result<()> {
        self.number(open.entries)?;
        self.id(stream.last)?;
        self.id(open.first.unwrap_or_default())?;
        self.id(stream.max_deleted)?;
        self.number(stream.added)?;
        self.number(stream.groups.len() as u64)?;
        for group in &stream.groups {
            self.text(&group.name)?;
            self.id(group.last)?;
            self.number(group.read.unwrap_or(u64::MAX))?;
            self.number(group.pending.len() as u64)?;
            for pending in &group.pending {
                self.raw_id(pending.id)?;
                self.put(&pending.delivered_ms.to_le_bytes())?;
                self.number(pending.deliveries)?;
            }
            self.number(group.consumers.len() as u64)?;
            for (index, name) in group.consumers.iter().enumerate() {
                let own: Vec<_> = group.pending.iter().filter(|one| one.consumer == index).collect();
                self.text(name)?;
                // When it was last seen is not captured; what it was handed last is the best that is known.
                let seen_ms = own.iter().map(|pending| pending.delivered_ms).max().unwrap_or_default();
                self.put(&seen_ms.to_le_bytes())?;
                self.number(own.len() as u64)?;
                for pending in own {
                    self.raw_id(pending.id)?;
                }
            }
        }
        Ok(())
    }

    fn raw_id(&mut self, id: Id) -> io::Result<()> {
        self.put(&id.ms.to_be_bytes())?;
        self.put(&id.number.to_be_bytes())
    }
}

/// An entry as it stands in a node that begins with `first`.
fn packed(entry: &Entry, first: &Entry) -> Listpack {
    let names = |entry: &Entry| entry.fields.iter().map(|(field, _)| field.clone()).collect::<Vec<_>>();
    let same = names(entry) == names(first);
    let mut pack = Listpack::default();
    pack.number(if same { SAME_FIELDS } else { 0 });
    pack.number(entry.id.ms.wrapping_sub(first.id.ms).cast_signed());
    pack.number(entry.id.number.wrapping_sub(first.id.number).cast_signed());
    let fields = i64::try_from(entry.fields.len()).unwrap_or(i64::MAX);
    if !same {
        pack.number(fields);
    }
    for (field, value) in &entry.fields {
        if !same {
            pack.text(field);
        }
        pack.text(value);
    }
    // How many elements an entry has, for those who come from the end.
    pack.number(if same { fields + 3 } else { 2 * fields + 4 });
    pack
}

fn form(kind: Kind) -> Option<u8> {
    match kind {
        Kind::String => Some(0),
        Kind::List => Some(1),
        Kind::Set => Some(2),
        Kind::Zset => Some(5),
        Kind::Hash => Some(4),
        Kind::Stream => Some(19),
        Kind::Module => None,
    }
}

fn order() -> io::Error {
    io::Error::other("a part of a key without its head")
}

impl Sink for DumpWriter {
    type Error = io::Error;

    fn open(&mut self, head: &Head) -> io::Result<()> {
        let form =
            form(head.kind).ok_or_else(|| io::Error::other("a value of a module cannot be written"))?;
        if self.open.is_some() {
            return Err(order());
        }
        if self.db != Some(head.db) {
            self.put(&[254])?;
            self.number(head.db)?;
            self.db = Some(head.db);
        }
        let start = self.at;
        if let Some(end_ms) = head.end_ms {
            self.put(&[252])?;
            self.put(&end_ms.to_le_bytes())?;
        }
        self.put(&[form])?;
        self.text(&head.name)?;
        let count_at = if head.kind == Kind::String {
            self.number(head.string_bytes)?;
            None
        } else {
            let at = self.at;
            self.wide(0)?;
            Some(at)
        };
        let stream = head.stream.clone();
        let (node, node_bytes) = (Vec::new(), 0);
        self.open =
            Some(Open { start, count_at, count: 0, entries: 0, first: None, node, node_bytes, stream });
        Ok(())
    }

    fn part(&mut self, part: &Part) -> io::Result<()> {
        let mut open = self.open.take().ok_or_else(order)?;
        match part {
            Part::Bytes(bytes) => self.put(bytes)?,
            Part::Items(items) => items.iter().try_for_each(|item| self.text(item))?,
            Part::Pairs(pairs) => pairs.iter().try_for_each(|(field, value)| {
                self.text(field)?;
                self.text(value)
            })?,
            Part::Scored(members) => members.iter().try_for_each(|(member, score)| {
                self.text(member)?;
                self.put(&score.to_le_bytes())
            })?,
            Part::Entries(entries) => {
                for entry in entries {
                    open.first.get_or_insert(entry.id);
                    open.entries += 1;
                    open.node_bytes +=
                        entry.fields.iter().map(|(a, b)| a.len() + b.len() + 16).sum::<usize>();
                    open.node.push(entry.clone());
                    if open.node.len() >= NODE_ENTRIES || open.node_bytes >= NODE_BYTES {
                        self.end_node(&mut open)?;
                    }
                }
            }
        }
        if !matches!(part, Part::Entries(_)) {
            open.count += part.count();
        }
        self.open = Some(open);
        Ok(())
    }

    fn close(&mut self, _closed: &Closed) -> io::Result<()> {
        let mut open = self.open.take().ok_or_else(order)?;
        self.end_node(&mut open)?;
        if let Some(stream) = open.stream.take() {
            self.end_stream(&open, &stream)?;
        }
        if let Some(at) = open.count_at {
            self.patch(at + 1, &open.count.to_be_bytes())?;
        }
        self.keys += 1;
        Ok(())
    }

    fn void(&mut self) -> io::Result<()> {
        let open = self.open.take().ok_or_else(order)?;
        self.flush()?;
        self.file.set_len(open.start)?;
        self.file.seek(SeekFrom::Start(open.start))?;
        self.at = open.start;
        Ok(())
    }
}
