//! Follows a store's log: spool, tell the store, ship to every copy.
//!
//! Memory: one message of the store, one piece of at most 16 MiB while it is shipped, and at the start of a connection 16 MiB of
//! kept log. Disk: the spool, at most 16 GiB or what was asked for, and one piece more.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::human;
use lifeboat_base::ids::{StoreName, StreamName};
use lifeboat_base::lease::Lease;
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_base::time::{SignedDuration, Timestamp};
use lifeboat_policy::Store;
use lifeboat_stores::{Adapter, Continuous, LogFeed, LogPosition, Resume, Step};
use lifeboat_vault::logs::{LogName, Position};
use serde::Serialize;
use serde_json::json;

use super::head::Head;
use super::keepers::Keepers;
use super::marks::Marks;
use super::numbers::Histories;
use super::ranges::position;
use super::ship::{Shipment, Shipped};
use super::sources::Sources;
use super::spool::{MAX_PIECE_BYTES, MAX_WAITING_BYTES, Spool, left_bytes};
use super::troubles::Troubles;
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
/// One shipment takes about this long at most; then the store is listened to for as long.
const SHIPMENT_WITHIN: Duration = Duration::from_secs(2);
/// The last one of a run that was asked to end.
const END_WITHIN: Duration = Duration::from_secs(10);
/// Kept log that is compared with what the store sends again, at most: a segment of the usual size.
const TAIL_BYTES: u64 = 16 << 20;
/// Roll-up indexes are written this often.
const ROLL_UP_EVERY: SignedDuration = SignedDuration::from_secs(600);

/// While the store is away it is asked again after this, and then less and less often.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Codes of what is told once: the store cannot be reached, it does not let us in, there is no room for more log.
const AWAY: &str = "store-away";
const REFUSES: &str = "store-refuses";
const FULL: &str = "spool-full";
/// A copy is away, takes nothing, or holds a damaged object in the way of a sound one.
const UNUSABLE: &str = "copy-unusable";
const BEHIND: &str = "log-behind";
const DAMAGED: &str = "log-damaged";

/// How to follow a log.
#[derive(Clone, Copy, Debug, Default)]
pub struct FollowOptions {
    /// Ends as soon as everything the store had at the start is in every copy.
    pub once: bool,
    /// Log that waits here for a copy that is away, at most; 16 GiB if not said. Beyond it the store keeps its log itself.
    pub spool_limit_bytes: Option<u64>,
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
    /// Log that waits here for a copy; the next run brings it there.
    pub waiting_bytes: u64,
    /// What is wrong now, and gaps.
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
    keepers: Keepers<'a>,
    stream: StreamName,
    folder: PathBuf,
    spool: Spool,
    options: FollowOptions,
    /// Finished pieces in the spool, as of the last shipment or cut.
    waiting_bytes: u64,
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
    /// The last shipment left pieces behind that nothing stands in the way of.
    unfinished: bool,
    /// When they go on, by the stopwatch.
    ship_again: Duration,
    synced_at: Timestamp,
    rolled_up: Timestamp,
    monitor: &'a Collector,
    troubles: Troubles,
    report: FollowReport,
}

impl Engine {
    /// The folder of a store's log in the state folder.
    pub(crate) fn log_folder(&self, store: &StoreName) -> PathBuf {
        self.state.join("logs").join(store.as_str())
    }

    fn log_lease(&self, store: &StoreName) -> PathBuf {
        self.state.join("locks").join(format!("{store}.log.lock"))
    }

    /// Log that a follower kept here and brought to no copy, if none is at work that will: a restore of the newest state
    /// does not have it.
    pub(crate) fn log_left_here(&self, row: &Store) -> Option<Finding> {
        let left_bytes = left_bytes(&self.log_folder(&row.name)).ok().filter(|left_bytes| *left_bytes > 0)?;
        if !matches!(Lease::try_take_existing(&self.log_lease(&row.name)), Ok(None | Some(Ok(_)))) {
            return None;
        }
        let (store, left) = (&row.name, human::bytes(left_bytes));
        let message = format!(
            "{left} of the log of `{store}` lie in the state folder and not in every copy, and nobody follows it: a restore \
             does not have them; next: run `lifeboat wal stream {store} --once`, which brings them there also if the \
             store is gone"
        );
        Some(Finding::new("log-waiting", store.as_str(), message))
    }

    /// Follows the log of a store until the monitor asks to stop, or with `once` until what was there at the start is
    /// kept. A store that was reached once and goes away is waited for, and so is every copy.
    pub fn follow_log(&self, store: &StoreName, options: FollowOptions) -> Result<FollowReport, EngineError> {
        let row = self.store(store)?;
        let adapter = self.adapter(row)?;
        let Some(continuous) = adapter.continuous() else {
            let what = format!("stores of kind `{}` have no continuous log", row.kind.word());
            return Err(EngineError::new(FailureKind::Refused, what));
        };
        self.ready_to_file()?;
        let path = self.log_lease(store);
        let _lease = Lease::try_acquire(&path, &format!("the log of {store}"))
            .map_err(|error| Failure::io(format!("failed to take the lease of the log of `{store}`"), error))?
            .map_err(|held| {
                EngineError::new(
                    FailureKind::Refused,
                    format!("the log of `{store}` is in other hands: {}", held.0),
                )
            })?;
        let what = "wal stream";
        let set =
            if options.once { self.reachable(row, what) } else { self.reachable_or_awaited(row, what) }?;
        let monitor = Collector::new(self.observer.job(&format!("log of {store}")));
        let mut follower = self.follower(row, (set, continuous), options, &monitor)?;
        follower.tell_of_copies();
        let mut resume = follower.resume(continuous)?;
        let mut wait = FIRST_WAIT;
        loop {
            let received_bytes = follower.report.received_bytes;
            let end = follower.along(continuous, adapter.as_ref(), resume);
            // The store may be gone for good: what is here goes out at once.
            follower.cut()?;
            follower.ship()?;
            match end {
                Ok(()) => return Ok(follower.done()),
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
                    follower.tell_of_store(continuous, &error);
                    if follower.pause(wait)? {
                        return Ok(follower.done());
                    }
                    wait = (wait * 2).min(LONGEST_WAIT);
                    resume = follower.resume(continuous)?;
                }
                Err(error) => {
                    let next = match follower.waiting_bytes {
                        0 => "everything that had arrived is in every copy",
                        _ => "what had arrived is kept here",
                    };
                    let next =
                        format!("{next}; run `lifeboat wal stream {store}` again when the store is there");
                    let next = error.next.clone().unwrap_or(next);
                    return Err(error.risking(store, "rpo").next(next));
                }
            }
        }
    }

    /// What a store was known as before: by how far its log was kept, and by its newest point.
    pub(crate) fn identities(&self, row: &Store, adapter: &dyn Adapter) -> Result<Vec<String>, EngineError> {
        let followed = adapter.continuous().map(|_| Head::read(&self.log_folder(&row.name))).transpose()?;
        let head = followed.flatten().map(|head| head.identity);
        let view = self.view(row)?;
        let of_point = view.points.last().and_then(|point| adapter.identity(&point.manifest.facts));
        Ok(head.into_iter().chain(of_point).collect())
    }

    fn follower<'a>(
        &'a self,
        row: &'a Store,
        (set, store): (VaultSet, &dyn Continuous),
        options: FollowOptions,
        monitor: &'a Collector,
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
        let histories = Histories::kept(store, (&set, &stream), &spool, head.as_ref())?;
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
            waiting_bytes: 0,
            findings: Vec::new(),
        };
        let waiting_bytes = spool.waiting_bytes()?;
        Ok(Follower {
            engine: self,
            row,
            keepers: Keepers::new(self, row, stream.clone(), Marks::new(&folder), set),
            stream,
            folder,
            spool,
            options,
            waiting_bytes,
            identity: String::new(),
            as_of: None,
            head,
            histories,
            number: 0,
            interval: SignedDuration::try_from(interval).unwrap_or(SignedDuration::MAX),
            shipped_at: now,
            unfinished: false,
            ship_again: Duration::ZERO,
            synced_at: now,
            rolled_up: now,
            monitor,
            troubles: Troubles::default(),
            report,
        })
    }
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
        for entry in &self.keepers.set.open {
            // A copy that cannot be listed now gets what it lacks later.
            let kept = entry.vault.logs().list(&self.stream).unwrap_or_default();
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
        let mut sources = Sources::open(&self.keepers.set, &self.stream, Some(&self.folder))?;
        // For `status`, which then says that it does not know.
        drop(self.learn_way(&mut sources, at.timeline));
        let tail = sources.tail(at, TAIL_BYTES);
        let history = self.histories.name(at.timeline).map(str::to_owned);
        Ok(Some(Resume { position: log_position(at), tail, history }))
    }

    /// Remembers how the timelines up to this one began, where a state folder that was lost no longer knows it.
    fn learn_way(&self, sources: &mut Sources, timeline: u32) -> Result<(), Failure> {
        let marks = Marks::new(&self.folder);
        let known = marks.way().left;
        let (mut found, mut at) = (BTreeMap::new(), timeline);
        // A timeline continues an older one: this ends.
        loop {
            let left = match known.get(&at) {
                Some(left) => Some(*left),
                None => sources.entry(at)?.and_then(|(_, left)| left),
            };
            let Some(left) = left.filter(|_| !found.contains_key(&at)) else { break };
            found.insert(at, left);
            at = left.timeline;
        }
        marks.forked(&found)?;
        match sources.first(at) {
            Some(first) => marks.begin(Position::new(at, first)),
            None => Ok(()),
        }
    }

    /// Follows the log along one connection, until all that is wanted is done, it is told to stop, or something comes in
    /// the way.
    fn along(
        &mut self,
        store: &dyn Continuous,
        adapter: &dyn Adapter,
        resume: Option<Position>,
    ) -> Result<(), EngineError> {
        let known = self.engine.identities(self.row, adapter)?;
        let mut feed = store.follow(self.resume_from(resume)?, &known)?;
        self.run_from(feed.as_mut())
    }

    /// The end of a run: what is wrong now decides how it went.
    fn done(mut self) -> FollowReport {
        self.report.waiting_bytes = self.waiting_bytes;
        if self.unfinished {
            let waiting = human::bytes(self.waiting_bytes);
            let message = format!("{waiting} of log wait here: the next run brings them to the copies");
            self.report.findings.push(Finding::new("log-waiting", self.row.name.as_str(), message));
        }
        if self.options.once && self.monitor.cancelled() {
            let message = format!("ended on request, before all that {} had was kept", self.row.name);
            self.report.findings.push(Finding::new("stopped", self.row.name.as_str(), message));
        }
        self.report.findings.extend(self.troubles.findings());
        self.report.findings.extend(self.monitor.take());
        self.report
    }

    /// Waits for the store, and looks after the copies meanwhile; true if the work was cancelled.
    fn pause(&mut self, span: Duration) -> Result<bool, EngineError> {
        let end = self.now() + span;
        while self.now() < end && !self.monitor.cancelled() {
            std::thread::park_timeout(TICK);
            self.tend()?;
        }
        Ok(self.monitor.cancelled())
    }

    /// The stopwatch.
    fn now(&self) -> Duration {
        self.engine.env.clock.monotonic()
    }

    /// Says what is wrong with the copies, and which are in use again.
    fn tell_of_copies(&mut self) {
        let (row, now) = (&self.row.name, self.now());
        let risk = |mut finding: Finding| {
            finding.message = format!(
                "{}; at risk: rpo and copies of `{row}`; the log waits here until the copy is back",
                finding.message
            );
            finding
        };
        let findings = self.keepers.set.findings().into_iter().map(risk).collect();
        let back = |copy: &str| format!("copy `{copy}` is used again");
        self.troubles.are(UNUSABLE, findings, back, (now, self.monitor));
    }

    /// Says that the store is away, or that it refuses us, which only a person can change.
    fn tell_of_store(&mut self, store: &dyn Continuous, error: &EngineError) {
        let (name, now) = (self.row.name.as_str(), self.now());
        let why = error.failure.chain();
        let message = format!("everything that arrived is kept; waiting for {name}: {why}");
        let refusal = store.refusal(&error.failure);
        let code = if refusal.is_some() { REFUSES } else { AWAY };
        let message = match &refusal {
            Some(next) => format!("{message}; at risk: rpo of `{name}`; next: {next}"),
            None => message,
        };
        let other = if refusal.is_some() { AWAY } else { REFUSES };
        self.troubles.forget(other, name);
        let finding = Finding::new(code, name, message).with_kind(error.kind());
        self.troubles.begin(finding, refusal.is_some(), now, self.monitor);
    }

    /// Looks after the copies: those that are away are tried again, what one lost is brought again, what waits goes out.
    fn tend(&mut self) -> Result<(), EngineError> {
        let back = self.keepers.tend();
        self.tell_of_copies();
        self.keepers.refill(false)?;
        if back || (self.unfinished && self.now() >= self.ship_again) {
            self.ship()?;
        }
        self.troubles.remind(self.now(), self.monitor);
        Ok(())
    }

    /// What becomes of log that is not taken. A store that names its histories keeps the newest stretch of them, in memory.
    fn keeps_itself(&self) -> &'static str {
        if self.number > 0 {
            "nothing more is taken, and what no longer fits into the server's backlog is lost"
        } else {
            "the server keeps its log itself from here on, on its own disk"
        }
    }

    fn has_room(&self) -> bool {
        let limit_bytes = self.options.spool_limit_bytes.unwrap_or(MAX_WAITING_BYTES);
        self.waiting_bytes + self.spool.open_bytes() < limit_bytes
    }

    /// The copies that log waits for.
    fn blamed(&self) -> String {
        let codes = [UNUSABLE, BEHIND, DAMAGED];
        let blamed: BTreeSet<&str> = codes.iter().flat_map(|code| self.troubles.subjects(code)).collect();
        blamed.into_iter().collect::<Vec<_>>().join(", ")
    }

    /// Whether there is no room for more log; then the store keeps it until there is.
    fn is_full(&mut self) -> Result<bool, EngineError> {
        let name = self.row.name.as_str();
        // What nothing stands in the way of does not wait for its hour.
        if !self.has_room() && self.blamed().is_empty() {
            self.cut_and_ship()?;
        }
        if self.has_room() {
            let how = format!("there is room again: the log of {name} is followed on");
            self.troubles.end(FULL, name, &how, self.monitor);
            return Ok(false);
        }
        let blamed = match self.blamed() {
            none if none.is_empty() => "the copies".to_owned(),
            blamed => blamed,
        };
        let waiting = human::bytes(self.waiting_bytes + self.spool.open_bytes());
        let keeps = self.keeps_itself();
        let message = format!(
            "{waiting} of log wait here for {blamed}, which is the limit: {keeps}; at risk: rpo of `{name}`; next: bring the \
             copy back, or take it out of the row"
        );
        let finding = Finding::new(FULL, name, message).with_kind(FailureKind::Unreachable);
        self.troubles.begin(finding, true, self.now(), self.monitor);
        Ok(true)
    }

    /// The store no longer has what comes next: from here on there is a gap, which is filed before anything goes on.
    fn lost(&mut self, resume: Option<Position>, failure: &Failure) -> Result<(), EngineError> {
        let at = resume.map_or_else(|| "its beginning".to_owned(), |at| at.to_string());
        let message = format!("the log of `{}` has a gap after {at}: {}", self.row.name, failure.chain());
        let body = json!({ "stream": self.stream, "after": resume, "error": failure.chain() });
        self.engine.file(Entry { kind: "log-gap", store: &self.row.name, ok: false, body })?;
        self.monitor.notice(&message);
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

    fn run_from(&mut self, feed: &mut dyn LogFeed) -> Result<(), EngineError> {
        // The feed has refused every identity but the known ones.
        self.identity = feed.identity();
        self.enter(feed);
        let name = self.row.name.as_str();
        for code in [AWAY, REFUSES] {
            self.troubles.end(code, name, &format!("{name} is there again and followed"), self.monitor);
        }
        if self.head.is_none() {
            // Nothing is held yet, but where it begins is known: a later run goes on from here and not from its present.
            let head = Head::new(self.identity.clone(), self.place(feed.start()), Timestamp::UNIX_EPOCH);
            Marks::new(&self.folder).begin(head.position)?;
            head.write(&self.folder)?;
            self.head = Some(head);
        }
        if self.report.from.is_empty() {
            self.report.from = self.place(feed.start()).to_string();
        }
        self.run(feed)
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

    fn run(&mut self, feed: &mut dyn LogFeed) -> Result<(), EngineError> {
        let once = self.options.once;
        self.monitor.phase(&format!("following the log of {}", self.row.name), None);
        let mut follows = None;
        self.ship()?;
        while !self.monitor.cancelled() {
            self.tend()?;
            if self.is_full()? {
                if once {
                    let what = format!("no room for more log of `{}`", self.row.name);
                    let next =
                        format!("bring the copy back, or take it out of the row: {}", self.keeps_itself());
                    return Err(EngineError::new(FailureKind::Unreachable, what).next(next));
                }
                // Nothing more is taken, and so nothing more is called durable; the store hears that we live.
                self.sync(feed)?;
                self.cut()?;
                std::thread::park_timeout(TICK);
                if self.shipment_due() {
                    self.cut_and_ship()?;
                }
                continue;
            }
            let caught_up = self.step(feed, &mut follows)?;
            let now = self.engine.env.clock.now();
            if now.duration_since(self.synced_at).abs() >= SYNC_EVERY {
                self.sync(feed)?;
            }
            if self.shipment_due() || (once && caught_up) {
                self.sync(feed)?;
                self.cut_and_ship()?;
            }
            if once && caught_up {
                while self.keepers.refill(true)? && !self.monitor.cancelled() {}
                return Ok(());
            }
        }
        Ok(())
    }

    fn shipment_due(&self) -> bool {
        self.engine.env.clock.now().duration_since(self.shipped_at).abs() >= self.interval
    }

    /// Takes what comes next; true if that is all the store had at some moment of this connection.
    fn step(&mut self, feed: &mut dyn LogFeed, follows: &mut Option<Position>) -> Result<bool, Failure> {
        match feed.next(TICK)? {
            Step::Bytes { at, bytes, newest, boundary } => {
                self.report.received_bytes += bytes.len() as u64;
                self.monitor.advance(bytes.len() as u64, 0);
                // A server whose clock is ahead says nothing about what comes until then.
                let now = self.engine.env.clock.now();
                self.as_of = self.as_of.max(newest.map(|newest| newest.min(now)));
                let known = self.known();
                self.spool.push(self.place(at), &bytes, follows.take(), (known, newest))?;
                self.spool.arrived(self.engine.env.clock.now());
                if boundary || self.spool.open_bytes() >= MAX_PIECE_BYTES {
                    self.cut_and_ship()?;
                }
                Ok(false)
            }
            Step::Quiet { as_of } => {
                let now = self.engine.env.clock.now();
                let as_of = as_of.map(|as_of| as_of.min(now));
                self.as_of = self.as_of.max(as_of);
                self.sync(feed)?;
                Ok(as_of.is_some())
            }
            Step::Switch { left, entered } => {
                self.cut_and_ship()?;
                *follows = Some(self.switch(feed, left)?);
                let entered = self.place(entered).timeline;
                self.monitor.phase(&format!("following timeline {entered}"), None);
                Ok(false)
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
        self.shipped_at = self.engine.env.clock.now();
        self.cut()?;
        self.ship()
    }

    fn cut(&mut self) -> Result<(), Failure> {
        let known = self.known();
        self.waiting_bytes += self.spool.open_bytes();
        self.spool.cut(known)
    }

    /// Brings every finished piece to every copy, as far as there is time; a piece leaves the spool when all have it.
    fn ship(&mut self) -> Result<(), Failure> {
        let now = self.engine.env.clock.now();
        self.keepers.look();
        self.tell_of_copies();
        let stopping = self.monitor.cancelled();
        let deadline = self.now() + if stopping { END_WITHIN } else { SHIPMENT_WITHIN };
        let enough = || (!self.options.once || self.monitor.cancelled()) && self.now() >= deadline;
        let shipment = Shipment {
            store: &self.row.name,
            set: &self.keepers.set,
            wanted_count: self.row.copies.value.len(),
            stream: &self.stream,
            marks: Marks::new(&self.folder),
            entropy: self.engine.env.entropy.as_ref(),
            enough: &enough,
        };
        let shipped = shipment.all(&self.spool)?;
        self.waiting_bytes = self.spool.waiting_bytes()?;
        self.ship_again = self.now() + SHIPMENT_WITHIN;
        self.unfinished = shipped.unfinished;
        self.report.shipped += shipped.count;
        // What was put into the spool beside us may be older than what we hold.
        let newer = |at| self.head.as_ref().is_none_or(|head| at >= head.position);
        if let Some((at, ended)) = shipped.head.filter(|(at, _)| newer(*at)) {
            self.report.to = at.to_string();
            // What waited for a copy may be of a history that was left since.
            let identity = match &self.head {
                Some(head) if self.identity.is_empty() => &head.identity,
                _ => &self.identity,
            };
            let name = self.histories.name(at.timeline).unwrap_or(identity).to_owned();
            let now = self.engine.env.clock.now();
            self.head = Some(Head::new(name, at, ended.min(now)));
        }
        let waiting = shipped.waiting;
        self.tell_of_shipment(shipped);
        if waiting {
            return Ok(());
        }
        self.advance_head()?;
        self.roll_up(now)
    }

    fn tell_of_shipment(&mut self, shipped: Shipped) {
        let now = self.now();
        let (behind, damaged): (Vec<Finding>, Vec<Finding>) =
            shipped.findings.into_iter().partition(|finding| finding.code == BEHIND);
        let back = |copy: &str| format!("copy `{copy}` takes the log again");
        self.troubles.are(BEHIND, behind, back, (now, self.monitor));
        for finding in damaged {
            self.troubles.begin(finding, false, now, self.monitor);
        }
    }

    /// Says how far every copy has everything, and as of when.
    fn advance_head(&mut self) -> Result<(), Failure> {
        let Some(head) = &mut self.head else { return Ok(()) };
        // Of a store that is away, what waited here is brought all the same.
        let known = !self.identity.is_empty();
        if known && (self.number == 0 || head.position.timeline == self.number) {
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
        for entry in &self.keepers.set.open {
            entry.vault.logs().roll_up(&self.stream, now).map_err(Failure::from)?;
        }
        Ok(())
    }
}
