//! Writes keys with the commands of their types. A short string goes in one command; anything else under another name
//! first, and gets its own when it is whole.
//!
//! Memory: one batch of commands, or one part of a key.

use std::collections::BTreeSet;

use lifeboat_redis::rdb::Kind;
use lifeboat_redis::scan::{Closed, Command, Entry, Group, Head, Id, Link, Part, Sink, StreamHead};
use lifeboat_redis::wire::{RedisError, Reply};

/// What the names of unfinished keys begin with.
pub(super) const UNFINISHED: &[u8] = b"lifeboat-restoring:";
/// A string that is shorter goes in one command.
const SHORT_BYTES: u64 = 64 * 1024;
/// The most elements of one command.
const MAX_ELEMENTS: usize = 256;

/// How a name is called at its new place.
pub(super) type Rename<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;

struct Open {
    head: Head,
    name: Vec<u8>,
    /// Where it grows; the name itself for a short string.
    place: Vec<u8>,
    offset: u64,
    short: Option<Vec<u8>>,
    /// Whether its first commands went with an earlier batch.
    is_begun_before: bool,
    /// Elements of a list: those that are known to be there, and those that are on their way too.
    listed: u64,
    queued: u64,
    /// Entries that are pending and gone: they must be there for a moment.
    ghosts: BTreeSet<Id>,
    /// Those of them that were made.
    made: Vec<Id>,
}

/// Hands keys to a server.
pub(super) struct Writer<'a> {
    to: &'a mut dyn Link,
    rename: Rename<'a>,
    db: u64,
    batch: Vec<Command>,
    batch_bytes: usize,
    open: Option<Open>,
    pub(super) sent_bytes: u64,
}

fn order() -> RedisError {
    RedisError::Protocol { what: "a part of a key without its head" }
}

fn texts(words: &[&[u8]]) -> Command {
    words.iter().map(|word| word.to_vec()).collect()
}

impl<'a> Writer<'a> {
    pub(super) fn new(to: &'a mut dyn Link, db: u64, rename: Rename<'a>) -> Self {
        Self { to, rename, db, batch: Vec::new(), batch_bytes: 0, open: None, sent_bytes: 0 }
    }

    fn push(&mut self, command: Command) -> Result<(), RedisError> {
        let bytes: usize = command.iter().map(Vec::len).sum();
        if self.batch_bytes + bytes > self.to.most_bytes() || self.batch.len() >= self.to.at_once() {
            self.flush()?;
        }
        self.batch_bytes += bytes;
        self.batch.push(command);
        Ok(())
    }

    /// Sends what has gathered; every command must be done. Where no answer comes, what was done of it is not known, and it
    /// is sent again. That does no harm: a batch either begins its keys anew, or holds nothing but elements of one key, or
    /// gives one key its name.
    pub(super) fn flush(&mut self) -> Result<(), RedisError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let mut batch = std::mem::take(&mut self.batch);
        self.sent_bytes += self.batch_bytes as u64;
        self.batch_bytes = 0;
        let mut patience = self.to.patience();
        loop {
            let failed = match self.to.tell(self.db, &batch) {
                Ok(replies) => {
                    judge(&batch, replies, patience.tries() > 1)?;
                    break;
                }
                Err(failed) => failed,
            };
            if !failed.is_passing() || !patience.again(failed.again_after()) {
                return Err(failed);
            }
            if let Some(there) = self.resumed() {
                batch = self.rest_of_list(batch, there)?;
            }
        }
        if let Some(open) = &mut self.open {
            open.is_begun_before = true;
            open.listed = open.queued;
        }
        Ok(())
    }

    /// The place and confirmed length of a list whose first elements went with an earlier batch.
    fn resumed(&self) -> Option<(Vec<u8>, u64)> {
        let open = self.open.as_ref()?;
        (open.is_begun_before && open.head.kind == Kind::List).then(|| (open.place.clone(), open.listed))
    }

    /// What of these elements the list does not have yet.
    fn rest_of_list(
        &mut self,
        batch: Vec<Command>,
        (place, before): (Vec<u8>, u64),
    ) -> Result<Vec<Command>, RedisError> {
        let length = self.to.ask(self.db, &[texts(&[b"LLEN", &place])])?;
        let length = length.first().and_then(Reply::integer).and_then(|length| u64::try_from(length).ok());
        let there = length.and_then(|length| length.checked_sub(before));
        let there = there.ok_or(RedisError::Protocol { what: "a list that is shorter than it was" })?;
        let elements: Vec<Vec<u8>> =
            batch.into_iter().flat_map(|command| command.into_iter().skip(2)).collect();
        let left = elements.get(usize::try_from(there).unwrap_or(usize::MAX)..).unwrap_or_default();
        // What is there counts from here on.
        if let Some(open) = &mut self.open {
            open.listed = before + there;
        }
        let command = |elements: &[Vec<u8>]| {
            texts(&[b"RPUSH", &place]).into_iter().chain(elements.iter().cloned()).collect::<Command>()
        };
        Ok(left.chunks(MAX_ELEMENTS).map(command).collect())
    }

    /// Adds elements behind `words`, so many in one command that it stays small.
    fn elements(&mut self, words: &[&[u8]], elements: Vec<Vec<&[u8]>>) -> Result<(), RedisError> {
        let limit = self.to.most_bytes() / 2;
        let (mut command, mut count, mut bytes) = (texts(words), 0, 0);
        for element in elements {
            let length: usize = element.iter().map(|text| text.len()).sum();
            if count > 0 && (count >= MAX_ELEMENTS || bytes + length > limit) {
                self.push_some(std::mem::replace(&mut command, texts(words)), count)?;
                (count, bytes) = (0, 0);
            }
            command.extend(element.iter().map(|text| text.to_vec()));
            count += 1;
            bytes += length;
        }
        if count > 0 { self.push_some(command, count) } else { Ok(()) }
    }

    /// So many elements of the key that is open.
    fn push_some(&mut self, command: Command, count: usize) -> Result<(), RedisError> {
        self.push(command)?;
        if let Some(open) = &mut self.open {
            open.queued += count as u64;
        }
        Ok(())
    }

    fn entry(&mut self, place: &[u8], entry: &Entry) -> Result<(), RedisError> {
        let id = entry.id.to_string();
        let mut command = texts(&[b"XADD", place, id.as_bytes()]);
        command.extend(entry.fields.iter().flat_map(|(field, value)| [field.clone(), value.clone()]));
        self.push(command)
    }

    /// Makes the entries below this id that are pending and gone.
    fn ghosts_before(&mut self, id: Option<Id>) -> Result<(), RedisError> {
        let Some(open) = &mut self.open else { return Err(order()) };
        let place = open.place.clone();
        let mut ghosts = std::mem::take(&mut open.ghosts);
        let later = id.map(|id| ghosts.split_off(&id)).unwrap_or_default();
        open.ghosts = later;
        if let Some(id) = id {
            open.ghosts.remove(&id);
        }
        open.made.extend(ghosts.iter().copied());
        for ghost in ghosts {
            let fields = vec![(b"gone".to_vec(), Vec::from(*b"1"))];
            self.entry(&place, &Entry { id: ghost, fields })?;
        }
        Ok(())
    }

    fn stream(&mut self, place: &[u8], stream: &StreamHead, elements: u64) -> Result<(), RedisError> {
        self.ghosts_before(None)?;
        let made = self.open.as_mut().map(|open| std::mem::take(&mut open.made)).unwrap_or_default();
        if elements == 0 && made.is_empty() {
            // A group makes a stream without entries.
            self.push(texts(&[b"XGROUP", b"CREATE", place, b"lifeboat", b"0", b"MKSTREAM"]))?;
            self.push(texts(&[b"XGROUP", b"DESTROY", place, b"lifeboat"]))?;
        }
        for group in &stream.groups {
            self.group(place, group)?;
        }
        if !made.is_empty() {
            // What is claimed must be there: claiming and deleting are never sent again together.
            self.flush()?;
        }
        for ghost in made {
            self.push(texts(&[b"XDEL", place, ghost.to_string().as_bytes()]))?;
        }
        self.push(texts(&[
            b"XSETID",
            place,
            stream.last.to_string().as_bytes(),
            b"ENTRIESADDED",
            stream.added.to_string().as_bytes(),
            b"MAXDELETEDID",
            stream.max_deleted.to_string().as_bytes(),
        ]))
    }

    fn group(&mut self, place: &[u8], group: &Group) -> Result<(), RedisError> {
        let last = group.last.to_string();
        let mut command = texts(&[b"XGROUP", b"CREATE", place, &group.name, last.as_bytes()]);
        if let Some(read) = group.read {
            command.extend(texts(&[b"ENTRIESREAD", read.to_string().as_bytes()]));
        }
        self.push(command)?;
        for consumer in &group.consumers {
            self.push(texts(&[b"XGROUP", b"CREATECONSUMER", place, &group.name, consumer]))?;
        }
        for pending in &group.pending {
            let Some(consumer) = group.consumers.get(pending.consumer) else { return Err(order()) };
            let (id, time) = (pending.id.to_string(), pending.delivered_ms.to_string());
            let count = pending.deliveries.to_string();
            self.push(texts(&[
                b"XCLAIM",
                place,
                &group.name,
                consumer,
                b"0",
                id.as_bytes(),
                b"TIME",
                time.as_bytes(),
                b"RETRYCOUNT",
                count.as_bytes(),
                b"FORCE",
                b"JUSTID",
            ]))?;
        }
        Ok(())
    }
}

/// Whether everything was done. `is_again` says that some of it may have been done before.
fn judge(batch: &[Command], replies: Vec<Reply>, is_again: bool) -> Result<(), RedisError> {
    if replies.len() != batch.len() {
        return Err(RedisError::Protocol { what: "a command without an answer" });
    }
    for (command, reply) in batch.iter().zip(replies) {
        let Reply::Error(source) = reply else { continue };
        let name = command.first().map(Vec::as_slice).unwrap_or_default();
        // It has its name already, or its end came before; the comparison knows.
        let is_named = name == b"RENAME" && source.message.contains("no such key");
        let is_there = is_again
            && (source.code == "BUSYGROUP" || name == b"XADD" && source.message.contains("equal or smaller"));
        if !is_named && !is_there {
            return Err(RedisError::Server { command: String::from_utf8_lossy(name).into_owned(), source });
        }
    }
    Ok(())
}

/// What is pending in any group.
fn pending(head: &Head) -> BTreeSet<Id> {
    let groups = head.stream.iter().flat_map(|stream| &stream.groups);
    groups.flat_map(|group| group.pending.iter().map(|pending| pending.id)).collect()
}

impl Sink for Writer<'_> {
    type Error = RedisError;

    fn open(&mut self, head: &Head) -> Result<(), RedisError> {
        let name = (self.rename)(&head.name);
        let is_short = head.kind == Kind::String && head.string_bytes < SHORT_BYTES;
        let place = if is_short { name.clone() } else { [UNFINISHED, &name].concat() };
        if !is_short {
            self.push(texts(&[b"DEL", &place]))?;
        }
        self.open = Some(Open {
            name,
            place,
            offset: 0,
            short: is_short.then(Vec::new),
            is_begun_before: false,
            listed: 0,
            queued: 0,
            ghosts: pending(head),
            made: Vec::new(),
            head: head.clone(),
        });
        Ok(())
    }

    fn part(&mut self, part: &Part) -> Result<(), RedisError> {
        let open = self.open.as_ref().ok_or_else(order)?;
        let (place, kind) = (open.place.clone(), open.head.kind);
        match part {
            Part::Bytes(bytes) => {
                if let Some(short) = self.open.as_mut().and_then(|open| open.short.as_mut()) {
                    short.extend_from_slice(bytes);
                    return Ok(());
                }
                for piece in bytes.chunks(self.to.most_bytes() / 2) {
                    let at = self.open.as_ref().map(|open| open.offset).unwrap_or_default().to_string();
                    self.push(texts(&[b"SETRANGE", &place, at.as_bytes(), piece]))?;
                    if let Some(open) = &mut self.open {
                        open.offset += piece.len() as u64;
                    }
                }
            }
            Part::Items(items) => {
                let command: &[u8] = if kind == Kind::List { b"RPUSH" } else { b"SADD" };
                self.elements(&[command, &place], items.iter().map(|item| vec![item.as_slice()]).collect())?;
            }
            Part::Pairs(pairs) => {
                let pairs = pairs.iter().map(|(field, value)| vec![field.as_slice(), value.as_slice()]);
                self.elements(&[b"HSET", &place], pairs.collect())?;
            }
            Part::Scored(members) => {
                let scores: Vec<String> = members.iter().map(|(_, score)| format!("{score:e}")).collect();
                let pairs = members.iter().zip(&scores);
                let pairs = pairs.map(|((member, _), score)| vec![score.as_bytes(), member.as_slice()]);
                self.elements(&[b"ZADD", &place], pairs.collect())?;
            }
            Part::Entries(entries) => {
                for entry in entries {
                    self.ghosts_before(Some(entry.id))?;
                    self.entry(&place, entry)?;
                }
            }
        }
        Ok(())
    }

    fn close(&mut self, closed: &Closed) -> Result<(), RedisError> {
        let open = self.open.as_mut().ok_or_else(order)?;
        let (name, place) = (open.name.clone(), open.place.clone());
        let end = open.head.end_ms.map(|end_ms| end_ms.to_string());
        if let Some(short) = open.short.take() {
            self.open = None;
            let mut command = texts(&[b"SET", &name, &short]);
            if let Some(end) = end {
                command.extend(texts(&[b"PXAT", end.as_bytes()]));
            }
            return self.push(command);
        }
        if let Some(stream) = open.head.stream.take() {
            self.stream(&place, &stream, closed.elements)?;
        }
        // With the name the place is gone: nothing that came before may be sent again then.
        let is_begun_before = self.open.as_ref().is_some_and(|open| open.is_begun_before);
        let room = self.batch.len() + 2 <= self.to.at_once();
        if is_begun_before || !room {
            self.flush()?;
        }
        let is_alone = self.open.take().is_some_and(|open| open.is_begun_before);
        if let Some(end) = end {
            self.push(texts(&[b"PEXPIREAT", &place, end.as_bytes()]))?;
        }
        self.push(texts(&[b"RENAME", &place, &name]))?;
        if is_alone { self.flush() } else { Ok(()) }
    }

    fn void(&mut self) -> Result<(), RedisError> {
        let open = self.open.take().ok_or_else(order)?;
        if open.short.is_some() { Ok(()) } else { self.push(texts(&[b"DEL", &open.place])) }
    }
}
