//! The product as its users meet it: the `lifeboat` binary, its exit codes, its words, its files.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a helper of a test that fails, fails the test; seeds are printed so that it can be repeated"
)]

mod main {
    mod archive;
    mod capture;
    mod copies;
    mod damage;
    mod failures;
    mod kills;
    mod peers;
    mod places;
    mod postgres;
    mod secrets;
    mod tree;
    mod truth;
    mod whole_loop;
    mod world;
}
