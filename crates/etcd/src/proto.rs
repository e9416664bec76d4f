//! The little of protobuf that etcd's messages need: numbers, and bytes with their length.
//!
//! Written by hand: some twenty fields of nine messages do not pay for a compiler of protobuf in everybody's build.

use crate::error::EtcdError;

/// A message being written.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// A number; zero is not written, as the format has it.
    pub(crate) fn number(mut self, field: u32, value: i64) -> Self {
        if value != 0 {
            self.varint(u64::from(field) << 3);
            self.varint(value.cast_unsigned());
        }
        self
    }

    /// Bytes, a text or a message; empty ones are not written.
    pub(crate) fn bytes(mut self, field: u32, value: &[u8]) -> Self {
        if !value.is_empty() {
            self.varint(u64::from(field) << 3 | 2);
            self.varint(value.len() as u64);
            self.0.extend_from_slice(value);
        }
        self
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }
}

/// One field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// As a signed number; zero where it is none.
    pub(crate) fn signed(self) -> i64 {
        self.unsigned().cast_signed()
    }

    pub(crate) fn unsigned(self) -> u64 {
        match self {
            Self::Number(number) => number,
            Self::Bytes(_) => 0,
        }
    }

    pub(crate) fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(_) => &[],
        }
    }

    pub(crate) fn text(self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }
}

/// Visits every field of a message in its order. Unknown fields are the visitor's to leave out.
pub(crate) fn fields<'a>(
    message: &'a [u8],
    mut visit: impl FnMut(u64, Value<'a>) -> Result<(), EtcdError>,
) -> Result<(), EtcdError> {
    let mut rest = message;
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut rest)?),
            1 => Value::Bytes(take(&mut rest, 8)?),
            2 => {
                let length = usize::try_from(varint(&mut rest)?).map_err(|_wide| broken())?;
                Value::Bytes(take(&mut rest, length)?)
            }
            5 => Value::Bytes(take(&mut rest, 4)?),
            _ => return Err(broken()),
        };
        visit(tag >> 3, value)?;
    }
    Ok(())
}

fn broken() -> EtcdError {
    EtcdError::corrupt("a message does not follow its format")
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], EtcdError> {
    let (head, tail) = rest.split_at_checked(length).ok_or_else(broken)?;
    *rest = tail;
    Ok(head)
}

fn varint(rest: &mut &[u8]) -> Result<u64, EtcdError> {
    const MAX_VARINT_BYTES: u32 = 10;
    let mut value = 0;
    for position in 0..MAX_VARINT_BYTES {
        let (byte, tail) = rest.split_first().ok_or_else(broken)?;
        *rest = tail;
        value |= u64::from(byte & 0x7f).checked_shl(7 * position).unwrap_or_default();
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(broken())
}

/// One version of a key, as the server stores and sends it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyValue {
    /// Any bytes.
    pub key: Vec<u8>,
    /// The revision at which the key came to be.
    pub create_revision: i64,
    /// The revision of this version.
    pub mod_revision: i64,
    /// How often the key was written since it came to be.
    pub version: i64,
    /// Any bytes.
    pub value: Vec<u8>,
    /// The lease it lives by; 0 for none.
    pub lease: i64,
}

impl KeyValue {
    /// Reads it from its stored form.
    pub(crate) fn decode(message: &[u8]) -> Result<Self, EtcdError> {
        let mut found = Self::default();
        fields(message, |field, value| {
            match field {
                1 => found.key = value.bytes().to_vec(),
                2 => found.create_revision = value.signed(),
                3 => found.mod_revision = value.signed(),
                4 => found.version = value.signed(),
                5 => found.value = value.bytes().to_vec(),
                6 => found.lease = value.signed(),
                _ => {}
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Its stored form.
    pub fn encode(&self) -> Vec<u8> {
        Writer::default()
            .bytes(1, &self.key)
            .number(2, self.create_revision)
            .number(3, self.mod_revision)
            .number(4, self.version)
            .bytes(5, &self.value)
            .number(6, self.lease)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            key in any::<Vec<u8>>(), value in any::<Vec<u8>>(), numbers in any::<[i64; 4]>()
        ) {
            let [create_revision, mod_revision, version, lease] = numbers;
            let stored = KeyValue { key, create_revision, mod_revision, version, value, lease };
            prop_assert_eq!(KeyValue::decode(&stored.encode()).unwrap(), stored);
        }

        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in any::<Vec<u8>>()) {
            drop(KeyValue::decode(&bytes));
        }
    }

    #[test]
    fn a_message_that_is_cut_is_an_error() {
        let stored = KeyValue { key: b"key".to_vec(), value: vec![7; 300], ..KeyValue::default() }.encode();
        for end in 1..stored.len() {
            let whole_fields = [5];
            assert_eq!(KeyValue::decode(&stored[..end]).is_ok(), whole_fields.contains(&end), "{end}");
        }
    }
}
