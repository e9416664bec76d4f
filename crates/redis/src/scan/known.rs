//! What is known about every key that was met: enough to meet it once only, and to see a second time whether it changed.
//!
//! Memory: 28 bytes a key, an eighth more for what came last, and once more the bytes of that eighth while it is put in order:
//! about 35 MB for a million keys. Names are known by 128 bits of a SHA-256 over a random secret, so that nobody can choose
//! names that are taken for each other.

use std::collections::HashMap;

use lifeboat_base::entropy::Entropy;
use sha2::{Digest as _, Sha256};

/// The most keys that are kept track of: about 350 MB.
pub const MAX_KEYS: usize = 10_000_000;
/// What came last is put in order when there is so much of it, or an eighth of the rest.
const MIN_RECENT: usize = 64 * 1024;

type Name = [u8; 16];

/// What is known about one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// 56 bits of the digest of its content.
    content: [u8; 7],
    /// Whether it was met in the second walk.
    again: bool,
    /// When it ends, in seconds since 1970, rounded up; 0 if it does not.
    pub end_s: u32,
}

impl Seen {
    /// What was seen of a key's content and end.
    pub fn new(digest: &[u8; 32], end_ms: Option<i64>) -> Self {
        let content = *digest.first_chunk().unwrap_or(&[0; 7]);
        let end_s = end_ms.map_or(0, |end_ms| u32::try_from(end_ms.div_euclid(1000) + 1).unwrap_or(u32::MAX));
        Self { content, again: false, end_s }
    }

    /// Whether the content is the same.
    pub fn has_content_of(&self, other: &Self) -> bool {
        self.content == other.content
    }
}

/// Every key that was met.
pub struct Known {
    secret: [u8; 32],
    /// By name.
    sorted: Vec<(Name, Seen)>,
    recent: HashMap<Name, Seen>,
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Known").field("count", &self.count()).finish_non_exhaustive()
    }
}

impl Known {
    /// Knows nothing yet.
    pub fn new(entropy: &dyn Entropy) -> Self {
        let mut secret = [0; 32];
        entropy.fill(&mut secret);
        Self { secret, sorted: Vec::new(), recent: HashMap::new() }
    }

    /// How many keys are known.
    pub fn count(&self) -> usize {
        self.sorted.len() + self.recent.len()
    }

    fn name(&self, db: u64, name: &[u8]) -> Name {
        let mut hasher = Sha256::new();
        hasher.update(self.secret);
        hasher.update(db.to_be_bytes());
        hasher.update(name);
        *<[u8; 32]>::from(hasher.finalize()).first_chunk().unwrap_or(&[0; 16])
    }

    fn find(&mut self, name: &Name) -> Option<&mut Seen> {
        match self.sorted.binary_search_by(|(other, _)| other.cmp(name)) {
            Ok(index) => self.sorted.get_mut(index).map(|(_, seen)| seen),
            Err(_none) => self.recent.get_mut(name),
        }
    }

    /// Whether this key was met.
    pub fn has(&mut self, db: u64, name: &[u8]) -> bool {
        let name = self.name(db, name);
        self.find(&name).is_some()
    }

    /// Keeps what was seen of a key that is not known; false where there is no room for it.
    pub fn add(&mut self, db: u64, name: &[u8], seen: Seen) -> bool {
        if self.count() >= MAX_KEYS {
            return false;
        }
        let name = self.name(db, name);
        self.recent.insert(name, seen);
        if self.recent.len() >= MIN_RECENT.max(self.sorted.len() / 8) {
            self.settle();
        }
        true
    }

    /// Puts what came last among the rest, from the end on, without a copy of the rest.
    fn settle(&mut self) {
        let mut recent: Vec<(Name, Seen)> = std::mem::take(&mut self.recent).into_iter().collect();
        recent.sort_unstable_by_key(|(name, _)| *name);
        let mut old = self.sorted.len();
        self.sorted.reserve_exact(recent.len());
        self.sorted.extend_from_slice(&recent);
        let mut place = self.sorted.len();
        while let Some(next) = recent.last() {
            let before = old.checked_sub(1).and_then(|index| self.sorted.get(index)).copied();
            place -= 1;
            let taken = match before {
                Some(before) if before.0 > next.0 => {
                    old -= 1;
                    before
                }
                _ => {
                    let next = *next;
                    recent.truncate(recent.len() - 1);
                    next
                }
            };
            if let Some(slot) = self.sorted.get_mut(place) {
                *slot = taken;
            }
        }
    }

    /// Marks a key as met once more, and gives what is known of it, with whether it had been met again before.
    pub fn again(&mut self, db: u64, name: &[u8]) -> Option<(Seen, bool)> {
        let name = self.name(db, name);
        let seen = self.find(&name)?;
        let before = seen.again;
        seen.again = true;
        Some((*seen, before))
    }

    /// How many were not met again: those that had to end by this moment, and the others.
    pub fn missed(&self, now_s: u64) -> (u64, u64) {
        let all = self.sorted.iter().map(|(_, seen)| seen).chain(self.recent.values());
        all.filter(|seen| !seen.again).fold((0, 0), |(ended, vanished), seen| {
            if seen.end_s > 0 && u64::from(seen.end_s) <= now_s + 1 {
                (ended + 1, vanished)
            } else {
                (ended, vanished + 1)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use lifeboat_base::entropy::OsEntropy;

    use super::*;

    #[test]
    fn every_key_is_known_once_and_by_its_database_and_stays_known() {
        let mut known = Known::new(&OsEntropy);
        let count = 3 * MIN_RECENT + 17;
        for number in 0..count {
            let name = format!("key:{number}");
            assert!(!known.has(number as u64 % 3, name.as_bytes()), "{name}");
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&(number as u64).to_le_bytes());
            assert!(known.add(number as u64 % 3, name.as_bytes(), Seen::new(&digest, None)));
        }
        assert_eq!(known.count(), count);
        assert!(!known.has(1, b"key:0") && known.has(0, b"key:0"));
        for number in (0..count).step_by(2) {
            let name = format!("key:{number}");
            let (seen, before) = known.again(number as u64 % 3, name.as_bytes()).unwrap();
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&(number as u64).to_le_bytes());
            assert!(seen.has_content_of(&Seen::new(&digest, None)) && !before, "{name}");
        }
        assert!(known.again(0, b"key:0").unwrap().1);
        assert_eq!(known.missed(0), (0, count as u64 / 2));
    }

    #[test]
    fn a_key_that_is_missed_after_its_end_has_ended() {
        let mut known = Known::new(&OsEntropy);
        for (name, end_ms) in [("a", Some(5_000)), ("b", Some(900_000)), ("c", None)] {
            known.add(0, name.as_bytes(), Seen::new(&[0; 32], end_ms));
        }
        assert_eq!(known.missed(10), (1, 2));
    }
}
