//! The whole of it: look for what stands in the way, write, read everything back.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::human;
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_base::time::Clock;
use lifeboat_redis::census::shown;
use lifeboat_redis::scan::{
    Abilities, Command, Known, Link, Outcome, Pace, ReadError, RespLink, Scope, Seen, Walk, read_page,
};
use lifeboat_redis::server::{Programs, Sandbox, SandboxOptions, Wait};
use lifeboat_redis::wire::Info;

use super::compare::{briefs, existing};
use super::write::{UNFINISHED, Writer};
use crate::load::{Conflict, Loaded, MergeOptions};
use crate::redis::checks::Work;
use crate::redis::error;

/// How long the throwaway server may take to load.
const LIMIT: Duration = Duration::from_secs(3 * 3600);
/// What one answer of the throwaway server may hold: no server keeps a longer element.
const REPLY_LIMIT_BYTES: usize = 512 * 1024 * 1024 + 64 * 1024;
/// How many names are shown of what stands in the way or differs.
const MAX_NAMES: usize = 5;

/// Refuses a server that takes no writes, before anything is fetched.
pub(in crate::redis) fn ready(link: &mut dyn Link) -> Result<(), Failure> {
    let failed = || error::connection("the server cannot be filled");
    let abilities = Abilities::probe(link, b"").map_err(failed())?;
    if abilities.mode.as_deref() == Some("cluster") {
        let what = format!(
            "{} is part of a cluster, which keeps only its own slots: nothing was changed",
            link.target()
        );
        return Err(Failure::new(FailureKind::Refused, what));
    }
    let info = link.ask(0, &[vec![b"INFO".to_vec(), b"replication".to_vec()]]).map_err(failed())?;
    let said = info.first().and_then(lifeboat_redis::wire::Reply::text).unwrap_or_default();
    if Info::read(&said).get("role") == Some("slave") {
        let what = format!("{} is a replica, which takes no writes: nothing was changed", link.target());
        return Err(Failure::new(FailureKind::Refused, what));
    }
    Ok(())
}

/// Puts the keys of a restored directory into a server.
pub(in crate::redis) fn merge(
    (restored, programs, databases): (&Path, &[PathBuf], u64),
    mut to: Box<dyn Link>,
    options: &MergeOptions,
    (clock, monitor): (std::sync::Arc<dyn Clock>, &dyn Monitor),
) -> Result<Loaded, Failure> {
    let programs =
        Programs::find(programs).map_err(error::server("what was restored cannot be handed to a server"))?;
    let io = |error| Failure::io("failed to make room for a throwaway server", error);
    let restored = fs::canonicalize(restored).map_err(io)?;
    let work = Work::make(&restored).map_err(io)?;
    let cancelled = || monitor.cancelled();
    let wait = Wait { limit: LIMIT, clock: clock.as_ref(), cancelled: &cancelled };
    let sandbox_options =
        SandboxOptions { runtime: None, work: work.0.clone(), append_only: true, databases };
    let sandbox = Sandbox::start(&programs, &sandbox_options, &OsEntropy, wait)
        .map_err(error::server("a throwaway server does not start on what was restored"))?;
    let failed = || error::connection("the throwaway server cannot be read");
    let pace = Pace::new(std::sync::Arc::clone(&clock), None);
    let mut from = RespLink::open(&sandbox.options(), pace).map_err(failed())?;
    from.set_reply_limit(REPLY_LIMIT_BYTES);
    let source = Abilities::probe(&mut from, b"").map_err(failed())?;
    let target =
        Abilities::probe(to.as_mut(), b"").map_err(error::connection("the server cannot be filled"))?;
    let loaded = Loaded { server: to.target(), ..Loaded::default() };
    let merging = Merging {
        from,
        to: to.as_mut(),
        source,
        target,
        options,
        scope: options.scope(),
        monitor,
        clock: clock.as_ref(),
        loaded,
        left: Known::new(&OsEntropy),
    };
    merging.run()
}

impl MergeOptions {
    /// The names that are restored: those of the prefix, or those that are renamed.
    fn scope(&self) -> Scope {
        let renamed = self.rename.as_ref().map(|(old, _)| old.as_str()).unwrap_or_default();
        let prefix = if self.prefix.is_empty() { renamed } else { &self.prefix };
        Scope { prefix: prefix.as_bytes().to_vec() }
    }

    /// What a name is called at its new place.
    fn renamed(&self, name: &[u8]) -> Vec<u8> {
        match &self.rename {
            Some((old, new)) => match name.strip_prefix(old.as_bytes()) {
                Some(rest) => [new.as_bytes(), rest].concat(),
                None => name.to_vec(),
            },
            None => name.to_vec(),
        }
    }
}

struct Merging<'a> {
    from: RespLink,
    to: &'a mut dyn Link,
    source: Abilities,
    target: Abilities,
    options: &'a MergeOptions,
    scope: Scope,
    monitor: &'a dyn Monitor,
    clock: &'a dyn Clock,
    loaded: Loaded,
    /// What was there and was left as it is.
    left: Known,
}

impl Merging<'_> {
    fn run(mut self) -> Result<Loaded, Failure> {
        self.look()?;
        if self.options.conflict == Conflict::Fail {
            self.monitor.phase("looking for keys that stand in the way", None);
            self.refuse_conflicts()?;
        }
        self.monitor.phase("writing keys", None);
        let written = self.each_page(Self::sweep_once, Self::write).and_then(|()| {
            self.monitor.phase("comparing every key", None);
            self.each_page(|_, _| Ok(()), Self::compare)
        });
        match written {
            Ok(()) => Ok(self.loaded),
            Err(failure) => {
                let what = format!(
                    "{} holds part of what was restored, each key of it whole: run it again to finish",
                    self.to.target()
                );
                Err(Failure::with_source(FailureKind::Findings, what, failure))
            }
        }
    }

    /// What cannot go over is said before anything is written.
    fn look(&mut self) -> Result<(), Failure> {
        if !self.to.has_databases() && self.source.databases.iter().any(|db| *db > 0) {
            let what = format!(
                "{} has one database, and the point has several: nothing was changed",
                self.to.target()
            );
            return Err(Failure::new(FailureKind::Refused, what));
        }
        if let Some(count) = self.source.functions.filter(|count| *count > 0) {
            let message = format!("{count} libraries of functions are not restored this way");
            self.monitor.finding(Finding::new("redis-functions", "redis", message));
        }
        Ok(())
    }

    /// Does something for each database, and for each page of its names.
    fn each_page(
        &mut self,
        mut before: impl FnMut(&mut Self, u64) -> Result<(), Failure>,
        mut each: impl FnMut(&mut Self, u64, &[Vec<u8>]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let scope = self.scope.clone();
        for db in self.source.databases.clone() {
            before(self, db)?;
            // A throwaway server shows each name once: nobody writes to it.
            let mut walk = Walk::new(db, &scope);
            loop {
                let page = walk.next_page(&mut self.from);
                let Some(mut names) =
                    page.map_err(error::connection("the throwaway server cannot be read"))?
                else {
                    break;
                };
                if self.monitor.cancelled() {
                    return Err(Failure::new(FailureKind::Refused, "cancelled"));
                }
                names.sort_unstable();
                names.dedup();
                if !names.is_empty() {
                    each(self, db, &names)?;
                }
            }
        }
        Ok(())
    }

    fn targets(&self, names: &[Vec<u8>]) -> Vec<Vec<u8>> {
        names.iter().map(|name| self.options.renamed(name)).collect()
    }

    /// Those of the names that are there already, with whether they are there with the same content.
    fn present(&mut self, db: u64, names: &[Vec<u8>]) -> Result<Vec<Option<bool>>, Failure> {
        let targets = self.targets(names);
        let there = existing(self.to, db, &targets)?;
        let pick = |all: &[Vec<u8>]| -> Vec<Vec<u8>> {
            all.iter().zip(&there).filter(|(_, is)| **is).map(|(name, _)| name.clone()).collect()
        };
        let wanted = briefs(&mut self.from, (db, &self.source), &pick(names))?;
        let found = briefs(self.to, (db, &self.target), &pick(&targets))?;
        let exact = self.target.exact_ends;
        let same = |name: &Vec<u8>, target: &Vec<u8>| match (wanted.get(name), found.get(target)) {
            (Some(wanted), Some(found)) => wanted.is(found, exact),
            _ => false,
        };
        let all = names.iter().zip(&targets).zip(&there);
        Ok(all.map(|((name, target), is)| is.then(|| same(name, target))).collect())
    }

    fn refuse_conflicts(&mut self) -> Result<(), Failure> {
        let (mut count, mut examples) = (0_u64, Vec::new());
        self.each_page(
            |_, _| Ok(()),
            |merging, db, names| {
                for (name, present) in names.iter().zip(merging.present(db, names)?) {
                    if present == Some(false) {
                        count += 1;
                        if examples.len() < MAX_NAMES {
                            examples.push(format!("db{db} {}", shown(&merging.options.renamed(name))));
                        }
                    }
                }
                Ok(())
            },
        )?;
        if count == 0 {
            return Ok(());
        }
        let what = format!(
            "{} has {} keys of these names with other content ({}): nothing was changed; --conflict skip leaves them, \
             --conflict replace replaces them",
            self.to.target(),
            human::count(count),
            examples.join(", ")
        );
        Err(Failure::new(FailureKind::Refused, what))
    }

    /// Removes what a run that died left unfinished.
    fn sweep_once(&mut self, db: u64) -> Result<(), Failure> {
        let failed = || error::connection("unfinished keys of another run could not be removed");
        let scope = Scope { prefix: UNFINISHED.to_vec() };
        let mut walk = Walk::new(db, &scope);
        while let Some(names) = walk.next_page(self.to).map_err(failed())? {
            let commands: Vec<Command> = names.into_iter().map(|name| vec![b"DEL".to_vec(), name]).collect();
            if !commands.is_empty() {
                self.to.ask(db, &commands).map_err(failed())?;
            }
        }
        Ok(())
    }

    fn write(&mut self, db: u64, names: &[Vec<u8>]) -> Result<(), Failure> {
        let mut wanted = Vec::new();
        for (name, present) in names.iter().zip(self.present(db, names)?) {
            match (present, self.options.conflict) {
                (None, _) => wanted.push(name.clone()),
                (Some(true), _) => self.loaded.unchanged += 1,
                (Some(false), Conflict::Skip) => {
                    self.loaded.skipped += 1;
                    self.left.add(db, name, Seen::new(&[0; 32], None));
                }
                (Some(false), Conflict::Replace) => {
                    self.loaded.replaced += 1;
                    wanted.push(name.clone());
                }
                (Some(false), Conflict::Fail) => {
                    let what = format!("the key {} appeared meanwhile", shown(&self.options.renamed(name)));
                    return Err(Failure::new(FailureKind::Findings, what));
                }
            }
        }
        let items = self.page(db, &wanted).map_err(error::connection("the server could not be filled"))?;
        self.loaded.items += items;
        self.monitor.advance(0, items);
        Ok(())
    }

    fn page(&mut self, db: u64, names: &[Vec<u8>]) -> Result<u64, lifeboat_redis::wire::RedisError> {
        let options = self.options;
        let rename = |name: &[u8]| options.renamed(name);
        let mut writer = Writer::new(self.to, db, &rename);
        let mut items = 0;
        let mut done = |_name: &[u8], outcome: Outcome| {
            items += u64::from(matches!(outcome, Outcome::Read(_)));
            Ok(())
        };
        match read_page(&mut self.from, (db, &self.source), names, &mut writer, &mut done) {
            Ok(()) => {}
            Err(ReadError::Server(error) | ReadError::Sink(error)) => return Err(error),
        }
        writer.flush()?;
        self.loaded.bytes += writer.sent_bytes;
        Ok(items)
    }

    /// Reads every key of a page on both sides.
    fn compare(&mut self, db: u64, names: &[Vec<u8>]) -> Result<(), Failure> {
        let names: Vec<Vec<u8>> = names.iter().filter(|name| !self.left.has(db, name)).cloned().collect();
        let wanted = briefs(&mut self.from, (db, &self.source), &names)?;
        let targets = self.targets(&names);
        let found = briefs(self.to, (db, &self.target), &targets)?;
        let now_ms = self.clock.now().as_millisecond();
        let mut wrong = Vec::new();
        for name in &names {
            let target = self.options.renamed(name);
            let over = |end_ms: Option<i64>| end_ms.is_some_and(|end_ms| end_ms <= now_ms);
            match (wanted.get(name), found.get(&target)) {
                // The throwaway server shows no key whose time is over.
                (None, _) => self.loaded.passed += 1,
                (Some(wanted), None) if over(wanted.end_ms) => self.loaded.passed += 1,
                (Some(wanted), Some(found)) if wanted.is(found, self.target.exact_ends) => {
                    self.loaded.compared += 1;
                }
                _ => wrong.push(format!("db{db} {}", shown(&target))),
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        let count = human::count(wrong.len() as u64);
        wrong.truncate(MAX_NAMES);
        let what = format!("{count} keys or more are not what was restored: {}", wrong.join(", "));
        Err(Failure::new(FailureKind::Findings, what))
    }
}
