//! A small chain to damage, and words for the damage.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use lifeboat_base::crashsafe;
use lifeboat_base::secret::Secret;
use lifeboat_base::time::Timestamp;
use lifeboat_evidence::{Chain, Problem, ProblemKind, VerifyReport, verify};
use lifeboat_keys::{PublicKey, SigningKey};
use serde_json::json;
use tempfile::TempDir;

pub(crate) fn signer() -> SigningKey {
    SigningKey::from_seed(Secret::new([7; 32]))
}

pub(crate) fn stranger() -> SigningKey {
    SigningKey::from_seed(Secret::new([8; 32]))
}

pub(crate) fn public() -> PublicKey {
    signer().public()
}

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// A chain of `count` records: odd ones are backups of `orders`, even ones drills of `uploads`.
pub(crate) struct Sample {
    _temp: TempDir,
    pub(crate) dir: PathBuf,
}

impl Sample {
    pub(crate) fn of(count: i64) -> Self {
        Self::signed_by(&signer(), count)
    }

    pub(crate) fn signed_by(signer: &SigningKey, count: i64) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("evidence");
        let sample = Self { _temp: temp, dir };
        for number in 1..=count {
            sample.append_by(signer, number);
        }
        sample
    }

    pub(crate) fn chain(&self) -> Chain {
        Chain::open(&self.dir).unwrap()
    }

    pub(crate) fn append(&self, number: i64) {
        self.append_by(&signer(), number);
    }

    fn append_by(&self, signer: &SigningKey, number: i64) {
        let (kind, subject) = if number % 2 == 1 { ("backup", "orders") } else { ("drill", "uploads") };
        let body = json!({ "number": number, "note": "=1+1" });
        self.chain().append(signer, at(number), kind, subject, body).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn record(&self, seq: u64) -> PathBuf {
        self.dir.join(record(seq))
    }

    pub(crate) fn verify(&self) -> VerifyReport {
        verify(&self.dir, &public(), None).unwrap()
    }
}

pub(crate) fn record(seq: u64) -> String {
    format!("records/{seq:08}.json")
}

/// Overwrites a file, as somebody who tampers would.
pub(crate) fn overwrite(path: &Path, bytes: &[u8]) {
    crashsafe::replace(path, bytes).unwrap();
}

/// Writes one byte in place; thousands of synced replacements would only make a test slow.
pub(crate) fn poke(path: &Path, position: usize, byte: u8) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[byte], position as u64).unwrap();
}

pub(crate) fn place(from: &Path, to: &Path) {
    overwrite(to, &fs::read(from).unwrap());
}

pub(crate) fn summary(problems: &[Problem]) -> Vec<(String, ProblemKind)> {
    problems.iter().map(|problem| (problem.file.clone(), problem.kind)).collect()
}
