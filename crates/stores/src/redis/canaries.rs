//! The canaries of kind `redis`: a small server of its own, captured, restored, and damaged in one way per check and kind
//! of damage.
//!
//! Most damage is done as a command that was put behind the base without saying so: the server then has something else
//! than what was captured.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lifeboat_base::crashsafe;
use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Findings;
use lifeboat_base::secret::Secret;
use lifeboat_base::time::SystemClock;
use lifeboat_redis::server::{Primary, Programs, Wait};
use lifeboat_redis::wire::encode;

use super::adapter::{RedisAdapter, RedisOptions};
use super::checks::{
    CHECK_AOF, CHECK_RDB, CONTENT, DATABASES, EXPIRING, FILES, FUNCTIONS, KEYS, START, STREAM, TYPES,
};
use super::duties::Upkeep;
use super::hosted::ScanOptions;
use super::{commands, error, layout};
use crate::adapter::{Adapter, CanaryResult, CaptureContext, CheckState};
use crate::canary::{Canary, run as run_all};
use crate::continuous::Continuous;
use crate::recording::Recording;

const LIMIT: Duration = Duration::from_secs(30);
/// Small on purpose: each canary starts a server on it.
const SAMPLE: [&str; 9] = [
    "SET string value",
    "SET ends value PXAT 4000000000000",
    "RPUSH list a b c",
    "SADD set a b 1",
    "ZADD zset 1 a 2.5 b",
    "HSET hash field value",
    "XADD stream 1-1 field value",
    "SELECT 5",
    "SET elsewhere 1",
];
const FUNCTION: &str = "#!lua name=sample\nredis.register_function('f', function() return 1 end)";
const PROMISE: &str = "GET string = value";

const CANARIES: [Canary; 17] = [
    Canary {
        check: FILES,
        damage: "one bit of the base is flipped",
        apply: |dir, _| flip(&layout::base(dir)),
    },
    Canary { check: FILES, damage: "the base is cut", apply: |dir, _| cut(&layout::base(dir)) },
    Canary {
        check: FILES,
        damage: "a file too many",
        apply: |dir, _| crashsafe::write_new(&layout::folder(dir).join("appendonly.aof.2.incr.aof"), b""),
    },
    Canary {
        check: FILES,
        damage: "the list names another file",
        apply: |dir, _| {
            crashsafe::replace(&layout::list(dir), b"file appendonly.aof.1.incr.aof seq 1 type i\n")
        },
    },
    Canary {
        check: CHECK_RDB,
        damage: "one bit of the base is flipped",
        apply: |dir, _| flip(&layout::base(dir)),
    },
    Canary {
        check: CHECK_AOF,
        damage: "the commands end in the middle of one",
        apply: |dir, _| append(dir, b"*2\r\n$3\r\nDEL\r\n$6\r\nstri"),
    },
    Canary { check: START, damage: "the base is cut", apply: |dir, _| cut(&layout::base(dir)) },
    Canary { check: START, damage: "the commands are none", apply: |dir, _| append(dir, b"nonsense\r\n") },
    Canary {
        check: DATABASES,
        damage: "a database too many",
        apply: |dir, _| change(dir, &["SELECT 7", "SET a 1"]),
    },
    Canary {
        check: DATABASES,
        damage: "a database is missing",
        apply: |dir, _| change(dir, &["SELECT 5", "DEL elsewhere"]),
    },
    Canary {
        check: KEYS,
        damage: "a key is missing",
        apply: |dir, _| change(dir, &["SELECT 0", "DEL list"]),
    },
    Canary {
        check: KEYS,
        damage: "a key too many",
        apply: |dir, _| change(dir, &["SELECT 0", "SET more 1"]),
    },
    Canary {
        check: TYPES,
        damage: "a key holds another kind",
        apply: |dir, _| change(dir, &["SELECT 0", "DEL set", "RPUSH set a b 1"]),
    },
    Canary {
        check: EXPIRING,
        damage: "a key no longer ends",
        apply: |dir, _| change(dir, &["SELECT 0", "PERSIST ends"]),
    },
    Canary {
        check: CONTENT,
        damage: "a field has another value",
        apply: |dir, _| change(dir, &["SELECT 0", "HSET hash field other"]),
    },
    Canary {
        check: FUNCTIONS,
        damage: "the functions are gone",
        apply: |dir, _| change(dir, &["SELECT 0", "FUNCTION FLUSH"]),
    },
    Canary {
        check: commands::COMMAND,
        damage: "a promised value is another",
        apply: |dir, _| change(dir, &["SELECT 0", "SET string other"]),
    },
];

fn flip(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let at = file.metadata()?.len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    let [byte] = byte;
    file.write_all_at(&[byte ^ 1], at)
}

fn cut(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(file.metadata()?.len() / 2)
}

fn append(dir: &Path, bytes: &[u8]) -> io::Result<()> {
    OpenOptions::new().append(true).open(layout::commands(dir))?.write_all(bytes)
}

fn change(dir: &Path, changes: &[&str]) -> io::Result<()> {
    changes.iter().try_for_each(|change| {
        let parts: Vec<&[u8]> = change.split(' ').map(str::as_bytes).collect();
        append(dir, &encode(&parts))
    })
}

/// In place of the one for functions, where those are not captured.
const UNKNOWN_FUNCTION: Canary = Canary {
    check: FUNCTIONS,
    damage: "functions that were not captured",
    apply: |dir, _| append(dir, &encode(&[b"FUNCTION", b"LOAD", FUNCTION.as_bytes()])),
};

/// Runs them all inside `scratch`, on a sample that is captured key by key if the row is. `Refused` where no server is
/// installed.
pub(super) fn run(
    scratch: &Path,
    programs: &[PathBuf],
    scan: Option<&ScanOptions>,
) -> Result<Vec<CanaryResult>, Failure> {
    let found = Programs::find(programs)
        .map_err(error::server("the checks could not be tried on damaged servers"))?;
    let scan = scan.map(|_row| ScanOptions::default());
    let (adapter, recording) = sample(&found, scratch, (programs, scan.clone()))?;
    if scan.is_some() {
        let kept = CANARIES.into_iter().filter(|canary| canary.check != FUNCTIONS);
        let canaries: Vec<Canary> = kept.chain([UNKNOWN_FUNCTION]).collect();
        return run_all(&adapter, &recording, &canaries, scratch);
    }
    let mut results = run_all(&adapter, &recording, &CANARIES, scratch)?;
    results.extend(streams(&adapter, &recording, scratch)?);
    Ok(results)
}

/// A stream of commands with one that was never sent, and one that lacks what a point has.
fn streams(
    adapter: &RedisAdapter,
    recording: &Recording,
    scratch: &Path,
) -> Result<Vec<CanaryResult>, Failure> {
    let state = |changes: &[&str]| {
        let dir = tempfile::tempdir_in(scratch)
            .map_err(|error| Failure::io("failed to make a directory for a canary", error))?;
        let monitor = Findings::new();
        adapter.restore(recording, recording.facts(), dir.path(), &monitor)?;
        change(dir.path(), changes).map_err(|error| Failure::io("failed to damage a sample", error))?;
        let results = adapter.arrived(dir.path(), recording.facts(), &monitor)?;
        Ok::<_, Failure>(results.first().map(|check| check.state))
    };
    let good = state(&[])?;
    [("a command too many", ["SELECT 0", "INCR visits"]), ("a change too few", ["SELECT 0", "RPOP list"])]
        .into_iter()
        .map(|(damage, changes)| {
            Ok(CanaryResult {
                check: STREAM.to_owned(),
                damage: damage.to_owned(),
                caught: good == Some(CheckState::Passed) && state(&changes)? == Some(CheckState::Failed),
            })
        })
        .collect()
}

/// A server with a little of everything, captured and gone.
fn sample(
    found: &Programs,
    scratch: &Path,
    (programs, scan): (&[PathBuf], Option<ScanOptions>),
) -> Result<(RedisAdapter, Recording), Failure> {
    let clock = SystemClock::new();
    let wait = Wait::for_at_most(LIMIT, &clock);
    let server = Primary::start(found, (scratch, false), &OsEntropy, wait)
        .map_err(error::server("failed to start a sample"))?;
    let mut connection = server.connect().map_err(error::connection("failed to fill a sample"))?;
    for words in SAMPLE {
        connection.ask(words).map_err(error::connection("failed to fill a sample"))?;
    }
    if scan.is_none() {
        connection
            .command(&[b"FUNCTION", b"LOAD", FUNCTION.as_bytes()])
            .map_err(error::connection("failed to fill a sample"))?;
    }
    let address = server.address();
    let adapter = RedisAdapter::new(RedisOptions {
        url: Arc::new(move || Ok(Secret::new(address.clone()))),
        programs: programs.to_vec(),
        commands: vec![PROMISE.to_owned()],
        upkeep: Upkeep::default(),
        scan,
        token: None,
    });
    let at = CaptureContext { clock: &clock, spool: scratch, kept: None, known: &[] };
    let recording = Recording::record(adapter.capture(&at)?, &Findings::new())?;
    server
        .stop(wait)
        .map_err(|error| Failure::with_source(FailureKind::Internal, "failed to stop a sample", error))?;
    Ok((adapter, recording))
}
