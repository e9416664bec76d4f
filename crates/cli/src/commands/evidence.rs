//! Evidence: verify offline, hand over, look at.

use std::path::Path;

use lifeboat_base::failure::{Failure, FailureKind, chain};
use lifeboat_base::human::{count, printable};
use lifeboat_engine::evidence::{self, Chain, EvidenceError, Head, Problem};
use lifeboat_engine::keys::PublicKey;
use lifeboat_engine::{Engine, EngineError};
use serde::Serialize;
use serde_json::json;

use super::Outcome;
use crate::args::EvidenceAction;
use crate::output::Output;
use crate::show::{Page, plural};

/// A public key is one short line.
const MAX_KEY_TEXT_BYTES: usize = 4096;

/// The answer of a verification, for a chain and for a bundle.
#[derive(Serialize)]
struct Verified {
    schema: &'static str,
    what: &'static str,
    public_key: String,
    key_from_folder: bool,
    sound: bool,
    records: u64,
    omitted: u64,
    head: Option<Head>,
    problems: Vec<Problem>,
    problem_count: u64,
    /// Recovery points that another chain speaks of; only known where there is a policy.
    points_elsewhere: u64,
}

pub(super) fn run(engine: &Engine, action: &EvidenceAction, output: &Output) -> Outcome {
    match action {
        EvidenceAction::Verify { public_key, .. } => {
            let dir = engine.evidence_dir();
            let anchor = engine.evidence_anchor()?;
            let (key, own) = trusted(&dir, public_key.as_deref(), anchor)?;
            let mut report = evidence::verify(&dir, &key, anchor).map_err(failed)?;
            let (filed, end) = (engine.evidence_filed()?, report.head.map_or(0, |head| head.seq));
            if end < filed {
                report.problem_count += 1;
                report.problems.push(Problem {
                    seq: Some(filed),
                    file: "head.json".to_owned(),
                    kind: evidence::ProblemKind::Truncated,
                    message: format!("ends the chain with record {end}, but {filed} records were filed here"),
                });
            }
            let mut report = chain_report(report, &key, own);
            report.points_elsewhere = engine.made_elsewhere()?.map_or(0, |(count, _first)| count as u64);
            finish(report, output)
        }
        EvidenceAction::Export { drill, to } => {
            let summary = match drill {
                Some(drill) => engine.export_drill(drill, to)?,
                None => engine.export_evidence(to)?,
            };
            output.result(&summary, || {
                format!(
                    "{}: {} records up to number {}\ncheck it anywhere with `lifeboat evidence verify --dir {}`",
                    summary.path.display(),
                    count(summary.included),
                    summary.head.seq,
                    summary.path.display()
                )
            })?;
            Ok(None)
        }
        EvidenceAction::Show { record } => show(&engine.evidence_dir(), *record, output),
    }
}

/// Verifies a chain or a bundle without any policy.
pub(super) fn verify(dir: &Path, public_key: Option<&str>, output: &Output) -> Outcome {
    if dir.is_file() {
        let failed = |error| Failure::io("failed to make room for the bundle", error);
        let room = tempfile::tempdir().map_err(failed)?;
        evidence::unpack(dir, room.path()).map_err(self::failed)?;
        return verify(room.path(), public_key, output);
    }
    let (key, own) = trusted(dir, public_key, None)?;
    let verified = if dir.join("bundle.json").exists() {
        let report = evidence::verify_bundle(dir, &key).map_err(failed)?;
        Verified {
            schema: "lifeboat.evidence-verification/v1",
            what: "bundle",
            public_key: key.to_string(),
            key_from_folder: own,
            sound: report.is_sound(),
            records: report.included,
            omitted: report.omitted,
            head: report.head,
            problems: report.problems,
            problem_count: report.problem_count,
            points_elsewhere: 0,
        }
    } else {
        chain_report(evidence::verify(dir, &key, None).map_err(failed)?, &key, own)
    };
    finish(verified, output)
}

fn chain_report(report: evidence::VerifyReport, key: &PublicKey, own: bool) -> Verified {
    Verified {
        schema: "lifeboat.evidence-verification/v1",
        what: "chain",
        public_key: key.to_string(),
        key_from_folder: own,
        sound: report.is_sound(),
        records: report.records,
        omitted: 0,
        head: report.head,
        problems: report.problems,
        problem_count: report.problem_count,
        points_elsewhere: 0,
    }
}

fn finish(verified: Verified, output: &Output) -> Outcome {
    let damaged = !verified.sound;
    output.result(&verified, || page(&verified))?;
    Ok(damaged.then_some(FailureKind::Damaged))
}

fn page(verified: &Verified) -> String {
    let mut page = Page::new();
    let head = verified.head.map(|head| format!(", ending with number {}", head.seq)).unwrap_or_default();
    if verified.sound {
        page.line(format!("{} sound: {} records{head}", verified.what, count(verified.records)));
    } else {
        page.line(format!(
            "{} NOT SOUND: {} sound records, {} problems",
            verified.what,
            count(verified.records),
            count(verified.problem_count)
        ));
    }
    for problem in &verified.problems {
        page.line(format!("  ! {problem}"));
    }
    if verified.omitted > 0 {
        page.line(format!("{} records are listed by digest only", count(verified.omitted)));
    }
    if verified.points_elsewhere > 0 {
        page.line(format!(
            "{} were made under another chain, of which this one says nothing",
            plural(verified.points_elsewhere, "recovery point", "recovery points")
        ));
    }
    page.line(format!("public key {}", verified.public_key));
    if verified.key_from_folder {
        page.line(
            "this key came with the folder: compare it with the one you were given, or pass --public-key",
        );
    }
    page.finish()
}

/// The key to check with, and whether it came with the folder itself.
fn trusted(dir: &Path, given: Option<&str>, anchor: Option<Head>) -> Result<(PublicKey, bool), EngineError> {
    let Some(given) = given else {
        let key = Chain::open(dir).and_then(|chain| chain.public_key()).map_err(failed)?;
        let key = key.ok_or_else(|| match anchor {
            _ if dir.join("head.json").exists() || dir.join("records").exists() => {
                let what = format!("public.key is missing from {}", dir.display());
                EngineError::new(FailureKind::Damaged, what)
                    .next("pass the key you were given with --public-key")
            }
            Some(head) => EngineError::new(
                FailureKind::Damaged,
                format!("{} is gone: a recovery point names its record {}", dir.display(), head.seq),
            ),
            None => {
                EngineError::new(FailureKind::Refused, format!("there is no evidence in {}", dir.display()))
                    .next("name a chain or a bundle with --dir")
            }
        })?;
        return Ok((key, true));
    };
    if let Ok(key) = given.parse() {
        return Ok((key, false));
    }
    let text = std::fs::read(given)
        .map_err(|error| Failure::io(format!("failed to read the public key {given}"), error))?;
    let text = text.get(..MAX_KEY_TEXT_BYTES.min(text.len())).unwrap_or_default();
    let key = std::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok());
    let key =
        key.ok_or_else(|| EngineError::new(FailureKind::Usage, format!("{given} holds no public key")))?;
    Ok((key, false))
}

fn show(dir: &Path, wanted: Option<u64>, output: &Output) -> Outcome {
    let chain = Chain::open(dir).map_err(failed)?;
    let mut page = Page::new();
    let mut documents = Vec::new();
    let mut broken = false;
    for (seq, record) in (1u64..).zip(chain.iter()) {
        if wanted.is_some_and(|wanted| wanted != seq) {
            continue;
        }
        match record {
            Ok(stored) => {
                let record = stored.record;
                let ok = record.body.get("ok").and_then(serde_json::Value::as_bool);
                let state = ok.map_or("", |ok| if ok { "ok" } else { "not ok" });
                page.line(format!(
                    "{seq:>6}  {}  {:8}  {:20}  {state}",
                    record.at, record.kind, record.subject
                ));
                if wanted.is_some() {
                    page.raw(serde_json::to_string_pretty(&record.body).unwrap_or_default());
                }
                documents.push(json!({ "digest": stored.digest, "record": record }));
            }
            Err(error) => {
                broken = true;
                page.line(format!("{seq:>6}  {}", printable(&chain_text(&error))));
            }
        }
    }
    if documents.is_empty() && !broken {
        return Err(
            EngineError::new(FailureKind::Refused, "there is no such record").next("lifeboat evidence show")
        );
    }
    output.result(&json!({ "schema": "lifeboat.evidence-records/v1", "records": documents }), || {
        page.finish()
    })?;
    Ok(broken.then_some(FailureKind::Damaged))
}

fn chain_text(error: &EvidenceError) -> String {
    chain(error)
}

fn failed(error: EvidenceError) -> EngineError {
    let kind = error.kind();
    Failure::with_source(kind, "failed to read the evidence", error).into()
}
