//! Boards as files: CSV for evidence, lines of JSON for machines. The same board gives the same bytes.
//!
//! In: rows. Out: text with four decimals; cells that a spreadsheet would run as a formula are disarmed. Both forms are
//! read back, with or without Greek letters in the header.

use std::borrow::Cow;

use lifeboat_base::human::spreadsheet;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::ProbeError;
use crate::row::BoardRow;

/// The columns of a board, in their order.
pub const COLUMNS: [&str; 25] = [
    "probe_id",
    "question",
    "expected_section",
    "ΔS_q_r",
    "coverage",
    "λ_state",
    "citations",
    "index_family",
    "retriever_metric",
    "analyzer",
    "run_set",
    "ts",
    "INDEX_HASH",
    "rerank_conf",
    "embedder_id",
    "embedder_hash",
    "gold_version",
    "k",
    "conv",
    "flip_count",
    "ΔS_r_anchor",
    "ΔS_max",
    "ΔS_q_r_worst",
    "coverage_worst",
    "reason",
];

/// The most rows or lines that are read.
pub const MAX_ROWS_COUNT: usize = 100_000;

fn invalid(what: impl Into<String>) -> impl FnOnce(String) -> ProbeError {
    let what = what.into();
    move |why| ProbeError::Invalid { what, why }
}

/// The board as CSV.
pub fn to_csv(rows: &[BoardRow]) -> Result<String, ProbeError> {
    let failed = |why: String| ProbeError::invalid("a board", why);
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    writer.write_record(COLUMNS).map_err(|error| failed(error.to_string()))?;
    for row in rows {
        let value = serde_json::to_value(row).map_err(|error| failed(error.to_string()))?;
        let cells = COLUMNS.iter().map(|column| cell(value.get(*column)));
        writer.write_record(cells).map_err(|error| failed(error.to_string()))?;
    }
    let bytes = writer.into_inner().map_err(|error| failed(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| failed(error.to_string()))
}

fn cell(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => disarmed(text),
        None | Some(Value::Null) => String::new(),
        Some(Value::Number(number)) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(value) => format!("{value:.4}"),
            None => number.to_string(),
        },
        Some(other) => other.to_string(),
    }
}

/// Reads a board from CSV.
pub fn from_csv(text: &str) -> Result<Vec<BoardRow>, ProbeError> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let headers = reader.headers().map_err(|error| invalid("a board")(error.to_string()))?;
    let header: Vec<String> = headers.iter().map(column).map(Cow::into_owned).collect();
    if let Some(missing) = COLUMNS.iter().find(|column| !header.iter().any(|name| name == **column)) {
        return Err(invalid("a board")(format!("the column `{missing}` is missing")));
    }
    let mut rows = Vec::new();
    for (record, number) in reader.records().zip(1u64..) {
        let record =
            record.map_err(|error| invalid(format!("row {number} of a board"))(error.to_string()))?;
        if rows.len() >= MAX_ROWS_COUNT {
            return Err(ProbeError::TooMany { what: "the board".to_owned(), limit: MAX_ROWS_COUNT as u64 });
        }
        let fields: Result<Map<String, Value>, ProbeError> =
            header.iter().zip(&record).map(|(name, text)| Ok((name.clone(), value(name, text)?))).collect();
        let row = serde_json::from_value(Value::Object(fields?))
            .map_err(|error| invalid(format!("row {number} of a board"))(error.to_string()))?;
        rows.push(row);
    }
    Ok(rows)
}

/// The name of a column, written with Greek letters or without.
fn column(name: &str) -> Cow<'_, str> {
    let full = match name.trim() {
        "ds_q_r" => "ΔS_q_r",
        "lambda_state" => "λ_state",
        "ds_r_anchor" => "ΔS_r_anchor",
        "ds_max" => "ΔS_max",
        "ds_q_r_worst" => "ΔS_q_r_worst",
        "index_hash" => "INDEX_HASH",
        other => other,
    };
    Cow::Borrowed(full)
}

fn value(name: &str, text: &str) -> Result<Value, ProbeError> {
    let parsed = || {
        serde_json::from_str(text).map_err(|error| invalid(format!("the cell `{name}`"))(error.to_string()))
    };
    match name {
        "ΔS_q_r" | "coverage" | "k" | "conv" | "flip_count" | "ΔS_r_anchor" | "ΔS_max" | "ΔS_q_r_worst"
        | "coverage_worst" | "citations" => parsed(),
        "reason" if text.is_empty() => Ok(Value::Null),
        _ => Ok(Value::String(armed(text).to_owned())),
    }
}

/// Whether a spreadsheet would run a text once its apostrophes are gone.
fn is_formula(text: &str) -> bool {
    let bare = text.trim_start_matches('\'');
    spreadsheet(bare) != bare
}

/// A text that no spreadsheet runs; what looks disarmed already gets one apostrophe more, so that each text can be told.
fn disarmed(text: &str) -> String {
    if is_formula(text) { format!("'{text}") } else { text.to_owned() }
}

/// A text as it was before it was disarmed.
fn armed(text: &str) -> &str {
    text.strip_prefix('\'').filter(|_| is_formula(text)).unwrap_or(text)
}

/// Records as lines of JSON.
pub fn to_jsonl<T: Serialize>(records: &[T]) -> Result<String, ProbeError> {
    let mut text = String::new();
    for record in records {
        text.push_str(
            &serde_json::to_string(record).map_err(|error| invalid("a record")(error.to_string()))?,
        );
        text.push('\n');
    }
    Ok(text)
}

/// Reads lines of JSON; empty lines are skipped.
pub fn from_jsonl<T: DeserializeOwned>(text: &str) -> Result<Vec<T>, ProbeError> {
    let mut records = Vec::new();
    for (line, number) in text.lines().zip(1u64..).filter(|(line, _)| !line.trim().is_empty()) {
        if records.len() >= MAX_ROWS_COUNT {
            return Err(ProbeError::TooMany { what: "the file".to_owned(), limit: MAX_ROWS_COUNT as u64 });
        }
        let record = serde_json::from_str(line)
            .map_err(|error| invalid(format!("line {number}"))(error.to_string()))?;
        records.push(record);
    }
    Ok(records)
}
