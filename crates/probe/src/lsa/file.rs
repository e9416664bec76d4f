//! A fitted model as bytes: magic, a header of JSON, numbers, and the hash of all of it.
//!
//! In: a model, or bytes that may be anything. Out: bytes, or a model whose every number was looked at.

use lifeboat_base::digest::Digest;
use serde::{Deserialize, Serialize};

use super::analyzer::Terms;
use super::model::{Lsa, MAX_RANK_COUNT, MAX_TERMS_COUNT};
use crate::ProbeError;
use crate::analyzer::fingerprint;
use crate::canonical::canonical_json;

const MAGIC: &[u8] = b"LBLSA1\n";
const SCHEMA: &str = "lifeboat.lsa/v1";
const LENGTH_BYTES: usize = 8;
const DIGEST_BYTES: usize = 32;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    schema: String,
    texts: u64,
    rank: u64,
    analyzer_fingerprint: Digest,
    terms: Vec<String>,
}

fn invalid(why: impl Into<String>) -> ProbeError {
    ProbeError::invalid("the embedder's model", why)
}

impl Lsa {
    /// Everything but the hash at the end.
    pub(super) fn body(&self) -> Result<Vec<u8>, ProbeError> {
        let header = Header {
            schema: SCHEMA.to_owned(),
            texts: self.texts_count,
            rank: self.rank as u64,
            analyzer_fingerprint: fingerprint(&Terms),
            terms: self.terms.clone(),
        };
        let header = canonical_json(&header)?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&(header.len() as u64).to_le_bytes());
        bytes.extend_from_slice(header.as_bytes());
        self.idf.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
        self.basis.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
        Ok(bytes)
    }

    /// The model as it is stored beside a gold set.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ProbeError> {
        let mut bytes = self.body()?;
        bytes.extend_from_slice(self.hash.as_bytes());
        Ok(bytes)
    }

    /// Reads a model. One that is damaged, cut, or of words that this program cuts differently is refused.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ProbeError> {
        let (body, end) = bytes
            .len()
            .checked_sub(DIGEST_BYTES)
            .and_then(|at| bytes.split_at_checked(at))
            .ok_or_else(|| invalid("it is too short"))?;
        let hash = Digest::of(body);
        if hash.as_bytes().as_slice() != end {
            return Err(invalid("its hash is not of its content"));
        }
        let rest = body.strip_prefix(MAGIC).ok_or_else(|| invalid("it is not a model of this program"))?;
        let (length, rest) =
            rest.split_first_chunk::<LENGTH_BYTES>().ok_or_else(|| invalid("it is cut off"))?;
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (header, numbers) = rest.split_at_checked(length).ok_or_else(|| invalid("it is cut off"))?;
        let header: Header = serde_json::from_slice(header).map_err(|error| invalid(error.to_string()))?;
        let rank = header.check()?;
        let idf_bytes = header.terms.len().saturating_mul(size_of::<f64>());
        let basis_bytes = header.terms.len().saturating_mul(rank).saturating_mul(size_of::<f32>());
        let (idf, basis) = numbers
            .split_at_checked(idf_bytes)
            .filter(|(_, basis)| basis.len() == basis_bytes)
            .ok_or_else(|| invalid("it holds more or fewer numbers than it says"))?;
        let idf: Vec<f64> = idf.as_chunks().0.iter().map(|chunk| f64::from_le_bytes(*chunk)).collect();
        let basis: Vec<f32> = basis.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect();
        if !idf.iter().all(|value| value.is_finite()) || !basis.iter().all(|value| value.is_finite()) {
            return Err(ProbeError::NotFinite { what: "a number of the embedder's model".to_owned() });
        }
        Ok(Self { texts_count: header.texts, rank, terms: header.terms, idf, basis, hash })
    }
}

impl Header {
    fn check(&self) -> Result<usize, ProbeError> {
        if self.schema != SCHEMA {
            return Err(invalid(format!("its schema is `{}`, this program knows `{SCHEMA}`", self.schema)));
        }
        if self.analyzer_fingerprint != fingerprint(&Terms) {
            return Err(invalid("it was fitted on words that this program cuts differently: fit it again"));
        }
        let rank = usize::try_from(self.rank).unwrap_or(usize::MAX);
        if rank == 0 || rank > MAX_RANK_COUNT || self.terms.len() > MAX_TERMS_COUNT {
            return Err(invalid("its rank or its number of terms is out of bounds"));
        }
        if !self.terms.is_sorted_by(|a, b| a < b) {
            return Err(invalid("its terms are not sorted"));
        }
        Ok(rank)
    }
}
