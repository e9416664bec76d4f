//! Our storage seen as a backend of the `rustic_core` library, which makes new repositories and gives a second opinion.

use std::sync::Arc;

use bytes::Bytes;
use lifeboat_base::digest::Digest;
use rustic_core::repofile::MasterKey as RusticKey;
use rustic_core::{
    BytesList, ConfigOptions, Credentials, ErrorKind, FileType, Id, KeyOptions, ReadBackend, Repository,
    RepositoryBackends, RepositoryOptions, RusticError, RusticResult, WriteBackend,
};

use crate::crypto::MasterKey;
use crate::error::{StorageContext, VaultError};
use crate::format::keyfile;
use crate::format::node::from_id;
use crate::layout;
use crate::storage::{MemoryStorage, ObjectName, Storage, StorageError};

/// The zstd level of packs.
pub(crate) const COMPRESSION_LEVEL: i32 = 3;
/// The size a pack aims at, as the configuration tells other tools.
const PACK_BYTES: &str = "16MiB";

/// A storage with the library's idea of files.
pub(crate) struct Backend(pub Arc<dyn Storage>);

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Backend({})", self.0.location())
    }
}

fn name_of(kind: FileType, id: &Id) -> ObjectName {
    let digest = from_id(*id).unwrap_or_else(|| Digest::from_bytes([0; 32]));
    match kind {
        FileType::Config => layout::config(),
        FileType::Index => layout::index(&digest),
        FileType::Key => layout::key(&digest),
        FileType::Snapshot => layout::snapshot(&digest),
        FileType::Pack => layout::pack(&digest),
    }
}

fn failed(error: StorageError) -> Box<RusticError> {
    RusticError::with_source(ErrorKind::Backend, "the storage of the vault failed", error)
}

impl ReadBackend for Backend {
    fn location(&self) -> String {
        self.0.location()
    }

    fn list_with_size(&self, kind: FileType) -> RusticResult<Vec<(Id, u32)>> {
        if kind == FileType::Config {
            let size = self.0.stat(&layout::config()).map_err(failed)?;
            return Ok(size.map(|bytes| (Id::default(), clamp(bytes))).into_iter().collect());
        }
        let listed = self.0.list(&format!("{}/", kind.dirname())).map_err(failed)?;
        Ok(listed
            .iter()
            .filter_map(|object| {
                let digest = layout::content_digest(&object.name)?;
                Some((Id::new(*digest.as_bytes()), clamp(object.size_bytes)))
            })
            .collect())
    }

    fn read_full(&self, kind: FileType, id: &Id) -> RusticResult<Bytes> {
        self.0.get(&name_of(kind, id)).map(Bytes::from).map_err(failed)
    }

    fn read_partial(
        &self,
        kind: FileType,
        id: &Id,
        _cacheable: bool,
        offset: u32,
        length: u32,
    ) -> RusticResult<Bytes> {
        self.0
            .get_range(&name_of(kind, id), u64::from(offset), length as usize)
            .map(Bytes::from)
            .map_err(failed)
    }

    fn warmup_path(&self, kind: FileType, id: &Id) -> String {
        name_of(kind, id).to_string()
    }
}

fn clamp(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl WriteBackend for Backend {
    fn create(&self) -> RusticResult<()> {
        self.0.make_folders(&layout::FOLDERS).map_err(failed)
    }

    fn write_bytes(&self, kind: FileType, id: &Id, _cacheable: bool, content: BytesList) -> RusticResult<()> {
        let pieces: Vec<&[u8]> = content.slice().iter().map(AsRef::as_ref).collect();
        self.0.put_new(&name_of(kind, id), &pieces).map_err(failed)
    }

    fn remove(&self, kind: FileType, id: &Id, _cacheable: bool) -> RusticResult<()> {
        self.0.remove(&name_of(kind, id)).map_err(failed)
    }
}

fn options() -> RepositoryOptions {
    RepositoryOptions::default().no_cache(true)
}

fn credentials(key: &MasterKey) -> Result<Credentials, VaultError> {
    keyfile::key_json(key)
        .and_then(|json| serde_json::from_slice::<RusticKey>(json.expose()).ok())
        .map(Credentials::Masterkey)
        .ok_or_else(|| VaultError::Internal("the key cannot be handed to the repository library".to_owned()))
}

pub(crate) fn library(error: Box<RusticError>) -> VaultError {
    VaultError::Internal(format!("the repository library failed: {error}"))
}

fn repository(storage: Arc<dyn Storage>) -> Result<Repository<()>, VaultError> {
    let backends = RepositoryBackends::new(Arc::new(Backend(storage)), None);
    Repository::new(&options(), &backends).map_err(library)
}

/// The sealed `config` of a new repository: version 2, zstd, 16 MiB packs, its own chunker polynomial for other tools.
pub(crate) fn new_config(key: &MasterKey) -> Result<Vec<u8>, VaultError> {
    let pack_size = PACK_BYTES
        .parse()
        .map_err(|error| VaultError::Internal(format!("the pack size cannot be parsed: {error}")))?;
    let mut config = ConfigOptions::default();
    config.set_version = Some(2);
    config.set_compression = Some(COMPRESSION_LEVEL);
    config.set_datapack_size = Some(pack_size);
    config.set_treepack_size = Some(pack_size);
    config.set_datapack_growfactor = Some(0);
    config.set_treepack_growfactor = Some(0);
    let scratch = MemoryStorage::new();
    let _opened = repository(Arc::new(scratch.clone()))?
        .init(&credentials(key)?, &KeyOptions::default(), &config)
        .map_err(library)?;
    scratch.get(&layout::config()).doing(|| "make the configuration".to_owned())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use lifeboat_base::capture::{Meta, StoredKind};
    use rustic_core::CheckOptions;

    use super::*;
    use crate::format::index::BlobKind;
    use crate::format::node::build;
    use crate::testing;
    use crate::write::store_blobs;

    /// The library's own check is a second opinion on what we write, and fails on damage we plant.
    #[test]
    fn the_library_reads_our_vaults_and_sees_planted_damage() {
        let vault = testing::vault();
        let content = Digest::of(b"content");
        let node = build(OsStr::new("file"), &Meta::default(), &StoredKind::File(7), Some(&[content]), None);
        let root = testing::listing(&[node]);
        store_blobs(&vault, &[(BlobKind::Data, b"content"), (BlobKind::Tree, root.as_slice())]);
        testing::point(&vault, &Digest::of(&root));
        let mut options = CheckOptions::default();
        options.read_data = true;
        let checked = |options| {
            let repository = repository(Arc::clone(&vault.storage)).unwrap();
            let repository = repository.open(&credentials(&vault.key).unwrap()).unwrap();
            repository.check(options).is_ok_and(|results| results.is_ok().is_ok())
        };
        assert!(checked(options));
        let pack = vault.storage.list(layout::DATA).unwrap().remove(0).name;
        vault.storage.remove(&pack).unwrap();
        assert!(!checked(options));
    }
}
