//! Where each kind of object stands in a vault; mirrors the restic layout, plus `lifeboat/` beside it.

use lifeboat_base::digest::Digest;
use lifeboat_base::ids::PointId;

use crate::storage::ObjectName;

/// The folder of packs.
pub const DATA: &str = "data/";
/// The folder of index files.
pub const INDEX: &str = "index/";
/// The folder of snapshots.
pub const SNAPSHOTS: &str = "snapshots/";
/// The folder of key files.
pub const KEYS: &str = "keys/";
/// The folder of locks other tools take.
pub const LOCKS: &str = "locks/";
/// The folder of recovery-point manifests.
pub const POINTS: &str = "lifeboat/points/";
/// The folder of log objects.
pub const LOGS: &str = "lifeboat/logs/";
/// The folder of records of what was taken out.
pub const RETIRED: &str = "lifeboat/retired/";
/// The folder of legal holds and their releases.
pub const HOLDS: &str = "lifeboat/holds/";
/// What a repository must show so that stock tools accept it.
pub(crate) const FOLDERS: [&str; 6] = ["data", "index", "snapshots", "keys", "locks", "lifeboat/points"];

const POINT_SUFFIX: &str = ".json";

/// `config`: the repository's parameters, sealed.
pub fn config() -> ObjectName {
    ObjectName::trusted("config".to_owned())
}

/// `lifeboat/envelope.json`.
pub fn envelope() -> ObjectName {
    ObjectName::trusted("lifeboat/envelope.json".to_owned())
}

/// `lifeboat/shredded.json`.
pub fn shredded() -> ObjectName {
    ObjectName::trusted("lifeboat/shredded.json".to_owned())
}

/// `lifeboat/vault.json`.
pub fn vault() -> ObjectName {
    ObjectName::trusted("lifeboat/vault.json".to_owned())
}

/// `data/<digest>`.
pub fn pack(id: &Digest) -> ObjectName {
    ObjectName::trusted(format!("{DATA}{id}"))
}

/// `index/<digest>`.
pub fn index(id: &Digest) -> ObjectName {
    ObjectName::trusted(format!("{INDEX}{id}"))
}

/// `snapshots/<digest>`.
pub fn snapshot(id: &Digest) -> ObjectName {
    ObjectName::trusted(format!("{SNAPSHOTS}{id}"))
}

/// `keys/<digest>`.
pub fn key(id: &Digest) -> ObjectName {
    ObjectName::trusted(format!("{KEYS}{id}"))
}

/// `lifeboat/points/<id>.json`.
pub fn point(id: &PointId) -> ObjectName {
    ObjectName::trusted(format!("{POINTS}{id}{POINT_SUFFIX}"))
}

/// The point whose manifest stands at `name`.
pub fn point_of(name: &ObjectName) -> Option<PointId> {
    PointId::new(name.below(POINTS)?.strip_suffix(POINT_SUFFIX)?).ok()
}

/// The digest in the name of an object that is named by the SHA-256 of its content.
pub fn content_digest(name: &ObjectName) -> Option<Digest> {
    let id = [DATA, INDEX, SNAPSHOTS, KEYS].iter().find_map(|folder| name.below(folder))?;
    let digest: Digest = id.parse().ok()?;
    // Upper-case digits would give one digest two names.
    (digest.to_string() == id).then_some(digest)
}
