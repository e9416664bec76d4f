//! A files row on a clock that stands still, runs on, and is set back.

use std::sync::Arc;
use std::time::Duration;

use lifeboat_base::crashsafe;
use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::StoreName;
use lifeboat_base::monitor::{Findings, Monitor};
use lifeboat_base::secret::{Secret, SecretRef, SecretSource};
use lifeboat_base::time::{Clock, ManualClock, Timestamp};
use lifeboat_engine::policy::Verdict;
use lifeboat_engine::{
    BackupOptions, DrillOptions, DrillVerdict, Engine, Environment, Observer, PromiseKind, PromiseState,
    PromiseView, ProofLevel, RestoreOptions, VerifyOptions,
};

const POLICY: &str = r#"
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

struct World {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
}

const HOUR: Duration = Duration::from_secs(3600);

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("uploads")).unwrap();
        let world = Self { dir, clock: Arc::new(ManualClock::at("2026-03-01T12:00:00Z".parse().unwrap())) };
        world.file("uploads/one.txt", "first");
        world.file("lifeboat.toml", POLICY);
        world
    }

    fn file(&self, name: &str, text: &str) {
        crashsafe::write_new(&self.dir.path().join(name), text.as_bytes()).unwrap();
    }

    /// A new process on the same files.
    fn engine(&self) -> Engine {
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

    fn backup(&self) -> Option<FailureKind> {
        self.engine().backup(&[], &BackupOptions { jobs: 1, heal: false }).unwrap().worst()
    }

    fn prove(&self) {
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

    fn promise(&self, kind: PromiseKind) -> PromiseView {
        let report = self.engine().status(&[]).unwrap();
        report.stores[0].promises.iter().find(|cell| cell.promise == kind).unwrap().clone()
    }

    fn state(&self, kind: PromiseKind) -> PromiseState {
        self.promise(kind).state
    }

    fn set_back(&self, by: Duration) {
        let then: Timestamp = self.clock.now() - by;
        self.clock.set_wall(then);
    }
}

#[test]
fn promises_run_out_with_time() {
    let world = World::new();
    world.prove();
    assert_eq!(world.state(PromiseKind::Rpo), PromiseState::Kept);
    assert_eq!(world.state(PromiseKind::Verify), PromiseState::Kept);
    world.clock.advance(HOUR);
    assert_eq!(world.state(PromiseKind::Rpo), PromiseState::Kept, "an hour is what was promised");
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.state(PromiseKind::Rpo), PromiseState::Broken);
    world.clock.advance(HOUR * 23);
    assert_eq!(world.state(PromiseKind::Verify), PromiseState::Broken, "a day has passed since it was read");
    world.clock.advance(HOUR * 24 * 9);
    assert_eq!(world.state(PromiseKind::Retention), PromiseState::Kept, "the only point is never too old");
}

#[test]
fn points_that_outlive_their_retention_break_its_promise_and_the_plan_names_them() {
    let world = World::new();
    for day in 0..11 {
        assert_eq!(world.backup(), None);
        let state = if day < 10 { PromiseState::Kept } else { PromiseState::Broken };
        assert_eq!(world.state(PromiseKind::Retention), state, "day {day}");
        world.clock.advance(HOUR * 24);
    }
    let report = world.engine().retain(&[]).unwrap();
    assert_eq!(report.worst(), None);
    let store = &report.stores[0];
    let may_go = store.points.iter().filter(|point| matches!(point.verdict, Verdict::Deletable { .. }));
    // The day that runs has no point yet; seven whole ones are kept.
    let ids: Vec<_> = may_go.map(|point| point.id.clone()).collect();
    assert_eq!(ids, store.points.iter().take(4).map(|point| point.id.clone()).collect::<Vec<_>>());
    assert!(!store.stalled);
    let reason = world.promise(PromiseKind::Retention).reason;
    assert!(reason.contains(ids[0].as_str()) && reason.contains("since 2026-03-09"), "{reason}");
    // A month without a point: time stands still, and hardly more may go than before.
    world.clock.advance(HOUR * 24 * 30);
    let later = world.engine().retain(&[]).unwrap().stores.remove(0);
    let stays = later.points.iter().filter(|point| matches!(point.verdict, Verdict::Kept(_))).count();
    assert!(later.stalled && stays >= 6, "{later:?}");
}

#[test]
fn what_claims_to_come_from_the_future_keeps_no_promise() {
    let world = World::new();
    world.prove();
    world.set_back(HOUR);
    for kind in [PromiseKind::Rpo, PromiseKind::Verify] {
        assert_eq!(world.state(kind), PromiseState::Broken, "{kind:?}: {}", world.promise(kind).reason);
    }
    // Captured under the right clock, the store is protected again.
    world.file("uploads/two.txt", "second");
    assert_eq!(world.backup(), None);
    assert_eq!(world.state(PromiseKind::Rpo), PromiseState::Kept);
}

#[test]
fn a_clock_that_differs_a_little_changes_nothing() {
    let world = World::new();
    world.prove();
    world.set_back(Duration::from_secs(60));
    assert_eq!(world.state(PromiseKind::Rpo), PromiseState::Kept);
    assert_eq!(world.state(PromiseKind::Verify), PromiseState::Kept);
}

#[test]
fn a_point_of_the_future_is_not_what_a_restore_takes_for_now() {
    let world = World::new();
    world.prove();
    world.set_back(HOUR * 48);
    world.file("uploads/two.txt", "second");
    assert_eq!(world.backup(), None);
    world.clock.advance(Duration::from_secs(10));
    let target = world.dir.path().join("restored");
    let options = RestoreOptions::new(StoreName::new("uploads").unwrap(), target.clone());
    let outcome = world.engine().restore(&options).unwrap();
    let codes: Vec<&str> = outcome.findings.iter().map(|finding| finding.code.as_str()).collect();
    assert_eq!(codes, ["point-passed-over"], "an older capture is never taken in silence");
    assert_eq!(std::fs::read_to_string(target.join("two.txt")).unwrap(), "second");
}
