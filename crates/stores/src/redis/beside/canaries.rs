//! What is particular to files: the commands behind a dump, which no digest of keys covers.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::failure::Failure;
use lifeboat_base::monitor::Findings;
use lifeboat_base::time::SystemClock;
use lifeboat_redis::server::{Primary, Programs, Wait};

use super::adapter::{RedisFilesAdapter, RedisFilesOptions};
use crate::adapter::{Adapter, CanaryResult, CaptureContext};
use crate::canary::{Canary, run as run_all};
use crate::recording::Recording;
use crate::redis::checks::FILES;
use crate::redis::{error, layout};

const LIMIT: Duration = Duration::from_secs(30);
const SAMPLE: [&str; 3] = ["SET string value", "RPUSH list a b c", "SADD set a b 1"];

const CANARIES: [Canary; 2] = [
    Canary {
        check: FILES,
        damage: "one bit of a captured command is flipped",
        apply: |dir, _| {
            let file = OpenOptions::new().read(true).write(true).open(layout::commands(dir))?;
            let at = file.metadata()?.len().saturating_sub(3);
            let mut byte = [0];
            file.read_exact_at(&mut byte, at)?;
            let [byte] = byte;
            file.write_all_at(&[byte ^ 1], at)
        },
    },
    Canary {
        check: FILES,
        damage: "the captured commands are gone",
        apply: |dir, _| OpenOptions::new().write(true).open(layout::commands(dir))?.set_len(0),
    },
];

/// Runs them inside `scratch` on the log of a small server. `Refused` where none is installed.
pub(super) fn run(scratch: &Path, programs: &[PathBuf]) -> Result<Vec<CanaryResult>, Failure> {
    let found =
        Programs::find(programs).map_err(error::server("the checks could not be tried on damaged files"))?;
    let dir = tempfile::tempdir_in(scratch)
        .map_err(|error| Failure::io("failed to make a directory for a sample", error))?;
    let clock = SystemClock::new();
    let wait = Wait::for_at_most(LIMIT, &clock);
    let server = Primary::start(&found, (dir.path(), true), &OsEntropy, wait)
        .map_err(error::server("failed to start a sample"))?;
    let mut connection = server.connect().map_err(error::connection("failed to fill a sample"))?;
    for words in SAMPLE {
        connection.ask(words).map_err(error::connection("failed to fill a sample"))?;
    }
    server.stop(wait).map_err(error::server("failed to stop a sample"))?;
    let adapter = RedisFilesAdapter::new(RedisFilesOptions {
        dir: dir.path().to_owned(),
        config: None,
        programs: programs.to_vec(),
        commands: Vec::new(),
    });
    let at = CaptureContext { clock: &clock, spool: scratch, kept: None, known: &[] };
    let recording = Recording::record(adapter.capture(&at)?, &Findings::new())?;
    run_all(&adapter, &recording, &CANARIES, scratch)
}
