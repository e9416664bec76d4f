//! What a pass locked in one copy, kept in the state folder for those who have no key.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use lifeboat_base::crashsafe;
use lifeboat_base::digest::Digest;
use lifeboat_base::failure::Failure;
use lifeboat_base::time::Timestamp;
use lifeboat_vault::storage::ObjectName;

/// The first word of the file.
const MAGIC: &str = "lifeboat.lock-table/v1";
/// More than ten million objects have.
const MAX_TABLE_BYTES: u64 = 1 << 31;

/// Until when each object of a copy was locked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    /// Whether the place protected all of them.
    pub(crate) hard: bool,
    /// The objects.
    pub(crate) objects: BTreeMap<ObjectName, Timestamp>,
}

impl Table {
    fn to_text(&self) -> String {
        let first = format!("{MAGIC} {}\n", if self.hard { "hard" } else { "soft" });
        let lines = self.objects.iter().map(|(name, until)| format!("{until} {name}\n"));
        std::iter::once(first).chain(lines).collect()
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let hard = match lines.next()?.strip_prefix(MAGIC)? {
            " hard" => true,
            " soft" => false,
            _ => return None,
        };
        let object = |line: &str| {
            let (until, name) = line.split_once(' ')?;
            Some((ObjectName::new(name).ok()?, until.parse().ok()?))
        };
        Some(Self { hard, objects: lines.map(object).collect::<Option<_>>()? })
    }

    /// Takes the place of an older one; gives the digest that the evidence chain vouches for.
    pub(crate) fn write(&self, path: &Path) -> Result<Digest, Failure> {
        let text = self.to_text();
        let folder = path.parent().unwrap_or(path);
        let written =
            crashsafe::create_dir_all(folder).and_then(|()| crashsafe::replace(path, text.as_bytes()));
        written.map_err(|error| Failure::io(format!("failed to write {}", path.display()), error))?;
        Ok(Digest::of(text.as_bytes()))
    }

    /// The one with this digest, or why it is not known what was locked.
    pub(crate) fn read(path: &Path, digest: &Digest) -> Result<Self, String> {
        let mut text = String::new();
        let read = fs::File::open(path)
            .and_then(|file| file.take(MAX_TABLE_BYTES).read_to_string(&mut text).map(drop));
        read.map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        if Digest::of(text.as_bytes()) != *digest {
            return Err(format!("{} is not what the last pass wrote", path.display()));
        }
        Self::parse(&text).ok_or_else(|| format!("{} is of another version", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_reads_back_and_an_altered_one_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shop/local");
        let name = |text: &str| ObjectName::new(text).unwrap();
        let objects = [
            (name("config"), "2027-03-01T02:00:00Z".parse().unwrap()),
            (name("lifeboat/points/pt-1.json"), "2027-04-01T02:00:00.25Z".parse().unwrap()),
        ];
        for hard in [true, false] {
            let table = Table { hard, objects: objects.clone().into() };
            let digest = table.write(&path).unwrap();
            assert_eq!(Table::read(&path, &digest), Ok(table.clone()));
            let shorter = Table { objects: objects[..1].iter().cloned().collect(), ..table };
            shorter.write(&path).unwrap();
            assert!(Table::read(&path, &digest).unwrap_err().contains("not what the last pass wrote"));
        }
        let digest = Digest::of(b"something else\n");
        crashsafe::replace(&path, b"something else\n").unwrap();
        assert!(Table::read(&path, &digest).unwrap_err().contains("version"));
        fs::remove_file(&path).unwrap();
        assert!(Table::read(&path, &digest).unwrap_err().contains("cannot be read"));
    }
}
