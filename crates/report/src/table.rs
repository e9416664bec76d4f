//! Tables for spreadsheets: one row per store, per check, per stage.

use lifeboat_base::human::spreadsheet;
use lifeboat_drill::{CheckOutcome, DrillReport};

use crate::ReportError;
use crate::view::state;

struct Table {
    page: &'static str,
    writer: csv::Writer<Vec<u8>>,
}

impl Table {
    fn new(page: &'static str, header: &[&str]) -> Result<Self, ReportError> {
        let terminator = csv::Terminator::CRLF;
        let writer = csv::WriterBuilder::new().terminator(terminator).from_writer(Vec::new());
        let mut table = Self { page, writer };
        table.row(header.iter().map(|text| (*text).to_owned()))?;
        Ok(table)
    }

    fn row(&mut self, cells: impl IntoIterator<Item = String>) -> Result<(), ReportError> {
        let cells: Vec<String> = cells.into_iter().map(|cell| spreadsheet(&cell).into_owned()).collect();
        self.writer.write_record(cells).map_err(ReportError::of(self.page))
    }

    fn finish(self) -> Result<String, ReportError> {
        let bytes =
            self.writer.into_inner().map_err(|error| ReportError::of(self.page)(error.to_string()))?;
        String::from_utf8(bytes).map_err(ReportError::of(self.page))
    }
}

fn number(value: Option<f64>) -> String {
    value.map(|value| format!("{value:.3}")).unwrap_or_default()
}

pub(crate) fn stores(report: &DrillReport) -> Result<String, ReportError> {
    let mut table = Table::new(
        "stores.csv",
        &[
            "store",
            "verdict",
            "point",
            "copy",
            "shows",
            "lag_s",
            "rto_s",
            "rto_target_s",
            "rpo_s",
            "rpo_target_s",
            "bytes",
        ],
    )?;
    for store in &report.stores {
        table.row([
            store.name.to_string(),
            store.verdict.word().to_owned(),
            store.point.to_string(),
            store.copy.to_string(),
            store.shows.to_string(),
            number(store.lag_s.map(|lag| lag.max(0.0))),
            number(store.rto_s),
            number(store.rto_target_s),
            number(Some(store.rpo_s)),
            number(store.rpo_target_s),
            store.bytes.to_string(),
        ])?;
    }
    for store in &report.replays {
        let (none, name) = (String::new, store.name.to_string());
        let (took, target) = (number(store.rto_s), number(store.rto_target_s));
        table.row([
            name,
            store.verdict.word().to_owned(),
            none(),
            none(),
            none(),
            none(),
            took,
            target,
            none(),
            none(),
            none(),
        ])?;
    }
    table.finish()
}

pub(crate) fn checks(report: &DrillReport) -> Result<String, ReportError> {
    let header = ["store", "check", "state", "measured", "expected", "differences", "canary_caught"];
    let mut table = Table::new("checks.csv", &header)?;
    let of = |store: &str, checks: &[CheckOutcome]| -> Vec<(String, CheckOutcome)> {
        checks.iter().map(|check| (store.to_owned(), check.clone())).collect()
    };
    let stores = report.stores.iter().flat_map(|store| of(store.name.as_str(), &store.checks));
    let replays = report.replays.iter().flat_map(|store| of(store.name.as_str(), &store.checks));
    for (store, check) in stores.chain(replays).chain(of("", &report.agreement)) {
        table.row([
            store,
            check.id.clone(),
            state(&check).to_owned(),
            check.measured,
            check.threshold,
            check.differences.to_string(),
            check.canary_caught.map(|caught| caught.to_string()).unwrap_or_default(),
        ])?;
    }
    table.finish()
}

pub(crate) fn timeline(report: &DrillReport) -> Result<String, ReportError> {
    let mut table = Table::new("timeline.csv", &["store", "stage", "started", "seconds", "ok"])?;
    for store in &report.stores {
        for stage in &store.stages {
            let started = stage.started.to_string();
            let cells = [
                store.name.to_string(),
                stage.stage.clone(),
                started,
                number(Some(stage.seconds)),
                stage.ok.to_string(),
            ];
            table.row(cells)?;
        }
    }
    table.finish()
}
