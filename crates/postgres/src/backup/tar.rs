//! Headers of the tar format as PostgreSQL writes it: ustar, names of at most 99 bytes, sizes in octal or base 256.

use super::error::BackupError;

/// The unit of the format.
pub(super) const BLOCK_BYTES: usize = 512;

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TarKind {
    File,
    Dir,
    Link(String),
}

/// One header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TarHeader {
    /// Relative, without a slash at either end.
    pub(super) name: String,
    pub(super) kind: TarKind,
    pub(super) size_bytes: u64,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime_s: i64,
}

/// Reads a header; nothing for the zero blocks at the end of an archive.
pub(super) fn parse(block: &[u8; BLOCK_BYTES]) -> Result<Option<TarHeader>, BackupError> {
    if block.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let sum: u64 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) })
        .sum();
    if number(&block[148..156]) != Some(sum) {
        return Err(BackupError::stream("a tar header has a wrong checksum"));
    }
    // A prefix would make a name longer than the server ever writes.
    if block[345] != 0 {
        return Err(BackupError::stream("a tar header has a name in two parts"));
    }
    let name = text(&block[..100])?;
    let name = name.strip_prefix("./").unwrap_or(&name).trim_end_matches('/').to_owned();
    let kind = match block[156] {
        b'0' | 0 => TarKind::File,
        b'5' => TarKind::Dir,
        b'2' => TarKind::Link(text(&block[157..257])?),
        other => return Err(BackupError::stream(format!("a tar entry is of the unknown kind {other}"))),
    };
    let (Some(size_bytes), Some(mode), Some(mtime)) =
        (number(&block[124..136]), number(&block[100..108]), number(&block[136..148]))
    else {
        return Err(BackupError::stream("a tar header holds a malformed number"));
    };
    let size_bytes = if kind == TarKind::File { size_bytes } else { 0 };
    let owner = |field: &[u8]| number(field).and_then(|id| u32::try_from(id).ok()).unwrap_or_default();
    Ok(Some(TarHeader {
        name,
        kind,
        size_bytes,
        mode: u32::try_from(mode & 0o7777).unwrap_or_default(),
        uid: owner(&block[108..116]),
        gid: owner(&block[116..124]),
        mtime_s: i64::try_from(mtime).unwrap_or_default(),
    }))
}

fn text(field: &[u8]) -> Result<String, BackupError> {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let text = field.get(..end).and_then(|bytes| str::from_utf8(bytes).ok());
    text.map(str::to_owned).ok_or_else(|| BackupError::stream("a name in the tar stream is not UTF-8"))
}

/// A number in octal text, or in base 256 if the first bit is set.
fn number(field: &[u8]) -> Option<u64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let start = u64::from(first & 0x7F);
        return rest.iter().try_fold(start, |value, byte| {
            value.checked_mul(256).and_then(|value| value.checked_add(u64::from(*byte)))
        });
    }
    let digits: Vec<u8> = field.iter().copied().filter(|byte| !matches!(byte, 0 | b' ')).collect();
    digits.iter().try_fold(0u64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(name: &str, kind: u8, size: &[u8], link: &str) -> [u8; BLOCK_BYTES] {
        let mut block = [0u8; BLOCK_BYTES];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..107].copy_from_slice(b"0000600");
        block[124..124 + size.len()].copy_from_slice(size);
        block[136..147].copy_from_slice(b"14371550000");
        block[156] = kind;
        block[157..157 + link.len()].copy_from_slice(link.as_bytes());
        block[257..263].copy_from_slice(b"ustar\0");
        seal(&mut block);
        block
    }

    fn seal(block: &mut [u8; BLOCK_BYTES]) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }

    #[test]
    fn headers_are_read_as_they_were_written() {
        let file = parse(&block("base/1/1259", b'0', b"00000300000", "")).unwrap().unwrap();
        assert_eq!((file.name.as_str(), file.kind, file.size_bytes), ("base/1/1259", TarKind::File, 98_304));
        assert_eq!(file.mode, 0o600);
        let dir = parse(&block("./base/", b'5', b"", "")).unwrap().unwrap();
        assert_eq!((dir.name.as_str(), dir.kind), ("base", TarKind::Dir));
        let link = parse(&block("pg_tblspc/16384", b'2', b"", "/fast disk")).unwrap().unwrap();
        assert_eq!(link.kind, TarKind::Link("/fast disk".to_owned()));
        let large =
            parse(&block("big", b'0', &[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0], "")).unwrap().unwrap();
        assert_eq!(large.size_bytes, 8 << 30);
        assert_eq!(parse(&[0; BLOCK_BYTES]).unwrap(), None);
    }

    #[test]
    fn any_changed_byte_of_a_header_is_found() {
        let good = block("base/1/1259", b'0', b"00000300000", "");
        for at in 0..BLOCK_BYTES {
            let mut bad = good;
            bad[at] ^= 1;
            assert!(
                !matches!(parse(&bad), Ok(Some(header)) if Some(&header) != parse(&good).unwrap().as_ref()),
                "{at}"
            );
        }
        let mut kind = block("x", b'7', b"", "");
        assert!(parse(&kind).is_err());
        kind[345] = b'x';
        seal(&mut kind);
        assert!(parse(&kind).is_err());
    }
}
