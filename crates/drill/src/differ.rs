//! What a target must not share with production: its secrets, and the addresses of its servers.
//!
//! In: the secrets and addresses that the policy names, as far as they are known here, and the folder everything was restored
//! into. Out: how much was looked through, and where one of them stands, by name and never by value. What restored data
//! holds is production's, so it may be there; that nothing run beside it could use it is the drill's affair.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::Path;

use aho_corasick::{AhoCorasick, MatchKind};
use lifeboat_base::crashsafe;
use lifeboat_base::digest::Digest;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Monitor;
use lifeboat_base::secret::Secret;
use serde::{Deserialize, Serialize};

/// Anything shorter stands everywhere by chance.
const MIN_BYTES: usize = 6;
/// Places that are named, of each thing.
const NAMED_PLACES: usize = 5;
/// Bytes that are read at once.
const BUFFER_BYTES: usize = 1024 * 1024;
/// A file that has to be found for the search to count, and how far in it what is looked for stands: across two buffers.
const CANARY: &str = "canary";
const CANARY_OFFSET: usize = BUFFER_BYTES - 3;

/// One thing that must not be there.
#[derive(Clone, Debug)]
pub struct Telltale {
    /// What it is, for people: the place of a secret, the address of a server.
    pub what: String,
    /// Every form it may stand in.
    pub forms: Vec<Secret<Vec<u8>>>,
}

/// Everything that is looked for.
#[derive(Clone, Debug, Default)]
pub struct Telltales {
    /// What is known here.
    pub known: Vec<Telltale>,
    /// What the policy names and nobody here knows.
    pub unknown: Vec<String>,
}

/// Where something of production was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// What.
    pub what: String,
    /// The file, below the sandbox: its first folder is the store.
    pub file: String,
}

/// What the search came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MustDiffer {
    /// How many things were looked for.
    pub looked_for: usize,
    /// What could not be looked for, since nobody here knows it or it is too short to tell.
    pub unlooked: Vec<String>,
    /// Files that were read.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// What was seen, the first places of each.
    pub seen: Vec<Sighting>,
    /// Whether the search found what was planted for it.
    pub canary_caught: bool,
}

/// Searches everything below `sandbox`; `scratch` is an empty folder of it.
pub(crate) fn search(
    telltales: &Telltales,
    sandbox: &Path,
    (scratch, monitor): (&Path, &dyn Monitor),
) -> Result<MustDiffer, Failure> {
    let mut found = MustDiffer { unlooked: telltales.unknown.clone(), ..MustDiffer::default() };
    // The name of the sandbox is random: no restored data holds its digest by chance. A word in it could be somebody's secret,
    // which would be found in its place.
    let name = sandbox.file_name().unwrap_or_default();
    let planted = Digest::of(name.as_encoded_bytes()).to_string();
    let mut forms: Vec<&[u8]> = vec![planted.as_bytes()];
    let mut names: Vec<&str> = vec![CANARY];
    for telltale in &telltales.known {
        let before = forms.len();
        for form in telltale.forms.iter().map(|form| form.expose().as_slice()) {
            if form.len() >= MIN_BYTES {
                forms.push(form);
                names.push(&telltale.what);
            }
        }
        if forms.len() == before {
            found.unlooked.push(format!("{} (too short to tell)", telltale.what));
        } else {
            found.looked_for += 1;
        }
    }
    let searcher = AhoCorasick::builder()
        .match_kind(MatchKind::Standard)
        // Names of hosts are the same in capitals.
        .ascii_case_insensitive(true)
        .build(&forms)
        .map_err(|error| {
            Failure::with_source(FailureKind::Internal, "failed to prepare the search for secrets", error)
        })?;
    let searcher = Searcher { searcher, names };
    let mut content = vec![b'.'; CANARY_OFFSET];
    content.extend_from_slice(planted.as_bytes());
    let canary = scratch.join(CANARY);
    crashsafe::write_new(&canary, &content).map_err(|error| read_failed(&canary, error))?;
    found.canary_caught = searcher.names_in(&canary)?.0.contains(&CANARY);
    crashsafe::remove(&canary).map_err(|error| read_failed(&canary, error))?;
    searcher.tree(sandbox, monitor, &mut found)?;
    Ok(found)
}

struct Searcher<'a> {
    searcher: AhoCorasick,
    /// What each form is a form of.
    names: Vec<&'a str>,
}

impl Searcher<'_> {
    fn tree(&self, sandbox: &Path, monitor: &dyn Monitor, found: &mut MustDiffer) -> Result<(), Failure> {
        let mut left = vec![sandbox.to_owned()];
        while let Some(folder) = left.pop() {
            if monitor.cancelled() {
                return Err(Failure::new(FailureKind::Refused, "stopped on request"));
            }
            let entries = fs::read_dir(&folder).map_err(|error| read_failed(&folder, error))?;
            for entry in entries {
                let entry = entry.map_err(|error| read_failed(&folder, error))?;
                let path = entry.path();
                let kind = entry.file_type().map_err(|error| read_failed(&path, error))?;
                if kind.is_dir() {
                    left.push(path);
                } else if kind.is_file() {
                    let (names, bytes) = self.names_in(&path)?;
                    found.files += 1;
                    found.bytes += bytes;
                    let file = path.strip_prefix(sandbox).unwrap_or(&path).display().to_string();
                    for name in names.into_iter().filter(|name| *name != CANARY) {
                        let named = found.seen.iter().filter(|seen| seen.what == name).count();
                        if named < NAMED_PLACES {
                            found.seen.push(Sighting { what: name.to_owned(), file: file.clone() });
                        }
                    }
                }
            }
        }
        found.seen.sort_by(|left, right| (&left.what, &left.file).cmp(&(&right.what, &right.file)));
        Ok(())
    }

    /// What stands in a file, each once, and its size.
    fn names_in(&self, path: &Path) -> Result<(Vec<&str>, u64), Failure> {
        let file = File::open(path).map_err(|error| read_failed(path, error))?;
        let bytes = file.metadata().map_err(|error| read_failed(path, error))?.len();
        let mut names: Vec<&str> = Vec::new();
        for seen in self.searcher.stream_find_iter(BufReader::with_capacity(BUFFER_BYTES, file)) {
            let seen = seen.map_err(|error| read_failed(path, error))?;
            let name = self.names.get(seen.pattern().as_usize()).copied().unwrap_or_default();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Ok((names, bytes))
    }
}

fn read_failed(path: &Path, error: io::Error) -> Failure {
    Failure::io(format!("failed to look for secrets in {}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use lifeboat_base::monitor::Findings;

    use super::*;

    fn telltale(what: &str, forms: &[&str]) -> Telltale {
        let forms = forms.iter().map(|form| Secret::new(form.as_bytes().to_vec())).collect();
        Telltale { what: what.to_owned(), forms }
    }

    fn searched(files: &[(&str, Vec<u8>)], known: Vec<Telltale>) -> MustDiffer {
        let sandbox = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = sandbox.path().join(name);
            crashsafe::create_dir_all(path.parent().unwrap()).unwrap();
            crashsafe::write_new(&path, content).unwrap();
        }
        let scratch = sandbox.path().join("scratch");
        crashsafe::create_dir_all(&scratch).unwrap();
        let unknown = vec!["env:NOT_HERE".to_owned()];
        search(&Telltales { known, unknown }, sandbox.path(), (&scratch, &Findings::new())).unwrap()
    }

    #[test]
    fn what_stands_anywhere_is_seen_and_named_without_its_value() {
        let mut late = vec![b'x'; 3 * BUFFER_BYTES - 5];
        late.extend_from_slice(b"hunter2-canary and more");
        let files = [
            ("uploads/config/.env", b"PASSWORD=hunter2-canary\n".to_vec()),
            ("orders/data/1", late),
            ("orders/data/2", b"nothing".to_vec()),
        ];
        let known = vec![
            telltale("the password of `orders`", &["hunter2-canary"]),
            telltale("db.internal", &["db.internal:5432"]),
        ];
        let found = searched(&files, known);
        let seen: Vec<_> = found.seen.iter().map(|seen| (seen.what.as_str(), seen.file.as_str())).collect();
        let what = "the password of `orders`";
        assert_eq!(seen, [(what, "orders/data/1"), (what, "uploads/config/.env")]);
        assert_eq!((found.looked_for, found.files, found.canary_caught), (2, 3, true));
        assert_eq!(found.unlooked, ["env:NOT_HERE"]);
        assert!(!serde_json::to_string(&found).unwrap().contains("hunter2"));
    }

    #[test]
    fn what_is_too_short_to_tell_is_said_and_nothing_is_found_by_chance() {
        let found = searched(&[("a", b"abc abc".to_vec())], vec![telltale("a pin", &["abc"])]);
        assert_eq!(found.unlooked, ["env:NOT_HERE", "a pin (too short to tell)"]);
        assert_eq!((found.seen.len(), found.looked_for, found.canary_caught), (0, 0, true));
    }

    #[test]
    fn a_secret_that_is_a_word_of_ours_hides_no_canary() {
        let found = searched(&[("a", b"nothing".to_vec())], vec![telltale("a token", &["canary"])]);
        assert!(found.canary_caught && found.seen.is_empty(), "{found:?}");
    }

    #[test]
    fn many_places_are_named_in_part() {
        let files: Vec<(String, Vec<u8>)> =
            (0..9).map(|n| (format!("f{n}"), b"hunter2-canary".to_vec())).collect();
        let files: Vec<(&str, Vec<u8>)> =
            files.iter().map(|(name, content)| (name.as_str(), content.clone())).collect();
        assert_eq!(searched(&files, vec![telltale("x", &["hunter2-canary"])]).seen.len(), NAMED_PLACES);
    }
}
