//! Where a restore is worked on before it is published: in a folder beside the target, or in the target itself.
//!
//! Beside: a staging folder that the next restore sweeps if its process dies, moved to its name in one step. In place: see
//! [`lifeboat_base::inplace`]; a restore that fails leaves what can be gone on from, unless nothing was there before.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lifeboat_base::capture::{CaptureFacts, MaterializeStats, RestoreSource, StoredEntry};
use lifeboat_base::crashsafe;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::folder::{Entry, Folder, Made};
use lifeboat_base::ids::RunId;
use lifeboat_base::inplace::{self, Site};
use lifeboat_base::lease::Lease;
use lifeboat_base::monitor::Monitor;
use lifeboat_base::path::RelPath;
use lifeboat_stores::{Adapter, Place, in_use};
use lifeboat_vault::{Elsewhere, MaterializeOptions, PointReader};

use super::target::{Known, Scene, Way};
use super::{Request, RestoreOptions};
use crate::context::Engine;
use crate::error::EngineError;

/// Staging folders and their leases start with this, followed by a run id.
const STAGING_PREFIX: &str = ".lifeboat-tmp-restore-";
const LOCK_SUFFIX: &str = ".lock";

/// A staging folder beside the target, swept by the next restore if its process dies.
pub(crate) struct Staging {
    pub(crate) dir: PathBuf,
    lock: PathBuf,
    _lease: Lease,
}

impl Staging {
    pub(crate) fn beside(target: &Path, run: &RunId) -> Result<Self, Failure> {
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let fail =
            |error| Failure::io(format!("failed to make a staging folder in {}", parent.display()), error);
        crashsafe::create_dir_all(&parent).map_err(fail)?;
        sweep(&parent).map_err(fail)?;
        let dir = parent.join(format!("{STAGING_PREFIX}{run}"));
        let lock = parent.join(format!("{STAGING_PREFIX}{run}{LOCK_SUFFIX}"));
        let lease = Lease::try_acquire(&lock, "restore").map_err(fail)?.map_err(|held| {
            Failure::new(FailureKind::Refused, format!("the staging folder is in use: {}", held.0))
        })?;
        crashsafe::create_dir_all(&dir).map_err(fail)?;
        crashsafe::let_through(&dir).map_err(fail)?;
        Ok(Self { dir, lock, _lease: lease })
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After a publish the folder is gone already; after a failure nothing half-restored may stay.
        drop(crashsafe::remove_tree(&self.dir));
        drop(fs::remove_file(&self.lock));
    }
}

/// Removes what restores that no longer run left in `parent`.
fn sweep(parent: &Path) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let name = entry?.file_name();
        let Some(id) = name.to_str().and_then(|name| name.strip_prefix(STAGING_PREFIX)) else { continue };
        let id = id.strip_suffix(LOCK_SUFFIX).unwrap_or(id);
        if RunId::new(id).is_err() {
            continue;
        }
        let lock = parent.join(format!("{STAGING_PREFIX}{id}{LOCK_SUFFIX}"));
        let _lease = match Lease::try_take_existing(&lock) {
            Ok(Some(Err(_held))) => continue,
            Ok(lease) => lease,
            // Anyone may write here: what is not ours stays.
            Err(error) if Lease::is_foreign(&error) => continue,
            Err(error) => return Err(error),
        };
        crashsafe::remove_tree(&parent.join(format!("{STAGING_PREFIX}{id}")))?;
        match fs::remove_file(&lock) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Nobody but us gets at a place while it is filled.
const PLACE_MODE: u32 = 0o700;

/// A target that is worked on where it lies, with the folders elsewhere that belong to it. Whoever may write above one of them
/// can put something else under its name: everything goes through what is held of them.
pub(super) struct Work {
    site: Option<Site>,
    /// Nothing was there before: a failure removes everything.
    fresh: bool,
    /// The content is taken down: what lies in the places from now on is ours.
    begun: bool,
    made: Vec<Made>,
    /// The places, locked.
    held: Vec<Held>,
}

/// A place that is held.
struct Held {
    place: Place,
    folder: Folder,
    /// What it was like.
    before: Entry,
}

impl Work {
    fn failed(folder: &Path) -> impl Fn(io::Error) -> Failure {
        let what = format!("failed to work on {}", folder.display());
        move |error| match error.kind() {
            io::ErrorKind::ResourceBusy => Failure::with_source(FailureKind::Refused, what.clone(), error),
            _ => Failure::io(what.clone(), error),
        }
    }

    /// Makes and locks the places.
    fn hold(&mut self, places: &[Place]) -> Result<(), Failure> {
        for place in places {
            let failed = Self::failed(&place.folder);
            let (folder, made) = inplace::hold(&place.folder).map_err(&failed)?.ok_or_else(|| {
                let what = format!("another restore is at work in {}", place.folder.display());
                Failure::new(FailureKind::Refused, what)
            })?;
            self.made.extend(made);
            let before = folder.entry().map_err(&failed)?;
            self.held.push(Held { place: place.clone(), folder, before });
        }
        Ok(())
    }

    /// The places are ours from now on, until they are filled.
    fn begin(&mut self) -> Result<(), Failure> {
        self.begun = true;
        self.held
            .iter()
            .try_for_each(|held| held.folder.keep(PLACE_MODE).map_err(Self::failed(&held.place.folder)))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let Some(site) = self.site.take() else { return };
        if self.begun && !self.fresh {
            return;
        }
        // What cannot be removed now the next run goes on with: the record that names it goes last.
        for held in self.held.iter().filter(|_| self.begun) {
            drop(held.folder.clear());
            drop(held.folder.give_back(&held.before));
        }
        for made in &self.made {
            drop(made.remove());
        }
        drop(if self.begun { site.discard() } else { site.leave() });
    }
}

/// Where a restore is worked on.
pub(super) enum Ground {
    Beside { staging: Staging, content: PathBuf, replace: bool },
    InPlace { work: Work, content: PathBuf, options: MaterializeOptions, left: Vec<PathBuf> },
}

impl Engine {
    /// Makes ready what the point is restored into. Everything that can be refused is refused before anything is changed.
    pub(super) fn ground(
        &self,
        request: &Request<'_>,
        adapter: &dyn Adapter,
        (point, facts): (&str, &CaptureFacts),
        run: &RunId,
    ) -> Result<Ground, Failure> {
        let target = &request.options.target;
        if let Way::Beside { replace } = request.way {
            let staging = Staging::beside(target, run)?;
            let content = staging.dir.join("content");
            crashsafe::create_dir_all(&content)
                .map_err(|error| Failure::io("failed to fill the staging folder", error))?;
            return Ok(Ground::Beside { staging, content, replace });
        }
        let store = adapter.in_place().ok_or_else(|| {
            Failure::new(FailureKind::Internal, format!("`{}` is not restored in place", adapter.kind()))
        })?;
        let places = &store.places(facts)?;
        let failed = Work::failed(target);
        let look = |scene: &Scene<'_>| self.suits(request.options, (point, facts), (adapter, store), scene);
        let places_at: Vec<PathBuf> = places.iter().map(|place| place.folder.clone()).collect();
        look(&Scene { target, places, at: target, places_at: &places_at })?;
        let site = Site::open(target, store.keystone()).map_err(&failed)?;
        let at = site.path();
        let (made, held) = (Vec::new(), Vec::new());
        // Until it is known better nothing may be removed.
        let mut work = Work { site: Some(site), fresh: false, begun: false, made, held };
        work.hold(places)?;
        // Only now is nobody else at work here, and nothing can be exchanged any more: what was seen before may have changed.
        let places_at: Vec<PathBuf> = work.held.iter().map(|held| held.folder.path()).collect();
        let (mut record, left) = look(&Scene { target, places, at: &at, places_at: &places_at })?;
        self.refuse_exchanged(&at, store.keystone()).map_err(|error| error.failure)?;
        let known = work.held.iter().map(|held| Known::of(&held.folder)).collect::<io::Result<Vec<_>>>();
        record.folders.extend(known.map_err(&failed)?);
        record.folders.sort();
        record.folders.dedup();
        work.fresh = record.fresh;
        let record = serde_json::to_vec_pretty(&record).map_err(|error| {
            Failure::with_source(FailureKind::Internal, "failed to write down how to go on", error)
        })?;
        let alone = || match in_use(&at) {
            Some(why) => Err(io::Error::new(io::ErrorKind::ResourceBusy, why)),
            None => Ok(()),
        };
        let Some(site) = &mut work.site else {
            return Err(Failure::new(FailureKind::Internal, "there is nothing to work on"));
        };
        let content = site.take_down(&record, &alone).map_err(&failed)?;
        request.begun.set(true);
        work.begin()?;
        let elsewhere = work.held.iter().map(|held| Elsewhere {
            inside: held.place.inside.clone(),
            folder: held.place.folder.clone(),
            through: held.folder.path(),
        });
        let options = MaterializeOptions { over: true, elsewhere: elsewhere.collect() };
        Ok(Ground::InPlace { work, content, options, left })
    }

    /// What is held may be something else than what the path led to when it was looked at first.
    fn refuse_exchanged(&self, at: &Path, keystone: &str) -> Result<(), EngineError> {
        let real = fs::canonicalize(at)
            .map_err(|error| Failure::io("failed to find the folder that is worked on", error))?;
        self.refuse_own_places(&real)?;
        let vacant = inplace::is_vacant(at, keystone)
            .map_err(|error| Failure::io(format!("failed to look at {}", real.display()), error))?;
        if vacant { Ok(()) } else { self.may_be_replaced(&real) }
    }
}

impl Ground {
    /// The folder the content is restored into.
    pub(super) fn content(&self) -> &Path {
        match self {
            Self::Beside { content, .. } | Self::InPlace { content, .. } => content,
        }
    }

    /// Folders outside that content which was there led to; nothing was changed in them.
    pub(super) fn left(&self) -> &[PathBuf] {
        match self {
            Self::Beside { .. } => &[],
            Self::InPlace { left, .. } => left,
        }
    }

    /// The places the user asked for, by paths that nobody can make lead to anything else.
    pub(super) fn through(&self, asked: &[(String, PathBuf)]) -> Vec<(String, PathBuf)> {
        let Self::InPlace { work, .. } = self else { return asked.to_vec() };
        let held = |folder: &Path| work.held.iter().find(|held| held.place.folder == folder);
        let through = |folder: &PathBuf| held(folder).map_or(folder.clone(), |held| held.folder.path());
        asked.iter().map(|(name, folder)| (name.clone(), through(folder))).collect()
    }

    /// The point as it is restored here.
    pub(super) fn source<'a>(&self, reader: &'a PointReader) -> Source<'a> {
        let options = match self {
            Self::Beside { .. } => MaterializeOptions::default(),
            Self::InPlace { options, .. } => options.clone(),
        };
        Source { reader, options }
    }

    /// Puts the content in place: in one step, or so that its last step makes it whole.
    pub(super) fn publish(self, options: &RestoreOptions) -> Result<(), Failure> {
        let target = &options.target;
        let fail = |error| {
            Failure::io(format!("failed to publish the restored content as {}", target.display()), error)
        };
        match self {
            Self::Beside { staging, content, replace } => {
                if replace {
                    // A server may have been started since.
                    if let Some(why) = in_use(target) {
                        let what = format!("{} is in use: {why}; nothing was changed", target.display());
                        return Err(Failure::new(FailureKind::Refused, what));
                    }
                    crashsafe::exchange(&content, target).map_err(fail)?;
                } else {
                    publish(&content, target).map_err(fail)?;
                }
                // What was replaced goes with the staging folder.
                drop(staging);
                Ok(())
            }
            Self::InPlace { mut work, .. } => {
                let Some(site) = work.site.take() else { return Ok(()) };
                site.put_up().map_err(fail)
            }
        }
    }
}

/// Moves the content to its name; an empty target folder gives way first.
fn publish(content: &Path, target: &Path) -> io::Result<()> {
    inplace::remove_remainder(target)?;
    match fs::remove_dir(target) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    crashsafe::publish(content, target)
}

/// A recovery point that knows what it is restored into.
pub(super) struct Source<'a> {
    reader: &'a PointReader,
    options: MaterializeOptions,
}

impl RestoreSource for Source<'_> {
    fn walk(
        &self,
        under: &RelPath,
        visit: &mut dyn FnMut(StoredEntry) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.reader.walk(under, visit)
    }

    fn open(&self, path: &RelPath) -> Result<Box<dyn io::Read + Send + '_>, Failure> {
        self.reader.open(path)
    }

    fn materialize(
        &self,
        under: &RelPath,
        into: &Path,
        monitor: &dyn Monitor,
    ) -> Result<MaterializeStats, Failure> {
        self.reader.materialize_with(under, into, &self.options, monitor)
    }
}
