//! Names of objects: relative, made of plain ASCII names, never able to leave the vault.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest object name in bytes, so that a path below any copy stays within what file systems take.
pub const MAX_NAME_BYTES: usize = 512;

/// The name of a stored object: `/`-separated components of ASCII letters, digits, `-`, `_` and `.`, none starting
/// with a dot. Orders by bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectName(String);

/// A text that cannot name an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an object name")]
pub struct InvalidObjectName(String);

fn plain(component: &str) -> bool {
    !component.is_empty()
        && !component.starts_with('.')
        && component.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

impl ObjectName {
    /// Accepts `text` if every component is plain.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidObjectName> {
        let text = text.into();
        if text.len() <= MAX_NAME_BYTES && text.split('/').all(plain) {
            Ok(Self(text))
        } else {
            Err(InvalidObjectName(lifeboat_base::human::printable(&text)))
        }
    }

    /// A name known to be valid by how it is built: literals, ids and hexadecimal digits.
    pub(crate) fn trusted(text: String) -> Self {
        debug_assert!(text.split('/').all(plain), "not an object name: {text}");
        Self(text)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name below its first component, such as `points/x.json` for `lifeboat/points/x.json`.
    pub fn below(&self, prefix: &str) -> Option<&str> {
        self.0.strip_prefix(prefix)
    }

    /// The last component.
    pub fn base_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// As a relative path.
    pub fn to_path(&self) -> PathBuf {
        PathBuf::from(&self.0)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for ObjectName {
    type Err = InvalidObjectName;

    fn from_str(text: &str) -> Result<Self, InvalidObjectName> {
        Self::new(text)
    }
}

impl TryFrom<String> for ObjectName {
    type Error = InvalidObjectName;

    fn try_from(text: String) -> Result<Self, InvalidObjectName> {
        Self::new(text)
    }
}

impl From<ObjectName> for String {
    fn from(name: ObjectName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_vault_are_refused() {
        for text in
            ["", "/", "/etc/passwd", "../x", "a/../b", "a//b", "a/", ".hidden", "a/.tmp", "a b", "a\0", "é"]
        {
            assert!(ObjectName::new(text).is_err(), "{text:?}");
        }
        assert!(ObjectName::new("a".repeat(MAX_NAME_BYTES + 1)).is_err());
        assert_eq!(ObjectName::new("lifeboat/points/pt-1.json").unwrap().base_name(), "pt-1.json");
    }
}
