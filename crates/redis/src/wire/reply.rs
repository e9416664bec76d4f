//! What a server answers.

/// An answer in the protocol's second version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A word, such as `OK`.
    Simple(Vec<u8>),
    /// A number.
    Integer(i64),
    /// A text.
    Bulk(Vec<u8>),
    /// Nothing.
    Null,
    /// Several answers.
    Array(Vec<Reply>),
    /// An error inside an array; a command's own error is not a reply.
    Error(super::error::ServerError),
}

impl Reply {
    /// The bytes of a word or text.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Simple(bytes) | Self::Bulk(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// A word or text as text; what is not UTF-8 is replaced.
    pub fn text(&self) -> Option<String> {
        self.bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// A number.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// The members of an array; none for anything else.
    pub fn members(&self) -> &[Reply] {
        match self {
            Self::Array(members) => members,
            _ => &[],
        }
    }
}
