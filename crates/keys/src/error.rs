//! What can go wrong with keys, described by what the caller can do about it. No variant carries a secret.

use lifeboat_base::failure::{Failure, FailureKind};

/// A failure of this crate.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// An empty passphrase protects nothing.
    #[error("the passphrase `{label}` is empty")]
    EmptyPassphrase {
        /// The recipient's label.
        label: String,
    },
    /// A key file must be one line `lifeboat-key-1:` and the base64 text of 32 bytes.
    #[error("`{label}` is not a key file: expected one line `lifeboat-key-1:` and base64 text of 32 bytes")]
    InvalidKeyFile {
        /// The recipient's label.
        label: String,
    },
    /// A text that is not `ed25519:` and the base64 text of a usable public key.
    #[error("not a public key: expected `ed25519:` and base64 text of a valid 32-byte key")]
    InvalidPublicKey,
    /// Sealing or opening was asked for without any recipient.
    #[error("no recipient was given")]
    NoRecipients,
    /// A label that is empty, too long or holds control characters.
    #[error("a recipient's label must have 1 to {limit_bytes} bytes and no control character")]
    InvalidLabel {
        /// The largest length accepted, in bytes.
        limit_bytes: usize,
    },
    /// A stored document does not have the shape it must have.
    #[error("the {what} is malformed: {why}")]
    Malformed {
        /// The document.
        what: &'static str,
        /// What is wrong; taken from public fields only.
        why: String,
    },
    /// A stored document was written in a format this version does not know.
    #[error("the {what} has format `{found}`, which this version does not read")]
    UnsupportedFormat {
        /// The document.
        what: &'static str,
        /// The format it names.
        found: String,
    },
    /// Key derivation parameters that would cost too much memory or time, or are not valid at all.
    #[error("the key derivation parameters of recipient `{label}` are out of bounds")]
    KdfOutOfBounds {
        /// The recipient's label in the file.
        label: String,
    },
    /// Opening all recipients of this envelope would take too much time.
    #[error("the envelope names more key derivation work than this version is willing to do")]
    TooCostly,
    /// One wrapped key was not opened by one recipient.
    #[error("`{label}` does not open it: wrong key, or the envelope was altered")]
    NotOpened {
        /// The recipient's label in the file.
        label: String,
    },
    /// No recipient that was given opens the envelope.
    #[error(
        "no key given opens the vault of `{store}` (tried: {tried}; the envelope names: {named}): wrong key, or the \
         envelope was altered"
    )]
    WrongKey {
        /// The store as the envelope names it.
        store: String,
        /// What was tried.
        tried: String,
        /// The recipients in the envelope.
        named: String,
    },
    /// The service behind a recipient could not be asked.
    #[error("recipient `{label}` could not be asked")]
    RecipientUnreachable {
        /// The recipient's label.
        label: String,
        /// Why.
        source: Failure,
    },
    /// The envelope belongs to another vault or store than the one it was found in.
    #[error("the envelope belongs to {found}, not to {expected}")]
    WrongVault {
        /// What the envelope says.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// A signed document of another type than expected.
    #[error("the document is of type `{found}`, not `{expected}`")]
    WrongPayloadType {
        /// The type in the document.
        found: String,
        /// The type expected.
        expected: String,
    },
    /// No signature of a trusted key fits the document.
    #[error("no trusted key signed this document, or it was altered")]
    Untrusted,
    /// What was just sealed cannot be opened again; nothing may be stored under it.
    #[error("recipient `{label}` does not open what was just sealed for it")]
    SelfTest {
        /// The recipient's label.
        label: String,
    },
}

impl KeysError {
    /// What the caller can do about it.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::EmptyPassphrase { .. }
            | Self::InvalidKeyFile { .. }
            | Self::InvalidPublicKey
            | Self::InvalidLabel { .. }
            | Self::NoRecipients => FailureKind::Usage,
            Self::UnsupportedFormat { .. } => FailureKind::Refused,
            Self::Malformed { .. }
            | Self::KdfOutOfBounds { .. }
            | Self::TooCostly
            | Self::NotOpened { .. }
            | Self::WrongKey { .. }
            | Self::WrongVault { .. }
            | Self::WrongPayloadType { .. }
            | Self::Untrusted => FailureKind::Damaged,
            Self::RecipientUnreachable { .. } => FailureKind::Unreachable,
            Self::SelfTest { .. } => FailureKind::Internal,
        }
    }
}

impl From<KeysError> for Failure {
    fn from(error: KeysError) -> Self {
        let what = error.to_string();
        match error {
            KeysError::RecipientUnreachable { source, .. } => {
                Self::with_source(FailureKind::Unreachable, what, source)
            }
            other => Self::new(other.kind(), what),
        }
    }
}
