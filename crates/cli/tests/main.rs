//! The product as its users meet it: the `lifeboat` binary, its exit codes, its words, its files.

mod main {
    mod capture;
    mod copies;
    mod damage;
    mod failures;
    mod kills;
    mod peers;
    mod places;
    mod secrets;
    mod tree;
    mod whole_loop;
    mod world;
}
