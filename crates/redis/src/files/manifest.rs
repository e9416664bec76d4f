//! The list of a log in several files, as a server of version 7 or later keeps it.

/// The longest list that is read, in bytes.
pub(super) const LIST_LIMIT_BYTES: u64 = 1024 * 1024;

/// The files that count, in the order in which they are loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct List {
    pub(super) base: Option<String>,
    pub(super) increments: Vec<String>,
}

/// A line that is wrong, from 1 (0 for the whole), and why.
pub(super) type Wrong = (usize, &'static str);

impl List {
    pub(super) fn parse(text: &str) -> Result<Self, Wrong> {
        let mut list = Self::default();
        let mut last = 0;
        if !text.is_empty() && !text.ends_with('\n') {
            return Err((text.lines().count(), "it ends in the middle of a line"));
        }
        for (index, line) in text.lines().enumerate() {
            let wrong = |what| (index + 1, what);
            if line.starts_with('#') {
                continue;
            }
            let (name, number, kind) = entry(line).map_err(wrong)?;
            if kind != "h" && list.names().any(|known| *known == name) {
                return Err(wrong("a file that was named before"));
            }
            match kind {
                "b" if list.base.is_none() => list.base = Some(name),
                "b" => return Err(wrong("a second base")),
                "i" if number > last => {
                    last = number;
                    list.increments.push(name);
                }
                "i" => return Err(wrong("increments out of order")),
                // What a rewrite has replaced and not yet removed.
                "h" => {}
                _ => return Err(wrong("a file of an unknown type")),
            }
        }
        if list.base.is_none() && list.increments.is_empty() {
            return Err((0, "it names no file"));
        }
        Ok(list)
    }

    /// All of them.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.base.iter().chain(&self.increments)
    }
}

/// `file NAME seq NUMBER type KIND`, in any order, with numbers of offsets in later versions.
fn entry(line: &str) -> Result<(String, u64, &str), &'static str> {
    let (mut name, mut number, mut kind) = (None, None, None);
    let mut words = line.split(' ').filter(|word| !word.is_empty());
    while let Some(key) = words.next() {
        let value = words.next().ok_or("a word without a value")?;
        match key {
            "file" => name = Some(value),
            "seq" => number = value.parse().ok().filter(|number| *number > 0),
            "type" => kind = Some(value),
            "startoffset" | "endoffset" => {}
            _ => return Err("a word that is not known here"),
        }
    }
    let (Some(name), Some(number), Some(kind)) = (name, number, kind) else {
        return Err("a file without name, number or type");
    };
    if name.contains(['"', '\\']) {
        return Err("a name that is written in quotes, which is not read here");
    }
    if name.contains('/') || matches!(name, "." | "..") {
        return Err("a name that leads out of the folder");
    }
    Ok((name.to_owned(), number, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_that_count_are_named_in_order() {
        let text = "file a.2.base.rdb seq 2 type b\nfile a.1.base.rdb seq 1 type h\n\
                    file a.3.incr.aof seq 3 type i startoffset 7 endoffset 9\nfile a.4.incr.aof seq 4 type i\n";
        let list = List::parse(text).unwrap();
        let names: Vec<_> = list.names().map(String::as_str).collect();
        assert_eq!(names, ["a.2.base.rdb", "a.3.incr.aof", "a.4.incr.aof"]);
    }

    #[test]
    fn every_wrong_list_is_refused_with_its_line() {
        for (text, line) in [
            ("", 0),
            ("# only a note\n", 0),
            ("file a seq 1 type h\n", 0),
            ("file a seq 1 type b\nfile b seq 2 type b\n", 2),
            ("file a seq 2 type i\nfile b seq 2 type i\n", 2),
            ("file a seq 2 type i\nfile a seq 3 type i\n", 2),
            ("file a seq 0 type i\n", 1),
            ("file a seq 1 type x\n", 1),
            ("file a seq 1\n", 1),
            ("file a seq 1 type\n", 1),
            ("file ../a seq 1 type b\n", 1),
            ("file .. seq 1 type b\n", 1),
            ("file \"a b\" seq 1 type b\n", 1),
            ("file a seq 1 type b\nfile b se", 2),
            ("file a seq 1 type b new 1\n", 1),
        ] {
            assert_eq!(List::parse(text).unwrap_err().0, line, "{text}");
        }
    }
}
