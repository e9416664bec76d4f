//! The bytes of a log object: `"LBLOG1"`, a version, then header and compressed content sealed as one.
//!
//! In: a header and content. Out: the stored bytes, and both back if every byte is as it was written. The page for
//! other readers is `docs/format.md`.

use std::io::{self, Read, Write};

use lifeboat_base::digest::{Digest, Hasher};
use lifeboat_base::entropy::Entropy;
use lifeboat_base::ids::{StreamName, VaultId};
use lifeboat_base::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::position::{LogName, Position};
use crate::crypto::{MasterKey, NONCE_BYTES};

/// The most plain content one object holds, in bytes; what bounds the memory of reading and writing one.
pub const MAX_CONTENT_BYTES: u64 = 64 * 1024 * 1024;

const MAGIC: &[u8; 6] = b"LBLOG1";
const VERSION: u16 = 1;
const FORMAT: &str = "lifeboat.log/v1";
const PREFIX_BYTES: usize = 8;
const LENGTH_BYTES: usize = 4;
/// Far above any header; bounds what a wrong length can ask for.
const MAX_HEADER_BYTES: usize = 64 * 1024;
const COMPRESSION_LEVEL: i32 = 3;
const COPY_BYTES: usize = 256 * 1024;

/// Another object, by name and by the SHA-256 of its stored bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLink {
    /// Its name.
    pub name: LogName,
    /// The SHA-256 of its stored bytes.
    pub sha256: Digest,
}

/// When bytes of an object arrived, for streams that hold no times: bytes more than at the mark before (at the object's
/// start for the first), and milliseconds more (since 1970 for the first).
pub type ArrivalMark = (u64, i64);

/// The most marks one object has.
pub const MAX_MARKS_COUNT: usize = 2_000;

/// What an object says about itself; sealed together with the content. Fields are in the order of their names, which
/// with no white space makes the stored text canonical.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogHeader {
    /// When the last entry in it was made.
    pub ended: Timestamp,
    /// The first position it holds.
    pub first: Position,
    /// Where a timeline is entered: the position on the older timeline that this object continues.
    pub follows: Option<Position>,
    format: String,
    /// The engine's own name of the timeline, where it has one and our number is only its place in their order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<String>,
    /// The position after the last it holds.
    pub last: Position,
    /// When its bytes arrived, where the stream itself does not say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<ArrivalMark>,
    /// Its own name.
    pub name: LogName,
    /// The length of the content before compression, in bytes.
    pub plain_bytes: u64,
    /// The SHA-256 of the content before compression.
    pub plain_sha256: Digest,
    /// The object its writer had written before, if any.
    pub previous: Option<LogLink>,
    /// When the first entry in it was made.
    pub started: Timestamp,
    /// The stream it belongs to.
    pub stream: StreamName,
    /// The vault it belongs to.
    pub vault: VaultId,
}

/// What a writer knows about an object before its content is read.
pub(super) struct Draft<'a> {
    pub(super) vault: &'a VaultId,
    pub(super) stream: &'a StreamName,
    pub(super) name: LogName,
    pub(super) follows: Option<Position>,
    pub(super) history: Option<String>,
    pub(super) marks: Vec<ArrivalMark>,
    pub(super) previous: Option<LogLink>,
    pub(super) started: Timestamp,
    pub(super) ended: Timestamp,
}

/// Why content could not be packed.
pub(super) enum PackError {
    TooLarge,
    Reader(io::Error),
    Encoder(io::Error),
}

/// Content after compression.
pub(super) struct Packed {
    zstd: Vec<u8>,
    plain_bytes: u64,
    plain_sha256: Digest,
}

/// Compresses `reader` to its end, at most [`MAX_CONTENT_BYTES`] of it.
pub(super) fn pack(reader: &mut dyn Read) -> Result<Packed, PackError> {
    let mut encoder =
        zstd::stream::write::Encoder::new(Vec::new(), COMPRESSION_LEVEL).map_err(PackError::Encoder)?;
    let mut hasher = Hasher::new();
    let mut plain_bytes = 0u64;
    let mut buffer = vec![0u8; COPY_BYTES];
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(PackError::Reader(error)),
        };
        plain_bytes += count as u64;
        if plain_bytes > MAX_CONTENT_BYTES {
            return Err(PackError::TooLarge);
        }
        let piece = buffer.get(..count).unwrap_or_default();
        hasher.update(piece);
        encoder.write_all(piece).map_err(PackError::Encoder)?;
    }
    let zstd = encoder.finish().map_err(PackError::Encoder)?;
    Ok(Packed { zstd, plain_bytes, plain_sha256: hasher.finish() })
}

/// The bytes in front of the sealed part.
pub(super) fn prefix() -> [u8; PREFIX_BYTES] {
    let mut prefix = [0u8; PREFIX_BYTES];
    let (magic, version) = prefix.split_at_mut(MAGIC.len());
    magic.copy_from_slice(MAGIC);
    version.copy_from_slice(&VERSION.to_le_bytes());
    prefix
}

/// The header and the sealed part that follows [`prefix`]. Holds the compressed content twice for a moment.
pub(super) fn seal(
    draft: Draft<'_>,
    packed: Packed,
    key: &MasterKey,
    entropy: &dyn Entropy,
) -> io::Result<(LogHeader, Vec<u8>)> {
    let header = LogHeader {
        ended: draft.ended,
        first: draft.name.first(),
        follows: draft.follows,
        format: FORMAT.to_owned(),
        history: draft.history,
        last: draft.name.last(),
        marks: draft.marks,
        name: draft.name,
        plain_bytes: packed.plain_bytes,
        plain_sha256: packed.plain_sha256,
        previous: draft.previous,
        started: draft.started,
        stream: draft.stream.clone(),
        vault: draft.vault.clone(),
    };
    let json = serde_json::to_vec(&header)?;
    let length = u32::try_from(json.len()).map_err(io::Error::other)?;
    let mut buffer =
        Vec::with_capacity(NONCE_BYTES + LENGTH_BYTES + json.len() + packed.zstd.len() + NONCE_BYTES);
    buffer.resize(NONCE_BYTES, 0);
    entropy.fill(&mut buffer);
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.extend_from_slice(&json);
    buffer.extend_from_slice(&packed.zstd);
    drop(packed);
    key.seal_in_place(&mut buffer);
    Ok((header, buffer))
}

/// An object whose seal was found intact; the content is still compressed.
pub(super) struct Opened {
    pub(super) header: LogHeader,
    plain: Vec<u8>,
    content_at: usize,
}

/// Opens stored bytes and checks that they are the object `name` of `stream`; the error says what is wrong.
pub(super) fn open(
    stored: &[u8],
    vault: &VaultId,
    stream: &StreamName,
    name: LogName,
    key: &MasterKey,
) -> Result<Opened, String> {
    let sealed = stored.strip_prefix(MAGIC.as_slice()).ok_or("it does not start as a log object does")?;
    let (version, sealed) = sealed.split_first_chunk::<2>().ok_or("it is cut short")?;
    if u16::from_le_bytes(*version) != VERSION {
        return Err("its version is unknown: damaged, or written by a newer version".to_owned());
    }
    let plain = key.open(sealed).map_err(|error| error.to_string())?;
    let (header, content_at) = read_header(&plain).ok_or("its header cannot be read")?;
    let expected = header.format == FORMAT
        && &header.vault == vault
        && &header.stream == stream
        && header.name == name
        && LogName::of(header.first, header.last) == Some(name);
    if !expected {
        return Err("it is another object than its name says".to_owned());
    }
    Ok(Opened { header, plain, content_at })
}

fn read_header(plain: &[u8]) -> Option<(LogHeader, usize)> {
    let (length, rest) = plain.split_first_chunk::<LENGTH_BYTES>()?;
    let length =
        usize::try_from(u32::from_le_bytes(*length)).ok().filter(|length| *length <= MAX_HEADER_BYTES)?;
    let header = serde_json::from_slice(rest.get(..length)?).ok()?;
    Some((header, LENGTH_BYTES + length))
}

impl Opened {
    /// The content, checked against the header's length and SHA-256.
    pub(super) fn content(self) -> Result<(LogHeader, Vec<u8>), String> {
        let Self { header, plain, content_at } = self;
        let length = usize::try_from(header.plain_bytes)
            .ok()
            .filter(|_| header.plain_bytes <= MAX_CONTENT_BYTES)
            .ok_or("it says it holds more than an object may")?;
        let mut content = Vec::with_capacity(length);
        let compressed = plain.get(content_at..).unwrap_or_default();
        zstd::stream::read::Decoder::new(compressed)
            .and_then(|decoder| decoder.take(header.plain_bytes + 1).read_to_end(&mut content))
            .map_err(|_error| "its content does not decompress")?;
        if content.len() != length || Digest::of(&content) != header.plain_sha256 {
            return Err("its content is not what its header says".to_owned());
        }
        Ok((header, content))
    }

    /// As [`Opened::content`] without keeping it.
    pub(super) fn check(self) -> Result<LogHeader, String> {
        self.content().map(|(header, _content)| header)
    }
}
