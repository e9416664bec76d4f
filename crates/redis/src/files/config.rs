//! What a server's configuration says about its files. Everything else in it, passwords above all, is passed over.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::error::FilesError;

const NONBLOCK: i32 = OFlags::NONBLOCK.bits().cast_signed();
const LIMIT_BYTES: u64 = 1024 * 1024;

/// Names of files, and which of them are loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether the log is loaded; nothing if nobody has said.
    pub append_only: Option<bool>,
    /// The folder of the log in several files.
    pub append_dir: String,
    /// What names of its files begin with.
    pub append_name: String,
    /// The dump.
    pub dump_name: String,
    /// The number of databases; nothing if nobody has said.
    pub databases: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            append_only: None,
            append_dir: "appendonlydir".to_owned(),
            append_name: "appendonly.aof".to_owned(),
            dump_name: "dump.rdb".to_owned(),
            databases: None,
        }
    }
}

impl Settings {
    /// Reads a server's configuration; `dir` is the folder it must be about.
    pub fn read(path: &Path, dir: &Path) -> Result<Self, FilesError> {
        let name = path.display().to_string();
        let mut text = Zeroizing::new(String::new());
        // A pipe in its place is not waited for.
        let file = OpenOptions::new().read(true).custom_flags(NONBLOCK).open(path);
        let file = file.map_err(FilesError::io("open", &name))?;
        if !file.metadata().map_err(FilesError::io("look at", &name))?.is_file() {
            return Err(FilesError::Configuration { name, what: "is not a file" });
        }
        let read = file.take(LIMIT_BYTES + 1).read_to_string(&mut text);
        if read.map_err(FilesError::io("read", &name))? as u64 > LIMIT_BYTES {
            return Err(FilesError::Configuration { name, what: "is longer than 1 MiB, which is not read" });
        }
        Self::parse(&text, dir).map_err(|what| FilesError::Configuration { name, what })
    }

    fn parse(text: &str, dir: &Path) -> Result<Self, &'static str> {
        // What is not said is no by default; a file that says nothing is one too.
        let mut settings = Self { append_only: Some(false), databases: Some(16), ..Self::default() };
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            let Some((key, value)) = line.split_once([' ', '\t']) else { continue };
            let value = value.trim();
            let quoted = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            let quoted = quoted.or_else(|| value.strip_prefix('\'')?.strip_suffix('\''));
            let value = quoted.unwrap_or(value);
            let own = || value.to_owned();
            match key.to_ascii_lowercase().as_str() {
                "appendonly" => settings.append_only = Some(value.eq_ignore_ascii_case("yes")),
                "appenddirname" => settings.append_dir = own(),
                "appendfilename" => settings.append_name = own(),
                "dbfilename" => settings.dump_name = own(),
                "databases" => settings.databases = value.parse().ok(),
                "include" => {
                    return Err(
                        "includes another file, which is not read: name the one that says `appendonly`",
                    );
                }
                "dir" if elsewhere(Path::new(value), dir) => return Err("is about another folder"),
                _ => {}
            }
        }
        let names = [&settings.append_dir, &settings.append_name, &settings.dump_name];
        if names
            .iter()
            .any(|name| name.is_empty() || name.contains('/') || matches!(name.as_str(), "." | ".."))
        {
            return Err("gives a file a name that leads out of the folder");
        }
        Ok(settings)
    }
}

fn elsewhere(said: &Path, dir: &Path) -> bool {
    let real =
        |path: &Path| -> PathBuf { std::fs::canonicalize(path).unwrap_or_else(|_gone| path.to_owned()) };
    said.is_absolute() && real(said) != real(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_as_the_server_takes_it_and_the_last_word_counts() {
        let dir = Path::new("/var/lib/redis");
        let read = |text: &str| Settings::parse(text, dir).unwrap();
        assert_eq!(read("").append_only, Some(false));
        let text = "requirepass canary\nappendonly no\n# appendonly no\n  APPENDONLY yes\ndir /var/lib/redis\n\
                    appendfilename \"my.aof\"\nappenddirname 'logs'\ndbfilename my.rdb\ndatabases 40\n";
        let settings = read(text);
        assert_eq!((settings.append_only, settings.databases), (Some(true), Some(40)));
        assert_eq!((settings.append_dir.as_str(), settings.append_name.as_str()), ("logs", "my.aof"));
        assert_eq!(settings.dump_name, "my.rdb");
        assert!(!format!("{settings:?}").contains("canary"));
        for wrong in ["include /etc/more.conf", "dir /elsewhere", "dbfilename ../x", "appenddirname ."] {
            assert!(Settings::parse(wrong, dir).is_err(), "{wrong}");
        }
    }
}
