//! The one place in this crate that prints.

/// Prints one line for the person or the log that reads standard output.
#[expect(clippy::print_stdout, reason = "this program talks to a person on a terminal or in a CI log")]
pub(crate) fn say(line: &str) {
    println!("{line}");
}
