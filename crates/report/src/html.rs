//! The page for a browser: one file, no scripts, nothing fetched.

use askama::Template;

use crate::ReportError;
use crate::view::View;

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    view: &'a View,
}

pub(crate) fn page(view: &View) -> Result<String, ReportError> {
    Page { view }.render().map_err(ReportError::of("report.html"))
}
