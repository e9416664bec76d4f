//! Names inside SQL: quoted here and nowhere else. Also the form of a `unique` promise in a policy.

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

impl UniqueSpec {
    /// Names may be quoted with `"`, doubled inside. Nothing if `text` does not have this form.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (table, rest) = name(text)?;
        let mut rest = rest.strip_prefix('(')?;
        let mut columns = Vec::new();
        loop {
            let (column, after) = name(rest)?;
            columns.push(column);
            match after.strip_prefix(',') {
                Some(more) => rest = more,
                None => return after.strip_prefix(')')?.trim().is_empty().then_some(Self { table, columns }),
            }
        }
    }
}

/// One name and what follows it, without the blanks around it.
fn name(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start();
    let (name, rest) = if let Some(inside) = text.strip_prefix('"') {
        quoted_name(inside)?
    } else {
        let end = text.find(['(', ')', ',', '"'])?;
        (text.get(..end)?.trim_end().to_owned(), text.get(end..)?)
    };
    (!name.is_empty() && !name.contains('\0')).then_some((name, rest.trim_start()))
}

/// A name after its opening quote, and what follows its closing one.
fn quoted_name(inside: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = inside;
    loop {
        let (part, after) = rest.split_once('"')?;
        name.push_str(part);
        match after.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, after)),
        }
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
