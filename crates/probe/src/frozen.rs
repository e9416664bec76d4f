//! A gold set as it is kept: questions, sections, the pinned embedder, the lock that binds them, and what the board was before.
//!
//! In: the contents of its files, which may be anything. Out: a set that a board may be measured with. Nothing of it is
//! believed unless the lock names it.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_base::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::ProbeError;
use crate::board::{Board, BoardVerdict, Verdict};
use crate::canonical::canonical_json;
use crate::drift::{Drift, drift};
use crate::gold::{GoldLock, GoldSet};
use crate::lsa::Lsa;
use crate::manifest::Contract;
use crate::measure::Embedder;
use crate::profile::Profile;
use crate::row::BoardRow;
use crate::sections::GoldSections;
use crate::stress::{Embedded, Stress};

/// The contents of the files of a gold set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GoldFiles {
    /// The questions.
    pub gold: Vec<u8>,
    /// What binds them; none before they are curated.
    pub lock: Option<Vec<u8>>,
    /// Their sections.
    pub sections: Vec<u8>,
    /// The pinned embedder.
    pub embedder: Vec<u8>,
    /// Vectors of the questions by the model of the index, where that is another than the pinned one.
    pub questions: Option<Vec<u8>>,
    /// The board before.
    pub baseline: Option<Vec<u8>>,
}

/// A question with the vector that the model of the index makes of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskedVector {
    /// The model.
    pub model_id: String,
    /// Its version.
    pub model_ver: String,
    /// The question, as a paraphrase of the set has it.
    pub text: String,
    /// Its vector.
    pub vector: Vec<f32>,
}

/// Vectors of questions by their texts, all by one model.
#[derive(Clone, Debug, PartialEq)]
pub struct AskedVectors {
    model: (String, String),
    vectors: BTreeMap<String, Vec<f32>>,
    hash: Digest,
}

impl AskedVectors {
    /// Reads one question per line; all are of one model, and none has two vectors.
    pub fn from_jsonl(bytes: &[u8]) -> Result<Self, ProbeError> {
        let invalid = |why: String| ProbeError::invalid("the vectors of the questions", why);
        let text = std::str::from_utf8(bytes).map_err(|error| invalid(error.to_string()))?;
        let (mut model, mut vectors) = (None, BTreeMap::new());
        for line in text.lines() {
            let asked: AskedVector =
                serde_json::from_str(line).map_err(|error| invalid(error.to_string()))?;
            let own = (asked.model_id, asked.model_ver);
            if model.get_or_insert_with(|| own.clone()) != &own {
                return Err(invalid("they are of more than one model".to_owned()));
            }
            if !asked.vector.iter().all(|value| value.is_finite()) {
                return Err(ProbeError::NotFinite { what: format!("the vector of `{}`", asked.text) });
            }
            // Two sections may be asked for in the same words; one text has one vector all the same.
            if vectors.get(&asked.text).is_some_and(|known| *known != asked.vector) {
                return Err(invalid(format!("`{}` has two vectors", asked.text)));
            }
            vectors.insert(asked.text, asked.vector);
        }
        let model =
            model.ok_or_else(|| ProbeError::Empty { what: "the vectors of the questions".to_owned() })?;
        Ok(Self { model, vectors, hash: Digest::of(bytes) })
    }

    /// What a lock names.
    pub fn hash(&self) -> Digest {
        self.hash
    }
}

/// The board that later ones are compared with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// `lifeboat.probe-baseline/v1`.
    pub schema: String,
    /// Its probes.
    pub rows: Vec<BoardRow>,
    /// What they came to.
    pub verdict: Verdict,
}

impl Baseline {
    /// The name and version of the record.
    pub const SCHEMA: &'static str = "lifeboat.probe-baseline/v1";

    /// A board as a baseline; one that does not pass is none.
    pub fn of(board: &Board) -> Result<Self, ProbeError> {
        if board.verdict.verdict != BoardVerdict::Pass {
            let why = format!(
                "it is `{}`, and only one that passes can be compared with",
                board.verdict.verdict.word()
            );
            return Err(ProbeError::invalid("the board", why));
        }
        Ok(Self { schema: Self::SCHEMA.to_owned(), rows: board.rows.clone(), verdict: board.verdict.clone() })
    }

    /// Reads a baseline.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ProbeError> {
        let invalid = |why: String| ProbeError::invalid("the baseline", why);
        let baseline: Self = serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
        if baseline.schema != Self::SCHEMA || baseline.verdict.verdict != BoardVerdict::Pass {
            return Err(invalid("its schema is not known, or it does not pass".to_owned()));
        }
        Ok(baseline)
    }

    /// Its canonical text.
    pub fn to_json(&self) -> Result<String, ProbeError> {
        Ok(format!("{}\n", canonical_json(self)?))
    }

    /// How a board differs from it.
    pub fn drift(&self, board: &Board, profile: &Profile) -> Result<Drift, ProbeError> {
        // With as many decimals as a baseline keeps: what was only rounded did not change.
        let kept = Self {
            schema: Self::SCHEMA.to_owned(),
            rows: board.rows.clone(),
            verdict: board.verdict.clone(),
        };
        let again = |error: serde_json::Error| ProbeError::invalid("the board", error.to_string());
        let text = serde_json::to_vec(&kept).map_err(again)?;
        let kept: Self = serde_json::from_slice(&text).map_err(again)?;
        drift((&self.rows, &self.verdict), (&kept.rows, &kept.verdict), profile)
    }
}

/// A gold set that was curated, with everything that belongs to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Frozen {
    /// The questions.
    pub set: GoldSet,
    /// Their sections.
    pub sections: GoldSections,
    /// The pinned embedder.
    pub embedder: Lsa,
    /// What binds them.
    pub lock: GoldLock,
    /// The vectors of the questions, where the index has a model of its own.
    pub asked: Option<AskedVectors>,
    /// The board before.
    pub baseline: Option<Baseline>,
}

impl Frozen {
    /// Opens the files of a set. One that was not curated, is empty, or is not what its lock names is refused.
    pub fn open(files: &GoldFiles) -> Result<Self, ProbeError> {
        let text = |what: &str, bytes: &[u8]| {
            std::str::from_utf8(bytes)
                .map(str::to_owned)
                .map_err(|error| ProbeError::invalid(what, error.to_string()))
        };
        let Some(lock) = &files.lock else {
            return Err(ProbeError::invalid("the gold set", "it was not curated: it has no lock"));
        };
        let lock: GoldLock = serde_json::from_slice(lock)
            .map_err(|error| ProbeError::invalid("the lock of the gold set", error.to_string()))?;
        let set = GoldSet::from_jsonl(&text("the gold set", &files.gold)?)?;
        if set.answerable_count() == 0 {
            return Err(ProbeError::Empty { what: "the gold set".to_owned() });
        }
        // One question many times is one question.
        let mut asked_before = BTreeSet::new();
        if let Some(again) =
            set.probes().find(|probe| probe.answerable && !asked_before.insert(&probe.paraphrases))
        {
            let why = format!("`{}` asks what another one asks, word for word", again.qid);
            return Err(ProbeError::invalid("the gold set", why));
        }
        let embedder = Lsa::from_bytes(&files.embedder)?;
        lock.check(&set, embedder.id(), embedder.hash())?;
        let sections = GoldSections::from_jsonl(&text("the sections of the gold set", &files.sections)?)?;
        let asked = files.questions.as_deref().map(AskedVectors::from_jsonl).transpose()?;
        let named = (lock.sections_hash, lock.questions_hash);
        if (sections.hash()?, asked.as_ref().map(AskedVectors::hash)) != named {
            let why = "it names other sections, or other vectors of the questions";
            return Err(ProbeError::invalid("the lock of the gold set", why));
        }
        let baseline = files.baseline.as_deref().map(Baseline::from_json).transpose()?;
        Ok(Self { set, sections, embedder, lock, asked, baseline })
    }

    /// Binds questions that were let in to everything they were measured with.
    pub fn lock(
        set: &GoldSet,
        sections: &GoldSections,
        embedder: &Lsa,
        asked: Option<&AskedVectors>,
        measured: (Digest, &Profile),
    ) -> Result<GoldLock, ProbeError> {
        Ok(GoldLock {
            schema: GoldLock::SCHEMA.to_owned(),
            gold_version: set.version()?,
            n: set.probes().len() as u64,
            embedder_id: embedder.id().to_owned(),
            embedder_hash: embedder.hash(),
            sections_hash: sections.hash()?,
            questions_hash: asked.map(AskedVectors::hash),
            index_hash: measured.0,
            profile_hash: measured.1.hash()?,
        })
    }

    /// ΔS of each question and its own anchor, for the people who curate.
    pub fn to_anchors(set: &GoldSet, embedder: &Lsa) -> Result<BTreeMap<String, f64>, ProbeError> {
        let mut distances = BTreeMap::new();
        for probe in set.probes() {
            let Some(anchor) = &probe.anchor else { continue };
            let (asked, told) = (embedder.vector(&probe.question), embedder.vector(&anchor.text));
            let one = Embedded { text: &probe.question, vector: &asked };
            let other = Embedded { text: &anchor.text, vector: &told };
            distances.insert(probe.qid.clone(), Stress::between(one, other)?.gated);
        }
        Ok(distances)
    }

    /// The vectors by which an index with this contract is asked. A model that is not the index's is refused: its vectors
    /// would mean nothing there.
    pub fn queries(&self, contract: &Contract) -> Result<Queries<'_>, ProbeError> {
        Queries::new(&self.embedder, self.asked.as_ref(), contract)
    }
}

/// What makes vectors of questions for one index.
#[derive(Clone, Copy, Debug)]
pub struct Queries<'a> {
    embedder: &'a Lsa,
    asked: Option<&'a AskedVectors>,
}

impl<'a> Queries<'a> {
    /// Takes the recorded vectors, or the pinned embedder, if they are of the index's model.
    pub fn new(
        embedder: &'a Lsa,
        asked: Option<&'a AskedVectors>,
        contract: &Contract,
    ) -> Result<Self, ProbeError> {
        let own = (embedder.id().to_owned(), embedder.hash().to_string());
        let model = asked.map_or(&own, |asked| &asked.model);
        let of_index = (&contract.embed_model_id, &contract.embed_model_ver);
        if (&model.0, &model.1) != of_index {
            let why = format!(
                "the index holds vectors of `{}` {}, the questions can be asked by `{}` {} only",
                of_index.0, of_index.1, model.0, model.1
            );
            return Err(ProbeError::invalid("the embedder of the gold set", why));
        }
        Ok(Self { embedder, asked })
    }

    /// The vector of a paraphrase that is typed in some way; recorded vectors know one way only.
    pub(crate) fn vector(&self, text: &str, typed: &str) -> Result<Vec<f32>, ProbeError> {
        match self.asked {
            None => Ok(self.embedder.vector(typed)),
            Some(asked) => asked.vectors.get(text).cloned().ok_or_else(|| {
                ProbeError::invalid("the vectors of the questions", format!("`{text}` has none"))
            }),
        }
    }
}
