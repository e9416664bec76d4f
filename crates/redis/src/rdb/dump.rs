//! A whole dump: from its first word to its checksum.

use std::collections::BTreeMap;
use std::io::Read;

use super::crc64::crc64;
use super::error::RdbError;
use super::input::Input;
use super::module;
use super::sum::{Hash, Hasher};
use super::text::Text;
use super::value::{self, Kind};

/// Versions of the format that are read: Redis 1.2 to 8.0. What 12 adds (fields of hashes with a time to live) was
/// never read from a real server here.
const VERSIONS: std::ops::RangeInclusive<u32> = 1..=12;
/// Since this version a dump ends with a checksum.
const FIRST_WITH_CHECKSUM: u32 = 5;
/// How much of a key's name is kept.
pub const KEY_HEAD_BYTES: usize = 256;
/// How much of what a dump says about itself is kept: names and values of this length,
const MAX_AUX_BYTES: usize = 256;
/// so many of them.
const MAX_AUX_COUNT: usize = 64;

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The database it is in.
    pub db: u64,
    /// The first [`KEY_HEAD_BYTES`] bytes of its name.
    pub head: Vec<u8>,
    /// What it holds.
    pub kind: Kind,
    /// When it ends, in milliseconds since 1970.
    pub expires_ms: Option<i64>,
    /// Elements of a collection, entries of a stream, bytes of a string; 0 for a module's.
    pub elements: u64,
    /// The SHA-256 of name, kind, content and end, the same in every encoding. The database is not in it.
    pub digest: [u8; 32],
    /// As [`Key::digest`], but with whether it ends in place of when.
    pub timeless: [u8; 32],
}

/// What a dump consists of.
#[derive(Debug)]
pub enum Item<'a> {
    /// A key.
    Key(&'a Key),
    /// A library of functions: the SHA-256 of its code.
    Function(Hash),
    /// Something a module keeps beside its values.
    ModuleAux,
}

/// What a dump says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The version of the format.
    pub version: u32,
    /// Its length in bytes.
    pub bytes: u64,
    /// False if it was written without a checksum.
    pub checksummed: bool,
    /// Such as `redis-ver` and `ctime`; the first 64, cut at 256 bytes, as text.
    pub aux: BTreeMap<String, String>,
}

/// Reads a dump to its end, where nothing may follow. Whatever is wrong with it is an error: what was visited before
/// proves nothing then.
pub fn read(source: impl Read, visit: &mut dyn FnMut(Item<'_>)) -> Result<About, RdbError> {
    let mut input = Input::new(source);
    let about = whole(&mut input, visit)?;
    if !input.is_at_end()? {
        return Err(input.damaged("bytes after its end"));
    }
    Ok(about)
}

/// As [`read`], for a dump that something else follows. More than the dump may be taken from `source`: its length is in
/// what comes back.
pub fn read_first(source: impl Read, visit: &mut dyn FnMut(Item<'_>)) -> Result<About, RdbError> {
    whole(&mut Input::new(source), visit)
}

/// What a dump says about itself before its first key. Nothing after is looked at: length and checksum are not known.
pub fn opening(source: impl Read) -> Result<About, RdbError> {
    let mut input = Input::new(source);
    let mut about = About { version: version(&mut input)?, ..About::default() };
    while input.byte()? == 250 {
        remember(&mut input, &mut about.aux)?;
    }
    Ok(about)
}

/// A dump without a key, readable for every server since version 5.
pub fn empty() -> Vec<u8> {
    let mut bytes = b"REDIS0009\xff".to_vec();
    bytes.extend(crc64(0, &bytes).to_le_bytes());
    bytes
}

fn whole<R: Read>(input: &mut Input<R>, visit: &mut dyn FnMut(Item<'_>)) -> Result<About, RdbError> {
    let mut about = About { version: version(input)?, ..About::default() };
    let (mut db, mut expires_ms) = (0, None);
    loop {
        match input.byte()? {
            255 => break,
            254 => db = input.number()?,
            253 => expires_ms = Some(i64::from(i32::from_le_bytes(input.array()?)) * 1000),
            252 => expires_ms = Some(i64::from_le_bytes(input.array()?)),
            251 => passed_over(input, 2)?,
            250 => remember(input, &mut about.aux)?,
            249 => drop(input.byte()?),
            248 => passed_over(input, 1)?,
            247 => {
                module::beside(input)?;
                visit(Item::ModuleAux);
            }
            245 => {
                let mut hasher = Hasher::new();
                value::text(input, &mut hasher)?;
                visit(Item::Function(hasher.finish()));
            }
            244 => passed_over(input, 3)?,
            form @ 0..=127 => visit(Item::Key(&key(input, form, db, expires_ms.take())?)),
            other => {
                let (what, number, at) = ("a mark of type", u64::from(other), input.position());
                return Err(RdbError::Unknown { what, number, at });
            }
        }
    }
    if expires_ms.is_some() {
        return Err(input.damaged("a time to live without a key"));
    }
    if about.version >= FIRST_WITH_CHECKSUM {
        let computed = input.checksum();
        let stored = u64::from_le_bytes(input.array()?);
        if stored != 0 && stored != computed {
            return Err(RdbError::Checksum { stored, computed });
        }
        about.checksummed = stored != 0;
    }
    about.bytes = input.position();
    Ok(about)
}

fn version<R: Read>(input: &mut Input<R>) -> Result<u32, RdbError> {
    let first: [u8; 9] = input.array()?;
    let digits = first.strip_prefix(b"REDIS").and_then(|digits| std::str::from_utf8(digits).ok());
    let version = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()));
    let Some(version) = version.and_then(|digits| digits.parse().ok()) else {
        return Err(input.damaged("it does not begin as a dump does"));
    };
    if !VERSIONS.contains(&version) {
        let what = "a format of version";
        return Err(RdbError::Unknown { what, number: u64::from(version), at: 9 });
    }
    Ok(version)
}

fn passed_over<R: Read>(input: &mut Input<R>, count: usize) -> Result<(), RdbError> {
    for _number in 0..count {
        input.number()?;
    }
    Ok(())
}

fn remember<R: Read>(input: &mut Input<R>, aux: &mut BTreeMap<String, String>) -> Result<(), RdbError> {
    let name = Text::open(input)?.head(MAX_AUX_BYTES)?;
    let value = Text::open(input)?.head(MAX_AUX_BYTES)?;
    if aux.len() < MAX_AUX_COUNT {
        let text = |bytes: Vec<u8>| lifeboat_base::human::printable(&String::from_utf8_lossy(&bytes));
        aux.insert(text(name), text(value));
    }
    Ok(())
}

fn key<R: Read>(input: &mut Input<R>, form: u8, db: u64, expires_ms: Option<i64>) -> Result<Key, RdbError> {
    let mut hasher = Hasher::new();
    let mut head = Vec::new();
    let mut name = Text::open(input)?;
    let length = name.length();
    hasher.number(length);
    name.pipe(length, &mut |chunk| {
        let room = KEY_HEAD_BYTES - head.len();
        head.extend_from_slice(chunk.get(..room).unwrap_or(chunk));
        hasher.bytes(chunk);
    })?;
    name.finish()?;
    let value = value::read(input, form)?;
    hasher.text(value.kind.word().as_bytes());
    hasher.bytes(&value.digest);
    let mut timeless = hasher.clone();
    timeless.number(u64::from(expires_ms.is_some()));
    if let Some(expires_ms) = expires_ms {
        hasher.number(expires_ms.cast_unsigned());
    }
    let (kind, elements) = (value.kind, value.elements);
    Ok(Key { db, head, kind, expires_ms, elements, digest: hasher.finish(), timeless: timeless.finish() })
}
