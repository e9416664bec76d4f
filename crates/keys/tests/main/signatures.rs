//! Signed documents: the published vectors, and what must not verify.

use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::failure::FailureKind;
use lifeboat_base::secret::Secret;
use lifeboat_keys::dsse::pae;
use lifeboat_keys::{DsseEnvelope, KeysError, PublicKey, SigningKey};

const TYPE: &str = "application/vnd.lifeboat.test+json";

#[test]
fn the_encoding_is_the_one_of_the_dsse_specification() {
    assert_eq!(
        pae("http://example.com/HelloWorld", b"hello world"),
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    );
    assert_eq!(pae("é", b""), "DSSEv1 2 é 0 ".as_bytes());
}

#[test]
fn the_public_key_of_rfc_8032_test_1_comes_from_its_seed() {
    let seed = hex::decode("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
    let key = SigningKey::from_seed(Secret::new(seed.try_into().unwrap()));
    assert_eq!(
        hex::encode(key.public().as_bytes()),
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    );
    assert_eq!(key.public().key_id().len(), 16);
    assert_eq!(key.public().to_string().parse::<PublicKey>().unwrap(), key.public());
}

#[test]
fn a_signed_document_round_trips_in_the_published_shape() {
    let key = SigningKey::generate(&OsEntropy);
    let bytes = key.sign(TYPE, b"{\"a\":1}").to_bytes();
    let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(json["payloadType"], TYPE);
    assert_eq!(json["payload"], "eyJhIjoxfQ==");
    assert_eq!(json["signatures"][0]["keyid"], key.public().key_id());
    let read = DsseEnvelope::from_exact_bytes(&bytes).unwrap();
    assert_eq!(read.verify(&[key.public()], TYPE).unwrap(), b"{\"a\":1}");
}

#[test]
fn another_key_another_type_and_any_changed_byte_do_not_verify() {
    let (key, other) = (SigningKey::generate(&OsEntropy), SigningKey::generate(&OsEntropy));
    let document = key.sign(TYPE, b"payload of some length");
    assert!(matches!(document.verify(&[other.public()], TYPE), Err(KeysError::Untrusted)));
    assert!(matches!(document.verify(&[], TYPE), Err(KeysError::Untrusted)));
    assert!(matches!(document.verify(&[key.public()], "other"), Err(KeysError::WrongPayloadType { .. })));
    assert_eq!(document.verified_by(&[other.public(), key.public()], TYPE).unwrap(), key.public());

    let bytes = document.to_bytes();
    assert!(DsseEnvelope::open_exact(&bytes, &key.public(), TYPE).is_ok());
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            let opened = DsseEnvelope::open_exact(&damaged, &key.public(), TYPE);
            assert!(opened.is_err(), "byte {at} bit {bit}");
        }
    }
}

#[test]
fn a_signature_with_a_second_form_is_refused() {
    // Adding the group order to the scalar gives a signature lax verifiers accept.
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let key = SigningKey::generate(&OsEntropy);
    let document = key.sign(TYPE, b"payload");
    let mut signature = document.signatures()[0].sig.clone();
    let mut carry = 0u16;
    for (byte, order) in signature[32..].iter_mut().zip(ORDER) {
        carry += u16::from(*byte) + u16::from(order);
        *byte = (carry & 0xff) as u8;
        carry >>= 8;
    }
    let mut json = serde_json::to_value(&document).unwrap();
    json["signatures"][0]["sig"] = serde_json::to_value(Base64(&signature)).unwrap();
    let forged: DsseEnvelope = serde_json::from_value(json).unwrap();
    assert_ne!(forged, document);
    assert!(matches!(forged.verify(&[key.public()], TYPE), Err(KeysError::Untrusted)));
}

struct Base64<'a>(&'a [u8]);

impl serde::Serialize for Base64<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine as _;
        serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(self.0))
    }
}

#[test]
fn public_keys_that_verify_anything_or_have_a_second_text_are_refused() {
    let key = SigningKey::generate(&OsEntropy).public().to_string();
    assert!(format!(" {key}\n").parse::<PublicKey>().is_ok());
    let identity = "ed25519:AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let unpadded = key.trim_end_matches('=').to_owned();
    for text in [identity, "ed25519:", "ed25519:AAAA", "", &unpadded, &key["ed25519:".len()..]] {
        let error = text.parse::<PublicKey>().unwrap_err();
        assert_eq!(error.kind(), FailureKind::Usage, "{text}");
    }
}
