//! The gold set: questions whose answers are known, with the place in the text that answers them.
//!
//! In: lines of JSON that a person has looked at. Out: a set in canonical order with its version, and the gate of curation,
//! which lets in what a sound index answers and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_base::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::ProbeError;
use crate::canonical::canonical_json;
use crate::number::share;
use crate::profile::{PARAPHRASES_COUNT, Profile};
use crate::row::BoardRow;
use crate::span::Span;

/// The most bytes of one line of a gold set.
pub const MAX_GOLD_LINE_BYTES: usize = 256 << 10;
/// The most lines of a gold set, drafts included.
pub const MAX_GOLD_LINES_COUNT: usize = 10_000;

/// What kind of text answers a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextType {
    /// Sentences.
    Prose,
    /// Program text.
    Code,
    /// Rows and columns.
    Table,
    /// A picture with its caption.
    Figure,
}

/// The smallest text that answers a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anchor {
    /// The document.
    pub doc_id: String,
    /// The section.
    pub section_id: String,
    /// Its place in the document's canonical text.
    pub offsets: Span,
    /// The text.
    pub text: String,
    /// The hash of the text.
    pub hash: Digest,
}

impl Anchor {
    /// Whether the document still says so at that place.
    pub fn resolves(&self, document: &str) -> bool {
        let start = usize::try_from(self.offsets.start()).ok();
        let end = usize::try_from(self.offsets.end()).ok();
        let found = start.zip(end).and_then(|(start, end)| document.get(start..end));
        found == Some(self.text.as_str())
    }
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldProbe {
    /// Its id, such as `p-037`.
    pub qid: String,
    /// The question as a person would ask it.
    pub question: String,
    /// The three ways in which it is asked.
    pub paraphrases: Vec<String>,
    /// The section that answers it.
    pub expected_section: String,
    /// All sections that a complete answer needs, when it is more than that one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required_sections: Vec<String>,
    /// The text that answers it; none for a question that the corpus does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<Anchor>,
    /// A section of like size and style that does not answer it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoy_section: Option<String>,
    /// What an answer has to cite.
    #[serde(default)]
    pub expected_citations: Vec<String>,
    /// Whether the corpus answers it.
    pub answerable: bool,
    /// The flow of the product that it belongs to.
    pub flow: String,
    /// What kind of text answers it.
    #[serde(rename = "type")]
    pub text_type: TextType,
    /// The revision of the document.
    pub revision: String,
}

impl GoldProbe {
    /// The sections whose words count for coverage.
    pub fn required(&self) -> Vec<&str> {
        if self.required_sections.is_empty() {
            vec![self.expected_section.as_str()]
        } else {
            self.required_sections.iter().map(String::as_str).collect()
        }
    }

    fn check(&self) -> Result<(), String> {
        let is_id = !self.qid.is_empty()
            && self.qid.len() <= 64
            && self.qid.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if !is_id {
            return Err("`qid` must be 1 to 64 letters, digits, `-` or `_`".to_owned());
        }
        if self.paraphrases.len() != PARAPHRASES_COUNT {
            return Err(format!(
                "it has {} paraphrases, expected {PARAPHRASES_COUNT}",
                self.paraphrases.len()
            ));
        }
        let asked: BTreeSet<&str> = self.paraphrases.iter().map(|text| text.trim()).collect();
        if asked.len() != PARAPHRASES_COUNT || asked.contains("") || self.question.trim().is_empty() {
            return Err(
                "the question and its paraphrases must be different texts, none of them empty".to_owned()
            );
        }
        match (&self.anchor, self.answerable) {
            (Some(_), false) => Err("a question without an answer has no anchor".to_owned()),
            (None, true) => Err("a question with an answer needs its anchor".to_owned()),
            (None, false) => Ok(()),
            (Some(anchor), true) => self.check_anchor(anchor),
        }
    }

    fn check_anchor(&self, anchor: &Anchor) -> Result<(), String> {
        if anchor.section_id != self.expected_section
            || !self.required().contains(&anchor.section_id.as_str())
        {
            return Err("the anchor must stand in the expected section, and that be required".to_owned());
        }
        if self.decoy_section.as_ref() == Some(&self.expected_section) {
            return Err("the decoy is the expected section".to_owned());
        }
        if Digest::of(anchor.text.as_bytes()) != anchor.hash {
            return Err("the anchor's hash is not of its text".to_owned());
        }
        if anchor.offsets.end() - anchor.offsets.start() != anchor.text.len() as u64 {
            return Err("the anchor's offsets are not as long as its text".to_owned());
        }
        Ok(())
    }
}

/// Questions in the order of their ids, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoldSet(BTreeMap<String, GoldProbe>);

impl GoldSet {
    /// Takes questions in; each is held against the rules, and no id comes twice.
    pub fn new(probes: impl IntoIterator<Item = GoldProbe>) -> Result<Self, ProbeError> {
        let mut set = BTreeMap::new();
        for probe in probes {
            let what = || format!("gold question `{}`", probe.qid);
            probe.check().map_err(|why| ProbeError::invalid(what(), why))?;
            if set.contains_key(&probe.qid) {
                return Err(ProbeError::invalid(what(), "its id is used twice"));
            }
            if set.len() >= MAX_GOLD_LINES_COUNT {
                let limit = MAX_GOLD_LINES_COUNT as u64;
                return Err(ProbeError::TooMany { what: "the gold set".to_owned(), limit });
            }
            set.insert(probe.qid.clone(), probe);
        }
        Ok(Self(set))
    }

    /// Reads one question per line; empty lines are skipped.
    pub fn from_jsonl(text: &str) -> Result<Self, ProbeError> {
        let mut probes = Vec::new();
        for (line, number) in text.lines().zip(1u64..).filter(|(line, _)| !line.trim().is_empty()) {
            if line.len() > MAX_GOLD_LINE_BYTES || probes.len() >= MAX_GOLD_LINES_COUNT {
                let what = format!("the gold set at line {number}");
                return Err(ProbeError::TooMany { what, limit: MAX_GOLD_LINE_BYTES as u64 });
            }
            let probe: GoldProbe = serde_json::from_str(line).map_err(|error| {
                ProbeError::invalid(format!("line {number} of the gold set"), error.to_string())
            })?;
            probes.push(probe);
        }
        Self::new(probes)
    }

    /// The questions by id.
    pub fn probes(&self) -> impl ExactSizeIterator<Item = &GoldProbe> {
        self.0.values()
    }

    /// The question with that id.
    pub fn get(&self, qid: &str) -> Option<&GoldProbe> {
        self.0.get(qid)
    }

    /// How many have an answer: those are measured.
    pub fn answerable_count(&self) -> u64 {
        self.probes().filter(|probe| probe.answerable).count() as u64
    }

    /// The canonical text: one question per line, by id.
    pub fn to_jsonl(&self) -> Result<String, ProbeError> {
        let mut text = String::new();
        for probe in self.probes() {
            text.push_str(&canonical_json(probe)?);
            text.push('\n');
        }
        Ok(text)
    }

    /// `gold_version`: what a board says it was measured with.
    pub fn version(&self) -> Result<Digest, ProbeError> {
        Ok(Digest::of(self.to_jsonl()?.as_bytes()))
    }
}

/// What freezes a gold set: a board is only measured with the set and the embedder that are named here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldLock {
    /// `lifeboat.gold-lock/v1`.
    pub schema: String,
    /// The version of the set.
    pub gold_version: Digest,
    /// How many questions are in it.
    pub n: u64,
    /// The pinned embedder.
    pub embedder_id: String,
    /// Its parameters, by their hash.
    pub embedder_hash: Digest,
    /// The sections that it speaks of, by their hash.
    pub sections_hash: Digest,
    /// The recorded vectors of its questions, by their hash, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub questions_hash: Option<Digest>,
    /// The index that it was curated on.
    #[serde(rename = "INDEX_HASH")]
    pub index_hash: Digest,
    /// The numbers it was curated by.
    pub profile_hash: Digest,
}

impl GoldLock {
    /// The name and version of the record.
    pub const SCHEMA: &'static str = "lifeboat.gold-lock/v1";

    /// Refuses another set or another embedder than the frozen ones.
    pub fn check(&self, set: &GoldSet, embedder_id: &str, embedder_hash: Digest) -> Result<(), ProbeError> {
        let wrong = |why: String| Err(ProbeError::invalid("the lock of the gold set", why));
        if self.schema != Self::SCHEMA {
            return wrong(format!("its schema is `{}`, expected `{}`", self.schema, Self::SCHEMA));
        }
        let (version, n) = (set.version()?, set.0.len() as u64);
        if version != self.gold_version || n != self.n {
            return wrong(format!(
                "it is for {} ({} questions), the set is {version} ({n})",
                self.gold_version, self.n
            ));
        }
        if embedder_hash != self.embedder_hash || embedder_id != self.embedder_id {
            return wrong(format!(
                "it names embedder `{}` {}, not `{embedder_id}` {embedder_hash}",
                self.embedder_id, self.embedder_hash
            ));
        }
        Ok(())
    }
}

/// Why a question is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dropped {
    /// The board does not have it.
    NotMeasured,
    /// What is found for it is too far away, on a sound index.
    TooFar,
    /// Asked in other words it finds something else, on a sound index.
    NotConvergent,
    /// A run of it is degenerate.
    Degenerate,
}

/// What curation came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Curation {
    /// The questions that were let in, with those that have no answer.
    pub kept: GoldSet,
    /// The others, by id, to be repaired or left out.
    pub dropped: BTreeMap<String, Vec<Dropped>>,
    /// Questions whose wording is far from their own anchor: worth a look.
    pub far_from_anchor: Vec<String>,
    /// The share of critical sections that the kept questions reach.
    pub section_coverage: f64,
    /// The share of questions without an answer.
    pub unanswerable_share: f64,
    /// What a board made of this set would lack; empty when it can be frozen.
    pub lacks: Vec<String>,
}

/// The distance from question to anchor above which a person should look.
pub const ANCHOR_STRESS_MAX: f64 = 0.35;
/// The share of critical sections that a gold set reaches.
pub const SECTION_COVERAGE_MIN: f64 = 0.80;

/// Lets in what a sound index answers. `rows` are of a board over the known-good index, `to_anchor` holds ΔS of question and
/// anchor by id, `critical` the sections that matter.
pub fn curate(
    set: &GoldSet,
    rows: &[BoardRow],
    to_anchor: &BTreeMap<String, f64>,
    critical: &BTreeSet<String>,
    profile: &Profile,
) -> Result<Curation, ProbeError> {
    let rows: BTreeMap<&str, &BoardRow> = rows.iter().map(|row| (row.probe_id.as_str(), row)).collect();
    let mut dropped = BTreeMap::new();
    let mut kept = Vec::new();
    for probe in set.probes() {
        let why = if probe.answerable {
            reasons(rows.get(probe.qid.as_str()).copied(), profile)
        } else {
            Vec::new()
        };
        if why.is_empty() {
            kept.push(probe.clone());
        } else {
            dropped.insert(probe.qid.clone(), why);
        }
    }
    let kept = GoldSet::new(kept)?;
    let reached: BTreeSet<&str> = kept.probes().flat_map(GoldProbe::required).collect();
    let met = critical.iter().filter(|section| reached.contains(section.as_str())).count() as u64;
    let section_coverage = if critical.is_empty() { 1.0 } else { share(met, critical.len() as u64) };
    let answerable = kept.answerable_count();
    let all = kept.probes().len() as u64;
    // What cannot be told to be near is far.
    let is_far = |probe: &&GoldProbe| {
        probe.answerable && to_anchor.get(&probe.qid).is_none_or(|ds| ds.is_nan() || *ds > ANCHOR_STRESS_MAX)
    };
    let far_from_anchor = kept.probes().filter(is_far).map(|probe| probe.qid.clone()).collect();
    let mut lacks = Vec::new();
    if answerable < profile.gold_min_count || answerable > profile.gold_max_count {
        let (low, high) = (profile.gold_min_count, profile.gold_max_count);
        lacks.push(format!(
            "{answerable} questions with an answer were let in, a board takes {low} to {high}"
        ));
    }
    if section_coverage < SECTION_COVERAGE_MIN {
        let missing = critical.len() as u64 - met;
        lacks.push(format!("{missing} of {} critical sections have no question", critical.len()));
    }
    let unanswerable_share = share(all - answerable, all);
    Ok(Curation { kept, dropped, far_from_anchor, section_coverage, unanswerable_share, lacks })
}

fn reasons(row: Option<&BoardRow>, profile: &Profile) -> Vec<Dropped> {
    let Some(row) = row else { return vec![Dropped::NotMeasured] };
    let mut why = Vec::new();
    // A number that is none passes nothing.
    if row.ds_q_r.is_nan() || row.ds_q_r > profile.ds_median_max {
        why.push(Dropped::TooFar);
    }
    if !row.converges(profile) {
        why.push(Dropped::NotConvergent);
    }
    if row.reason.is_some() {
        why.push(Dropped::Degenerate);
    }
    why
}
