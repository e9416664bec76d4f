//! Reading values out of the parsed TOML without losing their place, and collecting every problem on the way.

use std::ops::Range;

use lifeboat_base::human::printable;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::keys::Key;
use crate::model::Written;
use crate::problem::Severity;
use crate::suggest;
use crate::value::InvalidValue;

/// A problem before its place is turned into a line and a column.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) at: Range<usize>,
    pub(crate) code: &'static str,
    pub(crate) severity: Severity,
    pub(crate) message: String,
    pub(crate) help: String,
    /// True when the problem is that something is not there; a syntax error elsewhere may be why.
    pub(crate) absence: bool,
}

/// A key that is not there, is there but wrong (already reported), or has a value.
#[derive(Debug, Clone)]
pub(crate) enum Field<T> {
    Absent,
    Broken,
    Set(T, Range<usize>),
}

impl<T> Field<T> {
    pub(crate) fn value(self) -> Option<T> {
        match self {
            Self::Set(value, _) => Some(value),
            Self::Absent | Self::Broken => None,
        }
    }
}

/// Everything found so far, and where lines start.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) found: Vec<Found>,
    /// Places whose text may be a secret.
    pub(crate) secrets: Vec<Range<usize>>,
    line_starts: Vec<usize>,
}

impl Context {
    pub(crate) fn new(text: &str) -> Self {
        let line_starts =
            std::iter::once(0).chain(text.match_indices('\n').map(|(index, _)| index + 1)).collect();
        Self { found: Vec::new(), secrets: Vec::new(), line_starts }
    }

    /// The line of a byte, from 1.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    pub(crate) fn error(
        &mut self,
        code: &'static str,
        at: &Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.push(Severity::Error, code, at, message.into(), help.into(), false);
    }

    /// An error about something that is not there.
    pub(crate) fn absent(
        &mut self,
        code: &'static str,
        at: &Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.push(Severity::Error, code, at, message.into(), help.into(), true);
    }

    /// An error whose place holds what may be a secret; `message` must not repeat it.
    pub(crate) fn secret(
        &mut self,
        code: &'static str,
        at: &Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.secrets.push(at.clone());
        self.push(Severity::Error, code, at, message.into(), help.into(), false);
    }

    pub(crate) fn warning(
        &mut self,
        code: &'static str,
        at: &Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.push(Severity::Warning, code, at, message.into(), help.into(), false);
    }

    pub(crate) fn invalid(&mut self, code: &'static str, at: &Range<usize>, error: &InvalidValue) {
        self.error(code, at, error.to_string(), error.help());
    }

    fn push(
        &mut self,
        severity: Severity,
        code: &'static str,
        at: &Range<usize>,
        message: String,
        help: String,
        absence: bool,
    ) {
        let message = printable(&message);
        let help = printable(&help);
        self.found.push(Found { at: at.clone(), code, severity, message, help, absence });
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.found.iter().any(|found| found.severity == Severity::Error)
    }

    pub(crate) fn written<T>(&self, value: T, at: Range<usize>) -> Written<T> {
        Written { value, line: self.line(at.start), at }
    }
}

/// A section of the file: its dotted name, the place of that name, and its entries.
#[derive(Debug, Clone)]
pub(crate) struct Section<'a> {
    pub(crate) name: String,
    pub(crate) at: Range<usize>,
    /// False when something stands there that is not a table, which has been reported.
    pub(crate) readable: bool,
    entries: Option<&'a DeTable<'a>>,
}

impl<'a> Section<'a> {
    pub(crate) fn root(entries: &'a DeTable<'a>) -> Self {
        Self { name: String::new(), at: 0..0, readable: true, entries: Some(entries) }
    }

    /// What to call this section in a message.
    pub(crate) fn title(&self) -> String {
        if self.name.is_empty() { "the policy".to_owned() } else { format!("`{}`", self.name) }
    }

    /// Every entry: name, place of the name, value.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'a str, Range<usize>, &'a Spanned<DeValue<'a>>)> {
        self.entries
            .into_iter()
            .flat_map(DeTable::iter)
            .map(|(key, value)| (key.get_ref().as_ref(), key.span(), value))
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.entries().find(|(name, _, _)| *name == key).map(|(_, _, value)| value)
    }

    /// The place of a key's name; the section's own place when it is not there.
    pub(crate) fn key_at(&self, key: &str) -> Range<usize> {
        self.entries().find(|(name, _, _)| *name == key).map_or(self.at.clone(), |(_, at, _)| at)
    }

    /// Reports every entry whose name is not in `known`.
    pub(crate) fn refuse_unknown(&self, known: &[&Key], context: &mut Context) {
        self.refuse_unless(known, known, context);
    }

    /// Reports every entry whose name is not in `known`, and suggests one of `better`.
    pub(crate) fn refuse_unless(&self, known: &[&Key], better: &[&Key], context: &mut Context) {
        let names: Vec<&str> = better.iter().map(|key| key.name).collect();
        for (name, at, _) in self.entries() {
            if !known.iter().any(|key| key.name == name) {
                let help = suggest::help(name, &names, &format!("{} can have", self.title()));
                context.error("unknown-key", &at, format!("unknown key `{name}` in {}", self.title()), help);
            }
        }
    }

    /// A table below this one; absent and broken ones are empty.
    pub(crate) fn table(&self, key: &str, context: &mut Context) -> Section<'a> {
        let name = if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) };
        let (readable, entries) = match self.get(key).map(|value| (value.get_ref(), value.span())) {
            None => (true, None),
            Some((DeValue::Table(table), _)) => (true, Some(table)),
            Some((other, at)) => {
                wrong_type(&name, "a table, such as `{ key = \"value\" }`", other, &at, context);
                (false, None)
            }
        };
        Section { name, at: self.key_at(key), readable, entries }
    }

    pub(crate) fn text(&self, key: &str, context: &mut Context) -> Field<&'a str> {
        let Some(value) = self.get(key) else { return Field::Absent };
        match value.get_ref() {
            DeValue::String(text) if text.contains('\0') => {
                context.error(
                    "wrong-value",
                    &value.span(),
                    format!("`{key}` holds a zero byte"),
                    "remove it",
                );
                Field::Broken
            }
            DeValue::String(text) => Field::Set(text.as_ref(), value.span()),
            other => wrong(key, "text in quotes", other, &value.span(), context),
        }
    }

    /// A text that is not empty.
    pub(crate) fn filled(&self, key: &str, context: &mut Context) -> Field<&'a str> {
        match self.text(key, context) {
            Field::Set(text, at) if text.trim().is_empty() => {
                context.error(
                    "empty-value",
                    &at,
                    format!("`{key}` is empty"),
                    "write a value or remove the key",
                );
                Field::Broken
            }
            other => other,
        }
    }

    pub(crate) fn switch(&self, key: &str, context: &mut Context) -> Field<bool> {
        let Some(value) = self.get(key) else { return Field::Absent };
        match value.get_ref() {
            DeValue::Boolean(on) => Field::Set(*on, value.span()),
            other => wrong(key, "`true` or `false`", other, &value.span(), context),
        }
    }

    pub(crate) fn integer(&self, key: &str, context: &mut Context) -> Field<i64> {
        let Some(value) = self.get(key) else { return Field::Absent };
        match value.get_ref() {
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Field::Set(number, value.span()),
                Err(_too_large) => {
                    context.error(
                        "wrong-value",
                        &value.span(),
                        format!("`{key}` is too large"),
                        "write a smaller number",
                    );
                    Field::Broken
                }
            },
            other => wrong(key, "a whole number", other, &value.span(), context),
        }
    }

    /// A list of texts, each with its place.
    pub(crate) fn texts(&self, key: &str, context: &mut Context) -> Field<Vec<(&'a str, Range<usize>)>> {
        let Some(value) = self.get(key) else { return Field::Absent };
        let DeValue::Array(items) = value.get_ref() else {
            return wrong(key, "a list of texts in brackets", value.get_ref(), &value.span(), context);
        };
        let mut texts = Vec::new();
        let mut whole = true;
        for item in items {
            match item.get_ref() {
                DeValue::String(text) if !text.trim().is_empty() && !text.contains('\0') => {
                    texts.push((text.as_ref(), item.span()));
                }
                DeValue::String(_) => {
                    context.error(
                        "empty-value",
                        &item.span(),
                        format!("`{key}` has an empty entry"),
                        "remove it",
                    );
                    whole = false;
                }
                other => {
                    wrong_type(key, "text in quotes", other, &item.span(), context);
                    whole = false;
                }
            }
        }
        if whole { Field::Set(texts, value.span()) } else { Field::Broken }
    }

    /// A text parsed into a value.
    pub(crate) fn parsed<T>(
        &self,
        key: &str,
        code: &'static str,
        context: &mut Context,
        parse: impl FnOnce(&str) -> Result<T, InvalidValue>,
    ) -> Field<T> {
        match self.filled(key, context) {
            Field::Absent => Field::Absent,
            Field::Broken => Field::Broken,
            Field::Set(text, at) => match parse(text) {
                Ok(value) => Field::Set(value, at),
                Err(error) => {
                    context.invalid(code, &at, &error);
                    Field::Broken
                }
            },
        }
    }
}

fn wrong<T>(
    key: &str,
    expected: &str,
    value: &DeValue<'_>,
    at: &Range<usize>,
    context: &mut Context,
) -> Field<T> {
    wrong_type(key, expected, value, at, context);
    Field::Broken
}

fn wrong_type(key: &str, expected: &str, value: &DeValue<'_>, at: &Range<usize>, context: &mut Context) {
    let found = match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "a switch",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    context.error("wrong-type", at, format!("`{key}` is {found}"), format!("write {expected}"));
}
