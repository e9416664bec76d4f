//! Checks of a restored directory: its files, the server's own tools, and what a throwaway server makes of it.
//!
//! The server runs as a replica of nobody, so that no key ends while we look, and what it has loaded is saved and read
//! by the reader of the capture. Scratch space: another dump, in the restored directory and gone at the end.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_base::capture::{CaptureFacts, META, RestoreSource};
use lifeboat_base::crashsafe;
use lifeboat_base::digest::digest_of_reader;
use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::failure::{Failure, chain};
use lifeboat_base::monitor::Monitor;
use lifeboat_base::path::RelPath;
use lifeboat_base::time::Clock;
use lifeboat_redis::rdb::Survey;
use lifeboat_redis::server::{Programs, Sandbox, SandboxError, SandboxOptions, Wait};
use serde_json::Value;

use super::capture::KEYS as KEYS_FILE;
use super::restore::{COMMANDS_SHA256, databases};
use super::{commands, error, facts, layout};
use crate::adapter::{CheckResult, CheckState};
use crate::tally::{Tally, equal, failed, not_applicable};

pub(super) const FILES: &str = "redis.files";
pub(super) const CHECK_RDB: &str = "redis.check_rdb";
pub(super) const CHECK_AOF: &str = "redis.check_aof";
pub(super) const START: &str = "redis.start";
pub(super) const DATABASES: &str = "redis.databases";
pub(super) const KEYS: &str = "redis.keys";
pub(super) const TYPES: &str = "redis.types";
pub(super) const EXPIRING: &str = "redis.expiring";
pub(super) const CONTENT: &str = "redis.content";
pub(super) const FUNCTIONS: &str = "redis.functions";
/// An older point and the stream of commands up to this one's place are what this one captured.
pub(super) const STREAM: &str = "redis.stream";

/// The number of commands that were captured behind a dump.
pub(super) const COUNT: &str = "commands";

/// The sandbox's working directory, inside the restored one.
const WORK: &str = "lifeboat-sandbox";
/// How long loading, saving and the tools may take each: 512 GiB at 50 MB/s.
const LIMIT: Duration = Duration::from_secs(3 * 3600);
/// How long a throwaway server may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// What is checked, and with what.
pub(super) struct Subject<'a> {
    pub(super) facts: &'a CaptureFacts,
    pub(super) programs: &'a [PathBuf],
    pub(super) commands: &'a [String],
    pub(super) clock: &'a dyn Clock,
    pub(super) monitor: &'a dyn Monitor,
}

/// Runs every check. One that needs a server where none is installed is not applicable.
pub(super) fn check(
    subject: &Subject<'_>,
    from: &dyn RestoreSource,
    restored: &Path,
) -> Result<Vec<CheckResult>, Failure> {
    // The tools and the server work elsewhere.
    let restored = &fs::canonicalize(restored)
        .map_err(|error| Failure::io(format!("failed to find {}", restored.display()), error))?;
    subject.monitor.phase("checking the files", None);
    let mut results = vec![files(subject, from, restored)];
    let programs = match Programs::find(subject.programs) {
        Ok(programs) => programs,
        Err(error) => {
            let why = chain(&error);
            let families = [CHECK_RDB, CHECK_AOF, START];
            results.extend(families.map(|id| not_applicable(id, "a pass", &why)));
            results.extend(unproven(subject, &why));
            return Ok(results);
        }
    };
    let work =
        Work::make(restored).map_err(|error| Failure::io("failed to make room for a server", error))?;
    let cancelled = || subject.monitor.cancelled();
    let wait = Wait { limit: LIMIT, clock: subject.clock, cancelled: &cancelled };
    subject.monitor.phase("checking with the server's own tools", None);
    for (id, tool, file) in [
        (CHECK_RDB, "redis-check-rdb", layout::base(restored)),
        (CHECK_AOF, "redis-check-aof", layout::list(restored)),
    ] {
        results.push(pass(id, split(programs.run(tool, &file, &work.0, wait))?));
    }
    subject.monitor.phase("starting a throwaway server", None);
    match split(Sandbox::start(&programs, &work.options(subject.facts), &OsEntropy, wait))? {
        Ok(sandbox) => {
            results.push(pass(START, Ok(())));
            results.extend(inside(subject, restored, &sandbox, &work.0)?);
            sandbox
                .stop(Wait::for_at_most(STOP_LIMIT, subject.clock))
                .map_err(error::server("failed to stop the throwaway server"))?;
        }
        Err(error) => {
            results.push(pass(START, Err(error)));
            results.extend(unproven(subject, "the server did not start"));
        }
    }
    Ok(results)
}

/// A cancelled wait is a failure of the whole, anything else one of the check.
fn split<T>(outcome: Result<T, SandboxError>) -> Result<Result<T, SandboxError>, Failure> {
    match outcome {
        Err(error @ SandboxError::Cancelled) => Err(error::server("the checks were cancelled")(error)),
        other => Ok(other),
    }
}

fn pass(id: &str, outcome: Result<(), SandboxError>) -> CheckResult {
    match outcome {
        Ok(()) => Tally::default().result(id, "a pass", "a pass"),
        Err(error) => failed(id, "a pass", chain(&error)),
    }
}

/// The checks of content, when there is no server to look into.
fn unproven(subject: &Subject<'_>, why: &str) -> Vec<CheckResult> {
    let families = [DATABASES, KEYS, TYPES, EXPIRING, CONTENT, FUNCTIONS];
    let mut results: Vec<_> = families.map(|id| not_applicable(id, "as captured", why)).to_vec();
    for number in 1..=subject.commands.len() {
        results.push(not_applicable(&format!("{}/{number}", commands::COMMAND), "a pass", why));
    }
    results
}

/// Every file is as it was restored, and no other is there.
fn files(subject: &Subject<'_>, from: &dyn RestoreSource, restored: &Path) -> CheckResult {
    let mut tally = Tally::default();
    let said = |name: &str| subject.facts.environment.get(name).and_then(Value::as_str);
    let described = RelPath::new(format!("{META}/{KEYS_FILE}")).ok().and_then(|path| from.open(&path).ok());
    match described.and_then(|mut file| digest_of_reader(&mut file).ok()) {
        Some((found, _bytes)) if said("redis.keys_sha256") == Some(found.to_string().as_str()) => {}
        _ => tally.add(|| format!("{KEYS_FILE} of the recovery point is missing or another")),
    }
    if facts::is_scan(subject.facts) {
        // It was made of keys: that it is whole is what its own checksum says, and what is in it is compared by a server.
        let found = File::open(layout::base(restored)).map(|file| Survey::read(file, 0));
        match found {
            Ok(Ok(survey)) if survey.about.checksummed => {}
            Ok(Ok(_)) => tally.add(|| format!("{}: it has no checksum", layout::BASE)),
            Ok(Err(error)) => tally.add(|| format!("{}: {}", layout::BASE, chain(&error))),
            Err(error) => tally.add(|| format!("{}: {error}", layout::BASE)),
        }
    } else {
        let sha256 = File::open(layout::base(restored)).and_then(|mut file| digest_of_reader(&mut file));
        match (sha256, said("redis.dump_sha256")) {
            (Ok((found, _bytes)), Some(expected)) if found.to_string() == expected => {}
            (Ok(_), Some(_)) => tally.add(|| format!("{}: its SHA-256 is another", layout::BASE)),
            (Ok(_), None) => tally.add(|| "the recovery point does not say what its dump is".to_owned()),
            (Err(error), _) => tally.add(|| format!("{}: {error}", layout::BASE)),
        }
    }
    if let Some(expected) = said(COMMANDS_SHA256).filter(|_| replayed(restored).is_none()) {
        let sha256 = File::open(layout::commands(restored)).and_then(|mut file| digest_of_reader(&mut file));
        match sha256 {
            Ok((found, _bytes)) if found.to_string() == expected => {}
            Ok(_) => tally.add(|| format!("{}: its SHA-256 is another", layout::COMMANDS)),
            Err(error) => tally.add(|| format!("{}: {error}", layout::COMMANDS)),
        }
    }
    match fs::read_to_string(layout::list(restored)) {
        Ok(text) if text == layout::LIST_TEXT => {}
        Ok(_) => tally.add(|| format!("{}: it lists something else", layout::LIST)),
        Err(error) => tally.add(|| format!("{}: {error}", layout::LIST)),
    }
    let expected = [layout::BASE, layout::COMMANDS, layout::LIST];
    match names(&layout::folder(restored)) {
        Ok(found) => {
            for name in expected.iter().filter(|name| !found.contains(**name)) {
                tally.add(|| format!("missing: {name}"));
            }
            for name in found.iter().filter(|name| !expected.contains(&name.as_str())) {
                tally.add(|| format!("extra: {name}"));
            }
        }
        Err(error) => tally.add(|| format!("{}: {error}", layout::FOLDER)),
    }
    let measured = if tally.count() == 0 { "base, commands and list" } else { "something else" };
    tally.result(FILES, measured, "base, commands and list")
}

fn names(folder: &Path) -> io::Result<BTreeSet<String>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Whether commands were put behind the base: then what is there is not what the point says.
fn replayed(restored: &Path) -> Option<String> {
    let text = fs::read_to_string(restored.join(layout::CONFIGURATION)).ok()?;
    text.lines().find_map(|line| line.strip_prefix(layout::REPLAYED)).map(str::to_owned)
}

/// Why what a server has is not what the dump holds, where commands follow it.
fn behind(facts: &CaptureFacts, restored: &Path) -> Option<String> {
    if let Some(to) = replayed(restored) {
        return Some(format!("commands up to {to} follow what was captured"));
    }
    let count = facts.counts.get(COUNT).copied().filter(|count| *count > 0)?;
    Some(format!("{count} captured commands follow the dump, and what they make of it was not counted"))
}

/// Looks into the running server.
fn inside(
    subject: &Subject<'_>,
    restored: &Path,
    sandbox: &Sandbox,
    work: &Path,
) -> Result<Vec<CheckResult>, Failure> {
    let mut results = Vec::new();
    let survey = surveyed(subject, sandbox, work)?;
    match behind(subject.facts, restored) {
        Some(why) => {
            let families = [DATABASES, KEYS, TYPES, EXPIRING, CONTENT, FUNCTIONS];
            results.extend(families.map(|id| not_applicable(id, "as captured", &why)));
        }
        None => results.extend(compare(subject.facts, &survey)),
    }
    let mut connection =
        sandbox.connect().map_err(error::connection("the throwaway server takes no connection"))?;
    for (index, text) in subject.commands.iter().enumerate() {
        results.push(commands::check(&mut connection, index + 1, text));
    }
    Ok(results)
}

/// Asks a throwaway server on `restored`, which works in the folder that is named second; the inner error is one that did not
/// start.
pub(super) fn with_server<T>(
    subject: &Subject<'_>,
    programs: &Programs,
    restored: &Path,
    ask: impl FnOnce(&Sandbox, &Path) -> Result<T, Failure>,
) -> Result<Result<T, SandboxError>, Failure> {
    let io = |error| Failure::io("failed to make room for a server", error);
    let restored = &fs::canonicalize(restored).map_err(io)?;
    let work = Work::make(restored).map_err(io)?;
    let cancelled = || subject.monitor.cancelled();
    let wait = Wait { limit: LIMIT, clock: subject.clock, cancelled: &cancelled };
    let sandbox = match split(Sandbox::start(programs, &work.options(subject.facts), &OsEntropy, wait))? {
        Ok(sandbox) => sandbox,
        Err(error) => return Ok(Err(error)),
    };
    let told = ask(&sandbox, &work.0)?;
    sandbox
        .stop(Wait::for_at_most(STOP_LIMIT, subject.clock))
        .map_err(error::server("failed to stop the throwaway server"))?;
    Ok(Ok(told))
}

/// What a throwaway server holds: it saves it, and the reader of the capture reads that.
fn surveyed(subject: &Subject<'_>, sandbox: &Sandbox, work: &Path) -> Result<Survey, Failure> {
    let saved =
        sandbox.save(LIMIT).map_err(error::server("the throwaway server could not save what it loaded"))?;
    let file =
        File::open(work.join(saved)).map_err(|error| Failure::io("failed to read what was saved", error))?;
    Survey::read(file, subject.clock.now().as_millisecond())
        .map_err(error::dump("what the throwaway server saved cannot be read"))
}

/// Compares a directory that was replayed up to the place of the subject's point with what that point captured.
pub(super) fn arrived(subject: &Subject<'_>, restored: &Path) -> Result<Vec<CheckResult>, Failure> {
    let place = subject.facts.consistency.position.clone().unwrap_or_default();
    let expected = format!("as captured at {place}");
    let programs = match Programs::find(subject.programs) {
        Ok(programs) => programs,
        Err(error) => return Ok(vec![not_applicable(STREAM, expected, chain(&error))]),
    };
    subject.monitor.phase("comparing the stream with the next point", None);
    let asked = with_server(subject, &programs, restored, |sandbox, work| surveyed(subject, sandbox, work))?;
    let survey = match asked {
        Ok(survey) => survey,
        Err(error) => return Ok(vec![failed(STREAM, expected, chain(&error))]),
    };
    if survey.opaque > 0 {
        let why = "modules keep something that cannot be compared";
        return Ok(vec![not_applicable(STREAM, expected, why)]);
    }
    let results = compare(subject.facts, &survey);
    let mut tally = Tally::default();
    for check in results.iter().filter(|check| check.state == CheckState::Failed) {
        tally.add(|| format!("{}: found {}, expected {}", check.id, check.measured, check.expected));
    }
    let measured = if tally.count() == 0 { expected.clone() } else { "something else".to_owned() };
    Ok(vec![tally.result(STREAM, measured, expected)])
}

/// What the server has against what was captured, both ways.
fn compare(facts: &CaptureFacts, survey: &Survey) -> Vec<CheckResult> {
    let (counts, checksums) = facts::numbers(survey);
    let opaque = facts.environment.get("redis.opaque").and_then(Value::as_u64).unwrap_or_default();
    let family = |id: &str, prefix: &str| {
        let wanted = facts.counts.iter().filter(|(name, _)| name.starts_with(prefix));
        let found = counts.iter().filter(|(name, _)| name.starts_with(prefix));
        let names: BTreeSet<&String> = wanted.chain(found).map(|(name, _)| name).collect();
        let mut tally = Tally::default();
        let (mut measured, mut expected) = (0, 0);
        for name in names {
            let of =
                |map: &std::collections::BTreeMap<String, u64>| map.get(name).copied().unwrap_or_default();
            let (found, wanted) = (of(&counts), of(&facts.counts));
            measured += found;
            expected += wanted;
            if found != wanted {
                tally.add(|| format!("{name}: found {found}, expected {wanted}"));
            }
        }
        tally.result(id, measured.to_string(), expected.to_string())
    };
    let of = |names: &dyn Fn(&str) -> Option<String>, from: Vec<&String>| -> BTreeSet<String> {
        from.into_iter().filter_map(|name| names(name)).collect()
    };
    let database = |name: &str| name.strip_prefix("content/").map(str::to_owned);
    let wanted = of(&database, facts.checksums.keys().collect());
    let found = of(&database, checksums.keys().collect());
    let mut tally = Tally::default();
    wanted.difference(&found).for_each(|name| tally.add(|| format!("missing: {name}")));
    found.difference(&wanted).for_each(|name| tally.add(|| format!("extra: {name}")));
    let mut results = vec![
        tally.result(DATABASES, found.len().to_string(), wanted.len().to_string()),
        family(KEYS, "keys/"),
        family(TYPES, "type/"),
        family(EXPIRING, "expiring/"),
    ];
    let functions =
        |map: &std::collections::BTreeMap<String, String>| map.get("functions").cloned().unwrap_or_default();
    results.push(equal(FUNCTIONS, functions(&checksums), functions(&facts.checksums)));
    if wanted.is_empty() && found.is_empty() {
        results.push(not_applicable(CONTENT, "as captured", "there are no keys"));
    }
    for name in wanted.union(&found) {
        let id = format!("{CONTENT}/{name}");
        let key = format!("content/{name}");
        let of =
            |map: &std::collections::BTreeMap<String, String>| map.get(&key).cloned().unwrap_or_default();
        if opaque > 0 {
            let why = "modules keep something that cannot be compared";
            results.push(not_applicable(&id, "as captured", why));
        } else {
            results.push(equal(&id, of(&checksums), of(&facts.checksums)));
        }
    }
    results
}

/// A server's working directory with a way to the restored files; gone when dropped.
pub(super) struct Work(pub(super) PathBuf);

impl Work {
    pub(super) fn make(restored: &Path) -> io::Result<Self> {
        let path = restored.join(WORK);
        crashsafe::remove_tree(&path)?;
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        let work = Self(path);
        std::os::unix::fs::symlink(layout::folder(restored), work.0.join(layout::FOLDER))?;
        Ok(work)
    }
}

impl Work {
    /// A server on it.
    fn options(&self, facts: &CaptureFacts) -> SandboxOptions {
        SandboxOptions { runtime: None, work: self.0.clone(), append_only: true, databases: databases(facts) }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // A restored directory with this in it is never published: a failure here is followed by others.
        drop(crashsafe::remove_tree(&self.0));
    }
}
