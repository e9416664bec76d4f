//! Tests of the envelope that need its inside: cheap key derivation, forged entries and plaintexts.

use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use serde_json::{Value, json};

use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::failure::{Failure, FailureKind};

use super::*;
use crate::keyfile::KeyFileRecipient;
use crate::passphrase::PassphraseRecipient;

const PASSPHRASE: &str = "correct-horse-canary";

fn store(name: &str) -> StoreName {
    StoreName::new(name).unwrap()
}

fn passphrase() -> PassphraseRecipient {
    PassphraseRecipient::cheap(PASSPHRASE, "env:PASS")
}

fn key_file(byte: u8) -> KeyFileRecipient {
    KeyFileRecipient::new(Secret::new([byte; 32]), format!("file:{byte}.key")).unwrap()
}

fn sealed(secrets: &VaultSecrets, recipients: &[&dyn RecipientKey]) -> Envelope {
    let created = "2026-11-21T02:00:00.5Z".parse().unwrap();
    let vault = VaultId::new("vault-1").unwrap();
    Envelope::seal(vault, &store("orders"), created, secrets, recipients, &OsEntropy).unwrap()
}

/// The envelope as JSON, changed, and read back.
fn altered(envelope: &Envelope, change: impl FnOnce(&mut Value)) -> Result<Envelope, KeysError> {
    let mut json: Value = serde_json::from_slice(&envelope.to_bytes()).unwrap();
    change(&mut json);
    Envelope::from_bytes(&serde_json::to_vec(&json).unwrap())
}

#[test]
fn every_recipient_opens_what_was_sealed() {
    let secrets = VaultSecrets::generate(&OsEntropy);
    let (pass, key) = (passphrase(), key_file(1));
    let envelope = Envelope::from_bytes(&sealed(&secrets, &[&pass, &key]).to_bytes()).unwrap();
    for (recipient, label) in [(&pass as &dyn RecipientKey, "env:PASS"), (&key, "file:1.key")] {
        let (opened, by) = envelope.open(&[recipient]).unwrap();
        assert!(opened.same(&secrets));
        assert_eq!(by, label);
    }
    assert_eq!(secrets.repository_password.expose().len(), 64);
    assert_eq!(envelope.recipients().len(), 2);
}

#[test]
fn a_passphrase_stored_under_another_label_still_opens() {
    let secrets = VaultSecrets::generate(&OsEntropy);
    let envelope = sealed(&secrets, &[&passphrase()]);
    let renamed = PassphraseRecipient::cheap(PASSPHRASE, "file:/etc/pass");
    assert_eq!(envelope.open(&[&renamed]).unwrap().1, "env:PASS");
}

#[test]
fn a_wrong_passphrase_is_not_decryptable_and_the_message_holds_no_secret() {
    let envelope = sealed(&VaultSecrets::generate(&OsEntropy), &[&passphrase()]);
    let wrong = PassphraseRecipient::cheap("wrong-canary", "env:OTHER");
    for recipients in [vec![&wrong as &dyn RecipientKey], vec![&key_file(9)]] {
        let error = envelope.open(&recipients).unwrap_err();
        assert!(matches!(error, KeysError::WrongKey { .. }), "{error}");
        assert_eq!(error.kind(), FailureKind::Damaged);
        assert!(error.to_string().contains("vault of `orders`"), "{error}");
        assert!(!format!("{error} {error:?}").contains("canary"));
    }
    assert!(matches!(envelope.open(&[]), Err(KeysError::NoRecipients)));
}

#[test]
fn one_flipped_bit_anywhere_never_opens_to_something_else_and_is_always_found_by_the_signature() {
    let secrets = VaultSecrets::generate(&OsEntropy);
    let (pass, key) = (passphrase(), key_file(1));
    let envelope = sealed(&secrets, &[&pass, &key]);
    let bytes = envelope.to_bytes();
    let public = secrets.signing.public();
    assert_eq!(Envelope::check_bytes(&bytes, &public).unwrap(), envelope);
    let mut opened_count = 0;
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            assert!(Envelope::check_bytes(&damaged, &public).is_err(), "byte {at} bit {bit} unnoticed");
            let Ok(read) = Envelope::from_bytes(&damaged) else { continue };
            // The key file alone: a damaged entry of the other recipient must not lock it out.
            let Ok((opened, by)) = read.open(&[&key]) else { continue };
            opened_count += 1;
            assert!(opened.same(&secrets), "byte {at} bit {bit}");
            assert_eq!(by, "file:1.key");
            assert_eq!(read.vault_id(), envelope.vault_id());
            assert_eq!(read.store(), envelope.store());
            assert_eq!(read.created(), envelope.created());
            assert_eq!(read.public_key(), envelope.public_key());
        }
    }
    assert!(opened_count > 100, "damage to somebody else's entry must not lock this recipient out");
}

#[test]
fn an_envelope_of_another_vault_or_store_is_refused() {
    let (first, second) = (VaultSecrets::generate(&OsEntropy), VaultSecrets::generate(&OsEntropy));
    let key = key_file(1);
    let envelope = sealed(&first, &[&key]);
    let vault = VaultId::new("vault-2").unwrap();
    let other =
        Envelope::seal(vault.clone(), &store("orders"), envelope.created(), &second, &[&key], &OsEntropy)
            .unwrap();
    envelope.expect(&store("orders"), Some(envelope.vault_id())).unwrap();
    for error in [
        envelope.expect(&store("uploads"), None).unwrap_err(),
        envelope.expect(&store("orders"), Some(&vault)).unwrap_err(),
    ] {
        assert_eq!(error.kind(), FailureKind::Damaged);
    }
    // Relabelled, or with parts of the other one: nothing opens.
    let foreign: Value = serde_json::from_slice(&other.to_bytes()).unwrap();
    for field in ["vault_id", "sealed", "recipients", "public_key"] {
        let mixed = altered(&envelope, |json| json[field] = foreign[field].clone()).unwrap();
        assert!(mixed.open(&[&key]).is_err(), "{field}");
    }
    let renamed = altered(&envelope, |json| json["store"] = json!("uploads")).unwrap();
    assert!(renamed.open(&[&key]).is_err());
}

#[test]
fn key_derivation_costs_are_bounded_before_they_are_paid() {
    let pass = passphrase();
    let envelope = sealed(&VaultSecrets::generate(&OsEntropy), &[&pass]);
    let hostile = [
        ("n", json!(1u64 << 21)),
        ("n", json!(1u64 << 63)),
        ("n", json!(0)),
        ("n", json!(1)),
        ("n", json!(65_535)),
        ("n", json!(-4)),
        ("n", json!(16.0)),
        ("r", json!(0)),
        ("r", json!(33)),
        ("p", json!(5)),
        ("p", json!(u64::MAX)),
        ("salt", json!("AAAA")),
        ("salt", json!("A".repeat(1000))),
        ("extra", json!(1)),
    ];
    for (name, value) in hostile {
        let forged =
            altered(&envelope, |json| json["recipients"][0]["params"][name] = value.clone()).unwrap();
        let error = forged.open(&[&pass]).unwrap_err();
        assert!(matches!(error, KeysError::KdfOutOfBounds { .. }), "{name} {value}: {error}");
        assert_eq!(error.kind(), FailureKind::Damaged);
    }
    // Each number inside its bound, the memory (1 GiB) not.
    let forged = altered(&envelope, |json| {
        json["recipients"][0]["params"]["n"] = json!(1 << 18);
        json["recipients"][0]["params"]["r"] = json!(32);
    });
    assert!(matches!(forged.unwrap().open(&[&pass]), Err(KeysError::KdfOutOfBounds { .. })));
}

/// A recipient whose behaviour a test decides.
struct Odd {
    label: &'static str,
    work_bytes: u64,
    unwraps: AtomicU64,
    answer: fn() -> Result<Secret<[u8; 32]>, KeysError>,
}

impl Odd {
    fn new(answer: fn() -> Result<Secret<[u8; 32]>, KeysError>) -> Self {
        Self { label: "odd", work_bytes: 0, unwraps: AtomicU64::new(0), answer }
    }
}

impl RecipientKey for Odd {
    fn kind(&self) -> &'static str {
        "odd-kms"
    }

    fn label(&self) -> String {
        self.label.to_owned()
    }

    fn wrap(&self, _: &Secret<[u8; 32]>, _: &[u8], _: &dyn Entropy) -> Result<WrappedKey, KeysError> {
        Ok(WrappedKey {
            kind: self.kind().to_owned(),
            label: self.label(),
            params: serde_json::Map::new(),
            nonce: Vec::new(),
            wrapped: vec![1, 2, 3],
        })
    }

    fn unwrap(&self, _: &WrappedKey, _: &[u8]) -> Result<Secret<[u8; 32]>, KeysError> {
        self.unwraps.fetch_add(1, Ordering::Relaxed);
        (self.answer)()
    }

    fn work_bytes(&self, _: &WrappedKey) -> Result<u64, KeysError> {
        Ok(self.work_bytes)
    }
}

fn not_opened() -> Result<Secret<[u8; 32]>, KeysError> {
    Err(KeysError::NotOpened { label: "odd".to_owned() })
}

fn with_odd_entries(count: usize) -> Envelope {
    let envelope = sealed(&VaultSecrets::generate(&OsEntropy), &[&key_file(1)]);
    let entry = json!({ "kind": "odd-kms", "label": "somebody", "params": {"arn": "x"}, "nonce": "", "wrapped": "AQID" });
    altered(&envelope, |json| {
        let recipients = json["recipients"].as_array_mut().unwrap();
        recipients.splice(0..0, std::iter::repeat_n(entry, count));
    })
    .unwrap()
}

#[test]
fn an_envelope_with_many_costly_entries_is_given_up_at_a_bound() {
    let envelope = with_odd_entries(60);
    let odd = Odd { work_bytes: MAX_WORK_BYTES / 4, ..Odd::new(not_opened) };
    assert!(matches!(envelope.open(&[&odd]), Err(KeysError::TooCostly)));
    assert_eq!(odd.unwraps.load(Ordering::Relaxed), 4);
    assert_eq!(envelope.open(&[&odd, &key_file(1)]).unwrap().1, "file:1.key");
}

#[test]
fn a_kind_of_a_newer_version_or_an_unreachable_one_locks_nobody_out() {
    let envelope = with_odd_entries(2);
    assert_eq!(envelope.open(&[&key_file(1)]).unwrap().1, "file:1.key");
    let odd = Odd::new(|| {
        Err(KeysError::RecipientUnreachable {
            label: "odd".to_owned(),
            source: Failure::new(FailureKind::Unreachable, "connection refused"),
        })
    });
    assert_eq!(envelope.open(&[&odd, &key_file(1)]).unwrap().1, "file:1.key");
    assert_eq!(envelope.open(&[&odd, &key_file(2)]).unwrap_err().kind(), FailureKind::Unreachable);
}

#[test]
fn a_key_that_does_not_open_what_it_sealed_is_found_before_anything_is_stored() {
    let secrets = VaultSecrets::generate(&OsEntropy);
    for odd in [Odd::new(not_opened), Odd::new(|| Ok(Secret::new([7; 32])))] {
        let recipients: [&dyn RecipientKey; 2] = [&key_file(1), &odd];
        let vault = VaultId::new("vault-1").unwrap();
        let result =
            Envelope::seal(vault, &store("orders"), Timestamp::UNIX_EPOCH, &secrets, &recipients, &OsEntropy);
        assert!(matches!(result, Err(KeysError::SelfTest { label }) if label == "odd"));
    }
}

#[test]
fn unknown_fields_and_newer_formats_are_refused_by_name() {
    let envelope = sealed(&VaultSecrets::generate(&OsEntropy), &[&key_file(1)]);
    let error = altered(&envelope, |json| json["surprise"] = json!(1)).unwrap_err();
    assert!(error.to_string().contains("surprise"), "{error}");
    let error = altered(&envelope, |json| json["format"] = json!("lifeboat.envelope/v2")).unwrap_err();
    assert_eq!(error.kind(), FailureKind::Refused);
    assert!(error.to_string().contains("lifeboat.envelope/v2"), "{error}");
    for change in [
        |json: &mut Value| json["recipients"] = json!([]),
        |json: &mut Value| json["recipients"][0]["label"] = json!("a\nb"),
        |json: &mut Value| json["recipients"][0]["kind"] = json!("Key File"),
        |json: &mut Value| json["recipients"][0]["extra"] = json!(1),
        |json: &mut Value| json["created"] = json!("2026-11-21T03:00:00.5+01:00"),
        |json: &mut Value| {
            json["recipients"] = json!(vec![json["recipients"][0].clone(); MAX_RECIPIENTS + 1]);
        },
    ] {
        assert!(matches!(altered(&envelope, change), Err(KeysError::Malformed { .. })));
    }
    assert!(Envelope::from_bytes(&vec![b' '; MAX_ENVELOPE_BYTES + 1]).is_err());
}

#[test]
fn sealed_secrets_are_read_strictly() {
    let secrets = VaultSecrets::generate(&OsEntropy);
    let plaintext = secrets.to_plaintext().unwrap();
    assert!(plaintext.len() < PLAINTEXT_CAPACITY_BYTES);
    assert!(VaultSecrets::from_plaintext(&plaintext).unwrap().same(&secrets));
    let json: Value = serde_json::from_slice(&plaintext).unwrap();
    for (field, value) in [
        ("format", json!("lifeboat.vault-secrets/v2")),
        ("repository_password", json!("ab")),
        ("repository_password", json!("Z".repeat(64))),
        ("signing_seed", json!("AAAA")),
        ("chunker_seed", json!("+00000000000000f")),
        ("extra", json!(1)),
    ] {
        let mut changed = json.clone();
        changed[field] = value;
        assert!(VaultSecrets::from_plaintext(&serde_json::to_vec(&changed).unwrap()).is_none(), "{field}");
    }
}

#[test]
fn nothing_that_can_be_printed_holds_a_secret() {
    let mut secrets = VaultSecrets::generate(&OsEntropy);
    secrets.repository_password = Secret::new(hex::encode([0xab; 32]));
    secrets.signing = SigningKey::from_seed(Secret::new([0xab; 32]));
    secrets.chunker_seed = 0xabab_abab_abab_abab;
    let (pass, key) = (passphrase(), key_file(0xab));
    let envelope = sealed(&secrets, &[&pass, &key]);
    let wrong = PassphraseRecipient::cheap("other-canary", "env:OTHER");
    let file = crate::keyfile::generate_key_file(&OsEntropy);
    let bad_file = Secret::new(file.expose().replace("key-1", "key-2"));
    let signed = secrets.signing.sign("text", b"payload");
    let printed = [
        format!("{secrets:?} {pass:?} {key:?} {wrong:?} {envelope:?} {file:?} {file} {signed:?}"),
        format!("{:?} {} {:?}", secrets.signing, secrets.signing.public(), secrets.signing.public()),
        format!("{:?}", envelope.open(&[&pass])),
        format!("{:?}", envelope.open(&[&wrong]).unwrap_err()),
        envelope.open(&[&wrong]).unwrap_err().to_string(),
        format!("{:?}", PassphraseRecipient::new(Secret::new(String::new()), "env:X").unwrap_err()),
        format!("{:?}", KeyFileRecipient::parse(&bad_file, "file:x").unwrap_err()),
        String::from_utf8(envelope.to_bytes()).unwrap(),
    ]
    .concat();
    let key_text = file.expose().trim().rsplit(':').next().unwrap();
    let seed_text = encoding::encode(&[0xab; 32]);
    for needle in ["canary", "abababab", "171, 171", "12370169555311111083", key_text, &seed_text] {
        assert!(!printed.contains(needle), "{needle} in {printed}");
    }
    // The search itself finds a planted secret.
    assert!(format!("{printed}{}", secrets.repository_password.expose()).contains("abababab"));
}

proptest! {
    #[test]
    fn no_input_makes_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..2000) {
        drop(Envelope::from_bytes(&bytes));
        let mut envelope = with_odd_entries(1).to_bytes();
        envelope.truncate(at);
        envelope.extend(bytes);
        drop(Envelope::from_bytes(&envelope));
    }
}
