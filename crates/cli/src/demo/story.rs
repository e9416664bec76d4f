//! The steps of the demo, in the order of a bad week.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use lifeboat_base::crashsafe;
use lifeboat_base::entropy::{Entropy, OsEntropy};
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::human;
use lifeboat_base::ids::{PointId, StoreName};
use lifeboat_base::time::{Clock, SignedDuration, SystemClock, Timestamp};
use lifeboat_engine::{
    BackupOptions, BackupReport, DrillOptions, DrillVerdict, Engine, EngineError, FollowOptions,
    PromiseState, ProofLevel, RestoreOptions, VerifyOptions, evidence, keys,
};
use serde_json::json;

use super::carts::{self, Carts};
use super::flags::{self, Flags};
use super::ledger::{self, Ledger};
use super::{damage, data};
use crate::commands::{Outcome, environment};
use crate::output::Output;
use crate::progress::Progress;
use crate::show;

const POLICY: &str = include_str!("lifeboat.toml");
/// The rows that join where their servers are installed.
const LEDGER: &str = include_str!("ledger.toml");
const CARTS: &str = include_str!("carts.toml");
const FLAGS: &str = include_str!("flags.toml");
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// The machine's clocks, with the wall clock moved.
struct ShiftedClock {
    inner: SystemClock,
    by: SignedDuration,
}

impl Clock for ShiftedClock {
    fn now(&self) -> Timestamp {
        self.inner.now().checked_add(self.by).unwrap_or(Timestamp::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.inner.monotonic()
    }
}

struct Demo<'a> {
    dir: &'a Path,
    output: &'a Output,
    step: usize,
    clock: SystemClock,
    /// Servers, where they could be started.
    ledger: Option<Ledger>,
    carts: Option<Carts>,
    sessions: Option<Carts>,
    flags: Option<Flags>,
}

/// Tells the story; an error means that something the demo shows did not hold.
pub(super) fn tell(dir: &Path, output: &Output) -> Outcome {
    let clock = SystemClock::new();
    let mut demo =
        Demo { dir, output, step: 0, clock, ledger: None, carts: None, sessions: None, flags: None };
    let start = demo.clock.monotonic();
    demo.stores()?;
    let yesterday = demo.backup_yesterday()?;
    demo.backup_today()?;
    demo.accident()?;
    demo.second_accident()?;
    demo.verify()?;
    demo.drill()?;
    demo.damage()?;
    demo.restore(&yesterday)?;
    let report = demo.status()?;
    let records = demo.evidence()?;
    demo.ending(start)?;
    if output.json() {
        let document = json!({
            "schema": "lifeboat.demo/v1", "dir": dir, "evidence_records": records,
            "seconds": demo.clock.monotonic().saturating_sub(start).as_secs_f64(), "status": report,
        });
        output.result(&document, String::new)?;
    }
    Ok(None)
}

fn wrong(what: impl Into<String>) -> EngineError {
    EngineError::new(FailureKind::Internal, what)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), EngineError> {
    crashsafe::create_dir_all(path.parent().unwrap_or(Path::new(".")))
        .and_then(|()| crashsafe::write_new(path, bytes))
        .map_err(|error| Failure::io(format!("failed to write {}", path.display()), error).into())
}

fn absent(server: &str, packages: &str) -> String {
    format!(
        "no {server} is installed here, so the demo goes on without one (on Debian: apt-get install {packages})"
    )
}

fn store(name: &str) -> Result<StoreName, EngineError> {
    StoreName::new(name).map_err(|error| wrong(error.to_string()))
}

/// A captured report without findings, or the demo ends here.
fn captured(report: &BackupReport) -> Result<(), EngineError> {
    match report.stores.iter().find_map(|store| store.findings.first()) {
        None => Ok(()),
        Some(finding) => Err(wrong(format!("the demo's backup is not clean: {}", finding.message))),
    }
}

impl Demo<'_> {
    fn title(&mut self, text: &str) -> Result<(), EngineError> {
        self.step += 1;
        self.output.say(&format!("\n{}. {text}", self.step))?;
        Ok(())
    }

    fn say(&self, text: &str) -> Result<(), EngineError> {
        for line in text.trim_end().lines() {
            self.output.say(&format!("   {line}"))?;
        }
        Ok(())
    }

    fn shop(&self) -> PathBuf {
        self.dir.join("live/shop.db")
    }

    fn uploads(&self) -> PathBuf {
        self.dir.join("live/uploads")
    }

    fn engine(&self, policy: &Path, shift: SignedDuration) -> Result<Engine, EngineError> {
        self.engine_until(policy, shift, &Arc::default())
    }

    /// One whose work ends once `stop` is set.
    fn engine_until(
        &self,
        policy: &Path,
        shift: SignedDuration,
        stop: &Arc<AtomicBool>,
    ) -> Result<Engine, EngineError> {
        let clock = Arc::new(ShiftedClock { inner: SystemClock::new(), by: shift });
        let base = policy.parent().unwrap_or(self.dir);
        Engine::load(policy, environment(base, clock), Arc::new(Progress::new(false, Arc::clone(stop))))
    }

    fn today(&self) -> Result<Engine, EngineError> {
        self.engine(&self.dir.join("lifeboat.toml"), SignedDuration::ZERO)
    }

    fn stores(&mut self) -> Result<(), EngineError> {
        self.title(
            "A company: a shop database, its uploads, a ledger, carts, feature flags, a session cache",
        )?;
        let mut passphrase = [0u8; 24];
        OsEntropy.fill(&mut passphrase);
        write(&self.dir.join("secrets/passphrase"), hex::encode(passphrase).as_bytes())?;
        let key = keys::generate_key_file(&OsEntropy);
        write(&self.dir.join("secrets/break-glass.key"), key.expose().as_bytes())?;
        let (policy, servers) = self.servers()?;
        write(&self.dir.join("lifeboat.toml"), policy.as_bytes())?;
        crashsafe::create_dir_all(&self.uploads())
            .map_err(|error| Failure::io("failed to make the uploads", error))?;
        data::make_shop(&self.shop())?;
        let (files, bytes) = data::make_uploads(&self.uploads())?;
        self.say(&format!(
            "shop.db: {} orders of {} customers, foreign keys, WAL mode\nuploads: {} files, {}\n\
             {servers}\n\
             lifeboat.toml: one row each, two copies, a passphrase and a break-glass key",
            human::count(data::ORDERS),
            human::count(data::CUSTOMERS),
            human::count(files),
            human::bytes(bytes)
        ))
    }

    /// Starts the servers that this machine has; gives the policy with their rows, and a line about each.
    fn servers(&mut self) -> Result<(String, String), EngineError> {
        let programs = environment(self.dir, Arc::new(SystemClock::new())).programs;
        let mut policy = POLICY.to_owned();
        let mut told = Vec::new();
        match Ledger::start(&self.dir.join("live/ledger"), &programs)? {
            Ok(ledger) => {
                policy += LEDGER;
                write(&self.dir.join("secrets/ledger-address"), ledger.address().as_bytes())?;
                let (version, payments) = (&ledger.installation().version, human::count(ledger::PAYMENTS));
                told.push(format!("ledger: PostgreSQL {version}, {payments} payments"));
                self.ledger = Some(ledger);
            }
            Err(absent) => told.push(absent.to_string()),
        }
        if let Some(carts) = Carts::start(&self.dir.join("live/carts"), &programs)? {
            policy += CARTS;
            write(&self.dir.join("secrets/carts-address"), carts.address().as_bytes())?;
            let (version, keys) = (&carts.programs().version, human::count(carts.keys()?));
            told.push(format!("carts: Redis {version}, {keys} keys"));
            let sessions = carts.start_sessions(&self.dir.join("live/sessions"))?;
            write(&self.dir.join("secrets/sessions-address"), sessions.address().as_bytes())?;
            told.push("sessions: a cache with `retention = \"none\"`: nothing of it may be kept".to_owned());
            (self.carts, self.sessions) = (Some(carts), Some(sessions));
        } else {
            told.push(absent("Redis", "redis-server"));
        }
        if let Some(flags) = Flags::start(&self.dir.join("live/flags"), &programs)? {
            policy += FLAGS;
            write(&self.dir.join("secrets/flags-address"), flags.address().as_bytes())?;
            let (version, count) = (flags.installation().version, human::count(flags::FLAGS as u64));
            told.push(format!("flags: etcd {version}, {count} keys"));
            self.flags = Some(flags);
        } else {
            told.push(absent("etcd", "etcd-server etcd-client"));
        }
        Ok((policy, told.join("\n")))
    }

    /// The first backup, with the wall clock a day back, so that there is a yesterday to return to.
    fn backup_yesterday(&mut self) -> Result<BackupReport, EngineError> {
        self.title("Yesterday (the clock is set back a day): back up while customers keep ordering")?;
        let engine = self.engine(&self.dir.join("lifeboat.toml"), -DAY)?;
        let shoppers = data::Shoppers::start(self.shop(), data::ORDERS + 1);
        let report = engine.backup(&[store("shop")?, store("uploads")?], &BackupOptions::default());
        let written = shoppers.finish()?;
        let report = report?;
        captured(&report)?;
        self.say(&show::jobs::backup(&report))?;
        self.say(&format!("{} orders were written meanwhile", human::count(written)))?;
        Ok(report)
    }

    fn backup_today(&mut self) -> Result<(), EngineError> {
        self.title("Today: more orders, new uploads, a video deleted by mistake; back up again")?;
        let shoppers = data::Shoppers::start(self.shop(), 10 * data::ORDERS);
        data::change_uploads(&self.uploads())?;
        let report = self.today()?.backup(&[], &BackupOptions::default());
        shoppers.finish()?;
        let report = report?;
        captured(&report)?;
        self.say(&show::jobs::backup(&report))?;
        self.say("Only the chunks that changed were stored, in both copies.")
    }

    /// A statement that nobody meant, and the log that leads right before it.
    fn accident(&mut self) -> Result<(), EngineError> {
        let Some(ledger) = self.ledger.take() else { return Ok(()) };
        self.title("An accident in PostgreSQL: payments come in, then somebody deletes half of them")?;
        ledger.pay(ledger::PAYMENTS + 1, 5_000)?;
        let before = (ledger.payments()?, self.clock.now());
        ledger.run("DELETE FROM payments WHERE id % 2 = 0")?;
        let engine = self.today()?;
        let name = store("ledger")?;
        let followed = engine.follow_log(&name, FollowOptions { once: true, ..FollowOptions::default() })?;
        self.say(&show::jobs::follow(&followed))?;
        let target = self.dir.join("restored/ledger-before");
        for folder in [self.dir.to_owned(), self.dir.join("restored")] {
            crashsafe::create_dir_all(&folder)
                .and_then(|()| crashsafe::let_through(&folder))
                .map_err(|error| Failure::io("failed to make the restore folder", error))?;
        }
        let at = Some(before.1.to_string());
        let outcome = engine.restore(&RestoreOptions { at, ..RestoreOptions::new(name, target.clone()) })?;
        self.say(&show::jobs::restore(&outcome))?;
        let back = Ledger::open(ledger.installation().clone(), &target)?;
        let (now, then) = (ledger.payments()?, back.payments()?);
        back.stop()?;
        ledger.stop()?;
        if then != before.0 || now == then {
            return Err(wrong(format!("of {} payments {then} came back", before.0)));
        }
        self.say(&format!(
            "{} payments are left; the moment before the accident has all {}",
            human::count(now),
            human::count(then)
        ))
    }

    /// A command that empties everything, while the stream of commands is followed.
    fn second_accident(&mut self) -> Result<(), EngineError> {
        // They are not needed any more: a drill asks nothing of production.
        (self.flags, self.sessions) = (None, None);
        let Some(carts) = self.carts.take() else { return Ok(()) };
        self.title("An accident in Redis, while its commands are followed: somebody runs FLUSHALL")?;
        let name = store("carts")?;
        let stop = Arc::new(AtomicBool::new(false));
        let engine = self.engine_until(&self.dir.join("lifeboat.toml"), SignedDuration::ZERO, &stop)?;
        let (accident, followed) = thread::scope(|scope| {
            let follower = scope.spawn(|| engine.follow_log(&name, FollowOptions::default()));
            let accident = (|| {
                carts.fill(carts::CARTS, carts::MORE_CARTS)?;
                carts.wait_followed()?;
                let before = (carts.keys()?, self.clock.now());
                carts.run("FLUSHALL")?;
                let left = carts.keys()?;
                // Work goes on, as it does before somebody notices.
                carts.promise()?;
                carts.wait_followed()?;
                Ok::<_, EngineError>((before, left))
            })();
            stop.store(true, Ordering::Relaxed);
            (accident, follower.join())
        });
        let ((before, moment), left) = accident?;
        let followed = followed.map_err(|_panic| wrong("the demo's follower died"))??;
        self.say(&show::jobs::follow(&followed))?;
        let target = self.dir.join("restored/carts-before");
        crashsafe::create_dir_all(&self.dir.join("restored"))
            .map_err(|error| Failure::io("failed to make the restore folder", error))?;
        let at = Some(moment.to_string());
        let options = RestoreOptions { at, ..RestoreOptions::new(name, target.clone()) };
        let outcome = self.today()?.restore(&options)?;
        self.say(&show::jobs::restore(&outcome))?;
        let back = Carts::open(carts.programs().clone(), &target, true)?;
        let then = back.keys()?;
        back.stop()?;
        carts.stop()?;
        if then != before || left != 0 {
            return Err(wrong(format!("of {before} keys {then} came back")));
        }
        let then = human::count(then);
        self.say(&format!("no key was left; the moment before the accident has all {then}"))
    }

    fn verify(&mut self) -> Result<(), EngineError> {
        self.title("Verify: read every byte of every copy")?;
        let options = VerifyOptions { level: ProofLevel::Readable, copy: None };
        let report = self.today()?.verify(&[], &options)?;
        self.say(&show::jobs::verify(&report))?;
        match report.findings.first() {
            None => Ok(()),
            Some(finding) => Err(wrong(format!("the verification is not clean: {}", finding.message))),
        }
    }

    fn drill(&mut self) -> Result<(), EngineError> {
        self.title("Drill: lose everything, restore into a sandbox, check, measure, tear down")?;
        let report = self.today()?.drill(&[], &DrillOptions::default())?;
        self.say(&show::drill::page(&report, false))?;
        if report.verdict == DrillVerdict::Passed { Ok(()) } else { Err(wrong("the drill failed")) }
    }

    /// A green light means nothing if nothing ever turns it red.
    fn damage(&mut self) -> Result<(), EngineError> {
        self.title("Damage: flip one bit in a scratch copy and see whether it is noticed")?;
        let scratch = self.dir.join("scratch");
        damage::copy_tree(&self.dir.join("vaults/local"), &scratch.join("vaults/local"))?;
        for secret in ["secrets/passphrase", "secrets/break-glass.key"] {
            let bytes = std::fs::read(self.dir.join(secret))
                .map_err(|error| Failure::io("failed to read a key", error))?;
            write(&scratch.join(secret), &bytes)?;
        }
        let policy = POLICY.replace("[\"local\", \"offsite\"]", "[\"local\"]").replace("./live/", "../live/");
        write(&scratch.join("lifeboat.toml"), policy.as_bytes())?;
        let flipped = damage::flip_one_bit(&scratch.join("vaults/local/uploads"))?;
        self.say(&format!("flipped one bit in {flipped} of `uploads`"))?;
        let engine = self.engine(&scratch.join("lifeboat.toml"), SignedDuration::ZERO)?;
        engine.points(&[])?;
        let options = VerifyOptions { level: ProofLevel::Readable, copy: None };
        let report = engine.verify(&[store("uploads")?], &options)?;
        self.say(&show::jobs::verify(&report))?;
        let named =
            report.copies.iter().flat_map(|copy| &copy.damaged).any(|object| object.object == flipped);
        if !named || report.worst() != Some(FailureKind::Damaged) {
            return Err(wrong(format!("the damage to {flipped} was not noticed")));
        }
        self.say("Noticed and named; `lifeboat verify` ends with exit code 6.")
    }

    fn restore(&mut self, yesterday: &BackupReport) -> Result<(), EngineError> {
        self.title("Restore yesterday: the deleted video, and the shop as it was")?;
        let engine = self.today()?;
        for backup in yesterday.stores.iter().filter(|backup| backup.point.is_some()) {
            let point = backup.point.as_ref().map(PointId::to_string);
            let target = self.dir.join("restored").join(format!("{}-yesterday", backup.name));
            crashsafe::create_dir_all(&self.dir.join("restored"))
                .map_err(|error| Failure::io("failed to make the restore folder", error))?;
            let options = RestoreOptions { at: point, ..RestoreOptions::new(backup.name.clone(), target) };
            let outcome = engine.restore(&options)?;
            self.say(&show::jobs::restore(&outcome))?;
        }
        let video = "videos/tour-2.mp4";
        if self.uploads().join(video).exists()
            || !self.dir.join("restored/uploads-yesterday").join(video).exists()
        {
            return Err(wrong("the deleted video did not come back"));
        }
        let then = data::count_orders(&self.dir.join("restored/shop-yesterday/shop.db"))?;
        let now = data::count_orders(&self.shop())?;
        self.say(&format!(
            "{video} is back; yesterday's shop has {} orders, today's has {}",
            human::count(then),
            human::count(now)
        ))
    }

    fn status(&mut self) -> Result<serde_json::Value, EngineError> {
        self.title("Status: which promise holds now")?;
        let report = self.today()?.status(&[])?;
        for line in show::status::page(&report, self.output.colour, false).lines() {
            self.output.say(line)?;
        }
        if report.count(PromiseState::Broken) > 0 {
            return Err(wrong("a promise of the demo is broken"));
        }
        serde_json::to_value(&report).map_err(|error| wrong(error.to_string()))
    }

    fn evidence(&mut self) -> Result<u64, EngineError> {
        self.title("Evidence: signed records of all this, for somebody who trusts nobody here")?;
        let bundle = self.dir.join("evidence");
        let engine = self.today()?;
        let summary = engine.export_evidence(&bundle)?;
        let failed = |error: evidence::EvidenceError| {
            EngineError::from(Failure::with_source(error.kind(), "failed to read the evidence", error))
        };
        let key = evidence::Chain::open(&engine.evidence_dir())
            .and_then(|chain| chain.public_key())
            .map_err(failed)?;
        let key = key.ok_or_else(|| wrong("the evidence chain has no public key"))?;
        let report = evidence::verify_bundle(&bundle, &key).map_err(failed)?;
        if let Some(problem) = report.problems.first() {
            return Err(wrong(format!("the evidence does not verify: {problem}")));
        }
        self.say(&format!(
            "{} records, chained and signed by {key}\nexported to {} and verified with the public key alone",
            summary.included,
            bundle.display()
        ))?;
        let report = self.dir.join("drill");
        engine.export_drill("last", &report)?;
        self.say(&format!("the last drill for people: {}", report.join("report.html").display()))?;
        Ok(summary.included)
    }

    fn ending(&mut self, start: Duration) -> Result<(), EngineError> {
        let took = self.clock.monotonic().saturating_sub(start);
        let policy = self.dir.join("lifeboat.toml");
        let policy = policy.display();
        self.output.say(&format!(
            "\nDone in {}. Everything is in {}; look around:\n\
             \x20  lifeboat --policy {policy} status -v\n\
             \x20  lifeboat --policy {policy} points\n\
             \x20  lifeboat --policy {policy} drill --all -v\n\
             \x20  restic -r {}/vaults/local/uploads \\\n\
             \x20    --password-command 'lifeboat --policy {policy} keys password uploads --copy local' snapshots",
            human::duration(took),
            self.dir.display(),
            self.dir.display()
        ))?;
        Ok(())
    }
}
