//! One consistent state of a server's files as a capture.
//!
//! Everything is read through before the first entry is given: what is damaged is refused by name, and nothing of it is
//! stored. Nothing is staged; the files are held open.

use std::collections::{BTreeMap, VecDeque};
use std::io::Cursor;

use lifeboat_base::capture::{
    Body, Capture, CaptureFacts, Consistency, ConsistencyLevel, DATA, Entry, Layout, META, Meta,
};
use lifeboat_base::digest::Digest;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::human;
use lifeboat_base::monitor::Monitor;
use lifeboat_base::path::RelPath;
use lifeboat_base::time::Timestamp;
use lifeboat_redis::files::{Chosen, Origin, Part, Reading};
use serde_json::json;

use super::adapter::{failed, version};
use crate::redis::capture::{COMMANDS, DUMP, KEYS, describe, path};
use crate::redis::checks::COUNT;
use crate::redis::restore::COMMANDS_SHA256;
use crate::redis::{facts, layout};

/// A capture of one server's files.
pub(super) struct FilesCapture {
    reading: Reading,
    version: Option<String>,
    rest: VecDeque<Entry>,
    described: Digest,
    notice: Option<String>,
    lost: Option<String>,
}

impl FilesCapture {
    /// Reads everything through. `asked` is the clock before the files were chosen.
    pub(super) fn start(chosen: Chosen, asked: Timestamp) -> Result<Self, Failure> {
        let notice = chosen.younger_dump().map(|dump| {
            format!("{dump} was made after the last change of the log; the log is taken, as the configuration says")
        });
        let version = version(&chosen);
        let reading = chosen.read(asked).map_err(failed("the files of the server cannot be taken"))?;
        let text = describe(&reading.survey)?;
        let described = Digest::of(&text);
        let meta = |mode| Meta { mode, mtime: Some(asked), links: 1, ..Meta::default() };
        let file = |name: String, part: &Part| {
            let body =
                Body::File { reader: Box::new(part.open()), size_hint: part.bytes, layout: Layout::Stream };
            Ok::<_, Failure>(Entry { path: path(&name)?, meta: meta(0o600), body })
        };
        let dir =
            |name: &str| Ok::<_, Failure>(Entry { path: path(name)?, meta: meta(0o700), body: Body::Dir });
        let mut rest = VecDeque::from([dir(DATA)?]);
        if let Some(commands) = &reading.commands {
            rest.push_back(file(format!("{DATA}/{COMMANDS}"), commands)?);
        }
        rest.push_back(file(format!("{DATA}/{DUMP}"), &reading.dump)?);
        rest.push_back(dir(META)?);
        let size_hint = text.len() as u64;
        let body = Body::File { reader: Box::new(Cursor::new(text)), size_hint, layout: Layout::Stream };
        rest.push_back(Entry { path: path(&format!("{META}/{KEYS}"))?, meta: meta(0o600), body });
        Ok(Self { reading, version, rest, described, notice, lost: None })
    }

    fn bytes(&self) -> u64 {
        self.reading.dump.bytes + self.reading.commands.as_ref().map_or(0, |part| part.bytes)
    }
}

impl Capture for FilesCapture {
    fn total_bytes(&self) -> Option<u64> {
        Some(self.bytes())
    }

    fn next_entry(&mut self, monitor: &dyn Monitor) -> Result<Option<Entry>, Failure> {
        if let Some(why) = &self.lost {
            let what = format!("the files of the server could not be read again: {why}");
            return Err(Failure::new(FailureKind::Unreachable, what));
        }
        if let Some(notice) = self.notice.take() {
            monitor.notice(&notice);
        }
        Ok(self.rest.pop_front())
    }

    fn lost(&mut self, path: &RelPath, why: &str) {
        self.lost = Some(format!("{path}: {why}"));
    }

    fn finish(self: Box<Self>) -> Result<CaptureFacts, Failure> {
        if self.lost.is_some() || !self.rest.is_empty() {
            return Err(Failure::new(FailureKind::Internal, "the files were left before their end"));
        }
        let logical_bytes = self.bytes();
        let reading = &self.reading;
        let (mut counts, mut checksums) = facts::numbers(&reading.survey);
        let mut environment = BTreeMap::new();
        facts::note_dump(&mut environment, &reading.survey);
        let mut note = |name: &str, value| environment.insert(format!("redis.{name}"), value);
        note("capture", json!("files"));
        note("origin", json!(reading.origin.word()));
        note("version", json!(self.version));
        note("dump_sha256", json!(reading.dump.sha256));
        note("keys_sha256", json!(self.described));
        note("databases", json!(reading.databases.max(layout::USUAL_DATABASES)));
        note("begun", json!(reading.moment));
        if let Some(commands) = &reading.commands {
            note("cut_bytes", json!(reading.cut_bytes));
            environment.insert(COMMANDS_SHA256.to_owned(), json!(commands.sha256));
            if reading.count > 0 {
                // What commands make of the dump is known to a server only.
                environment.insert("redis.base_counts".to_owned(), json!(counts));
                environment.insert("redis.base_checksums".to_owned(), json!(checksums));
                (counts, checksums) = (BTreeMap::new(), BTreeMap::new());
            }
            counts.insert(COUNT.to_owned(), reading.count);
        }
        let position = match reading.origin {
            Origin::Dump => None,
            Origin::Log | Origin::OldLog => Some(format!("{} commands", human::count(reading.count))),
        };
        Ok(CaptureFacts {
            consistency: Consistency {
                level: ConsistencyLevel::PointInTime,
                moment: reading.moment,
                position,
                changes: 0,
            },
            logical_bytes,
            counts,
            checksums,
            environment,
            unreadable: Vec::new(),
        })
    }
}
