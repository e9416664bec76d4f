//! The error every small value of the policy shares: what is wrong with it and what to write instead.

/// A text that is not the value it should be. `Display` is the reason alone; [`Self::help`] says what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct InvalidValue {
    why: String,
    help: String,
}

impl InvalidValue {
    /// A reason (a lowercase fragment) and a remedy.
    pub fn new(why: impl Into<String>, help: impl Into<String>) -> Self {
        Self { why: why.into(), help: help.into() }
    }

    /// What to write instead.
    pub fn help(&self) -> &str {
        &self.help
    }
}

/// Splits `12mo` into its number and unit; used by durations and retention alike.
pub(crate) fn number_and_unit(token: &str) -> (&str, &str) {
    let end = token.find(|c: char| !c.is_ascii_digit()).unwrap_or(token.len());
    token.split_at(end)
}
