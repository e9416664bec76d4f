//! Ties a login to the certificate of the TLS session: `tls-server-end-point` of RFC 5929.
//!
//! In: the server's certificate in DER. Out: its hash under the hash of its own signature, with SHA-256 in place of MD5
//! and SHA-1; nothing for a signature without a hash of its own (Ed25519, RSA-PSS), where PostgreSQL offers none either
//! or needs the hash from parameters we do not read.

use sha2::{Digest, Sha256, Sha384, Sha512};

const SEQUENCE: u8 = 0x30;
const OBJECT_ID: u8 = 0x06;

/// `1.2.840.113549.1.1`, RSA in PKCS #1; the next byte is the hash.
const RSA: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01];
/// `1.2.840.10045.4`, ECDSA; what follows is the hash.
const ECDSA: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04];

/// What both sides of the session compute, if they saw the same certificate.
pub(super) fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let oid = signature_algorithm(certificate)?;
    let sha256 = || Some(Sha256::digest(certificate).to_vec());
    let sha384 = || Some(Sha384::digest(certificate).to_vec());
    let sha512 = || Some(Sha512::digest(certificate).to_vec());
    if let Some(hash) = oid.strip_prefix(RSA) {
        return match hash {
            // MD5, SHA-1 and SHA-256.
            [4 | 5 | 11] => sha256(),
            [12] => sha384(),
            [13] => sha512(),
            _ => None,
        };
    }
    match oid.strip_prefix(ECDSA)? {
        // SHA-1 and SHA-256.
        [1] | [3, 2] => sha256(),
        [3, 3] => sha384(),
        [3, 4] => sha512(),
        _ => None,
    }
}

/// `Certificate ::= SEQUENCE { tbsCertificate SEQUENCE, signatureAlgorithm SEQUENCE { OBJECT IDENTIFIER, … }, … }`
fn signature_algorithm(certificate: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (_, after) = element(certificate, SEQUENCE)?;
    let (algorithm, _) = element(after, SEQUENCE)?;
    Some(element(algorithm, OBJECT_ID)?.0)
}

/// The content of the element that `der` begins with, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = der.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    if first < 0x80 {
        return rest.split_at_checked(usize::from(first));
    }
    // Lengths of up to three bytes: no certificate is longer than 16 MiB.
    let count = usize::from(first & 0x7F);
    if !(1..=3).contains(&count) {
        return None;
    }
    let (length, rest) = rest.split_at_checked(count)?;
    let length = length.iter().fold(0usize, |length, byte| length << 8 | usize::from(*byte));
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn certificate(oid: &[u8]) -> Vec<u8> {
        let wrap = |tag: u8, body: &[u8]| {
            let mut out = vec![tag, 0x82];
            out.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
            out.extend_from_slice(body);
            out
        };
        let body = [wrap(SEQUENCE, b"to be signed"), wrap(SEQUENCE, &wrap(OBJECT_ID, oid))].concat();
        wrap(SEQUENCE, &body)
    }

    #[test]
    fn the_hash_follows_the_signature() {
        let bytes = |oid: &[u8]| server_end_point(&certificate(oid)).map(|hash| hash.len());
        let rsa = |hash: u8| bytes(&[RSA, &[hash]].concat());
        let ecdsa = |hash: &[u8]| bytes(&[ECDSA, hash].concat());
        assert_eq!([rsa(4), rsa(5), rsa(11), rsa(12), rsa(13)].map(Option::unwrap), [32, 32, 32, 48, 64]);
        assert_eq!([ecdsa(&[3, 2]), ecdsa(&[3, 3]), ecdsa(&[3, 4])].map(Option::unwrap), [32, 48, 64]);
        assert_eq!([rsa(10), ecdsa(&[9]), bytes(&[0x2B, 0x65, 0x70])], [None; 3]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            drop(server_end_point(&bytes));
            let mut cut = certificate(RSA);
            cut.truncate(bytes.len());
            prop_assert_eq!(server_end_point(&cut), None);
        }
    }
}
