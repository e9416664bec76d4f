//! A small company on a clock that the test sets.

use std::sync::Arc;
use std::time::Duration;

use lifeboat_base::crashsafe;
use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::{Findings, Monitor};
use lifeboat_base::secret::{Secret, SecretRef, SecretSource};
use lifeboat_base::time::{Clock, ManualClock, Timestamp};
use lifeboat_engine::{
    BackupOptions, DrillOptions, DrillVerdict, Engine, Environment, Observer, PromiseKind, PromiseState,
    PromiseView, ProofLevel, VerifyOptions, keys,
};

/// Seven days, in one copy.
pub(crate) const POLICY: &str = r#"
version = 1
[keys]
recipients = ["passphrase:env:PHRASE"]
[copy.local]
url = "file:./vaults"
[store.uploads]
kind = "files"
path = "./uploads"
rpo = "1h"
rto = "1h"
retention = "7d"
copies = ["local"]
verify = { readable = "1d" }
"#;

struct Phrase;

impl SecretSource for Phrase {
    fn resolve(&self, _reference: &SecretRef) -> Result<Secret<String>, Failure> {
        Ok(Secret::new("a phrase of the test".to_owned()))
    }
}

struct Quiet;

impl Observer for Quiet {
    fn job(&self, _name: &str) -> Box<dyn Monitor> {
        Box::new(Findings::new())
    }
}

/// One row of files in one copy, under a clock that the test sets.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) clock: Arc<ManualClock>,
}

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

impl World {
    pub(crate) fn new() -> Self {
        Self::with(POLICY)
    }

    /// Opened by a key file, which costs no time, for tests that open vaults often.
    pub(crate) fn with_key_file() -> Self {
        let world = Self::with(&POLICY.replace("passphrase:env:PHRASE", "keyfile:./ops.key"));
        world.file("ops.key", keys::generate_key_file(&OsEntropy).expose());
        world
    }

    /// A world of this policy, with the key file `ops.key`.
    pub(crate) fn of(policy: &str) -> Self {
        let world = Self::with(policy);
        world.file("ops.key", keys::generate_key_file(&OsEntropy).expose());
        world
    }

    /// Changes what the policy says.
    pub(crate) fn policy_says(&self, change: impl Fn(String) -> String) {
        let path = self.dir.path().join("lifeboat.toml");
        let policy = std::fs::read_to_string(&path).unwrap();
        crashsafe::replace(&path, change(policy).as_bytes()).unwrap();
    }

    fn with(policy: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("uploads")).unwrap();
        let world = Self { dir, clock: Arc::new(ManualClock::at("2026-03-01T12:00:00Z".parse().unwrap())) };
        world.file("uploads/one.txt", "first");
        world.file("lifeboat.toml", policy);
        world
    }

    pub(crate) fn file(&self, name: &str, text: &str) {
        crashsafe::write_new(&self.dir.path().join(name), text.as_bytes()).unwrap();
    }

    /// A new process on the same files.
    pub(crate) fn engine(&self) -> Engine {
        let clock: Arc<dyn Clock> = self.clock.clone();
        let env = Environment {
            clock,
            entropy: Arc::new(OsEntropy),
            secrets: Arc::new(Phrase),
            host: "test".to_owned(),
            user: "0".to_owned(),
            programs: Vec::new(),
        };
        Engine::load(&self.dir.path().join("lifeboat.toml"), env, Arc::new(Quiet)).unwrap()
    }

    pub(crate) fn backup(&self) -> Option<FailureKind> {
        self.engine().backup(&[], &BackupOptions { jobs: 1, heal: false }).unwrap().worst()
    }

    pub(crate) fn prove(&self) {
        assert_eq!(self.backup(), None);
        assert_eq!(
            self.engine()
                .verify(&[], &VerifyOptions { level: ProofLevel::Readable, copy: None })
                .unwrap()
                .worst(),
            None
        );
        let drill = self.engine().drill(&[], &DrillOptions::default()).unwrap();
        assert_eq!(drill.verdict, DrillVerdict::Passed, "{:?}", drill.findings);
    }

    pub(crate) fn promise(&self, kind: PromiseKind) -> PromiseView {
        let report = self.engine().status(&[]).unwrap();
        report.stores[0].promises.iter().find(|cell| cell.promise == kind).unwrap().clone()
    }

    pub(crate) fn state(&self, kind: PromiseKind) -> PromiseState {
        self.promise(kind).state
    }

    pub(crate) fn set_back(&self, by: Duration) {
        let then: Timestamp = self.clock.now() - by;
        self.clock.set_wall(then);
    }
}
