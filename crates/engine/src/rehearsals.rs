//! The record of a drill as a whole, and what is handed over about it.
//!
//! Each store's part is a record of its own, which the matrix is judged by. The record of the whole holds the rest and names
//! those by number, so that nothing is said twice and no record grows with the number of stores.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use lifeboat_base::apart::servers;
use lifeboat_base::digest::Digest;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{ApplicationName, StoreName};
use lifeboat_base::monitor::Finding;
use lifeboat_drill::{Answers, DrillReport, DrillVerdict, Environment, Forecast, Past, StoreDrill};
use lifeboat_evidence::{BundleSummary, Chain, Filter, Page, Record};
use serde::Deserialize;
use serde_json::Value;

use crate::context::{Engine, TOOL};
use crate::error::EngineError;
use crate::journal::evidence;

const KIND: &str = "rehearsal";
/// Older ones were on another machine, or of another store than it is now.
const FORETELLING_DRILLS: u32 = 30;
/// What was timed: an application, what it was then, and a path.
pub(crate) type Timed = (ApplicationName, Digest, String);

/// The newest drill, in place of the name of one.
const LAST: &str = "last";

impl Engine {
    /// Files what is not in the records of the stores, which are filed already.
    pub(crate) fn file_rehearsal(&self, report: &mut DrillReport) -> Result<(), EngineError> {
        // What a check of a cache shows of differences may name keys.
        let mut told = report.clone();
        told.replays.iter_mut().flat_map(|store| &mut store.checks).for_each(|check| check.detail.clear());
        let unsaid = |error| Failure::with_source(FailureKind::Internal, "failed to write the report", error);
        let mut body = serde_json::to_value(&told).map_err(unsaid)?;
        if let Value::Object(fields) = &mut body {
            fields.remove("stores");
            fields.remove("evidence");
            fields.insert("ok".to_owned(), Value::Bool(report.verdict == DrillVerdict::Passed));
        }
        let filed = self.append(KIND, report.id.as_str(), body)?;
        self.catalog()?.set_last_evidence(filed.seq).map_err(Failure::from)?;
        report.evidence = Some(format!("evidence:{}", filed.seq));
        Ok(())
    }

    /// How long a restore of `bytes` of a store will take, as its last drills foretell.
    pub(crate) fn forecast(&self, store: &StoreName, bytes: u64) -> Result<Option<Forecast>, EngineError> {
        let times = self.catalog()?.restore_times(store, FORETELLING_DRILLS).map_err(Failure::from)?;
        let past: Vec<Past> = times.into_iter().map(|(bytes, seconds)| Past { bytes, seconds }).collect();
        Ok(lifeboat_drill::forecast(&past, bytes))
    }

    /// How long answers took in the newest drill that recorded each of those `wanted`. A record that cannot be read may have been one:
    /// that is a finding, and no reason not to drill.
    pub(crate) fn baselines(
        &self,
        mut wanted: BTreeSet<Timed>,
        findings: &mut Vec<Finding>,
    ) -> Result<BTreeMap<Timed, f64>, EngineError> {
        let mut found = BTreeMap::new();
        if wanted.is_empty() {
            return Ok(found);
        }
        for stored in Chain::open(&self.evidence_dir()).map_err(evidence)?.iter().rev() {
            if wanted.is_empty() {
                break;
            }
            let told = stored.map_err(evidence).and_then(|stored| recorded(stored.record));
            let answers = told.unwrap_or_else(|error| {
                let message = format!("a record that may hold a baseline cannot be read: {}", error.chain());
                findings.push(Finding::new("drill.baseline", "evidence", message));
                Vec::new()
            });
            for Answers { application, subject, path, p95_ms, .. } in answers {
                let of = (application, subject, path);
                if let Some(p95_ms) = p95_ms
                    && wanted.remove(&of)
                {
                    found.insert(of, p95_ms);
                }
            }
        }
        Ok(found)
    }

    pub(crate) fn environment(&self) -> Environment {
        Environment {
            tool: TOOL.to_owned(),
            platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            servers_alone: Some(servers().are_alone()),
            timezone: self.policy.timezone.iana_name().unwrap_or("UTC").to_owned(),
            policy: self.policy_hash(),
        }
    }

    /// Writes what was filed about one drill, and pages about it, as a bundle an outsider can verify offline. `which` is its
    /// id, or `last`. A place that ends in `.tar` becomes one file.
    pub fn export_drill(&self, which: &str, out: &Path) -> Result<BundleSummary, EngineError> {
        let (number, report) = self.filed_drill(which)?;
        let pages = lifeboat_report::pages(&report).map_err(|error| {
            Failure::with_source(FailureKind::Internal, "failed to make the report", error)
        })?;
        let pages: Vec<Page> = pages
            .into_iter()
            .map(|page| Page { name: page.name.to_owned(), bytes: page.text.into_bytes() })
            .collect();
        let numbers = report.records.iter().copied().chain([number]).collect();
        self.export(out, &Filter { numbers, ..Filter::default() }, &pages)
    }

    /// A drill as it was filed, every part of it authentic, and the number of the record of the whole.
    fn filed_drill(&self, which: &str) -> Result<(u64, DrillReport), EngineError> {
        let chain = Chain::open(&self.evidence_dir()).map_err(evidence)?;
        let found = if which == LAST {
            chain
                .iter()
                .rev()
                .find(|record| record.as_ref().map_or(true, |stored| stored.record.kind == KIND))
        } else {
            chain.find(KIND, which).next()
        };
        let Some(found) = found else {
            let what = if which == LAST {
                "no drill was filed yet".to_owned()
            } else {
                format!("no drill `{which}` was filed")
            };
            return Err(EngineError::new(FailureKind::Usage, what)
                .next("`lifeboat evidence show` lists the records; `lifeboat drill --all` makes one"));
        };
        let Record { seq, body, .. } = found.map_err(evidence)?.record;
        let numbers: Vec<u64> = body
            .get("records")
            .and_then(Value::as_array)
            .map(|numbers| numbers.iter().filter_map(Value::as_u64).collect())
            .unwrap_or_default();
        let mut stores = Vec::new();
        for number in numbers {
            let record = chain.get(number).map_err(evidence)?.record;
            if let Some(store) = record.body.get("store") {
                stores.push(
                    serde_json::from_value::<StoreDrill>(store.clone())
                        .map_err(|error| unreadable(number, error))?,
                );
            }
        }
        let report = serde_json::from_value(body).map_err(|error| unreadable(seq, error))?;
        Ok((seq, DrillReport { stores, evidence: Some(format!("evidence:{seq}")), ..report }))
    }
}

/// The answers that a record makes the baseline; none if it makes none.
fn recorded(record: Record) -> Result<Vec<Answers>, Failure> {
    let Record { seq, kind, body, .. } = record;
    let is_baseline = body.get("baseline").and_then(Value::as_bool) == Some(true);
    match body.get("answers").filter(|_| kind == KIND && is_baseline) {
        Some(answers) => Vec::deserialize(answers).map_err(|error| unreadable(seq, error)),
        None => Ok(Vec::new()),
    }
}

fn unreadable(number: u64, error: serde_json::Error) -> Failure {
    Failure::with_source(
        FailureKind::Damaged,
        format!("record {number} holds no report this version reads"),
        error,
    )
}
