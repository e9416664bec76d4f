//! The key file recipient: 32 random bytes in a file, used directly as a ChaCha20-Poly1305 key.
//!
//! The file is one line, `lifeboat-key-1:` and 44 characters of padded standard base64; `params` is `{}`. Nonces
//! are random, which is safe for far more wraps than a key file will ever see.

use std::fmt;

use serde_json::Map;
use zeroize::Zeroizing;

use lifeboat_base::entropy::Entropy;
use lifeboat_base::human::printable;
use lifeboat_base::secret::Secret;

use crate::encoding;
use crate::error::KeysError;
use crate::recipient::{RecipientKey, WrappedKey, associated_data, check_label};

/// The kind in the envelope.
pub const KIND: &str = "keyfile";
const PREFIX: &str = "lifeboat-key-1:";

/// The content of a new key file, with a final newline.
pub fn generate_key_file(entropy: &dyn Entropy) -> Secret<String> {
    let key = encoding::random_secret(entropy);
    let text = Zeroizing::new(encoding::encode(key.expose()));
    // Room for the whole line, so that growing leaves no copy behind.
    let mut line = String::with_capacity(PREFIX.len() + text.len() + 1);
    line.push_str(PREFIX);
    line.push_str(&text);
    line.push('\n');
    Secret::new(line)
}

/// Someone who holds a key file.
pub struct KeyFileRecipient {
    key: Secret<[u8; 32]>,
    label: String,
}

impl KeyFileRecipient {
    /// Uses key material held by the caller.
    pub fn new(key: Secret<[u8; 32]>, label: impl Into<String>) -> Result<Self, KeysError> {
        let label = label.into();
        check_label(&label)?;
        Ok(Self { key, label })
    }

    /// Reads the content of a key file; surrounding white space is ignored.
    pub fn parse(content: &Secret<String>, label: impl Into<String>) -> Result<Self, KeysError> {
        let label = label.into();
        check_label(&label)?;
        match content.expose().trim().strip_prefix(PREFIX).and_then(encoding::decode_secret) {
            Some(key) => Ok(Self { key, label }),
            None => Err(KeysError::InvalidKeyFile { label }),
        }
    }
}

impl fmt::Debug for KeyFileRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyFileRecipient({})", self.label)
    }
}

impl RecipientKey for KeyFileRecipient {
    fn kind(&self) -> &str {
        KIND
    }

    fn label(&self) -> String {
        self.label.clone()
    }

    fn wrap(
        &self,
        dek: &Secret<[u8; 32]>,
        context: &[u8],
        entropy: &dyn Entropy,
    ) -> Result<WrappedKey, KeysError> {
        let nonce = encoding::random(entropy);
        let aad = associated_data(context, KIND, &self.label);
        let wrapped = encoding::encrypt(&self.key, nonce, &aad, dek.expose())
            .ok_or_else(|| KeysError::SelfTest { label: self.label.clone() })?;
        Ok(WrappedKey {
            kind: KIND.to_owned(),
            label: self.label.clone(),
            params: Map::new(),
            nonce: nonce.to_vec(),
            wrapped,
        })
    }

    fn unwrap(&self, wrapped: &WrappedKey, context: &[u8]) -> Result<Secret<[u8; 32]>, KeysError> {
        let aad = associated_data(context, KIND, &wrapped.label);
        Some(wrapped)
            .filter(|wrapped| wrapped.params.is_empty())
            .and_then(|wrapped| encoding::decrypt(&self.key, &wrapped.nonce, &aad, &wrapped.wrapped))
            .and_then(|dek| <[u8; 32]>::try_from(dek.as_slice()).ok())
            .map(Secret::new)
            .ok_or_else(|| KeysError::NotOpened { label: printable(&wrapped.label) })
    }
}
