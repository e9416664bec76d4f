//! `lifeboat/envelope.json`: a vault's secrets, sealed once, its key wrapped once per recipient.
//!
//! In: vault secrets and recipients. Out: bytes that may be public, and the secrets back for whoever is named.
//!
//! The format is described at [`Envelope`].

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use lifeboat_base::entropy::Entropy;
use lifeboat_base::human::printable;
use lifeboat_base::ids::{StoreName, VaultId};
use lifeboat_base::secret::Secret;
use lifeboat_base::time::Timestamp;

use crate::encoding;
use crate::error::KeysError;
use crate::recipient::{RecipientKey, WrappedKey, check_label, valid_kind};
use crate::signing::{PublicKey, SigningKey};

/// The format this version writes and reads.
pub const FORMAT: &str = "lifeboat.envelope/v1";
/// The payload type of the envelope's signature.
pub const PAYLOAD_TYPE: &str = "application/vnd.lifeboat.envelope+json";
/// The largest envelope read, in bytes.
pub const MAX_ENVELOPE_BYTES: usize = 1024 * 1024;
/// The most recipients an envelope may name.
pub const MAX_RECIPIENTS: usize = 64;
/// The most memory all key derivations of one [`Envelope::open`] may touch together, in bytes: the bound on its time.
pub const MAX_WORK_BYTES: u64 = 2 * 1024 * 1024 * 1024;

const SECRETS_FORMAT: &str = "lifeboat.vault-secrets/v1";
const WHAT: &str = "envelope";
/// More than the plaintext ever takes, so that it is written without a growing buffer leaving copies behind.
const PLAINTEXT_CAPACITY_BYTES: usize = 512;
const PASSWORD_DIGITS: usize = 64;

/// Everything a vault needs: never stored but sealed, never shown.
#[derive(Clone)]
pub struct VaultSecrets {
    /// The password of the restic repository: 64 hexadecimal digits from 32 random bytes.
    pub repository_password: Secret<String>,
    /// Signs recovery-point manifests and log indexes.
    pub signing: SigningKey,
    /// Makes content-defined cuts differ between vaults, so that chunk sizes give nothing away.
    pub chunker_seed: u64,
}

impl VaultSecrets {
    /// Fresh secrets for a new vault.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let password = encoding::random_secret(entropy);
        Self {
            repository_password: Secret::new(hex::encode(password.expose())),
            signing: SigningKey::generate(entropy),
            chunker_seed: u64::from_be_bytes(encoding::random(entropy)),
        }
    }

    /// Whether both hold the same secrets; for self-tests, not constant-time.
    fn same(&self, other: &Self) -> bool {
        self.repository_password.expose() == other.repository_password.expose()
            && self.signing.seed().expose() == other.signing.seed().expose()
            && self.chunker_seed == other.chunker_seed
    }

    fn to_plaintext(&self) -> Option<Zeroizing<Vec<u8>>> {
        let seed = Zeroizing::new(encoding::encode(self.signing.seed().expose()));
        let chunker = Zeroizing::new(format!("{:016x}", self.chunker_seed));
        let document = SealedSecrets {
            format: SECRETS_FORMAT,
            repository_password: self.repository_password.expose(),
            signing_seed: &seed,
            chunker_seed: &chunker,
        };
        let mut bytes = Zeroizing::new(Vec::with_capacity(PLAINTEXT_CAPACITY_BYTES));
        serde_json::to_writer(&mut *bytes, &document).ok()?;
        Some(bytes)
    }

    /// Accepts exactly what [`VaultSecrets::to_plaintext`] writes; says nothing about what it found.
    fn from_plaintext(plaintext: &[u8]) -> Option<Self> {
        let document: SealedSecrets<'_> = serde_json::from_slice(plaintext).ok()?;
        let hex_digits = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let password = document.repository_password;
        if document.format != SECRETS_FORMAT
            || password.len() != PASSWORD_DIGITS
            || !hex_digits(password)
            || document.chunker_seed.len() != 16
            || !hex_digits(document.chunker_seed)
        {
            return None;
        }
        Some(Self {
            repository_password: Secret::new(password.to_owned()),
            signing: SigningKey::from_seed(encoding::decode_secret(document.signing_seed)?),
            chunker_seed: u64::from_str_radix(document.chunker_seed, 16).ok()?,
        })
    }
}

impl fmt::Debug for VaultSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VaultSecrets([secret], signing for {})", self.signing.public())
    }
}

/// Borrowed on both ways, so that no copy of a secret is made that is not wiped.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SealedSecrets<'a> {
    format: &'a str,
    repository_password: &'a str,
    signing_seed: &'a str,
    chunker_seed: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    #[serde(with = "crate::encoding")]
    nonce: Vec<u8>,
    #[serde(with = "crate::encoding")]
    ciphertext: Vec<u8>,
}

/// A vault's secrets as they are stored; safe to publish.
///
/// # Format `lifeboat.envelope/v1`
///
/// One JSON object; every byte string is standard base64 with padding; unknown fields are refused.
///
/// ```json
/// {"format":"lifeboat.envelope/v1",
///  "vault_id":"0f…", "store":"orders", "created":"2026-11-21T02:00:00Z", "public_key":"ed25519:…",
///  "recipients":[
///    {"kind":"passphrase","label":"env:LIFEBOAT_PASSPHRASE",
///     "params":{"n":65536,"p":1,"r":8,"salt":"<32 bytes>"},"nonce":"<12 bytes>","wrapped":"<48 bytes>"},
///    {"kind":"keyfile","label":"file:./ops.key","params":{},"nonce":"<12 bytes>","wrapped":"<48 bytes>"}],
///  "sealed":{"nonce":"<12 bytes>","ciphertext":"<plaintext + 16 bytes>"},
///  "signature":"<64 bytes>"}
/// ```
///
/// **Context.** The UTF-8 text `format LF vault_id LF store LF created LF public_key LF`, each value exactly as it
/// stands in the file (LF is one byte, 0x0a).
///
/// **Opening.** A random 32-byte data key (DEK) seals the secrets. For each recipient
/// `DEK = ChaCha20-Poly1305-decrypt(key, nonce, wrapped, aad)` with
/// `aad = context || "recipient" LF kind LF label LF`, a 12-byte nonce and the 16-byte tag at the end of `wrapped`
/// (RFC 8439). The key is, for `passphrase`, `scrypt(passphrase UTF-8, salt, n, r, p, 32)`; for `keyfile`, the 32
/// bytes of the key file. Other kinds are skipped. Then
/// `plaintext = ChaCha20-Poly1305-decrypt(DEK, sealed.nonce, sealed.ciphertext, aad = context || "sealed" LF)`.
///
/// **Plaintext.** A JSON object with exactly these fields:
///
/// ```json
/// {"format":"lifeboat.vault-secrets/v1",
///  "repository_password":"<64 hex digits>", "signing_seed":"<base64 of 32 bytes>", "chunker_seed":"<16 hex digits>"}
/// ```
///
/// `repository_password` is the password of the restic repository, as text. `signing_seed` is the ed25519 seed whose
/// public key is `public_key`. `chunker_seed` is a 64-bit number, most significant digit first.
///
/// **Signature.** ed25519 by `signing_seed` over the DSSE v1 pre-authentication encoding with the type
/// `application/vnd.lifeboat.envelope+json` and, as payload, the whole object with `signature` set to the empty
/// string, as compact JSON in the field order above (`params` sorted by name), without a final newline. The file is the same text
/// with the signature filled in and one final newline. The signature makes damage to the entry of somebody
/// else's recipient visible ([`Envelope::check_bytes`]); opening does not need it, so that such damage locks nobody out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    format: String,
    vault_id: VaultId,
    store: StoreName,
    created: Timestamp,
    public_key: PublicKey,
    recipients: Vec<WrappedKey>,
    sealed: Sealed,
    #[serde(with = "crate::encoding")]
    signature: Vec<u8>,
}

impl Envelope {
    /// Seals `secrets` for `recipients` and opens the result again with each of them before returning it.
    /// Costs two key derivations per passphrase.
    pub fn seal(
        vault_id: VaultId,
        store: &StoreName,
        created: Timestamp,
        secrets: &VaultSecrets,
        recipients: &[&dyn RecipientKey],
        entropy: &dyn Entropy,
    ) -> Result<Self, KeysError> {
        if recipients.is_empty() {
            return Err(KeysError::NoRecipients);
        }
        let mut envelope = Self {
            format: FORMAT.to_owned(),
            vault_id,
            store: store.clone(),
            created,
            public_key: secrets.signing.public(),
            recipients: Vec::new(),
            sealed: Sealed { nonce: Vec::new(), ciphertext: Vec::new() },
            signature: Vec::new(),
        };
        let context = envelope.context();
        let dek = encoding::random_secret(entropy);
        for recipient in recipients {
            check_label(&recipient.label())?;
            envelope.recipients.push(recipient.wrap(&dek, &context, entropy)?);
        }
        let nonce = encoding::random(entropy);
        let failed = || KeysError::SelfTest { label: "any".to_owned() };
        let plaintext = secrets.to_plaintext().ok_or_else(failed)?;
        let ciphertext =
            encoding::encrypt(&dek, nonce, &sealed_context(&context), &plaintext).ok_or_else(failed)?;
        envelope.sealed = Sealed { nonce: nonce.to_vec(), ciphertext };
        envelope.signature = secrets.signing.sign_pae(PAYLOAD_TYPE, &envelope.signed_bytes()).to_vec();
        envelope.self_test(secrets, recipients)?;
        Ok(envelope)
    }

    /// A key that cannot be used again is found now, not on the day of the restore.
    fn self_test(&self, secrets: &VaultSecrets, recipients: &[&dyn RecipientKey]) -> Result<(), KeysError> {
        let stored = Self::check_bytes(&self.to_bytes(), &secrets.signing.public())?;
        for (recipient, entry) in recipients.iter().zip(&stored.recipients) {
            let opened = stored.open_entry(*recipient, entry);
            if !opened.is_ok_and(|opened| opened.same(secrets)) {
                return Err(KeysError::SelfTest { label: recipient.label() });
            }
        }
        Ok(())
    }

    /// The secrets, and the label (as the envelope has it) of the recipient that opened it.
    ///
    /// Entries that bear a recipient's own label are tried first. A recipient that is unreachable, damaged or too costly
    /// does not stop the others. Ask [`Envelope::expect`] first: an envelope proves which vault it belongs
    /// to, not that it lies in the right place.
    pub fn open(&self, recipients: &[&dyn RecipientKey]) -> Result<(VaultSecrets, String), KeysError> {
        if recipients.is_empty() {
            return Err(KeysError::NoRecipients);
        }
        let mut work_bytes = 0u64;
        let mut telling = None;
        for (recipient, entry) in self.attempts(recipients) {
            let attempt = recipient.work_bytes(entry).and_then(|bytes| {
                let total_bytes = work_bytes.saturating_add(bytes);
                if total_bytes > MAX_WORK_BYTES {
                    return Err(KeysError::TooCostly);
                }
                work_bytes = total_bytes;
                self.open_entry(recipient, entry)
            });
            match attempt {
                Ok(secrets) => return Ok((secrets, entry.label.clone())),
                Err(KeysError::NotOpened { .. }) => {}
                // More telling than "wrong key", and it may be the only reason.
                Err(error) => telling = telling.or(Some(error)),
            }
        }
        Err(telling.unwrap_or_else(|| self.wrong_key(recipients)))
    }

    /// Every recipient with every entry of its kind; entries that bear its label come first.
    fn attempts<'a>(
        &'a self,
        recipients: &'a [&'a dyn RecipientKey],
    ) -> Vec<(&'a dyn RecipientKey, &'a WrappedKey)> {
        let (mut named, mut others) = (Vec::new(), Vec::new());
        for recipient in recipients {
            let label = recipient.label();
            for entry in self.recipients.iter().filter(|entry| entry.kind == recipient.kind()) {
                let list = if entry.label == label { &mut named } else { &mut others };
                list.push((*recipient, entry));
            }
        }
        named.append(&mut others);
        named
    }

    fn open_entry(
        &self,
        recipient: &dyn RecipientKey,
        entry: &WrappedKey,
    ) -> Result<VaultSecrets, KeysError> {
        let context = self.context();
        let dek = recipient.unwrap(entry, &context)?;
        encoding::decrypt(&dek, &self.sealed.nonce, &sealed_context(&context), &self.sealed.ciphertext)
            .and_then(|plaintext| VaultSecrets::from_plaintext(&plaintext))
            .filter(|secrets| secrets.signing.public() == self.public_key)
            .ok_or_else(|| KeysError::NotOpened { label: printable(&entry.label) })
    }

    fn wrong_key(&self, recipients: &[&dyn RecipientKey]) -> KeysError {
        let tried: Vec<_> = recipients.iter().map(|r| format!("{} {}", r.kind(), r.label())).collect();
        let named: Vec<_> = self.recipients.iter().map(|r| format!("{} {}", r.kind, r.label)).collect();
        KeysError::WrongKey {
            store: self.store.to_string(),
            tried: printable(&tried.join(", ")),
            named: printable(&named.join(", ")),
        }
    }

    /// Refuses an envelope of another store, or of another vault where its id is known.
    pub fn expect(&self, store: &StoreName, vault_id: Option<&VaultId>) -> Result<(), KeysError> {
        if &self.store == store && vault_id.is_none_or(|vault_id| vault_id == &self.vault_id) {
            return Ok(());
        }
        let expected = match vault_id {
            Some(vault_id) => format!("store `{store}`, vault `{vault_id}`"),
            None => format!("store `{store}`"),
        };
        Err(KeysError::WrongVault {
            found: format!("store `{}`, vault `{}`", self.store, self.vault_id),
            expected,
        })
    }

    /// Whether every byte of a stored envelope is as it was written, those of other people's recipients included.
    /// Needs no secret: `public` is the vault's signing key, known from the evidence or from a sound copy.
    pub fn check_bytes(bytes: &[u8], public: &PublicKey) -> Result<Self, KeysError> {
        let envelope = Self::from_bytes(bytes)?;
        if envelope.to_bytes() != bytes
            || &envelope.public_key != public
            || !public.verifies_pae(PAYLOAD_TYPE, &envelope.signed_bytes(), &envelope.signature)
        {
            return Err(KeysError::Untrusted);
        }
        Ok(envelope)
    }

    /// The one text this crate writes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.json();
        bytes.push(b'\n');
        bytes
    }

    /// Reads the structure and bounds it; what it says is proved only by opening it or by its signature.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeysError> {
        let malformed = |why: String| KeysError::Malformed { what: WHAT, why };
        if bytes.len() > MAX_ENVELOPE_BYTES {
            return Err(malformed(format!("it is larger than {MAX_ENVELOPE_BYTES} bytes")));
        }
        let header: Header = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
        if header.format != FORMAT {
            return Err(KeysError::UnsupportedFormat { what: WHAT, found: printable(&header.format) });
        }
        let header_created = header.created;
        let envelope: Self = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
        if envelope.created.to_string() != header_created {
            return Err(malformed("`created` is not written as this tool writes it".to_owned()));
        }
        if envelope.recipients.is_empty() || envelope.recipients.len() > MAX_RECIPIENTS {
            return Err(malformed(format!("it must name 1 to {MAX_RECIPIENTS} recipients")));
        }
        if !envelope.recipients.iter().all(|r| valid_kind(&r.kind) && check_label(&r.label).is_ok()) {
            return Err(malformed("a recipient's kind or label is not valid".to_owned()));
        }
        Ok(envelope)
    }

    /// The vault it belongs to.
    pub fn vault_id(&self) -> &VaultId {
        &self.vault_id
    }

    /// The store it belongs to.
    pub fn store(&self) -> &StoreName {
        &self.store
    }

    /// When it was sealed.
    pub fn created(&self) -> Timestamp {
        self.created
    }

    /// The vault's signing key, as the envelope claims it until it is opened.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Who can open it.
    pub fn recipients(&self) -> &[WrappedKey] {
        &self.recipients
    }

    fn context(&self) -> Vec<u8> {
        let Self { format, vault_id, store, created, public_key, .. } = self;
        format!("{format}\n{vault_id}\n{store}\n{created}\n{public_key}\n").into_bytes()
    }

    fn json(&self) -> Vec<u8> {
        // Only strings, numbers and maps with text keys: it always has a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn signed_bytes(&self) -> Vec<u8> {
        Self { signature: Vec::new(), ..self.clone() }.json()
    }
}

/// Read first, so that a newer format is named as such instead of as malformed.
#[derive(Deserialize)]
struct Header {
    format: String,
    created: String,
}

fn sealed_context(context: &[u8]) -> Vec<u8> {
    let mut aad = context.to_vec();
    aad.extend_from_slice(b"sealed\n");
    aad
}

#[cfg(test)]
mod tests;
