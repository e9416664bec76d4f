//! Fixtures for tests against real servers; never shipped.
//!
//! In: what a test asks for. Out: a server in a temporary folder that ends with its handle.
