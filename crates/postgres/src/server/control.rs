//! What a data directory's control file says, as the server's own `pg_controldata` reads it.
//!
//! The program, and not a reader of ours: the file's layout changes with every major version and build, the program's
//! labels in English have been stable over all versions we support, and it checks the file's checksum. It costs one
//! short process.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lifeboat_base::time::Clock;

use super::error::ServerError;
use super::installation::Installation;
use super::tool::run_tool;

/// How long the program may take; it reads one file of 8 KiB.
const CONTROL_LIMIT: Duration = Duration::from_secs(60);

/// Labels and values of the control file, such as `Database system identifier` or `Latest checkpoint's REDO location`.
///
/// Runs the program as ourselves, root included: it only reads. A control file that is damaged, or of another major version, is an error: the program itself only warns about the
/// first.
pub fn control_data(
    installation: &Installation,
    data: &Path,
    clock: &dyn Clock,
) -> Result<BTreeMap<String, String>, ServerError> {
    let mut command = Command::new(installation.program("pg_controldata"));
    command.arg("-D").arg(data).env_clear().env("LC_ALL", "C").env("TZ", "UTC").current_dir("/");
    let output = run_tool(command, CONTROL_LIMIT, clock)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let refuse = |message: &str| ServerError::Program {
        program: "pg_controldata".to_owned(),
        status: output.status.to_string(),
        message: message.to_owned(),
    };
    if text.contains("WARNING") || output.stderr.windows(7).any(|part| part.eq_ignore_ascii_case(b"warning"))
    {
        return Err(refuse("the control file is damaged or of another version"));
    }
    let values = parse(&text);
    if values.contains_key("Database system identifier") {
        Ok(values)
    } else {
        Err(refuse("its answer names no system identifier"))
    }
}

fn parse(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(label, value)| (label.trim().to_owned(), value.trim().to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_end_at_the_first_colon_and_values_keep_theirs() {
        let text = "pg_control version number:            1300\n\
                    Time of latest checkpoint:            Sat Nov 21 10:41:59 2026\n\nnoise\n";
        let values = parse(text);
        assert_eq!(values.get("pg_control version number").map(String::as_str), Some("1300"));
        assert_eq!(values["Time of latest checkpoint"], "Sat Nov 21 10:41:59 2026");
        assert_eq!(values.len(), 2);
    }
}
