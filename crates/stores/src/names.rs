//! Names of tables and columns as a policy writes them, in the quoting of SQL.

/// How one engine reads names that are not quoted.
pub(crate) struct Names {
    /// What ends such a name.
    pub(crate) ends: &'static [char],
    /// What the engine makes of it, such as lower case.
    pub(crate) fold: fn(&str) -> String,
}

impl Names {
    /// One name and what follows it, without the blanks around it. Quotes are doubled inside quotes.
    pub(crate) fn one<'a>(&self, text: &'a str) -> Option<(String, &'a str)> {
        let text = text.trim_start();
        let (name, rest) = if let Some(inside) = text.strip_prefix('"') {
            quoted(inside)?
        } else {
            let end = text.find(self.ends).unwrap_or(text.len());
            ((self.fold)(text.get(..end)?.trim_end()), text.get(end..)?)
        };
        (!name.is_empty() && !name.contains('\0')).then_some((name, rest.trim_start()))
    }

    /// The names of `(name, name)`, if the text is this and nothing more.
    pub(crate) fn list(&self, text: &str) -> Option<Vec<String>> {
        let mut rest = text.strip_prefix('(')?;
        let mut names = Vec::new();
        loop {
            let (name, after) = self.one(rest)?;
            names.push(name);
            match after.strip_prefix(',') {
                Some(more) => rest = more,
                None => return after.strip_prefix(')')?.trim().is_empty().then_some(names),
            }
        }
    }
}

/// A name after its opening quote, and what follows its closing one.
fn quoted(inside: &str) -> Option<(String, &str)> {
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
