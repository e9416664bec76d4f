//! Key files: the master key sealed under a key derived from the repository password.
//!
//! The password has 256 random bits of its own: nobody guesses it, however cheap a guess is. So the derivation costs as
//! little as the format allows; it is scrypt because the format says so.

use lifeboat_base::digest::Digest;
use lifeboat_base::entropy::Entropy;
use lifeboat_base::secret::Secret;
use lifeboat_base::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::crypto::{KEY_BYTES, MasterKey};

/// scrypt parameters of the key files we write, the smallest that scrypt and stock restic (0.14 and newer) know. restic's
/// own are made for passwords that people choose; with ours they would only make every `wal push` wait.
const LOG_N: u8 = 1;
const R: u32 = 1;
const P: u32 = 1;
const SALT_BYTES: usize = 64;
/// The most memory a key file may ask for (`128 * N * r`); stock tools stay well below.
const MAX_KDF_BYTES: u64 = 256 * 1024 * 1024;
const MAX_P: u32 = 16;

#[derive(Serialize, Deserialize)]
struct KeyFile {
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    hostname: Option<String>,
    kdf: String,
    #[serde(rename = "N")]
    n: u32,
    r: u32,
    p: u32,
    salt: String,
    data: String,
}

/// The plain text inside `data`, with the field order other tools write.
#[derive(Serialize, Deserialize)]
struct Plain {
    mac: Mac,
    encrypt: String,
}

#[derive(Serialize, Deserialize)]
struct Mac {
    k: String,
    r: String,
}

/// Why a key file does not give a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyFileProblem {
    /// It cannot be parsed, or asks for unreasonable parameters.
    Malformed,
    /// The password does not open it.
    WrongPassword,
}

mod base64 {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    pub(super) fn encode(bytes: &[u8]) -> String {
        STANDARD.encode(bytes)
    }

    pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
        STANDARD.decode(text).ok()
    }
}

fn derive(password: &Secret<String>, salt: &[u8], log_n: u8, r: u32, p: u32) -> Option<MasterKey> {
    let params = scrypt::Params::new(log_n, r, p).ok()?;
    let mut bytes = [0u8; KEY_BYTES];
    scrypt::scrypt(password.expose().as_bytes(), salt, &params, &mut bytes).ok()?;
    Some(MasterKey::from_bytes(Secret::new(bytes)))
}

/// The key as the JSON that other tools of the format understand.
pub(crate) fn key_json(key: &MasterKey) -> Option<Secret<Vec<u8>>> {
    let bytes = key.expose();
    let plain = Plain {
        mac: Mac { k: base64::encode(&bytes[32..48]), r: base64::encode(&bytes[48..64]) },
        encrypt: base64::encode(&bytes[..32]),
    };
    serde_json::to_vec(&plain).ok().map(Secret::new)
}

fn key_from_json(json: &[u8]) -> Option<MasterKey> {
    let plain: Plain = serde_json::from_slice(json).ok()?;
    let joined = [plain.encrypt, plain.mac.k, plain.mac.r].iter().try_fold(Vec::new(), |mut all, text| {
        all.extend(base64::decode(text)?);
        Some(all)
    })?;
    Some(MasterKey::from_bytes(Secret::new(<[u8; KEY_BYTES]>::try_from(joined).ok()?)))
}

/// A new key file for `key` and its name.
pub(crate) fn seal(
    key: &MasterKey,
    password: &Secret<String>,
    created: Timestamp,
    entropy: &dyn Entropy,
) -> Option<(Digest, Vec<u8>)> {
    let mut salt = [0u8; SALT_BYTES];
    entropy.fill(&mut salt);
    let data = derive(password, &salt, LOG_N, R, P)?.seal(key_json(key)?.expose(), entropy);
    let file = KeyFile {
        created: Some(created.to_string()),
        username: Some("lifeboat".to_owned()),
        hostname: Some("lifeboat".to_owned()),
        kdf: "scrypt".to_owned(),
        n: 1 << LOG_N,
        r: R,
        p: P,
        salt: base64::encode(&salt),
        data: base64::encode(&data),
    };
    let bytes = serde_json::to_vec(&file).ok()?;
    Some((Digest::of(&bytes), bytes))
}

/// The master key in a key file. Its parameters come from outside and are bounded before they cost anything.
pub(crate) fn open(bytes: &[u8], password: &Secret<String>) -> Result<MasterKey, KeyFileProblem> {
    let malformed = KeyFileProblem::Malformed;
    let file: KeyFile = serde_json::from_slice(bytes).map_err(|_error| malformed)?;
    let cost = 128 * u64::from(file.n) * u64::from(file.r.max(1));
    let reasonable = file.kdf == "scrypt"
        && file.n.is_power_of_two()
        && file.n > 1
        && cost <= MAX_KDF_BYTES
        && (1..=MAX_P).contains(&file.p)
        && file.r > 0;
    if !reasonable {
        return Err(malformed);
    }
    let salt = base64::decode(&file.salt).ok_or(malformed)?;
    let data = base64::decode(&file.data).ok_or(malformed)?;
    let log_n = u8::try_from(file.n.ilog2()).map_err(|_error| malformed)?;
    let derived = derive(password, &salt, log_n, file.r, file.p).ok_or(malformed)?;
    let json = derived.open(&data).map_err(|_error| KeyFileProblem::WrongPassword)?;
    key_from_json(Secret::new(json).expose()).ok_or(malformed)
}

#[cfg(test)]
mod tests {
    use lifeboat_base::entropy::OsEntropy;

    use super::*;

    #[test]
    fn a_key_file_gives_the_key_back_to_the_right_password_only() {
        let key = MasterKey::generate(&OsEntropy);
        let password = Secret::new("0123".to_owned());
        let (id, bytes) = seal(&key, &password, Timestamp::UNIX_EPOCH, &OsEntropy).unwrap();
        assert_eq!(Digest::of(&bytes), id);
        assert_eq!(open(&bytes, &password).unwrap().expose(), key.expose());
        let wrong = Secret::new("0124".to_owned());
        assert_eq!(open(&bytes, &wrong).unwrap_err(), KeyFileProblem::WrongPassword);
    }

    /// What vaults made by earlier versions and by other tools ask for.
    #[test]
    fn a_key_file_with_costlier_parameters_opens_too() {
        let key = MasterKey::generate(&OsEntropy);
        let password = Secret::new("0123".to_owned());
        let salt = [7u8; SALT_BYTES];
        let data =
            derive(&password, &salt, 14, 8, 1).unwrap().seal(key_json(&key).unwrap().expose(), &OsEntropy);
        let file = KeyFile {
            created: None,
            username: None,
            hostname: None,
            kdf: "scrypt".to_owned(),
            n: 16384,
            r: 8,
            p: 1,
            salt: base64::encode(&salt),
            data: base64::encode(&data),
        };
        let bytes = serde_json::to_vec(&file).unwrap();
        assert_eq!(open(&bytes, &password).unwrap().expose(), key.expose());
    }

    #[test]
    fn a_key_file_cannot_ask_for_all_the_memory() {
        let key = MasterKey::generate(&OsEntropy);
        let password = Secret::new("0123".to_owned());
        let (_, bytes) = seal(&key, &password, Timestamp::UNIX_EPOCH, &OsEntropy).unwrap();
        let text = String::from_utf8(bytes).unwrap().replace("\"N\":2,", "\"N\":2147483648,");
        assert!(text.contains("2147483648"));
        assert_eq!(open(text.as_bytes(), &password).unwrap_err(), KeyFileProblem::Malformed);
    }
}
