//! Secrets by reference: the environment and files, nothing else in this version.

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::secret::{Secret, SecretRef, SecretSource};

/// A secret larger than this is a mistake.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// Resolves `env:` and `file:`; relative paths start at the folder of the policy.
#[derive(Debug)]
pub(crate) struct Secrets {
    base: PathBuf,
}

impl Secrets {
    pub(crate) fn new(base: PathBuf) -> Self {
        Self { base }
    }
}

impl SecretSource for Secrets {
    #[expect(clippy::disallowed_methods, reason = "the command line reads the environment")]
    fn resolve(&self, reference: &SecretRef) -> Result<Secret<String>, Failure> {
        let missing = |why: &str| Failure::new(FailureKind::Unreachable, format!("secret {reference} {why}"));
        let text = match reference {
            SecretRef::Env(name) => match std::env::var(name) {
                Ok(text) => Secret::new(text),
                Err(std::env::VarError::NotPresent) => return Err(missing("is not set")),
                // The error itself would show the value.
                Err(std::env::VarError::NotUnicode(_value)) => return Err(missing("is not text")),
            },
            SecretRef::File(path) => {
                let mut text = zeroize::Zeroizing::new(String::new());
                fs::File::open(self.base.join(path))
                    .and_then(|file| file.take(MAX_SECRET_BYTES + 1).read_to_string(&mut text))
                    .map_err(|error| {
                        Failure::with_source(
                            FailureKind::Unreachable,
                            format!("failed to read secret {reference}"),
                            error,
                        )
                    })?;
                if text.len() as u64 > MAX_SECRET_BYTES {
                    return Err(missing("is larger than 64 KiB"));
                }
                let trimmed = text.strip_suffix('\n').unwrap_or(&text);
                Secret::new(trimmed.strip_suffix('\r').unwrap_or(trimmed).to_owned())
            }
            SecretRef::Vault { .. } => return Err(missing("lies in Vault, which this version cannot read")),
        };
        if text.expose().is_empty() { Err(missing("is empty")) } else { Ok(text) }
    }
}
