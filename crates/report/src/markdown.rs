//! The page for a wiki or a ticket.

use std::fmt;

use askama::Template;
use lifeboat_base::human;

use crate::ReportError;
use crate::view::View;

/// Keeps what is shown from being markup.
#[derive(Clone, Copy)]
pub(crate) struct Escaper;

impl askama::filters::Escaper for Escaper {
    fn write_escaped_str<W: fmt::Write>(&self, mut out: W, text: &str) -> fmt::Result {
        out.write_str(&human::markdown(text))
    }
}

#[derive(Template)]
#[template(path = "report.md")]
struct Page<'a> {
    view: &'a View,
}

pub(crate) fn page(view: &View) -> Result<String, ReportError> {
    Page { view }.render().map_err(ReportError::of("report.md"))
}
