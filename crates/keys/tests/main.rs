//! Tests of the public interface of lifeboat-keys: signatures, recipients, and an independent reader of envelopes.

mod main {
    mod reader;
    mod recipients;
    mod signatures;
}
