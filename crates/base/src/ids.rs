//! Every identity has its own type, declared here and nowhere else.
//!
//! All of them are restricted to characters that are safe in a path, a URL and a log line, so an id read from a
//! file can never name something outside its folder.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::entropy::Entropy;
use crate::time::Timestamp;

/// An identity that does not follow its rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {what}: {rule}")]
pub struct InvalidId {
    what: &'static str,
    text: String,
    rule: &'static str,
}

const MAX_ID_BYTES: usize = 64;
const NAME_RULE: &str = "use 1 to 64 lowercase letters, digits, `-` or `_`, starting with a letter or digit";
const RECORD_RULE: &str = "use 1 to 64 letters, digits, `-` or `_`, starting with a letter or digit";

fn valid_name(text: &str) -> bool {
    valid_record(text) && !text.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn valid_record(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= MAX_ID_BYTES
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

macro_rules! id_types {
    ($($(#[$doc:meta])* $name:ident, $what:literal, $valid:ident, $rule:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Accepts `text` if it follows the rule of this id.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidId> {
                let text = text.into();
                if $valid(&text) { Ok(Self(text)) } else { Err(InvalidId { what: $what, text, rule: $rule }) }
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    )*};
}

id_types! {
    /// A row of the policy: one datastore instance to protect.
    StoreName, "store name", valid_name, NAME_RULE;
    /// A place where vaults live, as named in the policy.
    CopyName, "copy name", valid_name, NAME_RULE;
    /// A tier of the policy, such as `S` or `A`.
    TierName, "tier name", valid_record, RECORD_RULE;
    /// A rule that two stores must agree on, as named in the policy.
    AgreementName, "agreement name", valid_name, NAME_RULE;
    /// An application that is tried on restored stores, as named in the policy.
    ApplicationName, "application name", valid_name, NAME_RULE;
    /// A drill that is due again and again, as named in the policy.
    PlanName, "drill name", valid_name, NAME_RULE;
    /// One recovery point; sorts by its capture time.
    PointId, "recovery point id", valid_record, RECORD_RULE;
    /// One run of a drill; sorts by its start.
    DrillId, "drill id", valid_record, RECORD_RULE;
    /// One job run (a backup, a verification, a restore); sorts by its start.
    RunId, "run id", valid_record, RECORD_RULE;
    /// One legal hold; sorts by when it was placed.
    HoldId, "hold id", valid_record, RECORD_RULE;
    /// One vault's identity, the same in every copy of the store.
    VaultId, "vault id", valid_record, RECORD_RULE;
    /// A log stream inside a vault, such as `wal`.
    StreamName, "log stream name", valid_name, NAME_RULE;
}

/// `PREFIX-20261121T020000123Z-1f2e3d4c`: sorts by time, unique within a millisecond by its random tail.
fn stamped(prefix: &str, at: Timestamp, entropy: &dyn Entropy) -> String {
    let mut tail = [0u8; 4];
    entropy.fill(&mut tail);
    format!("{prefix}-{}-{}", at.strftime("%Y%m%dT%H%M%S%3fZ"), hex::encode(tail))
}

impl PointId {
    /// A fresh id for a capture started at `at`.
    pub fn generate(at: Timestamp, entropy: &dyn Entropy) -> Self {
        Self(stamped("pt", at, entropy))
    }

    /// The moment that a generated id tells, to the millisecond; nothing for one that somebody else chose.
    pub fn begun(&self) -> Option<Timestamp> {
        let stamp = self.0.strip_prefix("pt-")?.split('-').next()?.strip_suffix('Z')?;
        let (date, time) = stamp.split_once('T').filter(|(date, time)| date.len() == 8 && time.len() == 9)?;
        let (year, month, day) = (date.get(..4)?, date.get(4..6)?, date.get(6..)?);
        let (hour, minute, second, ms) = (time.get(..2)?, time.get(2..4)?, time.get(4..6)?, time.get(6..)?);
        format!("{year}-{month}-{day}T{hour}:{minute}:{second}.{ms}Z").parse().ok()
    }
}

impl DrillId {
    /// A fresh id for a drill started at `at`.
    pub fn generate(at: Timestamp, entropy: &dyn Entropy) -> Self {
        Self(stamped("drill", at, entropy))
    }
}

impl RunId {
    /// A fresh id for a run started at `at`.
    pub fn generate(at: Timestamp, entropy: &dyn Entropy) -> Self {
        Self(stamped("run", at, entropy))
    }
}

impl HoldId {
    /// A fresh id for a hold placed at `at`.
    pub fn generate(at: Timestamp, entropy: &dyn Entropy) -> Self {
        Self(stamped("hold", at, entropy))
    }
}

impl VaultId {
    /// A fresh random id.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let mut bytes = [0u8; 16];
        entropy.fill(&mut bytes);
        Self(hex::encode(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_folder_are_refused() {
        for text in ["", ".", "..", "a/b", "-a", "a b", "ORDERS", "a\0", "é"] {
            assert!(StoreName::new(text).is_err(), "{text:?}");
        }
        assert!(StoreName::new("orders_v2-eu").is_ok());
        assert!(TierName::new("S").is_ok());
    }

    #[test]
    fn point_ids_sort_by_time() {
        let entropy = crate::entropy::OsEntropy;
        let early = PointId::generate(Timestamp::from_second(1_000).unwrap(), &entropy);
        let late = PointId::generate(Timestamp::from_second(2_000).unwrap(), &entropy);
        assert!(early < late);
        assert!(PointId::new(early.as_str()).is_ok());
        let at = Timestamp::from_millisecond(1_800_000_000_123).unwrap();
        assert_eq!(PointId::generate(at, &entropy).begun(), Some(at));
        for other in ["pt-0001", "pt-20261121T0200Z-00000000", "pt-20269921T020000123Z-00000000"] {
            assert_eq!(PointId::new(other).unwrap().begun(), None, "{other}");
        }
    }
}
