//! Names inside SQL: quoted here and nowhere else. Also the form of a `unique` promise in a policy.

use crate::names::Names;

/// `name` as a quoted identifier; every name is valid inside quotes.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `table(column, column)`, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UniqueSpec {
    pub(crate) table: String,
    pub(crate) columns: Vec<String>,
}

/// SQLite compares names without regard to case, so they stay as they are written.
const NAMES: Names = Names { ends: &['(', ')', ',', '"'], fold: str::to_owned };

impl UniqueSpec {
    /// Names may be quoted with `"`, doubled inside. Nothing if `text` does not have this form.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (table, rest) = NAMES.one(text)?;
        Some(Self { table, columns: NAMES.list(rest)? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_and_quoted_names_are_understood() {
        let spec = |table: &str, columns: &[&str]| {
            let columns = columns.iter().map(|&column| column.to_owned()).collect();
            Some(UniqueSpec { table: table.to_owned(), columns })
        };
        assert_eq!(UniqueSpec::parse("orders(order_no)"), spec("orders", &["order_no"]));
        assert_eq!(UniqueSpec::parse(" orders ( a , b ) "), spec("orders", &["a", "b"]));
        assert_eq!(UniqueSpec::parse(r#""odd (""x"")"("a,b", c)"#), spec(r#"odd ("x")"#, &["a,b", "c"]));
        for bad in ["orders", "orders(", "orders()", "(a)", "orders(a) or 1=1", "orders(a", "orders(a,)", ""]
        {
            assert_eq!(UniqueSpec::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_name_survives_quoting(table in "[^\0]{1,20}", column in "[^\0]{1,20}") {
            let text = format!("{}({})", quoted(&table), quoted(&column));
            prop_assert_eq!(UniqueSpec::parse(&text), Some(UniqueSpec { table, columns: vec![column] }));
        }
    }
}
