//! All pages about one drill.

use lifeboat_drill::DrillReport;

use crate::view::View;
use crate::{html, markdown, table};

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
    pub(crate) fn of<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        page: &'static str,
    ) -> impl Fn(E) -> Self {
        move |source| Self { page, source: source.into() }
    }
}

/// Every page about a drill. Memory is that of the pages: a few times the report.
pub fn pages(report: &DrillReport) -> Result<Vec<Rendered>, ReportError> {
    let view = View::of(report)?;
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
