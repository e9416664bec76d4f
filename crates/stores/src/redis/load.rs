//! A restored directory into a running server: every key as the throwaway server on the directory hands it out, with its own
//! end, and afterwards a dump of the running one as the proof.
//!
//! Memory: 4 MiB of values at a time, or the largest single one twice.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::human;
use lifeboat_base::monitor::Monitor;
use lifeboat_base::time::Clock;
use lifeboat_redis::census::{page, shown};
use lifeboat_redis::rdb::{self, Item, RdbError, Survey};
use lifeboat_redis::replication::full_sync;
use lifeboat_redis::server::{Programs, Sandbox, SandboxOptions, Wait};
use lifeboat_redis::wire::{ConnectOptions, Connection, RedisError, Reply};

use super::checks::Work;
use super::{error, layout};
use crate::load::Loaded;

/// How much is on its way at a time; a larger value goes alone.
const BATCH_BYTES: u64 = 4 * 1024 * 1024;
/// The largest value as a server hands it out: no server takes a longer argument.
const VALUE_LIMIT_BYTES: usize = 512 * 1024 * 1024 + 1024;
/// How long the throwaway server may take to load, and to save.
const LIMIT: Duration = Duration::from_secs(3 * 3600);
/// What ends within this time of the comparison is not compared: the server may have let it go.
const ENDS_TOO_SOON_MS: i64 = 3_600_000;

fn asked(failed: RedisError) -> Failure {
    error::connection("the server could not be filled")(failed)
}

/// Refuses what is no empty primary by itself.
pub(super) fn ready(options: &ConnectOptions, force: bool) -> Result<(), Failure> {
    let mut connection =
        Connection::open(options).map_err(error::connection("the server cannot be filled"))?;
    let refused =
        |what: String| Err(Failure::new(FailureKind::Refused, format!("{what}: nothing was changed")));
    let info = |connection: &mut Connection, section: &str| {
        connection.info(section).map_err(error::connection("the server cannot be looked at"))
    };
    if info(&mut connection, "replication")?.get("role") != Some("master") {
        return refused(format!("{} is a replica, which takes no writes", options.target()));
    }
    if info(&mut connection, "server")?.get("redis_mode") == Some("cluster") {
        return refused(format!("{} is part of a cluster, which keeps only its own slots", options.target()));
    }
    let keys = keys(&mut connection)?;
    if keys > 0 && !force {
        let count = human::count(keys);
        return refused(format!(
            "{} holds {count} keys; an empty server is filled, and with --force one whose content may go",
            options.target()
        ));
    }
    Ok(())
}

fn keys(connection: &mut Connection) -> Result<u64, Failure> {
    let info = connection.info("keyspace").map_err(error::connection("the server cannot be looked at"))?;
    let of = |text: &str| text.split(',').find_map(|part| part.strip_prefix("keys=")?.parse::<u64>().ok());
    Ok(info.fields().filter(|(name, _)| name.starts_with("db")).filter_map(|(_, text)| of(text)).sum())
}

/// Fills the server and compares.
pub(super) fn load(
    (restored, programs, databases): (&Path, &[PathBuf], u64),
    options: &ConnectOptions,
    force: bool,
    (clock, monitor): (&dyn Clock, &dyn Monitor),
) -> Result<Loaded, Failure> {
    let programs =
        Programs::find(programs).map_err(error::server("what was restored cannot be handed to a server"))?;
    let io = |error| Failure::io("failed to make room for a throwaway server", error);
    let restored = fs::canonicalize(restored).map_err(io)?;
    let work = Work::make(&restored).map_err(io)?;
    let cancelled = || monitor.cancelled();
    let wait = Wait { limit: LIMIT, clock, cancelled: &cancelled };
    let sandbox_options =
        SandboxOptions { runtime: None, work: work.0.clone(), append_only: true, databases };
    let sandbox = Sandbox::start(&programs, &sandbox_options, &OsEntropy, wait)
        .map_err(error::server("a throwaway server does not start on what was restored"))?;
    // Once more: time has passed.
    ready(options, force)?;
    let mut to = Connection::open(options).map_err(asked)?;
    to.set_reply_limit(VALUE_LIMIT_BYTES);
    if force && keys(&mut to)? > 0 {
        to.ask("FLUSHALL").map_err(asked)?;
    }
    monitor.phase("filling the server", None);
    let mut loading = Loading { from: opened(&sandbox)?, to, monitor, items: 0, bytes: 0, passed: 0 };
    let filled = loading.everything(force).and_then(|()| {
        monitor.phase("comparing the server with what was restored", None);
        compare(&sandbox, &work.0, options, clock)
    });
    let compared = filled.map_err(|failure| {
        let what = format!(
            "{} holds part of what was restored, or something else: fill it again with --force",
            options.target()
        );
        Failure::with_source(FailureKind::Findings, what, failure)
    })?;
    let Loading { items, bytes, passed, .. } = loading;
    Ok(Loaded { server: options.target(), items, bytes, passed, compared, ..Loaded::default() })
}

fn opened(sandbox: &Sandbox) -> Result<Connection, Failure> {
    let mut connection =
        sandbox.connect().map_err(error::connection("the throwaway server takes no connection"))?;
    connection.set_reply_limit(VALUE_LIMIT_BYTES);
    Ok(connection)
}

struct Loading<'a> {
    from: Connection,
    to: Connection,
    monitor: &'a dyn Monitor,
    items: u64,
    bytes: u64,
    passed: u64,
}

impl Loading<'_> {
    fn everything(&mut self, force: bool) -> Result<(), Failure> {
        if !self.from.ask("FUNCTION LIST").map_err(asked)?.members().is_empty() {
            let functions = self.from.ask("FUNCTION DUMP").map_err(asked)?;
            let payload = functions.bytes().unwrap_or_default();
            // Libraries of others stay where nobody said that they may go.
            let way: &[u8] = if force { b"FLUSH" } else { b"APPEND" };
            self.to.command(&[b"FUNCTION", b"RESTORE", payload, way]).map_err(asked)?;
        }
        let all = keys(&mut self.from)?;
        let info = self.from.info("keyspace").map_err(asked)?;
        let databases: Vec<u64> =
            info.fields().filter_map(|(name, _)| name.strip_prefix("db")?.parse().ok()).collect();
        for database in databases {
            for connection in [&mut self.from, &mut self.to] {
                connection.ask(&format!("SELECT {database}")).map_err(asked)?;
            }
            let mut cursor = b"0".to_vec();
            loop {
                let names = page(&mut self.from, &mut cursor).map_err(asked)?;
                self.page(&names)?;
                if self.monitor.cancelled() {
                    return Err(Failure::new(FailureKind::Refused, "cancelled"));
                }
                if cursor == b"0" {
                    break;
                }
            }
        }
        // Counted and not handed out: their time is over.
        self.passed = all.saturating_sub(self.items);
        Ok(())
    }

    /// Sends keys in batches of about so many bytes.
    fn page(&mut self, names: &[Vec<u8>]) -> Result<(), Failure> {
        let sizes: Vec<[&[u8]; 5]> =
            names.iter().map(|name| [b"MEMORY".as_slice(), b"USAGE", name, b"SAMPLES", b"5"]).collect();
        let sizes = self.from.commands(sizes.iter().map(<[&[u8]; 5]>::as_slice)).map_err(asked)?;
        let mut batch: Vec<&[u8]> = Vec::new();
        let mut batch_bytes = 0;
        for (name, answer) in names.iter().zip(sizes) {
            let size_bytes = answer.integer().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default();
            if batch_bytes + size_bytes > BATCH_BYTES && !batch.is_empty() {
                self.batch(&batch)?;
                (batch, batch_bytes) = (Vec::new(), 0);
            }
            batch.push(name);
            batch_bytes += size_bytes;
        }
        self.batch(&batch)
    }

    fn batch(&mut self, names: &[&[u8]]) -> Result<(), Failure> {
        let questions: Vec<[&[u8]; 2]> = names
            .iter()
            .flat_map(|name| [[b"DUMP".as_slice(), name], [b"PEXPIRETIME".as_slice(), name]])
            .collect();
        let answers = self.from.commands(questions.iter().map(<[&[u8]; 2]>::as_slice)).map_err(asked)?;
        let mut values = Vec::new();
        for (name, pair) in names.iter().zip(answers.chunks(2)) {
            let [dump, end] = pair else { continue };
            // A replica does not show what has ended.
            if let Some(bytes) = dump.bytes() {
                let end = end.integer().filter(|end| *end > 0).unwrap_or_default();
                values.push((*name, end.to_string(), bytes));
            }
        }
        let commands: Vec<[&[u8]; 6]> = values
            .iter()
            .map(|(name, end, bytes)| {
                [b"RESTORE".as_slice(), name, end.as_bytes(), bytes, b"REPLACE", b"ABSTTL"]
            })
            .collect();
        let answers = self.to.commands(commands.iter().map(<[&[u8]; 6]>::as_slice)).map_err(asked)?;
        for ((name, _, bytes), answer) in values.iter().zip(answers) {
            if let Reply::Error(source) = answer {
                let error = RedisError::Server { command: "RESTORE".to_owned(), source };
                let what = format!("the server does not take the key {}", shown(name));
                return Err(Failure::with_source(FailureKind::Findings, what, error));
            }
            self.items += 1;
            self.bytes += bytes.len() as u64;
        }
        self.monitor.advance(0, values.len() as u64);
        Ok(())
    }
}

/// A dump of the running server against one of the throwaway server; gives how many keys were compared.
fn compare(
    sandbox: &Sandbox,
    work: &Path,
    options: &ConnectOptions,
    clock: &dyn Clock,
) -> Result<u64, Failure> {
    let after_ms = clock.now().as_millisecond() + ENDS_TOO_SOON_MS;
    let running = {
        let sync = full_sync(options, true)
            .map_err(error::connection("the server cannot be compared: it gives no dump"))?;
        survey(sync, after_ms).map_err(error::dump("the dump of the server cannot be read"))?
    };
    if clock.now().as_millisecond() > after_ms {
        let what = "comparing took so long that keys may have ended meanwhile";
        return Err(Failure::new(FailureKind::Findings, what));
    }
    sandbox.save(LIMIT).map_err(error::server("the throwaway server could not save what it holds"))?;
    let file = File::open(work.join("dump.rdb"))
        .map_err(|error| Failure::io("failed to read what was saved", error))?;
    let wanted = survey(BufReader::new(file), after_ms)
        .map_err(error::dump("what the throwaway server saved cannot be read"))?;
    let same = running.databases == wanted.databases
        && (running.functions, running.function_sum) == (wanted.functions, wanted.function_sum);
    if !same {
        let what = format!(
            "the server holds something else than what was restored: {} keys against {}",
            human::count(running.keys()),
            human::count(wanted.keys())
        );
        return Err(Failure::new(FailureKind::Findings, what));
    }
    if wanted.opaque > 0 {
        let what = "modules keep something that cannot be compared";
        return Err(Failure::new(FailureKind::Findings, what));
    }
    Ok(wanted.keys())
}

/// What a dump amounts to, without the keys that end before this moment.
fn survey(source: impl std::io::Read, after_ms: i64) -> Result<Survey, RdbError> {
    let mut survey = Survey::default();
    rdb::read(source, &mut |item| match &item {
        Item::Key(key) if key.expires_ms.is_some_and(|end| end <= after_ms) => {}
        _ => survey.add(&item, after_ms),
    })?;
    Ok(survey)
}

/// How many databases the restored configuration asks for.
pub(super) fn databases(restored: &Path) -> u64 {
    let text = fs::read_to_string(restored.join(layout::CONFIGURATION)).unwrap_or_default();
    let said = text.lines().find_map(|line| line.strip_prefix("databases ")?.parse().ok());
    said.unwrap_or(layout::USUAL_DATABASES)
}
