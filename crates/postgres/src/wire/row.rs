//! Rows of the simple protocol, in text format.
//!
//! In: the body of a row message. Out: values as text, with the names of their columns. Each row owns its bytes, so
//! that keeping one row does not keep the read buffer alive.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{DataRowBody, RowDescriptionBody};

use super::error::PgError;

/// What a row costs beyond its text; counted against limits so that many empty rows do not escape them.
const OVERHEAD_BYTES: usize = 96;

/// One row; the values are what `psql` would show.
#[derive(Clone, PartialEq, Eq)]
pub struct Row {
    columns: Arc<[String]>,
    text: Box<str>,
    values: Box<[Option<Range<usize>>]>,
}

impl Row {
    /// The value of column `index`, counted from 0; nothing for NULL and for a column that is not there.
    pub fn get(&self, index: usize) -> Option<&str> {
        self.text.get(self.values.get(index)?.clone()?)
    }

    /// The value of the first column called `name`; nothing for NULL and for a column that is not there.
    pub fn by_name(&self, name: &str) -> Option<&str> {
        self.get(self.columns.iter().position(|column| column == name)?)
    }

    /// The names of the columns; two may be equal.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// How many values the row has.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether it has no column at all.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// About how much memory it takes.
    pub(super) fn footprint_bytes(&self) -> usize {
        OVERHEAD_BYTES + self.text.len() + self.values.len() * size_of::<Option<Range<usize>>>()
    }

    pub(super) fn read(columns: &Arc<[String]>, body: &DataRowBody) -> Result<Self, PgError> {
        let mut text = String::with_capacity(body.buffer().len());
        let mut values = Vec::with_capacity(columns.len());
        let mut ranges = body.ranges();
        while let Some(range) = ranges.next().map_err(|_malformed| MALFORMED)? {
            let Some(range) = range else {
                values.push(None);
                continue;
            };
            let bytes = body.buffer().get(range).ok_or(MALFORMED)?;
            let value = str::from_utf8(bytes).map_err(|_invalid| NOT_UTF_8)?;
            let start = text.len();
            text.push_str(value);
            values.push(Some(start..text.len()));
        }
        if values.len() != columns.len() {
            return Err(PgError::Protocol { what: "a row has other columns than were announced" });
        }
        Ok(Self { columns: Arc::clone(columns), text: text.into(), values: values.into() })
    }
}

const MALFORMED: PgError = PgError::Protocol { what: "a malformed row" };
/// We ask for UTF-8, and PostgreSQL checks what it sends, also from a database without an encoding.
const NOT_UTF_8: PgError = PgError::Protocol { what: "a value that is not UTF-8" };

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values are the user's data and do not belong in a log.
        f.debug_struct("Row").field("columns", &self.columns).finish_non_exhaustive()
    }
}

/// The names of the columns that follow.
pub(super) fn read_columns(body: &RowDescriptionBody) -> Result<Arc<[String]>, PgError> {
    let mut names = Vec::new();
    let mut fields = body.fields();
    while let Some(field) = fields
        .next()
        .map_err(|_malformed| PgError::Protocol { what: "a malformed description of columns" })?
    {
        names.push(field.name().to_owned());
    }
    Ok(names.into())
}
