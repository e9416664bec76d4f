//! Follows a store's log: spool, tell the store, ship to every copy.
//!
//! Memory: one message of the store and one piece of at most 16 MiB while it is shipped.

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{StoreName, StreamName};
use lifeboat_base::lease::Lease;
use lifeboat_base::monitor::{Finding, Findings, Monitor};
use lifeboat_base::time::{SignedDuration, Timestamp};
use lifeboat_policy::Store;
use lifeboat_stores::{Adapter, Continuous, LogFeed, LogPosition, Resume, Step};
use lifeboat_vault::logs::{LogName, LogsLevel, Position};
use serde::Serialize;
use serde_json::json;

use super::head::Head;
use super::histories::Histories;
use super::ranges::position;
use super::ship::ship;
use super::spool::{MAX_PIECE_BYTES, Spool};
use crate::backup::{Collector, worst};
use crate::context::Engine;
use crate::copies::VaultSet;
use crate::error::EngineError;
use crate::journal::Entry;
use crate::view::in_future;

/// How long one wait for the store takes at most.
const TICK: Duration = Duration::from_millis(500);
/// Unshipped log goes out at least this often, whatever the RPO.
const SLOWEST_SHIPMENT: Duration = Duration::from_secs(300);
const FASTEST_SHIPMENT: Duration = Duration::from_secs(1);
/// Under load, what arrived is made durable and reported this often.
const SYNC_EVERY: SignedDuration = SignedDuration::from_secs(1);
/// Roll-up indexes are written this often.
const ROLL_UP_EVERY: SignedDuration = SignedDuration::from_secs(600);

/// While the store is away it is asked again after this, and then less and less often.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How to follow a log.
#[derive(Clone, Copy, Debug, Default)]
pub struct FollowOptions {
    /// Ends as soon as everything the store had at the start is in every copy.
    pub once: bool,
}

/// What following a log came to.
#[derive(Clone, Debug, Serialize)]
pub struct FollowReport {
    /// `lifeboat.wal-stream/v1`.
    pub schema: &'static str,
    /// The store.
    pub store: StoreName,
    /// Where it began.
    pub from: String,
    /// The position after the last that every copy holds.
    pub to: String,
    /// Everything committed before this moment is held.
    pub as_of: Option<Timestamp>,
    /// Bytes received.
    pub received_bytes: u64,
    /// Pieces brought to every copy.
    pub shipped: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

impl FollowReport {
    /// The worst thing found.
    pub fn worst(&self) -> Option<FailureKind> {
        worst(self.findings.iter())
    }
}

struct Follower<'a> {
    engine: &'a Engine,
    row: &'a Store,
    set: VaultSet,
    stream: StreamName,
    folder: PathBuf,
    spool: Spool,
    identity: String,
    /// Everything committed before this moment has arrived.
    as_of: Option<Timestamp>,
    head: Option<Head>,
    /// Numbers of histories, for a store that gives them names.
    histories: Histories,
    /// The history that is being followed has this number.
    number: u32,
    interval: SignedDuration,
    shipped_at: Timestamp,
    synced_at: Timestamp,
    rolled_up: Timestamp,
    report: FollowReport,
}

impl Engine {
    /// The folder of a store's log in the state folder.
    pub(crate) fn log_folder(&self, store: &StoreName) -> PathBuf {
        self.state.join("logs").join(store.as_str())
    }

    /// Follows the log of a store, or with `once` until what was there at the start is kept. A store that was reached once
    /// and goes away is waited for.
    pub fn follow_log(&self, store: &StoreName, options: FollowOptions) -> Result<FollowReport, EngineError> {
        let row = self.store(store)?;
        let adapter = self.adapter(row)?;
        let Some(continuous) = adapter.continuous() else {
            let what = format!("stores of kind `{}` have no continuous log", row.kind.word());
            return Err(EngineError::new(FailureKind::Refused, what));
        };
        self.ready_to_file()?;
        let path = self.state.join("locks").join(format!("{store}.log.lock"));
        let _lease = Lease::try_acquire(&path, &format!("the log of {store}"))
            .map_err(|error| Failure::io(format!("failed to take the lease of the log of `{store}`"), error))?
            .map_err(|held| {
                EngineError::new(
                    FailureKind::Refused,
                    format!("the log of `{store}` is in other hands: {}", held.0),
                )
            })?;
        let set = {
            let _lease = self.lease(store, "wal stream")?;
            self.ensure_vaults(row, false)?
        };
        let mut follower = self.follower(row, set, continuous)?;
        let monitor = Collector::new(self.observer.job(&format!("log of {store}")));
        let mut resume = follower.resume(continuous)?;
        let mut wait = FIRST_WAIT;
        loop {
            let received_bytes = follower.report.received_bytes;
            let outcome = continuous
                .follow(follower.resume_from(resume)?, &self.identities(row, adapter.as_ref())?)
                .map_err(EngineError::from)
                .and_then(|mut feed| follower.run_from(feed.as_mut(), options, &monitor));
            follower.report.findings.extend(monitor.take());
            // The store may be gone for good: what is here goes out at once.
            let as_of = follower.known();
            follower.spool.cut(as_of)?;
            follower.ship()?;
            match outcome {
                Ok(()) => return Ok(follower.report),
                // It no longer has what comes next: the gap is filed, and the log goes on from the present.
                Err(error) if error.kind() == FailureKind::Findings && resume.is_some() => {
                    follower.lost(resume, &error.failure)?;
                    // A later point may begin a history that the store still has.
                    let point =
                        if continuous.names_histories() { follower.after_point(continuous)? } else { None };
                    resume = point.filter(|point| Some(*point) > resume);
                }
                Err(error) if !options.once && follower.may_wait(&error) => {
                    if follower.report.received_bytes > received_bytes {
                        wait = FIRST_WAIT;
                    }
                    let why = error.failure.chain();
                    monitor.notice(&format!("everything that arrived is kept; waiting for {store}: {why}"));
                    if self.pause(wait, &monitor) {
                        return Ok(follower.report);
                    }
                    wait = (wait * 2).min(LONGEST_WAIT);
                    resume = follower.resume(continuous)?;
                }
                Err(error) => {
                    let next = format!("what had arrived is kept; run `lifeboat wal stream {store}` again");
                    let next = error.next.clone().unwrap_or(next);
                    return Err(error.risking(store, "rpo").next(next));
                }
            }
        }
    }

    /// Waits; true if the work was cancelled meanwhile.
    fn pause(&self, span: Duration, monitor: &Collector) -> bool {
        let end = self.env.clock.monotonic() + span;
        while self.env.clock.monotonic() < end {
            if monitor.cancelled() {
                return true;
            }
            std::thread::park_timeout(TICK);
        }
        monitor.cancelled()
    }

    /// What a store was known as before: by how far its log was kept, and by its newest point.
    pub(crate) fn identities(&self, row: &Store, adapter: &dyn Adapter) -> Result<Vec<String>, EngineError> {
        let Some(store) = adapter.continuous() else { return Ok(Vec::new()) };
        let head = Head::read(&self.log_folder(&row.name))?.map(|head| head.identity);
        let view = self.view(row)?;
        let of_point = view.points.last().and_then(|point| store.identity(&point.manifest.facts));
        Ok(head.into_iter().chain(of_point).collect())
    }

    fn follower<'a>(
        &'a self,
        row: &'a Store,
        set: VaultSet,
        store: &dyn Continuous,
    ) -> Result<Follower<'a>, EngineError> {
        let folder = self.log_folder(&row.name);
        let stream = stream_name(store)?;
        let spool = Spool::open(&folder)?;
        let now = self.env.clock.now();
        // A moment of the future is no knowledge: it would never come down again.
        let head = Head::read(&folder)?.map(|head| {
            let as_of = if in_future(head.as_of, now) { Timestamp::UNIX_EPOCH } else { head.as_of };
            Head::new(head.identity, head.position, as_of)
        });
        let histories = known_histories(store, &set, &stream, &spool, head.as_ref())?;
        let rpo = row.rpo.value.map_or(SLOWEST_SHIPMENT, |rpo| rpo.approx() / 2);
        let interval = rpo.clamp(FASTEST_SHIPMENT, SLOWEST_SHIPMENT);
        let report = FollowReport {
            schema: "lifeboat.wal-stream/v1",
            store: row.name.clone(),
            from: String::new(),
            to: String::new(),
            as_of: None,
            received_bytes: 0,
            shipped: 0,
            findings: set.findings(),
        };
        Ok(Follower {
            engine: self,
            row,
            set,
            stream,
            folder,
            spool,
            identity: String::new(),
            as_of: None,
            head,
            histories,
            number: 0,
            interval: SignedDuration::try_from(interval).unwrap_or(SignedDuration::MAX),
            shipped_at: now,
            synced_at: now,
            rolled_up: now,
            report,
        })
    }
}

/// The histories of which something is kept, in any copy or in the spool.
fn known_histories(
    store: &dyn Continuous,
    set: &VaultSet,
    stream: &StreamName,
    spool: &Spool,
    head: Option<&Head>,
) -> Result<Histories, Failure> {
    let mut known = Histories::of(store, None, head);
    if !store.names_histories() {
        return Ok(known);
    }
    for entry in &set.open {
        let inventory = entry.vault.logs().inventory(stream, LogsLevel::Listed, &Findings::new())?;
        known.extend(&Histories::of(store, Some(&inventory), None));
    }
    for piece in spool.pieces()? {
        if let Some(name) = piece.notes()?.history {
            known.note(&name, piece.head.first.timeline);
        }
    }
    Ok(known)
}

/// The name of a store's log in its vaults.
pub(crate) fn stream_name(store: &dyn Continuous) -> Result<StreamName, Failure> {
    StreamName::new(store.stream())
        .map_err(|error| Failure::with_source(FailureKind::Internal, "failed to name the log", error))
}

fn log_position(at: Position) -> LogPosition {
    LogPosition { timeline: at.timeline, offset: at.offset }
}

impl Follower<'_> {
    /// Where to go on: after the newest thing that is kept anywhere, else where the newest point's own content ends.
    fn resume(&mut self, store: &dyn Continuous) -> Result<Option<Position>, EngineError> {
        let mut newest = self.resume_point()?;
        for entry in &self.set.open {
            let kept = entry.vault.logs().list(&self.stream).map_err(Failure::from)?;
            newest = newest.max(kept.iter().map(LogName::last).max());
        }
        match newest {
            None => self.after_point(store),
            newest => Ok(newest),
        }
    }

    /// Where the newest point's own content ends.
    fn after_point(&mut self, store: &dyn Continuous) -> Result<Option<Position>, EngineError> {
        let view = self.engine.view(self.row)?;
        let Some(point) = view.points.last() else { return Ok(None) };
        let facts = &point.manifest.facts;
        let Some(end) = store.base_end(facts).ok().map(position) else { return Ok(None) };
        Ok(match store.history(facts).filter(|_| store.names_histories()) {
            Some(name) => Some(Position::new(self.histories.number_or_next(&name), end.offset)),
            None => Some(end),
        })
    }

    /// A position with the kept bytes before it, which the store has to send again.
    fn resume_from(&self, at: Option<Position>) -> Result<Option<Resume>, Failure> {
        let Some(at) = at else { return Ok(None) };
        let mut tail = Vec::new();
        for piece in self.spool.pieces()?.iter().filter(|piece| piece.head.last() == at) {
            let read = piece.open()?.read_to_end(&mut tail);
            read.map_err(|error| Failure::io("failed to read the spool", error))?;
        }
        let first = self.set.open.first().filter(|_| tail.is_empty());
        if let Some(entry) = first {
            let logs = entry.vault.logs();
            let name = logs.list(&self.stream)?.into_iter().find(|name| name.last() == at);
            if let Some(name) = name {
                tail = logs.read(&self.stream, name)?.1;
            }
        }
        let history = self.histories.name(at.timeline).map(str::to_owned);
        Ok(Some(Resume { position: log_position(at), tail, history }))
    }

    /// The store no longer has what comes next: from here on there is a gap, which is filed before anything goes on.
    fn lost(&mut self, resume: Option<Position>, failure: &Failure) -> Result<(), EngineError> {
        let at = resume.map_or_else(|| "its beginning".to_owned(), |at| at.to_string());
        let message = format!("the log of `{}` has a gap after {at}: {}", self.row.name, failure.chain());
        let body = json!({ "stream": self.stream, "after": resume, "error": failure.chain() });
        self.engine.file(Entry { kind: "log-gap", store: &self.row.name, ok: false, body })?;
        self.report.findings.push(Finding::new("log-gap", self.row.name.as_str(), message));
        self.head = None;
        Ok(())
    }

    /// Whether the store was there before and may come back.
    fn may_wait(&self, error: &EngineError) -> bool {
        error.kind() == FailureKind::Unreachable && !self.identity.is_empty()
    }

    fn known(&self) -> Timestamp {
        self.as_of.unwrap_or(Timestamp::UNIX_EPOCH)
    }

    fn run_from(
        &mut self,
        feed: &mut dyn LogFeed,
        options: FollowOptions,
        monitor: &Collector,
    ) -> Result<(), EngineError> {
        // The feed has refused every identity but the known ones.
        self.identity = feed.identity();
        self.enter(feed);
        if self.head.is_none() {
            // Nothing is held yet, but where it begins is known: a later run goes on from here and not from its present.
            let head = Head::new(self.identity.clone(), self.place(feed.start()), Timestamp::UNIX_EPOCH);
            head.write(&self.folder)?;
            self.head = Some(head);
        }
        if self.report.from.is_empty() {
            self.report.from = self.place(feed.start()).to_string();
        }
        self.run(feed, options, monitor).map_err(EngineError::from)
    }

    /// Takes notice of the history that the next bytes belong to.
    fn enter(&mut self, feed: &dyn LogFeed) {
        let history = feed.history();
        if let Some(name) = &history {
            self.number = self.histories.number_or_next(name);
        }
        self.spool.enter(history);
    }

    /// A position of the feed as it is kept.
    fn place(&self, at: LogPosition) -> Position {
        if self.number > 0 { Position::new(self.number, at.offset) } else { position(at) }
    }

    /// The history goes on under another name or number.
    fn switch(&mut self, feed: &dyn LogFeed, left: LogPosition) -> Result<Position, Failure> {
        let (left, before) = (self.place(left), self.number);
        self.enter(feed);
        if before > 0 && self.number <= before {
            let what = "the store goes on with a history that it had left before";
            return Err(Failure::new(FailureKind::Findings, what));
        }
        self.identity = feed.identity();
        Ok(left)
    }

    fn run(
        &mut self,
        feed: &mut dyn LogFeed,
        options: FollowOptions,
        monitor: &Collector,
    ) -> Result<(), Failure> {
        monitor.phase(&format!("following the log of {}", self.row.name), None);
        let mut follows = None;
        self.ship()?;
        loop {
            if monitor.cancelled() {
                return Ok(());
            }
            let mut caught_up = false;
            match feed.next(TICK)? {
                Step::Bytes { at, bytes, newest, boundary } => {
                    self.report.received_bytes += bytes.len() as u64;
                    monitor.advance(bytes.len() as u64, 0);
                    self.as_of = self.as_of.max(newest);
                    let known = self.known();
                    self.spool.push(self.place(at), &bytes, follows.take(), (known, newest))?;
                    self.spool.arrived(self.engine.env.clock.now());
                    if boundary || self.spool.open_bytes() >= MAX_PIECE_BYTES {
                        self.cut_and_ship()?;
                    }
                }
                Step::Quiet { as_of } => {
                    let now = self.engine.env.clock.now();
                    let as_of = as_of.map(|as_of| as_of.min(now));
                    self.as_of = self.as_of.max(as_of);
                    caught_up = as_of.is_some();
                    self.sync(feed)?;
                }
                Step::Switch { left, entered } => {
                    self.cut_and_ship()?;
                    follows = Some(self.switch(feed, left)?);
                    let entered = self.place(entered).timeline;
                    monitor.phase(&format!("following timeline {entered}"), None);
                }
            }
            let now = self.engine.env.clock.now();
            if now.duration_since(self.synced_at).abs() >= SYNC_EVERY {
                self.sync(feed)?;
            }
            if now.duration_since(self.shipped_at).abs() >= self.interval || (options.once && caught_up) {
                self.sync(feed)?;
                self.cut_and_ship()?;
            }
            if options.once && caught_up {
                return Ok(());
            }
        }
    }

    /// Makes what arrived durable and tells the store.
    fn sync(&mut self, feed: &mut dyn LogFeed) -> Result<(), Failure> {
        let now = self.engine.env.clock.now();
        self.synced_at = now;
        let durable = match self.spool.sync()? {
            Some(at) => Some(at),
            None => self.resume_point()?,
        };
        // What is durable of another history says nothing about this one.
        match durable.filter(|at| self.number == 0 || at.timeline == self.number) {
            Some(at) => feed.durable(log_position(at), now),
            None => feed.durable(feed.start(), now),
        }
    }

    /// The position after the newest finished piece, or the head.
    fn resume_point(&self) -> Result<Option<Position>, Failure> {
        let spooled = self.spool.pieces()?.last().map(|piece| piece.head.last());
        Ok(spooled.max(self.head.as_ref().map(|head| head.position)))
    }

    fn cut_and_ship(&mut self) -> Result<(), Failure> {
        let known = self.known();
        self.spool.cut(known)?;
        self.ship()
    }

    /// Brings every finished piece to every copy; a piece leaves the spool when all have it.
    fn ship(&mut self) -> Result<(), Failure> {
        let now = self.engine.env.clock.now();
        self.shipped_at = now;
        let wanted_count = self.row.copies.value.len();
        let entropy = self.engine.env.entropy.as_ref();
        let shipped = ship(&self.spool, &self.set, wanted_count, &self.stream, entropy)?;
        for finding in shipped.findings {
            if !self.report.findings.contains(&finding) {
                self.report.findings.push(finding);
            }
        }
        self.report.shipped += shipped.count;
        // What was put into the spool beside us may be older than what we hold.
        let newer = |at| self.head.as_ref().is_none_or(|head| at >= head.position);
        if let Some((at, ended)) = shipped.head.filter(|(at, _)| newer(*at)) {
            self.report.to = at.to_string();
            // What waited for a copy may be of a history that was left since.
            let name = self.histories.name(at.timeline).unwrap_or(&self.identity).to_owned();
            self.head = Some(Head::new(name, at, ended));
        }
        if shipped.waiting {
            return Ok(());
        }
        self.advance_head()?;
        self.roll_up(now)
    }

    /// Says how far every copy has everything, and as of when.
    fn advance_head(&mut self) -> Result<(), Failure> {
        let Some(head) = &mut self.head else { return Ok(()) };
        if self.identity.is_empty() {
            return Ok(());
        }
        if self.number == 0 || head.position.timeline == self.number {
            head.identity.clone_from(&self.identity);
        }
        if self.spool.open_bytes() == 0 {
            head.as_of = self.as_of.map_or(head.as_of, |as_of| as_of.max(head.as_of));
        }
        self.report.as_of = Some(head.as_of);
        head.write(&self.folder)
    }

    fn roll_up(&mut self, now: Timestamp) -> Result<(), Failure> {
        if now.duration_since(self.rolled_up).abs() < ROLL_UP_EVERY {
            return Ok(());
        }
        self.rolled_up = now;
        for entry in &self.set.open {
            entry.vault.logs().roll_up(&self.stream, now).map_err(Failure::from)?;
        }
        Ok(())
    }
}
