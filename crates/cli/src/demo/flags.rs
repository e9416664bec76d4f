//! An etcd for the demo, where its programs are on this machine.
//!
//! In: a folder of the demo. Out: feature flags in a cluster of one that listens on a unix socket only and ends with the
//! demo.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use lifeboat_base::crashsafe;
use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::time::SystemClock;
use lifeboat_engine::EngineError;
use lifeboat_etcd::{EtcdError, Installation, Member, Wait, installations};

/// Flags that are set; a transaction takes 128.
pub(super) const FLAGS: usize = 1_024;
const FLAGS_PER_TRANSACTION: usize = 128;
/// How long the server may take to start.
const LIMIT: Duration = Duration::from_secs(60);

/// A running member. Dropping it ends it.
pub(super) struct Flags {
    member: Member,
    installation: Installation,
}

fn failed(error: EtcdError) -> EngineError {
    Failure::with_source(error.kind(), "failed to run the demo's etcd", error).into()
}

impl Flags {
    /// Starts a member with the flags in it, if this machine has one and a client that can set them.
    pub(super) fn start(data: &Path, programs: &[PathBuf]) -> Result<Option<Self>, EngineError> {
        let client = |found: &Installation| found.server.with_file_name("etcdctl");
        let whole = |found: &Installation| found.restorer.is_some() && client(found).is_file();
        let Some(installation) = installations(programs).into_iter().rev().find(whole) else {
            return Ok(None);
        };
        let io = |error| Failure::io("failed to make room for the demo's etcd", error);
        crashsafe::create_dir_all(data).map_err(io)?;
        let clock = SystemClock::new();
        let wait = Wait { limit: LIMIT, clock: &clock, cancelled: &|| false };
        let member = Member::start(&installation, data, &OsEntropy, wait).map_err(failed)?;
        let flags = Self { member, installation };
        let numbers: Vec<usize> = (0..FLAGS).collect();
        for part in numbers.chunks(FLAGS_PER_TRANSACTION) {
            flags.set(part)?;
        }
        Ok(Some(flags))
    }

    /// The programs it runs from.
    pub(super) fn installation(&self) -> &Installation {
        &self.installation
    }

    /// How to reach it.
    pub(super) fn address(&self) -> String {
        format!("unix://{}", self.member.socket().display())
    }

    fn set(&self, numbers: &[usize]) -> Result<(), EngineError> {
        let io = |error| Failure::io("failed to set the demo's flags", error);
        let mut script = String::from("\n");
        for number in numbers {
            let on = number % 3 == 0;
            let folder = number % 16;
            writeln!(script, "put /flags/team-{folder:02}/flag-{number:04} {on}")
                .map_err(|_full| Failure::new(FailureKind::Internal, "failed to write the demo's flags"))?;
        }
        script.push_str("\n\n");
        let mut input = tempfile::tempfile().map_err(io)?;
        std::io::Write::write_all(&mut input, script.as_bytes()).map_err(io)?;
        std::io::Seek::rewind(&mut input).map_err(io)?;
        let mut command = Command::new(self.installation.server.with_file_name("etcdctl"));
        command.env_clear().env("ETCDCTL_API", "3").current_dir("/");
        command.arg("--endpoints").arg(self.address()).arg("txn").stdin(input);
        let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().map_err(io)?;
        if !output.status.success() || !output.stdout.starts_with(b"SUCCESS") {
            let said = String::from_utf8_lossy(&output.stderr);
            let what = format!("etcdctl could not set the demo's flags: {}", said.trim());
            return Err(Failure::new(FailureKind::Internal, what).into());
        }
        Ok(())
    }
}
