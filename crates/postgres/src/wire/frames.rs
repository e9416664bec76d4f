//! Cuts the bytes of a server into messages.
//!
//! In: bytes, in pieces of any length. Out: whole messages. Invariant: holds at most one message of the limit plus one
//! piece, and believes no length before it has checked it.

use bytes::BytesMut;
use postgres_protocol::message::backend::{ERROR_RESPONSE_TAG, Message};

use super::error::PgError;

/// The longest message taken from a server that has let us in. PostgreSQL sends WAL in messages of 128 KiB and base
/// backups in messages of 32 KiB; only a single huge value comes near.
pub const MESSAGE_LIMIT_BYTES: usize = 64 * 1024 * 1024;
/// The longest message taken before the login is done, when nobody has proven anything yet.
pub(super) const LOGIN_MESSAGE_LIMIT_BYTES: usize = 64 * 1024;

/// The tag and the length of a message; the length counts itself.
const HEADER_BYTES: usize = 5;
/// The answer to START_REPLICATION, which `postgres-protocol` does not know.
const COPY_BOTH_TAG: u8 = b'W';

/// A whole message.
pub(super) enum Frame {
    /// Any message but the next.
    Message(Message),
    /// Both sides may send copy data now.
    CopyBoth,
}

/// The bytes of messages that are not whole yet.
pub(super) struct Frames {
    buffer: BytesMut,
    limit_bytes: usize,
}

impl Frames {
    pub(super) fn new() -> Self {
        Self { buffer: BytesMut::new(), limit_bytes: LOGIN_MESSAGE_LIMIT_BYTES }
    }

    /// The login is done: longer messages may come.
    pub(super) fn trust(&mut self) {
        self.limit_bytes = MESSAGE_LIMIT_BYTES;
    }

    /// The next bytes from the server.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, if it is whole. After an error no later message can be found.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, PgError> {
        let Some(&[tag, a, b, c, d]) = self.buffer.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length < 4 {
            return Err(PgError::Protocol { what: "a message shorter than its own length" });
        }
        if length > self.limit_bytes {
            return Err(PgError::Protocol { what: too_long(self.limit_bytes, tag) });
        }
        let total = length + 1;
        if self.buffer.len() < total {
            // Once and exactly, so that growing does not double the bound; untouched memory costs nothing.
            self.buffer.reserve(total - self.buffer.len());
            return Ok(None);
        }
        if tag == COPY_BOTH_TAG {
            drop(self.buffer.split_to(total));
            return Ok(Some(Frame::CopyBoth));
        }
        match Message::parse(&mut self.buffer) {
            Ok(message) => Ok(message.map(Frame::Message)),
            Err(_malformed) => Err(PgError::Protocol { what: "a malformed or unknown message" }),
        }
    }
}

fn too_long(limit_bytes: usize, tag: u8) -> &'static str {
    match (limit_bytes, tag) {
        // What servers before version 3 of the protocol sent, and a server of today that cannot fork.
        (LOGIN_MESSAGE_LIMIT_BYTES, ERROR_RESPONSE_TAG) => {
            "an error in an ancient form, as a server without memory for another process sends it"
        }
        (LOGIN_MESSAGE_LIMIT_BYTES, _) => "a message longer than 64 KiB before the login was done",
        _ => "a message longer than 64 MiB",
    }
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, Bytes};
    use proptest::prelude::*;

    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![tag];
        out.put_u32(u32::try_from(body.len()).unwrap() + 4);
        out.extend_from_slice(body);
        out
    }

    fn shown(frame: Frame) -> String {
        match frame {
            Frame::CopyBoth => "both".to_owned(),
            Frame::Message(Message::CopyData(body)) => format!("data {:?}", body.into_bytes()),
            Frame::Message(Message::CommandComplete(body)) => format!("command {}", body.tag().unwrap()),
            Frame::Message(Message::ReadyForQuery(_)) => "ready".to_owned(),
            Frame::Message(_) => "other".to_owned(),
        }
    }

    fn read_all(pieces: &[&[u8]]) -> Vec<String> {
        let mut frames = Frames::new();
        let mut out = Vec::new();
        for piece in pieces {
            frames.push(piece);
            while let Some(frame) = frames.next().unwrap() {
                out.push(shown(frame));
            }
        }
        out
    }

    fn stream() -> Vec<u8> {
        let parts: [(u8, &[u8]); 5] =
            [(b'W', &[0, 0, 0]), (b'd', b"some data"), (b'd', b""), (b'C', b"COPY 0\0"), (b'Z', b"I")];
        parts.iter().flat_map(|(tag, body)| message(*tag, body)).collect()
    }

    #[test]
    fn messages_split_at_any_byte_are_the_same_messages() {
        let stream = stream();
        let whole = read_all(&[&stream]);
        assert_eq!(
            whole,
            [
                "both",
                &format!("data {:?}", Bytes::from("some data")),
                "data b\"\"",
                "command COPY 0",
                "ready"
            ]
        );
        for at in 0..=stream.len() {
            let (left, right) = stream.split_at(at);
            assert_eq!(read_all(&[left, right]), whole, "split at {at}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(read_all(&bytes), whole);
    }

    #[test]
    fn a_hostile_length_is_refused_before_a_byte_of_its_body_is_awaited() {
        for (length, trusted) in
            [(0u32, false), (3, true), (64 * 1024 + 1, false), (64 * 1024 * 1024 + 1, true), (u32::MAX, true)]
        {
            let mut frames = Frames::new();
            if trusted {
                frames.trust();
            }
            frames.push(b"d");
            frames.push(&length.to_be_bytes());
            assert!(frames.next().is_err(), "{length}");
        }
        // Canary: the longest allowed length only waits for more.
        for trusted in [false, true] {
            let mut frames = Frames::new();
            if trusted {
                frames.trust();
            }
            let limit = if trusted { MESSAGE_LIMIT_BYTES } else { LOGIN_MESSAGE_LIMIT_BYTES };
            frames.push(b"d");
            frames.push(&u32::try_from(limit).unwrap().to_be_bytes());
            assert!(matches!(frames.next(), Ok(None)));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_grow(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let mut frames = Frames::new();
            frames.push(&bytes);
            let mut count = 0;
            while let Ok(Some(_)) = frames.next() {
                count += 1;
            }
            prop_assert!(count * HEADER_BYTES <= bytes.len());
            prop_assert!(frames.buffer.capacity() <= LOGIN_MESSAGE_LIMIT_BYTES + bytes.len() + HEADER_BYTES);
        }
    }
}
