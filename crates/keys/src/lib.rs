//! Who can open a vault and who signs: wrapped passwords, signatures, envelopes.
//!
//! In: secrets handed over by the caller, the bytes of `envelope.json`, payloads to sign. Out: envelopes, opened
//! vault secrets, DSSE documents and their verified payloads.
//!
//! Invariant: does no I/O, and no secret appears in `Debug`, `Display` or an error.

pub mod dsse;
mod encoding;
pub mod envelope;
pub mod error;
pub mod keyfile;
pub mod passphrase;
pub mod recipient;
pub mod signing;

pub use dsse::{DsseEnvelope, DsseSignature};
pub use envelope::{Envelope, VaultSecrets};
pub use error::KeysError;
pub use keyfile::{KeyFileRecipient, generate_key_file};
pub use passphrase::PassphraseRecipient;
pub use recipient::{RecipientKey, WrappedKey};
pub use signing::{PublicKey, SigningKey};
