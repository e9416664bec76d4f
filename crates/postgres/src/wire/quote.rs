//! Text as part of a statement, for what cannot be a parameter of the simple and the replication protocol.
//!
//! In: any text. Out: a literal or an identifier that reads back as that text. A NUL byte can be part of neither; the
//! connection refuses a statement that holds one.

/// `'text'` for SQL, right under either value of `standard_conforming_strings`: with a backslash in it, it becomes
/// ` E'…'`, the space being a guard against a word just before it.
pub fn quote_literal(text: &str) -> String {
    postgres_protocol::escape::escape_literal(text)
}

/// `'text'` for a replication command, whose grammar knows neither `E'…'` nor the backslash.
pub fn quote_replication_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// `"text"`, in SQL and in replication commands.
pub fn quote_identifier(text: &str) -> String {
    postgres_protocol::escape::escape_identifier(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_stay_inside() {
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal(r"a\'b"), r" E'a\\''b'");
        assert_eq!(quote_replication_literal(r"a\'b"), r"'a\''b'");
        assert_eq!(quote_identifier(r#"a"b"#), r#""a""b""#);
    }
}
