//! Pages about a drill, for people: HTML with charts, Markdown, tables for spreadsheets.
//!
//! In: a drill's report. Out: text. Everything is made from the report alone and in the same order, so that the same report
//! gives the same bytes. Names and messages come from stores and may be hostile: every page escapes what it shows.

mod chart;
mod controls;
mod gaps;
mod html;
mod markdown;
mod pages;
mod table;
mod view;

pub use pages::{Rendered, ReportError, pages};
