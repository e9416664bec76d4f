//! The stream of commands a server sends to its replicas: where one ends, and which belong together.
//!
//! In: the stream in pieces of any size. Out: each command's place, name and first argument, and the offsets at which the
//! stream may be cut: never inside a command, never between `MULTI` and its `EXEC`. Memory: constant, whatever the
//! length of an argument.

/// How much of a command's name and first argument is kept.
const WORD_BYTES: usize = 32;
/// The longest line that announces a number.
const LINE_BYTES: usize = 24;
/// The longest argument a server takes, far above its usual limit of 512 MiB.
const MAX_ARGUMENT_BYTES: u64 = 64 * 1024 * 1024 * 1024;
/// The most arguments a server takes.
const MAX_ARGUMENTS: u64 = 1 << 31;
/// The longest line with a note in a file of commands.
const MAX_NOTE_BYTES: usize = 1024;

/// Bytes that are no commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream of commands is malformed at offset {at}: {what}")]
pub struct CommandError {
    /// The offset at which it was noticed.
    pub at: u64,
    /// What was wrong.
    pub what: &'static str,
}

/// The first bytes of an argument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Word {
    bytes: [u8; WORD_BYTES],
    length: usize,
}

impl Word {
    /// Its bytes, at most 32.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// Whether it is this word, in letters of any case.
    pub fn is(&self, word: &str) -> bool {
        self.bytes().eq_ignore_ascii_case(word.as_bytes())
    }

    fn push(&mut self, bytes: &[u8]) {
        for (place, byte) in self.bytes.iter_mut().skip(self.length).zip(bytes) {
            *place = *byte;
            self.length += 1;
        }
    }
}

/// A whole command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// The offset of its first byte.
    pub start: u64,
    /// The offset after its last.
    pub end: u64,
    /// Its name.
    pub name: Word,
    /// Its first argument; empty if it has none.
    pub first: Word,
    /// How many words it has, its name included.
    pub words: u64,
    /// The stream may be cut after it.
    pub closes: bool,
}

impl Command {
    /// Whether it only serves the connection: `PING`, and `REPLCONF` by which a server asks for a report.
    pub fn is_housekeeping(&self) -> bool {
        self.name.is("PING") || self.name.is("REPLCONF")
    }

    /// The database it selects, if it is a `SELECT`.
    pub fn selects(&self) -> Option<u64> {
        let text = std::str::from_utf8(self.first.bytes()).ok();
        text.filter(|_| self.name.is("SELECT"))?.parse().ok()
    }
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// A line that announces arguments or an argument's length is being read.
    Line(Word),
    /// A note of a file of commands, and how long it is so far.
    Note(Word, usize),
    /// So many bytes of an argument are still to come.
    Argument(u64),
    /// The end of an argument.
    Return,
    Newline,
}

/// Finds commands in a stream.
#[derive(Clone, Debug)]
pub struct Scanner {
    state: State,
    offset: u64,
    start: u64,
    /// The end of the last command after which the stream may be cut.
    boundary: u64,
    /// Words of the command that is being read: announced and complete.
    words: u64,
    done: u64,
    name: Word,
    first: Word,
    in_unit: bool,
    /// Lines of notes may stand between commands.
    notes: bool,
    noted_s: Option<i64>,
}

impl Scanner {
    /// Begins at a file's first byte. Unlike a stream, a file may hold notes: lines that begin with `#`.
    pub fn of_file() -> Self {
        Self { notes: true, ..Self::new(0) }
    }

    /// The last time that a note before the last boundary or after it has told, in seconds since 1970.
    pub fn noted_s(&self) -> Option<i64> {
        self.noted_s
    }

    /// Begins at a command's first byte, at `offset`.
    pub fn new(offset: u64) -> Self {
        let word = Word::default();
        Self {
            state: State::Line(word),
            offset,
            start: offset,
            boundary: offset,
            words: 0,
            done: 0,
            name: word,
            first: word,
            in_unit: false,
            notes: false,
            noted_s: None,
        }
    }

    /// The offset after everything that was taken.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The last offset at which the stream may be cut.
    pub fn boundary(&self) -> u64 {
        self.boundary
    }

    /// Takes the stream's next bytes and shows each command that ends in them.
    pub fn push(&mut self, bytes: &[u8], visit: &mut dyn FnMut(&Command)) -> Result<(), CommandError> {
        let mut rest = bytes;
        while let Some((byte, tail)) = rest.split_first() {
            if let State::Argument(left) = self.state {
                let count = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                let (now, later) = rest.split_at(count);
                match self.done {
                    0 => self.name.push(now),
                    1 => self.first.push(now),
                    _ => {}
                }
                self.offset += count as u64;
                let left = left - count as u64;
                self.state = if left == 0 { State::Return } else { State::Argument(left) };
                rest = later;
                continue;
            }
            self.offset += 1;
            rest = tail;
            self.step(*byte, visit)?;
        }
        Ok(())
    }

    fn step(&mut self, byte: u8, visit: &mut dyn FnMut(&Command)) -> Result<(), CommandError> {
        let mark = self.mark();
        match (&mut self.state, byte) {
            (State::Line(line), b'#') if self.notes && self.words == 0 && line.length == 0 => {
                self.state = State::Note(Word::default(), 0);
                Ok(())
            }
            (State::Note(note, _), b'\n') => {
                let text = std::str::from_utf8(note.bytes()).ok();
                let told = text.and_then(|text| text.trim_end().strip_prefix("TS:")?.parse().ok());
                self.noted_s = told.or(self.noted_s);
                self.state = State::Line(Word::default());
                self.start = self.offset;
                if !self.in_unit {
                    self.boundary = self.offset;
                }
                Ok(())
            }
            (State::Note(note, length), _) if *length < MAX_NOTE_BYTES => {
                note.push(&[byte]);
                *length += 1;
                Ok(())
            }
            (State::Note(..), _) => Err(self.malformed("a note that is too long")),
            (State::Line(line), b'\n') => {
                let line = *line;
                self.announced(&line)
            }
            // At once: what cannot begin is not something that was cut.
            (State::Line(line), _) if line.length == 0 && byte != mark => {
                Err(self.malformed("no command where one should begin or go on"))
            }
            (State::Line(line), _) if line.length < LINE_BYTES => {
                line.push(&[byte]);
                Ok(())
            }
            (State::Line(_), _) => Err(self.malformed("a line that is too long")),
            (State::Return, b'\r') => {
                self.state = State::Newline;
                Ok(())
            }
            (State::Newline, b'\n') => {
                self.done += 1;
                self.state = State::Line(Word::default());
                if self.done == self.words {
                    self.complete(visit);
                }
                Ok(())
            }
            _ => Err(self.malformed("an argument that is not as long as it says")),
        }
    }

    /// What the next line begins with.
    fn mark(&self) -> u8 {
        if self.words == 0 { b'*' } else { b'$' }
    }

    fn announced(&mut self, line: &Word) -> Result<(), CommandError> {
        let digits = line.bytes().strip_suffix(b"\r").and_then(|line| line.strip_prefix(&[self.mark()]));
        let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_digit));
        let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u64>().ok());
        match number {
            Some(words) if self.words == 0 && (1..=MAX_ARGUMENTS).contains(&words) => {
                self.words = words;
                self.state = State::Line(Word::default());
            }
            Some(0) if self.words > 0 => self.state = State::Return,
            Some(length) if self.words > 0 && length <= MAX_ARGUMENT_BYTES => {
                self.state = State::Argument(length);
            }
            _ => return Err(self.malformed("no command where one should begin or go on")),
        }
        Ok(())
    }

    fn complete(&mut self, visit: &mut dyn FnMut(&Command)) {
        if self.name.is("MULTI") {
            self.in_unit = true;
        } else if self.name.is("EXEC") {
            self.in_unit = false;
        }
        let closes = !self.in_unit;
        let (start, end, words) = (self.start, self.offset, self.words);
        let command = Command { start, end, name: self.name, first: self.first, words, closes };
        self.start = self.offset;
        (self.words, self.done) = (0, 0);
        (self.name, self.first) = (Word::default(), Word::default());
        if closes {
            self.boundary = self.offset;
        }
        visit(&command);
    }

    fn malformed(&self, what: &'static str) -> CommandError {
        CommandError { at: self.offset, what }
    }
}
