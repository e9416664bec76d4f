//! Places: where stores, copies, state and key files really lie, so that none swallows another.
//!
//! In: the paths of the policy. Out: a finding for every pair that must not share a place, and the reason why a folder
//! is no target for a restore. Reads metadata only.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use lifeboat_base::failure::FailureKind;
use lifeboat_base::ids::StoreName;
use lifeboat_base::monitor::Finding;
use lifeboat_base::secret::SecretRef;
use lifeboat_policy::{CopyUrl, Recipient, Retention, Source, Store};

use crate::context::Engine;
use crate::error::EngineError;

/// Links followed while a path is resolved; the kernel gives up at 40 as well.
const MAX_LINKS: usize = 40;

/// What a place is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Copy,
    State,
    /// A tree of files.
    Tree,
    /// A single file: a database.
    Database,
    Key,
}

/// A place of the policy, with its links resolved.
#[derive(Debug)]
struct Place<'a> {
    label: String,
    usage: Use,
    path: PathBuf,
    /// The device and number of what lies there; nothing if there is nothing yet.
    identity: Option<(u64, u64)>,
    /// The same of every folder above it that exists.
    above: Vec<(u64, u64)>,
    store: Option<&'a Store>,
}

impl<'a> Place<'a> {
    fn new(label: String, usage: Use, path: &Path, store: Option<&'a Store>) -> Self {
        let path = canonical(path);
        let identity = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
        let above = path.ancestors().skip(1).filter_map(identity).collect();
        Self { label, usage, identity: identity(&path), above, path, store }
    }

    fn same(&self, other: &Self) -> bool {
        self.path == other.path || (self.identity.is_some() && self.identity == other.identity)
    }

    /// Whether this lies below `outer`, also when `outer` is reached by another mount.
    fn inside(&self, outer: &Self) -> bool {
        !self.same(outer)
            && (self.path.starts_with(&outer.path)
                || outer.identity.is_some_and(|wanted| self.above.contains(&wanted)))
    }

    /// Whether a glob of the tree's row names the folder at its top that `inner` lies in.
    fn excludes(&self, inner: &Self) -> bool {
        let Some(Source::Files { exclude, .. }) = self.store.map(|store| &store.source) else { return false };
        let below = inner.path.strip_prefix(&self.path).ok().and_then(|below| below.components().next());
        let Some(Component::Normal(top)) = below else { return false };
        let Some(top) = top.to_str() else { return false };
        exclude.iter().any(|glob| {
            let glob = glob.strip_prefix('/').unwrap_or(glob);
            let glob = glob.strip_suffix("/**").unwrap_or(glob).trim_end_matches('/');
            glob == top
        })
    }
}

/// Two places that must not share a place.
struct Conflict<'a> {
    finding: Finding,
    /// The stores it spoils; none if it spoils every one.
    stores: Vec<&'a StoreName>,
}

/// Whether the folders are one, or one lies in the other.
pub(crate) fn overlap(one: &Path, other: &Path) -> bool {
    let [one, other] = [one, other].map(|path| Place::new(String::new(), Use::Tree, path, None));
    one.same(&other) || one.inside(&other) || other.inside(&one)
}

/// `path` with its links resolved as far as it exists; what does not exist yet keeps its name.
fn canonical(path: &Path) -> PathBuf {
    let mut path = std::path::absolute(path).unwrap_or_else(|_error| path.to_owned());
    let mut links = 0;
    'again: loop {
        for existing in path.ancestors() {
            let rest = path.strip_prefix(existing).unwrap_or(Path::new(""));
            if let Ok(found) = existing.canonicalize() {
                return tidy(&found.join(rest));
            }
            // A link to what does not exist yet is a place all the same.
            if let Ok(aim) = fs::read_link(existing)
                && links < MAX_LINKS
            {
                links += 1;
                path = existing.parent().unwrap_or(Path::new("/")).join(aim).join(rest);
                continue 'again;
            }
        }
        return tidy(&path);
    }
}

/// Without `.` and `..`, for a path whose missing part holds no link.
fn tidy(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            other => clean.push(other),
        }
    }
    clean
}

impl Engine {
    /// Pairs of places that would swallow or destroy each other: copies that are one, a store inside a vault, a vault
    /// inside a store, a store that holds the key of its own vault. Reads metadata only.
    pub fn place_conflicts(&self) -> Vec<Finding> {
        self.conflicts().into_iter().map(|conflict| conflict.finding).collect()
    }

    /// Refuses work on stores whose places are in conflict.
    pub(crate) fn refuse_place_conflicts(&self, rows: &[&Store]) -> Result<(), EngineError> {
        let touches = |conflict: &Conflict<'_>| {
            conflict.stores.is_empty() || rows.iter().any(|row| conflict.stores.contains(&&row.name))
        };
        match self.conflicts().into_iter().find(touches) {
            None => Ok(()),
            Some(conflict) => Err(EngineError::new(FailureKind::Refused, conflict.finding.message)
                .next("give each its own place in the policy, then run `lifeboat check`")),
        }
    }

    /// Why `target` is no place for a restore: it would lie in a copy or in the state folder, or replace a live store.
    pub fn inside_own_places(&self, target: &Path) -> Option<String> {
        let target = Place::new(String::new(), Use::Tree, target, None);
        self.places().iter().find_map(|place| match place.usage {
            Use::Copy | Use::State if target.same(place) => Some(format!("is {}", place.label)),
            Use::Copy | Use::State if target.inside(place) => Some(format!("lies inside {}", place.label)),
            Use::Tree | Use::Database if target.same(place) => Some(format!("is {} itself", place.label)),
            _ => None,
        })
    }

    /// What would be lost if everything in `target` were replaced: a copy, the state folder, a store or a key in it.
    pub(crate) fn own_places_below(&self, target: &Path) -> Option<String> {
        let target = Place::new(String::new(), Use::Tree, target, None);
        let policy = Place::new("the folder of the policy".to_owned(), Use::State, &self.base, None);
        let mut all = self.places();
        all.push(policy);
        all.into_iter().find(|place| place.same(&target) || place.inside(&target)).map(|place| place.label)
    }

    /// Refuses a target that [`Engine::inside_own_places`] objects to, and one that cannot be put in place by name.
    pub(crate) fn refuse_own_places(&self, target: &Path) -> Result<(), EngineError> {
        if target.file_name().is_none() {
            let what =
                format!("{} has no name of its own to appear under: nothing was changed", target.display());
            return Err(
                EngineError::new(FailureKind::Refused, what).next("name a folder that does not exist yet")
            );
        }
        match self.inside_own_places(target) {
            None => Ok(()),
            Some(why) => Err(EngineError::new(
                FailureKind::Refused,
                format!("{} {why}: nothing was changed", target.display()),
            )
            .next("name a folder outside the copies, the state folder and the live stores")),
        }
    }

    fn places(&self) -> Vec<Place<'_>> {
        let mut places = vec![Place::new("the state folder".to_owned(), Use::State, &self.state, None)];
        for (name, copy) in &self.policy.copies {
            if let CopyUrl::File(path) = &copy.url {
                places.push(Place::new(format!("copy `{name}`"), Use::Copy, &self.resolve(path), None));
            }
        }
        for row in self.policy.stores.values() {
            if matches!(row.retention.value, Retention::None) {
                continue;
            }
            let (usage, path) = match &row.source {
                Source::Files { path, .. } => (Use::Tree, path),
                Source::Sqlite { path } => (Use::Database, path),
                Source::RedisFiles { dir, .. } => (Use::Tree, dir),
                Source::Vector(index) => (Use::Tree, &index.path),
                Source::Url(_) | Source::Redis { .. } | Source::Etcd { .. } | Source::EtcdCommand { .. } => {
                    continue;
                }
            };
            places.push(Place::new(format!("store `{}`", row.name), usage, &self.resolve(path), Some(row)));
        }
        for recipient in &self.policy.keys.recipients {
            let (Recipient::KeyFile(path) | Recipient::Passphrase(SecretRef::File(path))) = recipient else {
                continue;
            };
            places.push(Place::new(format!("the key `{recipient}`"), Use::Key, &self.resolve(path), None));
        }
        places
    }

    fn conflicts(&self) -> Vec<Conflict<'_>> {
        let places = self.places();
        let mut found = Vec::new();
        for (index, one) in places.iter().enumerate() {
            for other in places.iter().skip(index + 1) {
                found.extend(conflict(one, other).or_else(|| conflict(other, one)));
            }
        }
        found
    }
}

/// What is wrong with `inner` being at, or inside, `outer`.
fn conflict<'a>(inner: &Place<'a>, outer: &Place<'a>) -> Option<Conflict<'a>> {
    let same = inner.same(outer);
    if !same && !inner.inside(outer) {
        return None;
    }
    let why = match (inner.usage, outer.usage) {
        (Use::Copy, Use::Copy) if same => "losing one loses both",
        (Use::Copy, Use::State) | (Use::State, Use::Copy) => "neither would survive the loss of the other",
        (Use::Copy | Use::State, Use::Tree) if same || !outer.excludes(inner) => {
            "a backup would back itself up"
        }
        (Use::Tree | Use::Database, Use::Copy | Use::State) => "what protects the store would lie around it",
        (Use::Key, Use::Tree) if same || !outer.excludes(inner) => {
            "the vault would contain the key that opens it"
        }
        (Use::Key, Use::Database) if same => "the vault would contain the key that opens it",
        _ => return None,
    };
    let message = if same {
        format!("{} and {} are the same place, {}: {why}", inner.label, outer.label, outer.path.display())
    } else {
        format!(
            "{} ({}) lies inside {} ({}): {why}",
            inner.label,
            inner.path.display(),
            outer.label,
            outer.path.display()
        )
    };
    let finding = Finding::new("places-conflict", &inner.label, message).with_kind(FailureKind::Refused);
    let stores: BTreeSet<&StoreName> =
        [inner, outer].into_iter().filter_map(|place| place.store).map(|store| &store.name).collect();
    Some(Conflict { finding, stores: stores.into_iter().collect() })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lifeboat_base::entropy::OsEntropy;
    use lifeboat_base::failure::Failure;
    use lifeboat_base::monitor::{Findings, Monitor};
    use lifeboat_base::secret::{Secret, SecretSource};
    use lifeboat_base::time::SystemClock;

    use super::*;
    use crate::backup::BackupOptions;
    use crate::context::{Environment, Observer};
    use crate::restore::RestoreOptions;

    struct Nothing;

    impl Observer for Nothing {
        fn job(&self, _name: &str) -> Box<dyn Monitor> {
            Box::new(Findings::new())
        }
    }

    impl SecretSource for Nothing {
        fn resolve(&self, reference: &SecretRef) -> Result<Secret<String>, Failure> {
            Err(Failure::new(FailureKind::Unreachable, format!("no secret {reference}")))
        }
    }

    /// The policy of a small company with `changes` made to its text.
    fn engine(dir: &Path, changes: &[(&str, &str)]) -> Engine {
        let mut text = r#"version = 1
timezone = "UTC"
state = "./state"
[keys]
recipients = ["passphrase:file:./secrets/passphrase", "keyfile:./secrets/lifeboat.key"]
[copy.local]
url = "file:./vaults/local"
[copy.offsite]
url = "file:./vaults/offsite"
[defaults]
retention = "7d"
copies = ["local", "offsite"]
[store.orders]
kind = "sqlite"
path = "./live/orders.db"
[store.uploads]
kind = "files"
path = "./live/uploads"
exclude = []
"#
        .to_owned();
        for (from, to) in changes {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        let path = dir.join("lifeboat.toml");
        lifeboat_base::crashsafe::replace(&path, text.as_bytes()).unwrap();
        let env = Environment {
            clock: Arc::new(SystemClock::new()),
            entropy: Arc::new(OsEntropy),
            secrets: Arc::new(Nothing),
            host: "host".to_owned(),
            user: "user".to_owned(),
            programs: Vec::new(),
        };
        Engine::load(&path, env, Arc::new(Nothing)).unwrap()
    }

    fn messages(changes: &[(&str, &str)]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let messages: Vec<String> = engine(dir.path(), changes)
            .place_conflicts()
            .into_iter()
            .map(|finding| finding.message)
            .collect();
        messages.join("\n")
    }

    #[test]
    fn places_of_their_own_are_no_conflict() {
        assert_eq!(messages(&[]), "");
        assert_eq!(messages(&[("./live/uploads", "./live"), ("exclude = []", "exclude = [\"tmp\"]")]), "");
    }

    #[test]
    fn places_that_swallow_each_other_are_named() {
        let cases: &[(&[(&str, &str)], &str)] = &[
            (
                &[("./vaults/offsite", "./vaults/local/../local/")],
                "copy `local` and copy `offsite` are the same place",
            ),
            (&[("./vaults/offsite", "./state/vaults")], "copy `offsite` ("),
            (&[("\"./state\"", "\"./vaults/local/state\"")], "lies inside copy `local`"),
            (&[("./live/uploads", ".")], "lies inside store `uploads`"),
            (&[("./live/uploads", "./vaults/local")], "copy `local` and store `uploads` are the same place"),
            (&[("./live/orders.db", "./state/catalog.db")], "store `orders` ("),
            (&[("./live/uploads", "./secrets")], "the key `keyfile:./secrets/lifeboat.key` ("),
        ];
        for (changes, wanted) in cases {
            let found = messages(changes);
            assert!(found.contains(wanted), "{changes:?}: {found}");
        }
        let with_key = messages(&[("./live/uploads", "./secrets")]);
        assert!(with_key.contains("passphrase:file:./secrets/passphrase"), "{with_key}");
    }

    #[test]
    fn an_exclude_that_names_the_folder_at_the_top_resolves_the_conflict() {
        let whole = ("./live/uploads", ".");
        let all = ("exclude = []", r#"exclude = ["vaults", "state/**", "secrets"]"#);
        assert_eq!(messages(&[whole, all]), "");
        let some = messages(&[whole, ("exclude = []", r#"exclude = ["vaults", "sta*"]"#)]);
        assert!(
            !some.contains("copy") && some.contains("the state folder") && some.contains("the key"),
            "{some}"
        );
    }

    #[test]
    fn a_store_that_is_not_retained_is_in_nobodys_way() {
        let row = ("exclude = []", "retention = \"none\"");
        assert_eq!(messages(&[("./live/uploads", "."), row]), "");
    }

    #[test]
    fn links_are_followed_also_where_nothing_is_made_yet() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("vaults")).unwrap();
        std::os::unix::fs::symlink("local", dir.path().join("vaults/offsite")).unwrap();
        let engine = engine(dir.path(), &[]);
        assert_eq!(engine.place_conflicts().len(), 1);
        fs::create_dir(dir.path().join("vaults/local")).unwrap();
        let found = engine.place_conflicts();
        assert!(found.first().unwrap().message.contains("the same place"), "{found:?}");
    }

    #[test]
    fn a_backup_into_a_conflict_is_refused_and_others_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path(), &[("./live/uploads", "./secrets")]);
        let uploads = StoreName::new("uploads").unwrap();
        let error = engine.backup(&[uploads], &BackupOptions::default()).unwrap_err();
        assert_eq!(error.kind(), FailureKind::Refused);
        assert!(error.failure.to_string().contains("store `uploads`"), "{error}");
        assert!(!dir.path().join("vaults").exists());
        let orders = engine.store(&StoreName::new("orders").unwrap()).unwrap();
        assert!(engine.refuse_place_conflicts(&[orders]).is_ok());
    }

    #[test]
    fn copies_that_coincide_stop_every_backup_and_show_in_a_check() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path(), &[("./vaults/offsite", "./vaults/local/../local")]);
        let error = engine.backup(&[], &BackupOptions::default()).unwrap_err();
        assert_eq!(error.kind(), FailureKind::Refused);
        let report = engine.check().unwrap();
        assert!(report.findings.iter().any(|finding| finding.code == "places-conflict"));
    }

    #[test]
    fn a_restore_into_a_copy_the_state_or_a_live_store_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path(), &[]);
        for (target, wanted) in [
            ("vaults/local", "is copy `local`"),
            ("vaults/offsite/uploads/back", "lies inside copy `offsite`"),
            ("state/back", "lies inside the state folder"),
            ("live/uploads", "is store `uploads` itself"),
            ("live/orders.db", "is store `orders` itself"),
        ] {
            let target = dir.path().join(target);
            assert_eq!(engine.inside_own_places(&target).as_deref(), Some(wanted));
            let store = StoreName::new("uploads").unwrap();
            let options = RestoreOptions::new(store, target);
            let error = engine.restore(&options).unwrap_err();
            assert_eq!(error.kind(), FailureKind::Refused);
            assert!(error.failure.to_string().contains(wanted), "{error}");
        }
        for nameless in [Path::new("."), Path::new("/"), &dir.path().join("live/..")] {
            assert_eq!(engine.refuse_own_places(nameless).unwrap_err().kind(), FailureKind::Refused);
        }
        assert_eq!(engine.inside_own_places(&dir.path().join("live/back")), None);
        assert_eq!(engine.inside_own_places(&dir.path().join("vaults/back")), None);
    }
}
