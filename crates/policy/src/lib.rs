//! The policy file: text and a moment in, promises and due times out.
