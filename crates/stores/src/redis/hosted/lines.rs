//! Keys as lines of JSON.
//!
//! A line that has `key` opens a key, one that has `digest` closes it; small keys need one line. Texts are strings where they
//! are UTF-8 without many control characters, else `{"base64": …}`. A line ends behind a megabyte, or behind one element that is larger.

use std::fmt::Write as _;
use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lifeboat_redis::rdb::Kind;
use lifeboat_redis::scan::{Closed, Head, Part, Sink, StreamHead};
use serde_json::json;

/// The format's name.
pub(super) const FORMAT: &str = "lifeboat.redis-scan/v1";
/// Where a line ends that could go on.
const LINE_BYTES: usize = 1024 * 1024;

/// Writes keys to `out`.
pub(super) struct LineSink<W> {
    out: W,
    line: Vec<u8>,
    /// Whether a line of the key that is open was written already.
    is_begun: bool,
    /// Whether the list of values in the line is open.
    has_values: bool,
}

/// A control character takes six bytes as text; with so many of them in a hundred base64 is shorter.
const MAX_CONTROLS_PERCENT: usize = 7;

/// Whether bytes are for people to read.
fn is_plain(bytes: &[u8]) -> bool {
    let controls = bytes.iter().filter(|byte| byte.is_ascii_control()).count();
    controls * 100 <= bytes.len() * MAX_CONTROLS_PERCENT || bytes.len() < 16
}

/// A text as JSON.
fn text(line: &mut Vec<u8>, bytes: &[u8]) -> io::Result<()> {
    match std::str::from_utf8(bytes) {
        Ok(text) if is_plain(bytes) => serde_json::to_writer(line, text).map_err(io::Error::from),
        _ => write!(line, "{{\"base64\":\"{}\"}}", STANDARD.encode(bytes)),
    }
}

fn value(bytes: &[u8]) -> serde_json::Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_binary) => json!({ "base64": STANDARD.encode(bytes) }),
    }
}

impl<W: Write> LineSink<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, line: Vec::new(), is_begun: false, has_values: false }
    }

    /// A line that belongs to no key.
    pub(super) fn other(&mut self, line: &serde_json::Value) -> io::Result<()> {
        writeln!(self.out, "{line}")
    }

    /// The header's form of a text.
    pub(super) fn text(bytes: &[u8]) -> serde_json::Value {
        value(bytes)
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Ends the line and begins another.
    fn turn(&mut self) -> io::Result<()> {
        self.line.extend_from_slice(b"]}\n");
        self.out.write_all(&self.line)?;
        self.line.clear();
        self.line.extend_from_slice(b"{\"more\":[");
        self.is_begun = true;
        Ok(())
    }

    /// One element of the list of values.
    fn element(&mut self, fill: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> io::Result<()> {
        if !self.has_values {
            self.line.extend_from_slice(b",\"values\":[");
            self.has_values = true;
        } else if self.line.len() > LINE_BYTES {
            self.turn()?;
        } else if !self.line.ends_with(b"[") {
            self.line.push(b',');
        }
        fill(&mut self.line)
    }
}

/// What a stream has beside its entries.
fn stream(head: &StreamHead) -> serde_json::Value {
    let groups: Vec<_> = head
        .groups
        .iter()
        .map(|group| {
            let pending: Vec<_> = group
                .pending
                .iter()
                .map(|one| json!([one.id.to_string(), one.consumer, one.delivered_ms, one.deliveries]))
                .collect();
            let consumers: Vec<_> = group.consumers.iter().map(|name| value(name)).collect();
            json!({
                "name": value(&group.name), "last": group.last.to_string(), "read": group.read,
                "consumers": consumers, "pending": pending,
            })
        })
        .collect();
    json!({
        "last": head.last.to_string(), "max_deleted": head.max_deleted.to_string(), "added": head.added,
        "groups": groups,
    })
}

impl<W: Write> Sink for LineSink<W> {
    type Error = io::Error;

    fn open(&mut self, head: &Head) -> io::Result<()> {
        let line = &mut self.line;
        line.clear();
        write!(line, "{{\"db\":{},\"key\":", head.db)?;
        text(line, &head.name)?;
        write!(line, ",\"type\":\"{}\"", head.kind.word())?;
        if let Some(end_ms) = head.end_ms {
            write!(line, ",\"end_ms\":{end_ms}")?;
        }
        if head.kind == Kind::String {
            write!(line, ",\"bytes\":{}", head.string_bytes)?;
        }
        if let Some(of) = &head.stream {
            write!(line, ",\"stream\":{}", stream(of))?;
        }
        (self.is_begun, self.has_values) = (false, false);
        Ok(())
    }

    fn part(&mut self, part: &Part) -> io::Result<()> {
        match part {
            Part::Bytes(bytes) => self.element(|line| text(line, bytes)),
            Part::Items(items) => items.iter().try_for_each(|item| self.element(|line| text(line, item))),
            Part::Pairs(pairs) => pairs.iter().try_for_each(|(field, value)| {
                self.element(|line| {
                    line.push(b'[');
                    text(line, field)?;
                    line.push(b',');
                    text(line, value)?;
                    line.push(b']');
                    Ok(())
                })
            }),
            Part::Scored(members) => members.iter().try_for_each(|(member, score)| {
                self.element(|line| {
                    line.push(b'[');
                    text(line, member)?;
                    write!(line, ",\"{score}\"]")
                })
            }),
            Part::Entries(entries) => entries.iter().try_for_each(|entry| {
                self.element(|line| {
                    write!(line, "[\"{}\",[", entry.id)?;
                    for (index, (field, value)) in entry.fields.iter().enumerate() {
                        if index > 0 {
                            line.push(b',');
                        }
                        text(line, field)?;
                        line.push(b',');
                        text(line, value)?;
                    }
                    line.extend_from_slice(b"]]");
                    Ok(())
                })
            }),
        }
    }

    fn close(&mut self, closed: &Closed) -> io::Result<()> {
        if self.has_values {
            self.line.push(b']');
        }
        let mut digest = String::with_capacity(64);
        for byte in closed.digest {
            write!(digest, "{byte:02x}").map_err(io::Error::other)?;
        }
        writeln!(self.line, ",\"elements\":{},\"digest\":\"{digest}\"}}", closed.elements)?;
        self.out.write_all(&self.line)?;
        self.line.clear();
        Ok(())
    }

    fn void(&mut self) -> io::Result<()> {
        self.line.clear();
        if self.is_begun {
            self.out.write_all(b"{\"void\":true}\n")?;
        }
        Ok(())
    }
}
