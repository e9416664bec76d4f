//! Files that are written and read back, and files that lie.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::error::EtcdError;

type Kept = Vec<(Vec<u8>, Vec<u8>)>;

fn built(buckets: &[(&[u8], Kept)], page_bytes: u32) -> (Arc<File>, u64) {
    let mut builder = Builder::new(tempfile::tempfile().unwrap(), page_bytes).unwrap();
    for (name, pairs) in buckets {
        let fill = &mut |add: &mut Pairs<'_>| pairs.iter().try_for_each(|(key, value)| add(key, value));
        builder.bucket(name, 7, fill).unwrap();
    }
    let (file, length_bytes) = builder.finish().unwrap();
    (Arc::new(file), length_bytes)
}

fn read(bolt: &Bolt, name: &[u8]) -> Result<Kept, EtcdError> {
    let bucket = bolt.bucket(name)?.ok_or_else(|| EtcdError::corrupt("no bucket"))?;
    let mut pairs = Vec::new();
    bolt.walk(&bucket, &mut |key, value| {
        pairs.push((key.to_vec(), value.to_vec()));
        Ok(())
    })?;
    Ok(pairs)
}

fn numbered(count: u32, value_bytes: usize) -> Kept {
    (0..count).map(|n| (n.to_be_bytes().to_vec(), vec![n.to_le_bytes()[0]; value_bytes])).collect()
}

#[test]
fn a_tree_of_several_heights_and_values_of_many_pages_come_back() {
    let large: Kept = vec![(b"a".to_vec(), vec![1; 1_500_000]), (b"b".to_vec(), Vec::new())];
    let buckets: [(&[u8], Kept); 3] =
        [(b"empty", Vec::new()), (b"large", large), (b"many", numbered(50_000, 30))];
    let (file, length_bytes) = built(&buckets, 1024);
    let bolt = Bolt::open(file, length_bytes).unwrap();
    for (name, pairs) in &buckets {
        assert_eq!(read(&bolt, name).unwrap(), *pairs);
        assert_eq!(bolt.bucket(name).unwrap().unwrap().sequence, 7);
    }
    assert!(bolt.bucket(b"none").unwrap().is_none());
}

#[test]
fn a_file_that_is_too_short_or_too_long_is_not_opened() {
    let (file, length_bytes) = built(&[(b"key", numbered(500, 100))], 4096);
    for wrong in [0, 1, 100, 4096, length_bytes - 1, length_bytes - 4096, length_bytes + 4096] {
        assert!(Bolt::open(Arc::clone(&file), wrong).is_err(), "{wrong}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_built_is_read(pairs in proptest::collection::btree_map(
        any::<Vec<u8>>(), proptest::collection::vec(any::<u8>(), 0..3000), 0..40,
    )) {
        let pairs: Kept = pairs.into_iter().collect();
        let (file, length_bytes) = built(&[(b"key", pairs.clone())], 1024);
        let bolt = Bolt::open(file, length_bytes).unwrap();
        prop_assert_eq!(read(&bolt, b"key").unwrap(), pairs);
    }

    #[test]
    fn a_file_that_lies_gives_pairs_or_an_error(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let (file, length_bytes) = built(&[(b"key", numbered(2000, 20))], 1024);
        let at = at.index(usize::try_from(length_bytes).unwrap()) as u64;
        file.write_all_at(&[byte], at).unwrap();
        if let Ok(bolt) = Bolt::open(file, length_bytes) {
            drop(read(&bolt, b"key"));
        }
    }
}
