//! Secrets: a type that cannot be printed, and references to where a secret lives.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::failure::Failure;

/// A value that is masked in `Debug` and `Display` and wiped from memory when dropped.
#[derive(Clone)]
pub struct Secret<T: Zeroize>(Zeroizing<T>);

impl<T: Zeroize> Secret<T> {
    /// Takes `value` into custody.
    pub fn new(value: T) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The value itself; the name is meant to stand out in a review.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl<T: Zeroize> fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Where a secret lives: `env:NAME`, `file:PATH` or `vault:PATH#FIELD`. Printing a reference is safe.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SecretRef {
    /// An environment variable.
    Env(String),
    /// A file whose content, without one trailing newline, is the secret.
    File(String),
    /// A field of a secret in HashiCorp Vault.
    Vault {
        /// The path of the secret.
        path: String,
        /// The field inside it.
        field: String,
    },
}

/// A text that is not a reference to a secret. The text itself is not kept: it may be the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a reference to a secret: write `env:NAME`, `file:PATH` or `vault:PATH#FIELD`")]
pub struct NotASecretRef;

impl FromStr for SecretRef {
    type Err = NotASecretRef;

    fn from_str(text: &str) -> Result<Self, NotASecretRef> {
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() && !name.contains(['=', '\0']) => {
                Ok(Self::Env(name.to_owned()))
            }
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.to_owned())),
            Some(("vault", rest)) => match rest.split_once('#') {
                Some((path, field)) if !path.is_empty() && !field.is_empty() => {
                    Ok(Self::Vault { path: path.to_owned(), field: field.to_owned() })
                }
                _ => Err(NotASecretRef),
            },
            _ => Err(NotASecretRef),
        }
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{path}"),
            Self::Vault { path, field } => write!(f, "vault:{path}#{field}"),
        }
    }
}

impl TryFrom<String> for SecretRef {
    type Error = NotASecretRef;

    fn try_from(text: String) -> Result<Self, NotASecretRef> {
        text.parse()
    }
}

impl From<SecretRef> for String {
    fn from(reference: SecretRef) -> Self {
        reference.to_string()
    }
}

/// Resolves references. The command line implements it: no other crate reads the environment.
pub trait SecretSource: Send + Sync {
    /// The secret behind `reference`; a missing or empty one is an `Unreachable` failure that names the reference.
    fn resolve(&self, reference: &SecretRef) -> Result<Secret<String>, Failure>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_cannot_be_printed() {
        let secret = Secret::new("canary-7f3a".to_owned());
        assert_eq!(format!("{secret} {secret:?}"), "[secret] [secret]");
        assert_eq!(secret.expose(), "canary-7f3a");
    }

    #[test]
    fn references_round_trip_and_plain_secrets_are_refused_without_being_echoed() {
        for text in ["env:PASSPHRASE", "file:./secrets/pass", "vault:kv/data/lifeboat#password"] {
            assert_eq!(text.parse::<SecretRef>().unwrap().to_string(), text);
        }
        for text in ["hunter2-canary", "env:", "vault:no-field", ""] {
            let error = text.parse::<SecretRef>().unwrap_err();
            assert!(!error.to_string().contains("canary"));
        }
    }
}
