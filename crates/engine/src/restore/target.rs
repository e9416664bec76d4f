//! The rules for targets: what may be restored where, over what, and what is refused.
//!
//! In: what the user asked for and what lies there. Out: a way to work, or a refusal before anything is changed.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use lifeboat_base::capture::CaptureFacts;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::folder::Folder;
use lifeboat_base::inplace::{self, State};
use lifeboat_stores::{Adapter, InPlace, Place, Standing, in_use};
use serde::{Deserialize, Serialize};

use super::RestoreOptions;
use crate::context::Engine;
use crate::error::EngineError;
use crate::places::overlap;

const SCHEMA: &str = "lifeboat.unfinished/v1";

/// How a target is worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Staged beside it and put in place in one step, instead of what is there if that may go.
    Beside { replace: bool },
    /// Worked on where it lies.
    InPlace,
}

/// What an unfinished restore leaves to those who find it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) schema: String,
    /// For a person.
    pub(super) note: String,
    /// The command that goes on.
    pub(super) resume: String,
    pub(super) store: String,
    pub(super) point: String,
    /// Which store the content is of, as far as its kind can tell.
    pub(super) identity: Option<String>,
    /// Nothing was there before: a failed run removes everything.
    pub(super) fresh: bool,
    /// Folders elsewhere that belong to the content.
    pub(super) tablespaces: Vec<PathBuf>,
    /// The same, as they cannot be mistaken for others: whatever lies under a name by now.
    #[serde(default)]
    pub(super) folders: Vec<Known>,
}

/// A folder as the file system knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) device: u64,
    pub(super) inode: u64,
}

impl Known {
    pub(super) fn of(folder: &Folder) -> io::Result<Self> {
        let (device, inode) = folder.entry()?.identity;
        Ok(Self { device, inode })
    }
}

/// What a restore is to work on, and the paths by which to look at it: first what the user said, then what is held of it.
pub(super) struct Scene<'a> {
    /// As the user said it.
    pub(super) target: &'a Path,
    pub(super) places: &'a [Place],
    /// Where to look for the target.
    pub(super) at: &'a Path,
    /// Where to look for each of the places.
    pub(super) places_at: &'a [PathBuf],
}

impl Record {
    pub(super) fn new(options: &RestoreOptions, facts: (&str, Option<String>), fresh: bool) -> Self {
        let (point, identity) = facts;
        let resume = resume(options);
        Self {
            schema: SCHEMA.to_owned(),
            note: format!(
                "An unfinished restore. What lies in `content` is a mixture and must not be opened. To finish: {resume}"
            ),
            resume,
            store: options.store.to_string(),
            point: point.to_owned(),
            identity,
            fresh,
            tablespaces: options.tablespaces.iter().map(|(_, folder)| folder.clone()).collect(),
            folders: Vec::new(),
        }
    }

    /// The record of the unfinished restore in `target`; nothing if it has none that can be read and believed.
    fn read(target: &Path) -> Option<Self> {
        let record: Self = serde_json::from_slice(&inplace::record(target).ok()??).ok()?;
        (record.schema == SCHEMA).then_some(record)
    }
}

/// Refuses remains of ours that somebody else may have written: they would decide what is removed.
fn refuse_foreign(target: &Path, at: &Path) -> Result<(), EngineError> {
    let Some(path) = inplace::foreign(at).map_err(look_failed(target))? else { return Ok(()) };
    let path = path.strip_prefix(at).map_or(path.clone(), |below| target.join(below));
    let why = format!(
        "is not believed: it does not belong to root or this account, or others may write it; {} was not changed",
        target.display()
    );
    let what = format!("{} {why}", path.display());
    Err(EngineError::new(FailureKind::Refused, what).next(format!(
        "go on as the account that began the restore; if nobody of yours did, remove {}",
        target.join(inplace::UNFINISHED).display()
    )))
}

/// The command that goes on with an unfinished restore.
pub(super) fn resume(options: &RestoreOptions) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let target = std::path::absolute(&options.target).unwrap_or_else(|_error| options.target.clone());
    let mut command =
        format!("lifeboat restore {} --to {} --delta", options.store, quoted(&target.display().to_string()));
    let mut say = |word: &str, value: &str| command.extend([" ", word, " ", value]);
    for (name, folder) in &options.tablespaces {
        say("--tablespace", &quoted(&format!("{name}={}", folder.display())));
    }
    if let Some(at) = &options.at {
        say("--at", &quoted(at));
    }
    if let Some(copy) = &options.copy {
        say("--copy", copy.as_str());
    }
    for (said, word) in [(options.force, " --force"), (options.skip_checks, " --skip-checks")] {
        command += if said { word } else { "" };
    }
    command
}

fn refuse(target: &Path, why: &str) -> EngineError {
    EngineError::new(FailureKind::Refused, format!("{} {why}: nothing was changed", target.display()))
}

fn look_failed(path: &Path) -> impl FnOnce(io::Error) -> Failure {
    let what = format!("failed to look at {}", path.display());
    move |error| Failure::io(what, error)
}

/// Whether there is something in the folder; `Refused` for anything that is no folder, links included.
fn occupied(target: &Path, store: Option<&dyn InPlace>) -> Result<bool, EngineError> {
    match fs::symlink_metadata(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(look_failed(target)(error).into()),
        Ok(meta) if !meta.is_dir() => {
            Err(refuse(target, "is not a folder").next("name a folder that does not exist yet"))
        }
        Ok(_meta) => {
            let vacant = match store {
                Some(store) => inplace::is_vacant(target, store.keystone()),
                None => inplace::is_empty(target),
            };
            Ok(!vacant.map_err(look_failed(target))?)
        }
    }
}

impl Engine {
    /// How the target is worked on, or why it is not. Looks at the target only: what needs to know the point is asked by
    /// [`Engine::suits`].
    pub(super) fn way(&self, options: &RestoreOptions, adapter: &dyn Adapter) -> Result<Way, EngineError> {
        let target = &options.target;
        self.refuse_own_places(target)?;
        let store = adapter.in_place();
        let several = options.delta || !options.tablespaces.is_empty();
        if several && store.is_none() {
            let what = format!(
                "`{}` is of kind `{}`: only `postgres` is restored over what is there or into several places",
                options.store,
                adapter.kind()
            );
            return Err(EngineError::new(FailureKind::Refused, what)
                .next("leave out --delta and --tablespace, and restore into a new folder"));
        }
        let in_place = Way::InPlace;
        let placed = if options.tablespaces.is_empty() { Way::Beside { replace: false } } else { in_place };
        if !occupied(target, store)? {
            return Ok(placed);
        }
        let state = match store {
            Some(store) => {
                refuse_foreign(target, target)?;
                inplace::state(target, store.keystone()).map_err(look_failed(target))?
            }
            None => State::Untouched,
        };
        let record = Record::read(target).filter(|_| state == State::Unfinished);
        let goes_on = options.delta || (several && record.as_ref().is_some_and(|record| record.fresh));
        let way = match state {
            State::Mixed => {
                let why =
                    format!("holds an unfinished restore in {} and a cluster beside it", inplace::UNFINISHED);
                return Err(refuse(target, &why).next("move one of them away"));
            }
            _ if goes_on || (options.force && several) => in_place,
            _ if options.force => Way::Beside { replace: true },
            State::Unfinished => {
                let next = record.map_or_else(|| resume(options), |record| record.resume);
                return Err(
                    refuse(target, "holds an unfinished restore").next(format!("to finish it: {next}"))
                );
            }
            State::Untouched => {
                let mut next = "name a folder that does not exist yet".to_owned();
                if store.is_some() {
                    next += ", or add --delta to change an earlier state of the store into this one";
                }
                return Err(refuse(target, "is not empty").next(next));
            }
        };
        self.may_be_replaced(target)?;
        Ok(way)
    }

    /// Refuses a folder whose content must not go, whatever was said.
    pub(super) fn may_be_replaced(&self, target: &Path) -> Result<(), EngineError> {
        // What an unfinished restore left at work has ended by now, or it is not ours.
        if let Some(why) = in_use(target).or_else(|| in_use(&inplace::content(target))) {
            let why = format!("is in use: {why}");
            return Err(refuse(target, &why).next("stop the server, or restore into another folder"));
        }
        if let Some(label) = self.own_places_below(target) {
            return Err(refuse(target, &format!("holds {label}")).next("restore into another folder"));
        }
        let mounts = inplace::mounts_below(target).map_err(look_failed(target))?;
        match mounts.first() {
            None => Ok(()),
            Some(mount) => {
                let why = format!("has {} mounted in it, and that cannot be replaced", mount.display());
                Err(refuse(target, &why).next("unmount it, or restore into another folder"))
            }
        }
    }

    /// Looks at the target and the other places knowing what is to be restored; gives what is to be written down about it,
    /// with the folders outside that the content there leads to and that are not asked for.
    pub(super) fn suits(
        &self,
        options: &RestoreOptions,
        (point, facts): (&str, &CaptureFacts),
        (adapter, store): (&dyn Adapter, &dyn InPlace),
        scene: &Scene<'_>,
    ) -> Result<(Record, Vec<PathBuf>), Failure> {
        let Scene { target, at, places, places_at } = *scene;
        let identity = adapter.continuous().and_then(|continuous| continuous.identity(facts));
        refuse_foreign(target, at).map_err(|error| error.failure)?;
        let state = inplace::state(at, store.keystone()).map_err(look_failed(target))?;
        let before = Record::read(at).filter(|_| state == State::Unfinished);
        let something = !inplace::is_vacant(at, store.keystone()).map_err(look_failed(target))?;
        let standing = match &before {
            Some(record) if record.identity.is_some() && record.identity == identity => Standing::Same,
            Some(record) => Standing::Other(format!("holds an unfinished restore of `{}`", record.store)),
            None if something => store.standing(facts, at)?,
            None => Standing::Same,
        };
        if let (Standing::Other(why), false) = (&standing, options.force) {
            return Err(Failure::new(
                FailureKind::Refused,
                format!("{} {why}: nothing was changed; --force replaces it all the same", target.display()),
            ));
        }
        let links = if something { store.outside(at)? } else { Vec::new() };
        // What somebody put beside an unfinished restore meanwhile was there before.
        let alone = inplace::is_ours_alone(at).map_err(look_failed(target))?;
        let fresh = before.as_ref().map_or(!something, |record| record.fresh && alone);
        let mut record = Record::new(options, (point, identity), fresh);
        let theirs = |place: &Place, at: &Path| {
            let linked = standing == Standing::Same
                && links.iter().any(|link| link.inside == place.inside && same_folder(&link.folder, at));
            let known = Folder::open(at).and_then(|folder| Known::of(&folder)).ok();
            let known = before.as_ref().zip(known).is_some_and(|(record, it)| record.folders.contains(&it));
            // Whoever owns the cluster can make its links lead anywhere.
            (linked || known) && store.is_part(at)
        };
        for (index, (place, at)) in places.iter().zip(places_at).enumerate() {
            let others = places_at.get(..index).unwrap_or_default();
            self.place_suits((&place.folder, at), scene, others, theirs(place, at))?;
        }
        if let Some(earlier) = before {
            record.tablespaces.extend(earlier.tablespaces);
            record.folders.extend(earlier.folders);
        }
        record.tablespaces.sort();
        record.tablespaces.dedup();
        let asked = |link: &Place| places_at.iter().any(|at| same_folder(at, &link.folder));
        let left = links.into_iter().filter(|link| !asked(link)).map(|link| link.folder);
        Ok((record, left.filter(|folder| folder.exists()).collect()))
    }

    /// Refuses a folder for a part of the content: it must be new or empty, or hold that part already.
    fn place_suits(
        &self,
        (folder, at): (&Path, &Path),
        scene: &Scene<'_>,
        others: &[PathBuf],
        theirs: bool,
    ) -> Result<(), Failure> {
        let refuse = |why: &str| {
            let what =
                format!("{} cannot hold the tablespace: it {why}; nothing was changed", folder.display());
            Err(Failure::new(FailureKind::Refused, what))
        };
        let plain = folder.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if !folder.is_absolute() || !plain || folder.file_name().is_none() {
            return refuse("is not an absolute path without `..`");
        }
        let exists = match fs::symlink_metadata(at) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(look_failed(folder)(error)),
            Ok(meta) if meta.is_symlink() => return refuse("is a link"),
            Ok(meta) if !meta.is_dir() => return refuse("is not a folder"),
            Ok(_meta) => true,
        };
        if overlap(at, scene.at) {
            return refuse("is not apart from the target");
        }
        if others.iter().any(|other| overlap(at, other)) {
            return refuse("is not apart from the place of another tablespace");
        }
        if !exists && !folder.parent().is_some_and(Path::is_dir) {
            return refuse("lies in a folder that does not exist");
        }
        if let Some(why) = self.inside_own_places(at) {
            return refuse(&why);
        }
        if let Some(label) = self.own_places_below(at) {
            return refuse(&format!("holds {label}"));
        }
        if let Some(why) = in_use(at).filter(|_| exists) {
            return refuse(&format!("is in use: {why}"));
        }
        if exists && !theirs && !inplace::is_empty(at).map_err(look_failed(folder))? {
            return refuse("is not empty and not this tablespace of the cluster in the target");
        }
        let mounts =
            if exists { inplace::mounts_below(at).map_err(look_failed(folder))? } else { Vec::new() };
        match mounts.first() {
            Some(mount) => refuse(&format!("has {} mounted in it", mount.display())),
            None => Ok(()),
        }
    }
}

fn same_folder(one: &Path, other: &Path) -> bool {
    match (fs::canonicalize(one), fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}
