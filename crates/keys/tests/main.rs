//! Tests of the public interface of lifeboat-keys: signatures, recipients, and an independent reader of envelopes.

#[cfg(test)]
mod main {
    mod reader;
    mod recipients;
    mod signatures;
}
