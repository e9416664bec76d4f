//! A checksum of many things that have no order.

/// The sum of the SHA-256 of every row, as a number modulo 2^256.
///
/// A sum, because rows have no order. Not XOR: there two equal rows cancel, and a table that lost a row twice or
/// gained a pair would look the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum([u64; 4]);

impl Sum {
    /// Adds one digest.
    pub(crate) fn add(&mut self, digest: &[u8; 32]) {
        let mut carry = false;
        // Limbs are kept in reading order, so the addition runs from the last to the first.
        for (limb, bytes) in self.0.iter_mut().zip(digest.as_chunks::<8>().0).rev() {
            let (sum, over) = limb.overflowing_add(u64::from_be_bytes(*bytes));
            let (sum, over_again) = sum.overflowing_add(u64::from(carry));
            *limb = sum;
            carry = over || over_again;
        }
    }

    /// With the name of the method in front.
    pub(crate) fn shown(self) -> String {
        let [a, b, c, d] = self.0;
        format!("sum-sha256-v1:{a:016x}{b:016x}{c:016x}{d:016x}")
    }
}
