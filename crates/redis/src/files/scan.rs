//! A file of commands read through once: where its last whole command ends, and what it holds up to there.

use std::io::Read;

use lifeboat_base::digest::Hasher;

use crate::commands::{Command, CommandError, Scanner};

/// How much is read at a time.
pub(super) const PIECE_BYTES: usize = 256 * 1024;

/// What a file holds up to the last place where it may be cut.
pub(super) struct Scan {
    /// That place.
    pub(super) end: u64,
    /// How long the file was.
    pub(super) length: u64,
    /// Whole commands before it.
    pub(super) commands: u64,
    /// One more than the highest database that is selected before it.
    pub(super) databases: u64,
    /// The last time that a note tells, in seconds since 1970.
    pub(super) noted_s: Option<i64>,
    /// Everything up to it, behind what was there before.
    pub(super) hasher: Hasher,
}

/// Why it could not be read through.
pub(super) enum ScanError {
    Read(std::io::Error),
    Malformed(CommandError),
}

/// Reads to the end. `hasher` goes on with the bytes up to the place of the cut.
pub(super) fn scan(mut source: impl Read, hasher: Hasher) -> Result<Scan, ScanError> {
    let mut scanner = Scanner::of_file();
    // As of the last boundary, and as of everything read.
    let (mut safe, mut all) = (hasher.clone(), hasher);
    let (mut commands, mut closed, mut highest, mut safe_highest) = (0, 0, 0, 0);
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let count = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ScanError::Read(error)),
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        let (start, before) = (scanner.offset(), scanner.boundary());
        let mut visit = |command: &Command| {
            commands += 1;
            highest = highest.max(command.selects().unwrap_or_default());
            if command.closes {
                (closed, safe_highest) = (commands, highest);
            }
        };
        scanner.push(bytes, &mut visit).map_err(ScanError::Malformed)?;
        if scanner.boundary() > before {
            let until = usize::try_from(scanner.boundary() - start).unwrap_or(usize::MAX);
            let (whole, rest) = bytes.split_at_checked(until).unwrap_or((bytes, &[]));
            all.update(whole);
            safe = all.clone();
            all.update(rest);
        } else {
            all.update(bytes);
        }
    }
    Ok(Scan {
        end: scanner.boundary(),
        length: scanner.offset(),
        commands: closed,
        databases: safe_highest + 1,
        noted_s: scanner.noted_s(),
        hasher: safe,
    })
}

#[cfg(test)]
mod tests {
    use lifeboat_base::digest::Digest;

    use super::*;
    use crate::wire::encode;

    fn scanned(bytes: &[u8]) -> Option<Scan> {
        scan(bytes, Hasher::new()).ok()
    }

    #[test]
    fn a_file_is_cut_after_its_last_whole_command_and_never_inside_a_unit() {
        let words = |text: &str| encode(&text.split(' ').map(str::as_bytes).collect::<Vec<_>>());
        let whole = [words("SELECT 3"), words("SET a 1"), words("SET b 2")].concat();
        let unit = [words("MULTI"), words("SET c 3"), words("SET d 4")].concat();
        let all = [whole.clone(), unit.clone(), words("EXEC")].concat();
        for cut in whole.len()..all.len() {
            let found = scanned(&all[..cut]).unwrap();
            assert_eq!((found.end, found.length), (whole.len() as u64, cut as u64));
            assert_eq!((found.commands, found.databases), (3, 4));
            assert_eq!(found.hasher.finish(), Digest::of(&whole));
        }
        let found = scanned(&all).unwrap();
        assert_eq!((found.end, found.commands), (all.len() as u64, 7));
        assert_eq!(found.hasher.finish(), Digest::of(&all));
        assert!(scanned(&[whole.as_slice(), b"\0\0\0\0"].concat()).is_none());
    }

    #[test]
    fn notes_between_commands_are_kept_and_their_times_are_read() {
        let text = b"#TS:1700000000\r\n*1\r\n$4\r\nPING\r\n#TS:1700000005\r\n# any word\r\n*1\r\n$4\r\nPING\r\n#TS:17000";
        let found = scanned(text).unwrap();
        assert_eq!((found.commands, found.noted_s), (2, Some(1_700_000_005)));
        assert_eq!(found.end, (text.len() - b"#TS:17000".len()) as u64);
        // In a stream there are none.
        assert!(Scanner::new(0).push(b"#TS:1\r\n", &mut |_| ()).is_err());
    }

    #[test]
    fn a_large_file_is_summed_up_to_its_cut() {
        let value = vec![b'x'; 3 * PIECE_BYTES / 2];
        let one = encode(&[b"SET", b"a", &value]);
        let bytes = [one.clone(), one.clone(), one[..one.len() - 1].to_vec()].concat();
        let found = scanned(&bytes).unwrap();
        assert_eq!(found.hasher.finish(), Digest::of(&bytes[..2 * one.len()]));
    }
}
