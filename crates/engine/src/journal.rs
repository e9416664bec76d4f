//! Filing what happened: the evidence chain first, then the catalog that is made from it.

use std::fs;
use std::io::Read;
use std::path::Path;

use lifeboat_base::crashsafe;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{PointId, StoreName};
use lifeboat_base::secret::Secret;
use lifeboat_base::time::Timestamp;
use lifeboat_catalog::RunRow;
use lifeboat_evidence::{BundleSummary, Chain, Filter, Head, Page};
use lifeboat_keys::SigningKey;
use lifeboat_vault::PointManifest;
use serde_json::Value;

use crate::context::Engine;
use crate::error::EngineError;

const KEY_FILE: &str = "evidence.key";
const KEY_HEADER: &str = "lifeboat-signing-1:";
const MAX_KEY_BYTES: u64 = 256;

/// A filed record: proofs that rest on it carry its moment, so that a rebuild finds the same ones.
pub(crate) struct Filed {
    pub(crate) seq: u64,
    pub(crate) at: Timestamp,
}

/// What is filed about one run on one store.
pub(crate) struct Entry<'a> {
    pub(crate) kind: &'static str,
    pub(crate) store: &'a StoreName,
    pub(crate) ok: bool,
    pub(crate) body: Value,
}

impl Engine {
    /// The key that signs this installation's evidence; made with the first record.
    pub(crate) fn signer(&self) -> Result<SigningKey, EngineError> {
        let path = self.state.join(KEY_FILE);
        let fail = |error| Failure::io("failed to read the evidence signing key", error);
        match fs::File::open(&path) {
            Ok(file) => {
                let mut text = String::new();
                file.take(MAX_KEY_BYTES).read_to_string(&mut text).map_err(fail)?;
                let text = Secret::new(text);
                let seed = text.expose().trim_end().strip_prefix(KEY_HEADER).and_then(parse_seed);
                let seed = seed.ok_or_else(|| {
                    Failure::new(FailureKind::Damaged, format!("{} is not a signing key", path.display()))
                })?;
                Ok(SigningKey::from_seed(seed))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if self.evidence_dir().join("public.key").exists() {
                    return Err(EngineError::new(
                        FailureKind::Refused,
                        format!("the evidence chain exists but its signing key {} is gone", path.display()),
                    )
                    .next("restore the key file, or move the evidence folder aside to begin a new chain"));
                }
                let key = SigningKey::generate(self.env.entropy.as_ref());
                let text = Secret::new(format!("{KEY_HEADER}{}\n", hex::encode(key.seed().expose())));
                let written = crashsafe::create_dir_all(&self.state)
                    .and_then(|()| crashsafe::write_new(&path, text.expose().as_bytes()));
                match written {
                    Ok(()) => Ok(key),
                    // Another run made it at the same moment.
                    Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => self.signer(),
                    Err(error) => Err(Failure::io("failed to write the evidence signing key", error).into()),
                }
            }
            Err(error) => Err(fail(error).into()),
        }
    }

    /// Whether a record can be filed, asked before work begins: what is done and not filed is not believed.
    ///
    /// `Refused` if the chain ends before a record that was filed here: it was rolled back or replaced, and going on
    /// would give new records the numbers of lost ones.
    pub(crate) fn ready_to_file(&self) -> Result<(), EngineError> {
        let signer = self.signer()?;
        let chain = Chain::open(&self.evidence_dir()).map_err(evidence)?;
        if let Some(found) = chain.public_key().map_err(evidence)?
            && found != signer.public()
        {
            return Err(EngineError::new(
                FailureKind::Refused,
                "the evidence chain was begun with another signing key than the one in the state folder",
            )
            .next("put the key back, or move the evidence folder aside to begin a new chain"));
        }
        self.evidence_whole()
    }

    /// Whether the chain still reaches the newest record that was filed here.
    pub(crate) fn evidence_whole(&self) -> Result<(), EngineError> {
        let known = self.catalog()?.last_evidence().map_err(Failure::from)?;
        let head = self.evidence_head()?.map_or(0, |head| head.seq);
        if head >= known {
            return Ok(());
        }
        Err(EngineError::new(
            FailureKind::Refused,
            format!("the evidence chain ends with record {head}, but records up to {known} were filed here"),
        )
        .next(
            "put the evidence folder back; if it is lost for good, `lifeboat catalog rebuild` goes on with what is left",
        ))
    }

    /// Files a record; it is durable when this returns. The catalog follows: if that fails, a rebuild finds the record.
    pub(crate) fn file(&self, entry: Entry<'_>) -> Result<Filed, EngineError> {
        let Entry { kind, store, ok, mut body } = entry;
        if let Value::Object(fields) = &mut body {
            fields.insert("ok".to_owned(), Value::Bool(ok));
        }
        let filed = self.append(kind, store.as_str(), body.clone())?;
        let Filed { seq: evidence, at } = filed;
        let run = RunRow { evidence, kind: kind.to_owned(), store: store.clone(), at, ok, body };
        let catalog = self.catalog()?;
        catalog.put_run(&run).and_then(|()| catalog.set_last_evidence(evidence)).map_err(Failure::from)?;
        Ok(filed)
    }

    /// Signs a record and adds it to the chain; it is durable when this returns.
    pub(crate) fn append(&self, kind: &str, subject: &str, body: Value) -> Result<Filed, EngineError> {
        let at = self.env.clock.now();
        let signer = self.signer()?;
        self.evidence_whole()?;
        let chain = Chain::open(&self.evidence_dir()).map_err(evidence)?;
        let record = chain.append(&signer, at, kind, subject, body).map_err(evidence)?;
        Ok(Filed { seq: record.seq, at })
    }

    /// The head of the chain, written into manifests so that a shortened chain is noticed.
    pub(crate) fn evidence_head(&self) -> Result<Option<Head>, EngineError> {
        if !self.evidence_dir().exists() {
            return Ok(None);
        }
        Ok(Chain::open(&self.evidence_dir()).map_err(evidence)?.head().map_err(evidence)?)
    }

    /// Writes the whole chain as a bundle an outsider can verify offline.
    pub fn export_evidence(&self, out: &Path) -> Result<BundleSummary, EngineError> {
        self.export(out, &Filter::default(), &[])
    }

    /// Writes what a filter takes, with pages beside it.
    pub(crate) fn export(
        &self,
        out: &Path,
        filter: &Filter,
        beside: &[Page],
    ) -> Result<BundleSummary, EngineError> {
        let now = self.env.clock.now();
        lifeboat_evidence::export(&self.evidence_dir(), out, &self.signer()?, now, filter, beside)
            .map_err(|error| evidence(error).into())
    }

    /// The number of the newest record that was filed here: the chain must still reach it.
    pub fn evidence_filed(&self) -> Result<u64, EngineError> {
        Ok(self.catalog()?.last_evidence().map_err(Failure::from)?)
    }

    /// The furthest head that a sealed recovery point of this installation names: the chain must still reach it. While there is
    /// no chain, that of any point.
    pub fn evidence_anchor(&self) -> Result<Option<Head>, EngineError> {
        let own = self.chain_key()?;
        let mut anchor: Option<Head> = None;
        for store in self.policy.stores.keys() {
            for point in self.catalog()?.points(store).map_err(Failure::from)? {
                let Some(head) = &point.manifest.evidence_head else { continue };
                if own.is_some() && is_elsewhere(&point.manifest, own.as_deref()) {
                    continue;
                }
                if anchor.is_none_or(|known| known.seq < head.seq) {
                    anchor = Some(Head { seq: head.seq, digest: head.digest, at: point.manifest.ended });
                }
            }
        }
        Ok(anchor)
    }

    /// How many recovery points were made under another evidence chain, and the first of them: the one here says nothing of what
    /// was done to them there.
    pub fn made_elsewhere(&self) -> Result<Option<(usize, PointId)>, EngineError> {
        let own = self.chain_key()?;
        let mut found: Option<(usize, PointId)> = None;
        for store in self.policy.stores.keys() {
            for point in self.catalog()?.points(store).map_err(Failure::from)? {
                if is_elsewhere(&point.manifest, own.as_deref()) {
                    found.get_or_insert((0, point.manifest.id)).0 += 1;
                }
            }
        }
        Ok(found)
    }

    /// The first of these points that was made under another chain, or under records that this one has no more: it may not know
    /// of every hold, nor of every copy. Reads a record for each.
    pub(crate) fn chain_lacks<'a>(
        &self,
        points: impl IntoIterator<Item = &'a PointManifest>,
    ) -> Result<Option<&'a PointId>, EngineError> {
        let own = self.chain_key()?;
        let chain = Chain::open(&self.evidence_dir()).map_err(evidence)?;
        for point in points {
            let there = match &point.evidence_head {
                _ if is_elsewhere(point, own.as_deref()) => false,
                Some(head) => chain.has(head.seq, &head.digest).map_err(evidence)?,
                None => true,
            };
            if !there {
                return Ok(Some(&point.id));
            }
        }
        Ok(None)
    }

    /// The id of the key that the chain here is signed with; nothing before its first record.
    fn chain_key(&self) -> Result<Option<String>, EngineError> {
        let key = Chain::open(&self.evidence_dir()).and_then(|chain| chain.public_key());
        Ok(key.map_err(evidence)?.map(|key| key.key_id()))
    }
}

/// Whether another chain than that with the key `own` stood by when the point was made. One that does not say is taken for one
/// of this chain.
fn is_elsewhere(point: &PointManifest, own: Option<&str>) -> bool {
    let key = point.evidence_key.as_deref();
    key.is_some_and(|key| own != Some(key))
}

pub(crate) fn evidence(error: lifeboat_evidence::EvidenceError) -> Failure {
    let kind = error.kind();
    Failure::with_source(kind, "failed to use the evidence chain", error)
}

fn parse_seed(text: &str) -> Option<Secret<[u8; 32]>> {
    let mut seed = [0u8; 32];
    hex::decode_to_slice(text, &mut seed).ok()?;
    Some(Secret::new(seed))
}
