//! Pages about a drill, for people: HTML with charts, Markdown, tables for spreadsheets.
//!
//! In: a drill's report. Out: text. Everything is made from the report alone and in the same order, so that the same report
//! gives the same bytes. Names and messages come from stores and may be hostile: every page escapes what it shows.

mod chart;
mod controls;
mod gaps;
mod html;
mod markdown;
mod table;
mod view;

use lifeboat_drill::DrillReport;

/// A page and the name it goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Such as `report.html`.
    pub name: &'static str,
    /// UTF-8.
    pub text: String,
}

/// Why a page could not be made.
#[derive(Debug, thiserror::Error)]
#[error("failed to make {page}")]
pub struct ReportError {
    page: &'static str,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl ReportError {
    fn of<E: Into<Box<dyn std::error::Error + Send + Sync>>>(page: &'static str) -> impl Fn(E) -> Self {
        move |source| Self { page, source: source.into() }
    }
}

/// Every page about a drill. Memory is that of the pages: a few times the report.
pub fn pages(report: &DrillReport) -> Result<Vec<Rendered>, ReportError> {
    let view = view::View::of(report)?;
    let mut json = serde_json::to_string_pretty(report).map_err(ReportError::of("report.json"))?;
    json.push('\n');
    Ok(vec![
        Rendered { name: "report.html", text: html::page(&view)? },
        Rendered { name: "report.md", text: markdown::page(&view)? },
        Rendered { name: "report.json", text: json },
        Rendered { name: "stores.csv", text: table::stores(report)? },
        Rendered { name: "checks.csv", text: table::checks(report)? },
        Rendered { name: "timeline.csv", text: table::timeline(report)? },
    ])
}
