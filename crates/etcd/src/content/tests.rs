//! Databases made here, whose content is known. Real ones are compared with their servers in the tests of this crate.

use std::sync::Arc;

use super::*;
use crate::bolt::Builder;
use crate::snapshot::{Snapshot, seal};

/// A version of a key, or its deletion.
pub(crate) fn put(main: i64, key: &str, value: &str) -> (Vec<u8>, Vec<u8>) {
    let pair = KeyValue {
        key: key.into(),
        value: value.into(),
        create_revision: main,
        mod_revision: main,
        version: 1,
        lease: 0,
    };
    (revision_key(main, 0), pair.encode())
}

fn delete(main: i64, key: &str) -> (Vec<u8>, Vec<u8>) {
    let mut at = revision_key(main, 0);
    at.push(TOMBSTONE);
    (at, KeyValue { key: key.into(), ..KeyValue::default() }.encode())
}

/// A snapshot with this history and these notes.
pub(crate) fn made(history: &[(Vec<u8>, Vec<u8>)], meta: &[(&[u8], Vec<u8>)]) -> Snapshot {
    let mut builder = Builder::new(tempfile::tempfile().unwrap(), 4096).unwrap();
    builder.bucket(KEY, 0, &mut |add| history.iter().try_for_each(|(key, value)| add(key, value))).unwrap();
    builder.bucket(META, 0, &mut |add| meta.iter().try_for_each(|(key, value)| add(key, value))).unwrap();
    let (file, length_bytes) = builder.finish().unwrap();
    seal(&file, length_bytes).unwrap();
    Snapshot::open(Arc::new(file), &|| false).unwrap()
}

/// A snapshot with this many keys.
pub(crate) fn sample(count: i64) -> Snapshot {
    let history: Vec<_> = (2..count + 2).map(|main| put(main, &format!("/k/{main}"), "value")).collect();
    made(&history, &[])
}

fn keys(snapshot: &Snapshot) -> (Content, Vec<String>) {
    let mut keys = Vec::new();
    let content = read_content(snapshot.database(), &|| false, &mut |pair| {
        keys.push(format!("{}={}", String::from_utf8_lossy(&pair.key), String::from_utf8_lossy(&pair.value)));
        Ok(())
    });
    (content.unwrap(), keys)
}

#[test]
fn only_the_newest_version_of_a_key_that_was_not_deleted_is_alive() {
    let history = [
        put(2, "a", "1"),
        put(3, "b", "1"),
        put(4, "a", "2"),
        delete(5, "b"),
        put(6, "c", "1"),
        delete(7, "c"),
        put(8, "c", "2"),
    ];
    let (content, alive) = keys(&made(&history, &[]));
    assert_eq!(alive, ["a=2", "c=2"]);
    assert_eq!((content.revision, content.key_count, content.stored_count), (8, 2, 7));
}

#[test]
fn an_empty_store_is_at_revision_one() {
    let (content, alive) = keys(&made(&[], &[]));
    assert_eq!((content.revision, alive.len()), (1, 0));
}

#[test]
fn a_compaction_that_has_not_ended_is_told() {
    let notes = [(FINISHED, revision_key(2, 0)), (SCHEDULED, revision_key(4, 0))];
    let (content, _) = keys(&made(&[put(2, "a", "1"), put(5, "a", "2")], &notes));
    assert_eq!((content.compact_revision, content.is_compacting), (4, true));
}

#[test]
fn what_is_no_history_is_damage() {
    let broken = made(&[(b"not a revision".to_vec(), Vec::new())], &[]);
    assert!(matches!(summarise(broken.database(), &|| false), Err(EtcdError::Corrupt(_))));
    let cancelled = summarise(sample(5000).database(), &|| true);
    assert!(matches!(cancelled, Err(EtcdError::Cancelled)));
}
