//! Gold sets of vector indexes: drafts, curation, baselines, and boards of the live index.

use std::collections::BTreeMap;

use lifeboat_base::failure::FailureKind;
use lifeboat_base::ids::StoreName;
use lifeboat_policy::{Source, Store};
use lifeboat_stores::{Boarded, CheckState, Meaning, VectorAdapter, WorstProbe};
use serde::Serialize;

use crate::backup::Collector;
use crate::context::Engine;
use crate::error::EngineError;

/// Probes that curation spells out.
const WORST_COUNT: usize = 10;

/// What `lifeboat probe` and its parts came to.
#[derive(Debug, Serialize)]
pub struct ProbeReport {
    /// `lifeboat.probe/v1`.
    pub schema: &'static str,
    /// The index.
    pub store: StoreName,
    /// `board`, `baseline`, `draft` or `curate`.
    pub action: &'static str,
    /// Whether it did what it is for.
    pub ok: bool,
    /// The folder of the gold set.
    pub gold: String,
    /// The live index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meaning: Option<Meaning>,
    /// Drafts and what they are of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drafted: Option<DraftView>,
    /// What was let in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub curated: Option<CurateView>,
}

/// What drafting came to.
#[derive(Debug, Serialize)]
pub struct DraftView {
    /// Questions.
    pub drafts: usize,
    /// Sections of the index.
    pub sections: usize,
    /// Whether the pinned embedder was fitted now.
    pub fitted: bool,
}

/// What curation came to.
#[derive(Debug, Serialize)]
pub struct CurateView {
    /// Questions that were let in.
    pub kept: u64,
    /// The others, with the reasons.
    pub dropped: BTreeMap<String, Vec<String>>,
    /// Questions that are far from their own anchor.
    pub far_from_anchor: Vec<String>,
    /// What the set lacks; it was frozen only if there is nothing.
    pub lacks: Vec<String>,
    /// The drafts that did worst.
    pub worst: Vec<WorstProbe>,
}

impl ProbeReport {
    /// The worst thing found.
    pub fn worst(&self) -> Option<FailureKind> {
        (!self.ok).then_some(FailureKind::Findings)
    }
}

impl Engine {
    /// Asks the live index its questions, and compares with the baseline.
    pub fn probe(&self, name: &StoreName) -> Result<ProbeReport, EngineError> {
        let (row, adapter, gold) = self.index(name)?;
        let monitor = Collector::new(self.observer.job(&format!("probe {}", row.name)));
        let boarded = adapter.board(&monitor).map_err(|failure| next_step(failure.into(), name))?;
        Ok(of_board(name, "board", gold, boarded))
    }

    /// Measures the board that later ones are compared with.
    pub fn probe_baseline(&self, name: &StoreName) -> Result<ProbeReport, EngineError> {
        let (row, adapter, gold) = self.index(name)?;
        let monitor = Collector::new(self.observer.job(&format!("probe {}", row.name)));
        let boarded = adapter.baseline(&monitor).map_err(|failure| next_step(failure.into(), name))?;
        Ok(of_board(name, "baseline", gold, boarded))
    }

    /// Drafts questions for a person to read.
    pub fn probe_draft(&self, name: &StoreName, count: usize) -> Result<ProbeReport, EngineError> {
        let (row, adapter, gold) = self.index(name)?;
        let monitor = Collector::new(self.observer.job(&format!("draft probes of {}", row.name)));
        let drafted = adapter.draft(count, &monitor)?;
        let view = DraftView {
            drafts: drafted.drafts_count,
            sections: drafted.sections_count,
            fitted: drafted.has_fitted,
        };
        let ok = view.drafts > 0;
        Ok(ProbeReport { drafted: Some(view), ok, ..empty(name, "draft", gold) })
    }

    /// Lets in the drafts that the live index answers, and freezes them.
    pub fn probe_curate(&self, name: &StoreName) -> Result<ProbeReport, EngineError> {
        let (row, adapter, gold) = self.index(name)?;
        let monitor = Collector::new(self.observer.job(&format!("curate probes of {}", row.name)));
        let curated = adapter.curate(&monitor).map_err(|failure| {
            EngineError::from(failure).next(format!("draft questions first: `lifeboat probe draft {name}`"))
        })?;
        let words = |why: &lifeboat_stores::Dropped| {
            serde_json::to_value(why)
                .ok()
                .and_then(|value| value.as_str().map(str::to_owned))
                .unwrap_or_default()
        };
        let dropped = curated.dropped.iter();
        let dropped = dropped.map(|(id, why)| (id.clone(), why.iter().map(words).collect())).collect();
        let mut worst: Vec<_> =
            curated.rows.iter().filter(|row| curated.dropped.contains_key(&row.probe_id)).collect();
        worst.sort_by(|a, b| b.ds_q_r.total_cmp(&a.ds_q_r).then(a.probe_id.cmp(&b.probe_id)));
        let worst = worst.into_iter().take(WORST_COUNT).map(WorstProbe::of).collect();
        let ok = curated.lacks.is_empty();
        let view = CurateView {
            kept: curated.kept_count,
            dropped,
            far_from_anchor: curated.far_from_anchor,
            lacks: curated.lacks,
            worst,
        };
        Ok(ProbeReport { curated: Some(view), ok, ..empty(name, "curate", gold) })
    }

    /// The index of a row, and where its questions lie.
    fn index(&self, name: &StoreName) -> Result<(&Store, VectorAdapter, String), EngineError> {
        let row = self.store(name)?;
        let refused = |what: String| EngineError::new(FailureKind::Usage, what);
        let Source::Vector(index) = &row.source else {
            let what = format!("`{name}` is of kind `{}`; only a vector index is probed", row.kind.word());
            return Err(refused(what).next("name a row of kind `vector` that has an `engine`"));
        };
        let Some(gold) = &index.gold else {
            return Err(refused(format!("the row of `{name}` names no gold set"))
                .next("add `gold = \"./gold\"`, a folder outside the index"));
        };
        Ok((row, VectorAdapter::new(self.vector(index)), self.resolve(gold).display().to_string()))
    }
}

fn next_step(error: EngineError, name: &StoreName) -> EngineError {
    error.next(format!("`lifeboat probe draft {name}`, read the drafts, then `lifeboat probe curate {name}`"))
}

fn empty(name: &StoreName, action: &'static str, gold: String) -> ProbeReport {
    ProbeReport {
        schema: "lifeboat.probe/v1",
        store: name.clone(),
        action,
        ok: false,
        gold,
        meaning: None,
        drafted: None,
        curated: None,
    }
}

fn of_board(name: &StoreName, action: &'static str, gold: String, boarded: Boarded) -> ProbeReport {
    let ok = boarded.check.state == CheckState::Passed;
    ProbeReport { meaning: Some(boarded.meaning), ok, ..empty(name, action, gold) }
}
