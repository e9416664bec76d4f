//! The adapter of kind `redis`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_base::capture::{Capture, CaptureFacts, RestoreSource};
use lifeboat_base::failure::Failure;
use lifeboat_base::monitor::Monitor;
use lifeboat_base::secret::Secret;
use lifeboat_base::time::{Clock, SystemClock, Timestamp};
use lifeboat_redis::place::{Found, Target};
use lifeboat_redis::rest::{RestLink, RestOptions};
use lifeboat_redis::scan::{Link, Pace, RespLink};
use lifeboat_redis::server::{RUNTIME, sweep};
use lifeboat_redis::wire::ConnectOptions;

use super::capture::RedisCapture;
use super::checks::{self, START, Subject};
use super::duties::{self, Upkeep};
use super::feed::RedisFeed;
use super::hosted::{self, Reach, ScanOptions};
use super::{canaries, error, facts, load, merge, replay, restore, select, shards};
use crate::adapter::{
    Adapter, Address, CanaryResult, CaptureContext, CheckResult, Inspection, RestoreReport, Share,
};
use crate::continuous::{Continuous, Goal, LogFeed, LogPosition, LogSource, Resume, Stop};
use crate::duties::{Duties, Look, Rebuilt};
use crate::load::{LoadOptions, Loaded, Loader, MergeOptions};
use crate::select::{Select, Selection, Take};
use crate::serve::Serve;

/// How a server is reached and what is checked after a restore.
#[derive(Clone)]
pub struct RedisOptions {
    /// Gives the address of the server; called only to inspect, capture or follow, never to restore or check.
    pub url: Address,
    /// Folders with programs of a server, besides those where packages put them.
    pub programs: Vec<PathBuf>,
    /// Commands that only read, with what they must answer: `GET version = 3`.
    pub commands: Vec<String>,
    /// What the row says about a server that is not retained.
    pub upkeep: Upkeep,
    /// How a server is captured that is read key by key; nothing for one that replicates.
    pub scan: Option<ScanOptions>,
    /// Gives the token of the row's own address of the REST form, where it does not stand in the address.
    pub token: Option<Address>,
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions").field("commands", &self.commands).finish_non_exhaustive()
    }
}

/// Captures and restores one server.
#[derive(Clone)]
pub struct RedisAdapter {
    options: RedisOptions,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for RedisAdapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisAdapter").field("options", &self.options).finish_non_exhaustive()
    }
}

impl RedisAdapter {
    /// An adapter for one server. Nothing is contacted yet.
    pub fn new(options: RedisOptions) -> Self {
        Self::with_clock(options, Arc::new(SystemClock::new()))
    }

    /// The same, by this clock.
    pub fn with_clock(options: RedisOptions, clock: Arc<dyn Clock>) -> Self {
        Self { options, clock }
    }

    fn subject<'a>(&'a self, facts: &'a CaptureFacts, monitor: &'a dyn Monitor) -> Subject<'a> {
        Subject {
            facts,
            programs: &self.options.programs,
            commands: &self.options.commands,
            clock: self.clock.as_ref(),
            monitor,
        }
    }

    /// The server as it is now: sentinels and clusters are asked each time.
    fn find(&self) -> Result<Found, Failure> {
        Target::parse(&(self.options.url)()?).and_then(|target| target.find()).map_err(error::place)
    }

    /// A way to a server that takes plain commands.
    fn link(&self, address: &Secret<String>, per_second: Option<u32>) -> Result<Box<dyn Link>, Failure> {
        if !is_rest(address) {
            return self.resp(&place(address)?, per_second);
        }
        // The row's token is for the row's service: whoever else is named must come with one of their own.
        let is_own = (self.options.url)().is_ok_and(|own| own.expose() == address.expose());
        let token = self.options.token.as_ref().filter(|_token| is_own);
        let token = token.map(|token| token()).transpose()?;
        let options = RestOptions::parse(address, token)
            .map_err(error::connection("failed to understand the address of the service"))?;
        Ok(Box::new(RestLink::new(options, Pace::new(Arc::clone(&self.clock), per_second))))
    }

    fn resp(&self, options: &ConnectOptions, per_second: Option<u32>) -> Result<Box<dyn Link>, Failure> {
        let link = RespLink::open(options, Pace::new(Arc::clone(&self.clock), per_second));
        Ok(Box::new(link.map_err(error::connection("failed to reach the server"))?))
    }

    /// The way to a service that is reached over REST, if the row's is.
    fn service(&self) -> Result<Option<Box<dyn Link>>, Failure> {
        let address = (self.options.url)()?;
        let per_second = self.options.scan.as_ref().and_then(|scan| scan.requests_per_second);
        is_rest(&address).then(|| self.link(&address, per_second)).transpose()
    }

    /// How the server is read key by key and a way to it, if it is: because the row says so, or its address does.
    fn scanned(&self) -> Result<Option<(ScanOptions, Reach)>, Failure> {
        let address = (self.options.url)()?;
        let is_rest = is_rest(&address);
        let Some(scan) = self.options.scan.clone().or_else(|| is_rest.then(ScanOptions::default)) else {
            return Ok(None);
        };
        let reach = if is_rest {
            Reach { link: self.link(&address, scan.requests_per_second)?, found: None }
        } else {
            let found = self.find()?;
            Reach { link: self.resp(&found.options, scan.requests_per_second)?, found: Some(found) }
        };
        Ok(Some((scan, reach)))
    }
}

impl Adapter for RedisAdapter {
    fn kind(&self) -> &'static str {
        "redis"
    }

    fn inspect(&self) -> Result<Inspection, Failure> {
        match self.scanned()? {
            Some((scan, reach)) => hosted::inspect(reach, &scan),
            None => facts::inspect(&self.find()?),
        }
    }

    fn capture(&self, at: &CaptureContext<'_>) -> Result<Box<dyn Capture>, Failure> {
        match self.scanned()? {
            Some((scan, reach)) => hosted::start(reach, &scan, at),
            None => Ok(Box::new(RedisCapture::start(&self.find()?, at)?)),
        }
    }

    fn selects(&self) -> Option<&dyn Select> {
        Some(self)
    }

    fn serves(&self) -> Option<&dyn Serve> {
        Some(self)
    }

    fn restore(
        &self,
        from: &dyn RestoreSource,
        facts: &CaptureFacts,
        into: &Path,
        monitor: &dyn Monitor,
    ) -> Result<RestoreReport, Failure> {
        let with = (monitor, self.clock.as_ref());
        if facts::is_scan(facts) {
            return hosted::restore(from, facts, into, with);
        }
        restore::restore(from, facts, into, with)
    }

    fn identity(&self, facts: &CaptureFacts) -> Option<String> {
        shards::identity(facts)
    }

    fn share(&self, facts: &CaptureFacts) -> Option<Share> {
        shards::share_of(facts)
    }

    fn essential(&self) -> &'static [&'static str] {
        &[START]
    }

    fn continuous(&self) -> Option<&dyn Continuous> {
        // What is read key by key has no place in a stream.
        self.options.scan.is_none().then_some(self as &dyn Continuous)
    }

    fn duties(&self) -> Option<&dyn Duties> {
        Some(self)
    }

    fn loader(&self) -> Option<&dyn Loader> {
        Some(self)
    }

    fn sweep(&self) -> Result<(), Failure> {
        let swept = sweep(Path::new(RUNTIME), self.clock.as_ref());
        swept.map(drop).map_err(error::server("failed to end throwaway servers that a dead run left"))
    }

    fn checks(
        &self,
        from: &dyn RestoreSource,
        facts: &CaptureFacts,
        restored: &Path,
        monitor: &dyn Monitor,
    ) -> Result<Vec<CheckResult>, Failure> {
        checks::check(&self.subject(facts, monitor), from, restored)
    }

    fn canaries(&self, scratch: &Path) -> Result<Vec<CanaryResult>, Failure> {
        canaries::run(scratch, &self.options.programs, self.options.scan.as_ref())
    }
}

impl Select for RedisAdapter {
    fn select(
        &self,
        facts: &CaptureFacts,
        artefact: &Path,
        wanted: &[Selection],
        monitor: &dyn Monitor,
        take: &mut Take<'_>,
    ) -> Result<Vec<Result<(), Failure>>, Failure> {
        select::select(&self.subject(facts, monitor), artefact, wanted, take)
    }
}

impl Serve for RedisAdapter {
    fn address(&self, _facts: &CaptureFacts, at: &Path) -> String {
        format!("unix://{}", at.display())
    }

    fn serve(
        &self,
        facts: &CaptureFacts,
        artefact: &Path,
        monitor: &dyn Monitor,
        work: &mut dyn FnMut(&Path) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        select::serve(&self.subject(facts, monitor), artefact, work)
    }
}

fn place(address: &Secret<String>) -> Result<ConnectOptions, Failure> {
    ConnectOptions::parse(address)
        .map_err(error::connection("failed to understand the address of the server"))
}

impl Loader for RedisAdapter {
    fn ready(&self, address: &Secret<String>, options: &LoadOptions) -> Result<(), Failure> {
        match merged(address, options) {
            Some(_) => merge::ready(self.link(address, None)?.as_mut()),
            None => load::ready(&place(address)?, options.force),
        }
    }

    fn load(
        &self,
        restored: &Path,
        address: &Secret<String>,
        options: &LoadOptions,
        monitor: &dyn Monitor,
    ) -> Result<Loaded, Failure> {
        let what = (restored, self.options.programs.as_slice(), load::databases(restored));
        match merged(address, options) {
            Some(wanted) => {
                merge::merge(what, self.link(address, None)?, &wanted, (Arc::clone(&self.clock), monitor))
            }
            None => load::load(what, &place(address)?, options.force, (self.clock.as_ref(), monitor)),
        }
    }
}

/// How keys are merged, if they are. What is reached over REST takes nothing as a whole.
fn merged(address: &Secret<String>, options: &LoadOptions) -> Option<MergeOptions> {
    let is_rest = is_rest(address);
    options.merge.clone().or_else(|| is_rest.then(MergeOptions::default))
}

fn is_rest(address: &Secret<String>) -> bool {
    ["https://", "http://"].iter().any(|scheme| address.expose().starts_with(scheme))
}

impl Duties for RedisAdapter {
    fn reach(&self) -> Result<Inspection, Failure> {
        match self.service()? {
            Some(mut link) => duties::reach(link.as_mut()),
            None => facts::reach(&self.find()?),
        }
    }

    fn look(&self, monitor: &dyn Monitor) -> Result<Look, Failure> {
        monitor.phase("looking at its keys", None);
        let scan = self.options.scan.clone().unwrap_or_default();
        let mut link = match self.service()? {
            Some(link) => link,
            None => self.resp(&self.find()?.options, scan.requests_per_second)?,
        };
        duties::look(link.as_mut(), (&scan.prefix, &self.options.upkeep), self.clock.as_ref())
    }

    fn is_rebuildable(&self) -> bool {
        !self.options.upkeep.rebuild.is_empty()
    }

    fn rebuild(&self, scratch: &Path, monitor: &dyn Monitor) -> Result<Rebuilt, Failure> {
        let row = (&self.options.upkeep, self.options.commands.as_slice());
        duties::rebuild(row, &self.options.programs, scratch, (self.clock.as_ref(), monitor))
    }

    fn rebuild_canaries(&self, scratch: &Path) -> Result<Vec<CanaryResult>, Failure> {
        duties::canaries(scratch, &self.options.programs)
    }
}

impl Continuous for RedisAdapter {
    fn stream(&self) -> &'static str {
        "commands"
    }

    fn names_histories(&self) -> bool {
        true
    }

    fn history(&self, facts: &CaptureFacts) -> Option<String> {
        replay::place(facts).ok().map(|place| place.id.to_string())
    }

    fn earliest(&self, facts: &CaptureFacts) -> Timestamp {
        replay::earliest(facts)
    }

    fn identity(&self, _facts: &CaptureFacts) -> Option<String> {
        // A server has no name that lasts: one that is restarted, and any other, has a history of its own.
        None
    }

    fn follow(&self, resume: Option<Resume>, _known: &[String]) -> Result<Box<dyn LogFeed>, Failure> {
        let found = self.find()?;
        Ok(Box::new(RedisFeed::start(&found, resume, Arc::clone(&self.clock))?))
    }

    fn base_end(&self, facts: &CaptureFacts) -> Result<LogPosition, Failure> {
        if facts.environment.contains_key("redis.capture") {
            // Captured in a way that leads into no stream.
            return Ok(LogPosition { timeline: 0, offset: 0 });
        }
        Ok(LogPosition { timeline: 0, offset: replay::place(facts)?.offset })
    }

    fn is_provable(&self) -> bool {
        true
    }

    fn arrived(
        &self,
        restored: &Path,
        facts: &CaptureFacts,
        monitor: &dyn Monitor,
    ) -> Result<Vec<CheckResult>, Failure> {
        checks::arrived(&self.subject(facts, monitor), restored)
    }

    fn replay(
        &self,
        facts: &CaptureFacts,
        restored: &Path,
        log: &dyn LogSource,
        goal: &Goal,
    ) -> Result<Stop, Failure> {
        replay::replay(facts, restored, log, goal)
    }
}
