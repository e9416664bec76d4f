//! Digests of content: of one text, of texts in order, and of texts without an order.
//!
//! Texts stand behind their length, so that no two lists of texts run together. What has no order is added up as numbers
//! modulo 2^256: unlike XOR a sum does not lose what comes twice. Against loss and damage, not against forgery.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// A SHA-256.
pub(crate) type Hash = [u8; 32];

/// A digest being made of several parts.
#[derive(Clone)]
pub(crate) struct Hasher(Sha256);

impl Hasher {
    pub(crate) fn new() -> Self {
        Self(Sha256::new())
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn number(&mut self, number: u64) {
        self.0.update(number.to_be_bytes());
    }

    /// A text with its length.
    pub(crate) fn text(&mut self, text: &[u8]) {
        self.number(text.len() as u64);
        self.bytes(text);
    }

    pub(crate) fn finish(self) -> Hash {
        self.0.finalize().into()
    }
}

/// A sum of digests, in which order means nothing and number does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum([u64; 4]);

impl Sum {
    /// The name of how a sum is made, which stands before its digits.
    pub const ALGORITHM: &'static str = "redis-sum-sha256-v1";

    /// Adds one digest.
    pub(crate) fn add(&mut self, hash: &Hash) {
        let (limbs, _) = hash.as_chunks::<8>();
        let mut carry = 0;
        // The last limb is the lowest.
        for (limb, more) in self.0.iter_mut().zip(limbs).rev() {
            let sum = u128::from(*limb) + u128::from(u64::from_be_bytes(*more)) + carry;
            *limb = u64::try_from(sum & u128::from(u64::MAX)).unwrap_or_default();
            carry = sum >> 64;
        }
    }

    pub(crate) fn hash_into(&self, hasher: &mut Hasher) {
        for limb in self.0 {
            hasher.number(limb);
        }
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", Self::ALGORITHM)?;
        self.0.iter().try_for_each(|limb| write!(f, "{limb:016x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_means_nothing_and_number_does() {
        let hashes = [[1; 32], [0xff; 32], [0x80; 32], [7; 32]];
        let sum = |order: &[usize]| {
            let mut sum = Sum::default();
            for index in order {
                sum.add(&hashes[*index]);
            }
            sum
        };
        assert_eq!(sum(&[0, 1, 2, 3]), sum(&[3, 1, 0, 2]));
        assert_ne!(sum(&[0, 1]), sum(&[0, 1, 1, 1]));
        assert_ne!(sum(&[0, 0]), sum(&[]));
        // A carry goes through every limb: -1 + 1.
        let mut zero = Sum::default();
        zero.add(&[0xff; 32]);
        let mut one = [0; 32];
        one[31] = 1;
        zero.add(&one);
        assert_eq!(zero, Sum::default());
    }
}
