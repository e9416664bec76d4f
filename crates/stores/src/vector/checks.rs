//! Holds a restored index against its manifest, the list of its records and what its owner declares: the manifest first, then
//! how much there is, then record by record in both directions, then the vectors as a whole.

use std::io::{BufReader, Read};
use std::path::Path;

use lifeboat_base::capture::{CaptureFacts, META, RestoreSource};
use lifeboat_base::digest::Digest;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Monitor;
use lifeboat_base::path::RelPath;
use lifeboat_probe::{
    Declared, Difference, IndexManifest, Leaf, MAX_MANIFEST_BYTES, Profile, VectorFault, differences,
};

use super::adapter::VectorOptions;
use super::capture::MANIFEST;
use super::place::{declared, take_stock};
use super::records::{Lines, RECORDS};
use super::stock::Taken;
use crate::adapter::CheckResult;
use crate::tally::{Tally, failed, not_applicable};

/// The manifest is the signed one, holds by itself, and says what was found.
pub(crate) const MANIFEST_CHECK: &str = "vector.manifest";
/// Every line is a record, every id stands once, and the list of records is the signed one.
pub(crate) const RECORDS_CHECK: &str = "vector.records";
const COUNT: &str = "vector.count";
const MISSING: &str = "vector.missing";
const EXTRA: &str = "vector.extra";
const CHANGED: &str = "vector.changed";
/// Length, norms and numbers of the vectors.
pub(crate) const VECTORS: &str = "vector.vectors";
const CONTRACT: &str = "vector.contract";

/// Fields that may differ between a point and the index as it is declared today: the texts went on.
const MOVES_ON: [&str; 1] = ["corpus_rev"];
/// Fields that follow from others.
const FOLLOWS: [&str; 2] = ["config_hash", "INDEX_HASH"];

/// A restored index and everything it is held against.
pub(crate) struct Subject<'a> {
    pub(crate) options: &'a VectorOptions,
    pub(crate) from: &'a dyn RestoreSource,
    pub(crate) facts: &'a CaptureFacts,
    pub(crate) restored: &'a Path,
    pub(crate) monitor: &'a dyn Monitor,
}

/// The manifest of a point, and whether it is the signed one.
pub(crate) struct Kept {
    pub(crate) manifest: Result<IndexManifest, String>,
    pub(crate) is_signed: bool,
}

impl Subject<'_> {
    pub(crate) fn checks(&self) -> Result<Vec<CheckResult>, Failure> {
        self.monitor.phase("taking stock of the restored index", self.facts.counts.get("bytes").copied());
        let taken = take_stock(self.restored, None, self.monitor, &mut |_record| Ok(()))?;
        let kept = self.kept()?;
        let mut results =
            vec![self.manifest(&kept, &taken)?, self.contract(&kept, &taken), self.count(&taken)];
        results.extend(self.records(&taken)?);
        results.push(vectors(&kept, &taken));
        Ok(results)
    }

    /// The manifest as the point has it.
    pub(crate) fn kept(&self) -> Result<Kept, Failure> {
        let expected = self.facts.checksums.get("manifest").map(String::as_str).unwrap_or_default();
        let text = match self.from.open(&below(MANIFEST)?) {
            Ok(reader) => {
                let mut text = Vec::new();
                reader
                    .take(MAX_MANIFEST_BYTES as u64 + 1)
                    .read_to_end(&mut text)
                    .map_err(|error| Failure::io("failed to read the manifest of the index", error))?;
                text
            }
            Err(error) if error.kind() == FailureKind::Refused => {
                return Ok(Kept { manifest: Err("the point has no manifest".to_owned()), is_signed: false });
            }
            Err(error) => return Err(error),
        };
        let is_signed = format!("sha256:{}", Digest::of(&text)) == expected;
        let manifest = String::from_utf8(text)
            .map_err(|error| error.to_string())
            .and_then(|text| IndexManifest::from_json(&text).map_err(|error| error.to_string()));
        Ok(Kept { manifest, is_signed })
    }

    fn manifest(&self, kept: &Kept, taken: &Taken) -> Result<CheckResult, Failure> {
        const EXPECTED: &str = "the signed manifest, which says what is there";
        let manifest = match &kept.manifest {
            Ok(manifest) => manifest,
            Err(why) => return Ok(failed(MANIFEST_CHECK, EXPECTED, why.as_str())),
        };
        let mut tally = Tally::default();
        if !kept.is_signed {
            tally.add(|| "manifest: it is not the one that was signed".to_owned());
        }
        let differing = self.differing(manifest, taken)?;
        let fields: Vec<&str> = differing.iter().map(|difference| difference.field.as_str()).collect();
        for difference in &differing {
            tally.add(|| told(difference));
        }
        let measured = match fields.as_slice() {
            [] => format!("INDEX_HASH {}", manifest.index_hash),
            fields => format!("other {}", fields.join(", ")),
        };
        Ok(tally.result(MANIFEST_CHECK, measured, EXPECTED))
    }

    /// Fields in which what was found is not what the manifest says, the row's metric among them.
    pub(crate) fn differing(
        &self,
        manifest: &IndexManifest,
        taken: &Taken,
    ) -> Result<Vec<Difference>, Failure> {
        let found = as_found(manifest).manifest(&taken.sorted.report, taken.files())?;
        let mut list = differences(manifest, &found)?;
        let (expected, row) = (manifest.contract.metric, self.options.metric);
        if expected != row {
            list.insert(0, Difference::new("metric", expected.word(), row.word()));
        }
        Ok(list)
    }

    /// Fields in which the index is declared differently today, without those that may. `Unreachable` where nobody declares it
    /// any more.
    pub(crate) fn redeclared(
        &self,
        manifest: &IndexManifest,
        taken: &Taken,
        may: &[&str],
    ) -> Result<Vec<Difference>, Failure> {
        let now = declared(&self.options.contract)?;
        let then = as_found(manifest).manifest(&taken.sorted.report, Vec::new())?;
        let list = differences(&then, &now.manifest(&taken.sorted.report, Vec::new())?)?;
        let stays = |difference: &Difference| {
            let field = difference.field.as_str();
            !may.contains(&field) && !FOLLOWS.contains(&field)
        };
        Ok(list.into_iter().filter(stays).collect())
    }

    /// An index that is read by another contract than it was built by answers nonsense.
    fn contract(&self, kept: &Kept, taken: &Taken) -> CheckResult {
        const EXPECTED: &str = "the contract of today";
        let manifest = match &kept.manifest {
            Ok(manifest) => manifest,
            Err(why) => return failed(CONTRACT, EXPECTED, why.as_str()),
        };
        let list = match self.redeclared(manifest, taken, &MOVES_ON) {
            Ok(list) => list,
            // After a loss it may be gone with everything else.
            Err(failure) if failure.kind() == FailureKind::Unreachable => {
                return not_applicable(CONTRACT, EXPECTED, failure.chain());
            }
            Err(failure) => return failed(CONTRACT, EXPECTED, failure.chain()),
        };
        let mut tally = Tally::default();
        for difference in &list {
            tally.add(|| told(difference));
        }
        let fields: Vec<&str> = list.iter().map(|difference| difference.field.as_str()).collect();
        let measured =
            if fields.is_empty() { "the same".to_owned() } else { format!("other {}", fields.join(", ")) };
        tally.result(CONTRACT, measured, EXPECTED)
    }

    fn count(&self, taken: &Taken) -> CheckResult {
        let mut tally = Tally::default();
        let counts = taken.sorted.report.counts;
        let mut found = vec![
            ("docs".to_owned(), counts.docs),
            ("chunks".to_owned(), counts.chunks),
            ("vectors".to_owned(), counts.vectors),
        ];
        found.extend(
            taken.shards.iter().map(|shard| (format!("records/{}", shard.name), shard.records_count)),
        );
        let promised = &self.facts.counts;
        let gone = promised.keys().filter(|name| name.starts_with("records/"));
        let gone = gone.filter(|name| !found.iter().any(|(other, _)| other == *name));
        for name in gone {
            tally.add(|| format!("{name}: there is no such shard"));
        }
        for (name, count) in &found {
            let expected = promised.get(name).copied();
            if expected != Some(*count) {
                let expected = expected.map_or_else(|| "none".to_owned(), |count| count.to_string());
                tally.add(|| format!("{name}: {count}, captured {expected}"));
            }
        }
        let expected = ["docs", "chunks", "vectors"].map(|name| {
            let count = promised.get(name).map_or_else(|| "?".to_owned(), u64::to_string);
            format!("{count} {name}")
        });
        let measured = format!("{} docs, {} chunks, {} vectors", counts.docs, counts.chunks, counts.vectors);
        tally.result(COUNT, measured, expected.join(", "))
    }

    /// Record by record, with the list as the point has it.
    fn records(&self, taken: &Taken) -> Result<Vec<CheckResult>, Failure> {
        let expected = self.facts.checksums.get("records").map(String::as_str).unwrap_or_default();
        let mut comparison = Comparison::default();
        let mut list = Tally::default();
        for fault in &taken.faults.named {
            list.add(|| fault.clone());
        }
        match self.from.open(&below(RECORDS)?) {
            Ok(reader) => {
                let mut lines = Lines::new(BufReader::new(reader));
                match comparison.run(&mut lines, &taken.sorted.leaves, self.monitor)? {
                    Some(why) => list.add(|| why),
                    None if format!("sha256:{}", lines.digest()) != expected => {
                        list.add(|| "the list of records is not the one that was signed".to_owned());
                    }
                    None => {}
                }
            }
            Err(error) if error.kind() == FailureKind::Refused => list.add(|| error.chain()),
            Err(error) => return Err(error),
        }
        let records = taken.sorted.leaves.len();
        let measured = format!("{records} records, {} lines that are none", taken.faults.count);
        let list = list.result(RECORDS_CHECK, measured, "records only, each once, and their signed list");
        let Comparison { missing, extra, changed } = comparison;
        let count = |tally: &Tally| tally.count().to_string();
        let (lost, more, other) = (count(&missing), count(&extra), count(&changed));
        Ok(vec![
            list,
            missing.result(MISSING, lost, "0"),
            extra.result(EXTRA, more, "0"),
            changed.result(CHANGED, other, "0"),
        ])
    }
}

#[derive(Default)]
struct Comparison {
    missing: Tally,
    extra: Tally,
    changed: Tally,
}

impl Comparison {
    /// Merges both sides, which are in the order of ids. Gives the reason if the list could not be followed to its end.
    fn run<R: Read>(
        &mut self,
        lines: &mut Lines<BufReader<R>>,
        leaves: &[Leaf],
        monitor: &dyn Monitor,
    ) -> Result<Option<String>, Failure> {
        let mut found = leaves.iter().peekable();
        loop {
            if monitor.cancelled() {
                return Err(Failure::new(FailureKind::Refused, "the comparison was cancelled"));
            }
            let expected = match lines.next_leaf()? {
                Ok(Some(expected)) => expected,
                Ok(None) => break,
                Err(why) => return Ok(Some(why)),
            };
            while let Some(leaf) = found.next_if(|leaf| leaf.id < expected.id) {
                self.extra.add(|| leaf.id.to_string());
            }
            match found.next_if(|leaf| leaf.id == expected.id) {
                None => self.missing.add(|| expected.id.to_string()),
                Some(leaf) => self.compare(&expected, leaf),
            }
        }
        for leaf in found {
            self.extra.add(|| leaf.id.to_string());
        }
        Ok(None)
    }

    fn compare(&mut self, expected: &Leaf, found: &Leaf) {
        let mut wrong = Vec::new();
        if expected.corpus != found.corpus {
            wrong.push("text, section or place");
        }
        if expected.vector != found.vector {
            wrong.push("vector");
        }
        if !wrong.is_empty() {
            self.changed.add(|| format!("{}: {}", found.id, wrong.join(" and ")));
        }
    }
}

fn vectors(kept: &Kept, taken: &Taken) -> CheckResult {
    const EXPECTED: &str = "vectors as the contract says";
    let manifest = match &kept.manifest {
        Ok(manifest) => manifest,
        Err(why) => return failed(VECTORS, EXPECTED, why.as_str()),
    };
    if manifest.counts.chunks == 0 && taken.sorted.leaves.is_empty() {
        return not_applicable(VECTORS, EXPECTED, "the index is empty, and was when it was captured");
    }
    let report = &taken.sorted.report.vectors;
    let mut tally = Tally::default();
    for fault in faults(manifest, taken) {
        tally.add(|| format!("{}: {fault:?}", fault.field()));
    }
    let dim = report.dim.unwrap_or_default();
    let (mean, deviation) = (report.norm_mean, report.norm_deviation);
    let measured = format!("{} of {dim} components, norms {mean:.4} +- {deviation:.4}", report.count);
    tally.result(VECTORS, measured, EXPECTED)
}

/// What is wrong with the vectors that were found.
pub(crate) fn faults(manifest: &IndexManifest, taken: &Taken) -> Vec<VectorFault> {
    let (contract, report) = (&manifest.contract, &taken.sorted.report);
    let chunks = report.counts.chunks;
    report.vectors.faults(contract.dim, contract.metric, contract.norm, chunks, &Profile::default())
}

fn told(difference: &Difference) -> String {
    format!("{}: expected {}, found {}", difference.field, cut(&difference.expected), cut(&difference.found))
}

/// A list of shards would fill the page.
fn cut(text: &str) -> String {
    const LONGEST: usize = 160;
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// What a manifest declares, without what was counted.
fn as_found(manifest: &IndexManifest) -> Declared {
    Declared {
        schema: Declared::SCHEMA.to_owned(),
        index_family: manifest.index_family.clone(),
        colour: manifest.colour.clone(),
        contract: manifest.contract.clone(),
        rerank_conf: manifest.rerank_conf.clone(),
        corpus_rev: manifest.corpus_rev.clone(),
        contracts: manifest.contracts.clone(),
        build_ts: manifest.build_ts.clone(),
        tool_versions: manifest.tool_versions.clone(),
    }
}

pub(crate) fn below(name: &str) -> Result<RelPath, Failure> {
    RelPath::new(Path::new(META).join(name))
        .map_err(|error| Failure::with_source(FailureKind::Internal, "failed to name an entry", error))
}
