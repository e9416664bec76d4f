//! What the unit tests share: a vault in memory into which any listing can be put, honest or not.

use std::collections::BTreeMap;
use std::sync::Arc;

use lifeboat_base::capture::{CaptureFacts, Consistency, ConsistencyLevel};
use lifeboat_base::digest::Digest;
use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::ids::{PointId, StoreName, VaultId};
use lifeboat_base::secret::Secret;
use lifeboat_base::time::Timestamp;
use lifeboat_keys::{Envelope, KeyFileRecipient, VaultSecrets};
use rustic_core::repofile::Node;

use crate::points::{POINT_FORMAT, PointManifest};
use crate::storage::MemoryStorage;
use crate::vault::{NewVault, Vault};
use crate::write::{SnapshotStamp, store_snapshot};

pub(crate) fn vault() -> Vault {
    let secrets = VaultSecrets::generate(&OsEntropy);
    let store = StoreName::new("orders").unwrap();
    let vault_id = VaultId::generate(&OsEntropy);
    let created = Timestamp::UNIX_EPOCH;
    let recipient = KeyFileRecipient::new(Secret::new([7; 32]), "test").unwrap();
    let envelope =
        Envelope::seal(vault_id.clone(), &store, created, &secrets, &[&recipient], &OsEntropy).unwrap();
    let new =
        NewVault { store: &store, vault_id: &vault_id, secrets: &secrets, envelope: &envelope, created };
    Vault::create(Arc::new(MemoryStorage::new()), new, &OsEntropy).unwrap()
}

/// The bytes of a listing, in any order and with any names.
pub(crate) fn listing(nodes: &[Node]) -> Vec<u8> {
    let mut json = serde_json::to_vec(&serde_json::json!({ "nodes": nodes })).unwrap();
    json.push(b'\n');
    json
}

/// A point whose root is `root`.
pub(crate) fn point(vault: &Vault, root: &Digest) -> PointManifest {
    let now = Timestamp::UNIX_EPOCH;
    let id = PointId::new("pt-1").unwrap();
    let stamp = SnapshotStamp {
        point: id.clone(),
        store: vault.store().clone(),
        host: "host".to_owned(),
        user: "user".to_owned(),
        time: now,
        parent: None,
    };
    let snapshot = store_snapshot(vault, &stamp, root).unwrap().0;
    let consistency = Consistency { level: ConsistencyLevel::Fuzzy, moment: now, position: None, changes: 0 };
    let manifest = PointManifest {
        format: POINT_FORMAT.to_owned(),
        id,
        store: vault.store().clone(),
        kind: "files".to_owned(),
        vault: vault.vault_id().clone(),
        policy_hash: Digest::of(b""),
        snapshot,
        parent: None,
        started: now,
        ended: now,
        facts: CaptureFacts {
            consistency,
            logical_bytes: 0,
            counts: BTreeMap::new(),
            checksums: BTreeMap::new(),
            environment: BTreeMap::new(),
            unreadable: Vec::new(),
        },
        new_bytes: 0,
        stored_bytes: 0,
        copies: Vec::new(),
        key_id: vault.secrets().signing.public().key_id(),
        tool: "test".to_owned(),
        evidence_head: None,
        evidence_key: None,
    };
    vault.seal_point(&manifest).unwrap();
    manifest
}
