//! Two careful changes to a database that is a copy: a higher revision, and no logins.
//!
//! The first is what etcd's own tool does in its later versions: Kubernetes remembers revisions, and a store that goes
//! back to lower ones gives its watchers wrong answers. Nothing of the source is touched.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use crate::bolt::{Bolt, Builder};
use crate::content::{AUTH, AUTH_ENABLED, KEY, META, SCHEDULED, revision_key, summarise};
use crate::error::EtcdError;
use crate::snapshot::{Snapshot, seal};

/// Writes the snapshot `into` (new, mode 0600, synced) whose revision is `by` higher than that of `from`, and in which
/// everything before is marked as compacted, so that watchers of older revisions are told to start again. Gives the new
/// revision. Every page is written anew; no key, value or lease is changed.
pub fn bump_revision(
    from: &Snapshot,
    by: u64,
    into: &Path,
    cancelled: &dyn Fn() -> bool,
) -> Result<i64, EtcdError> {
    let content = summarise(from.database(), cancelled)?;
    let too_far = || EtcdError::Options(format!("a revision cannot be raised by {by}"));
    let by = i64::try_from(by).ok().filter(|by| *by > 0).ok_or_else(too_far)?;
    // Half of all numbers are left for the future.
    let revision = content.revision.checked_add(by).filter(|to| *to < i64::MAX / 2).ok_or_else(too_far)?;
    let mark = revision_key(revision, 0);
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(into);
    let file = file.map_err(EtcdError::io("make", into))?;
    let mut builder = Builder::new(file, from.database().page_bytes())?;
    let mut buckets = from.database().buckets()?;
    if !buckets.iter().any(|(name, _)| name == META) {
        return Err(EtcdError::corrupt("it has no notes of the server"));
    }
    buckets.sort_by(|one, other| one.0.cmp(&other.0));
    for (name, bucket) in &buckets {
        builder.bucket(name, bucket.sequence, &mut |add| {
            // The mark of a compaction goes where its name belongs.
            let mut pending = (name == META).then_some((SCHEDULED, mark.as_slice()));
            from.database().walk(bucket, &mut |key, value| {
                if let Some((name, mark)) = pending
                    && key >= name
                {
                    add(name, mark)?;
                    pending = None;
                }
                if name == META && key == SCHEDULED { Ok(()) } else { add(key, value) }
            })?;
            if let Some((name, mark)) = pending {
                add(name, mark)?;
            }
            // An empty version of nothing: the last revision of the history.
            if name == KEY { add(&mark, &[]) } else { Ok(()) }
        })?;
    }
    let (file, length_bytes) = builder.finish()?;
    seal(&file, length_bytes)?;
    Ok(revision)
}

/// Lets everybody into the server that is started on the database at `path`, a copy made for a check; true if logins
/// were asked for before. Changes one byte in place, which no checksum covers.
pub fn switch_off_auth(path: &Path) -> Result<bool, EtcdError> {
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(EtcdError::io("open", path))?;
    let file = Arc::new(file);
    let bolt = Bolt::open_grown(Arc::clone(&file))?;
    if !summarise_auth(&bolt)? {
        return Ok(false);
    }
    let Some(at) = bolt.place_of(AUTH, AUTH_ENABLED)? else {
        return Err(EtcdError::corrupt("the switch of logins cannot be found"));
    };
    write_byte(&file, at).map_err(EtcdError::io("change", path))?;
    if summarise_auth(&bolt)? {
        return Err(EtcdError::corrupt("the switch of logins is not where it should be"));
    }
    Ok(true)
}

fn write_byte(file: &File, at: u64) -> std::io::Result<()> {
    file.write_all_at(&[0], at)?;
    file.sync_all()
}

fn summarise_auth(bolt: &Bolt) -> Result<bool, EtcdError> {
    let mut enabled = false;
    if let Some(bucket) = bolt.bucket(AUTH)? {
        bolt.walk(&bucket, &mut |key, value| {
            enabled |= key == AUTH_ENABLED && value == [1];
            Ok(())
        })?;
    }
    Ok(enabled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::read_content;
    use crate::content::tests::{made, put, sample};

    #[test]
    fn a_raised_revision_changes_nothing_else_and_marks_what_was_before_as_compacted() {
        let dir = tempfile::tempdir().unwrap();
        let before = made(
            &[put(2, "a", "1"), put(3, "b", "2")],
            &[(b"finishedCompactRev", revision_key(2, 0)), (b"zz", b"kept".to_vec())],
        );
        let path = dir.path().join("raised.db");
        assert_eq!(bump_revision(&before, 1000, &path, &|| false).unwrap(), 1003);
        let after = Snapshot::open(Arc::new(File::open(&path).unwrap()), &|| false).unwrap();
        let keys = |snapshot: &Snapshot| {
            let mut keys = Vec::new();
            let content = read_content(snapshot.database(), &|| false, &mut |key| {
                keys.push(key);
                Ok(())
            });
            (content.unwrap(), keys)
        };
        let ((old, old_keys), (new, new_keys)) = (keys(&before), keys(&after));
        assert_eq!(old_keys, new_keys);
        assert_eq!((old.revision, new.revision), (3, 1003));
        assert_eq!((new.compact_revision, new.is_compacting), (1003, true));
        let meta = after.database().bucket(META).unwrap().unwrap();
        let mut names = Vec::new();
        let seen = after.database().walk(&meta, &mut |name, _| {
            names.push(String::from_utf8_lossy(name).into_owned());
            Ok(())
        });
        seen.unwrap();
        assert_eq!(names, ["finishedCompactRev", "scheduledCompactRev", "zz"]);
    }

    #[test]
    fn a_revision_is_never_raised_by_nothing_or_beyond_all_numbers() {
        let dir = tempfile::tempdir().unwrap();
        for by in [0, u64::MAX, i64::MAX as u64] {
            let raised = bump_revision(&sample(3), by, &dir.path().join("raised.db"), &|| false);
            assert!(matches!(raised, Err(EtcdError::Options(_))), "{by}");
        }
    }
}
