//! Passwords in a file of lines `host:port:database:user:password`, as `.pgpass` has them.
//!
//! In: the file, which only its owner may read, and what to connect to. Out: the first password that fits. A line too
//! many or too odd is passed over, as libpq does.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use lifeboat_base::secret::Secret;
use zeroize::Zeroizing;

use super::error::AuthFault;
use super::options::Host;
use lifeboat_net::is_exposed;

/// A file of passwords is not read beyond this.
const PASS_FILE_LIMIT_BYTES: u64 = 1024 * 1024;

/// The password for this login; nothing if no line fits.
pub(super) fn find(
    path: &Path,
    host: &Host,
    database: &str,
    user: &str,
) -> Result<Option<Secret<String>>, AuthFault> {
    let fault = |what, source: Option<io::Error>| AuthFault::PassFile {
        path: path.display().to_string(),
        what,
        source,
    };
    let unreadable = |error| fault("cannot be read", Some(error));
    let file = File::open(path).map_err(unreadable)?;
    if is_exposed(&file.metadata().map_err(unreadable)?) {
        return Err(fault("can be read by others; take that right away (chmod 600)", None));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(PASS_FILE_LIMIT_BYTES).read_to_string(&mut text).map_err(unreadable)?;
    let (name, port) = match host {
        Host::Tcp { name, port } => (name.clone(), port),
        Host::Unix { directory, port } => (directory.to_string_lossy().into_owned(), port),
    };
    let wanted = [name.as_str(), &port.to_string(), database, user];
    Ok(text.lines().find_map(|line| password(line, wanted)).map(Secret::new))
}

/// The password of a line that fits. A backslash makes `:` and `\` ordinary; a field `*` fits everything.
fn password(line: &str, wanted: [&str; 4]) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let mut rest = line;
    for wanted in wanted {
        let (field, after) = field(rest);
        let after = after?;
        let literal_star = rest.starts_with('*') && *field == "*";
        if !literal_star && *field != wanted {
            return None;
        }
        rest = after;
    }
    let (password, _) = field(rest);
    (!password.is_empty()).then(|| String::clone(&password))
}

/// One field, and what follows its colon if there is one.
fn field(text: &str) -> (Zeroizing<String>, Option<&str>) {
    let mut value = Zeroizing::new(String::with_capacity(text.len()));
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            ':' => return (value, text.get(at + 1..)),
            '\\' => value.extend(characters.next().map(|(_, next)| next)),
            character => value.push(character),
        }
    }
    (value, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_must_fit_in_every_field() {
        let wanted = ["db.example", "5432", "app", "us:er"];
        for (line, expected) in [
            (r"db.example:5432:app:us\:er:s3cret", Some("s3cret")),
            (r"*:*:*:*:a\:b\\c", Some(r"a:b\c")),
            (r"*:*:*:*:with:colon", Some("with")),
            (r"db.example:5433:app:us\:er:other", None),
            (r"\*:*:*:*:an escaped star is a name", None),
            ("db.example:5432:app", None),
            ("# *:*:*:*:comment", None),
            ("*:*:*:*:", None),
            ("", None),
        ] {
            assert_eq!(password(line, wanted).as_deref(), expected, "{line}");
        }
    }
}
