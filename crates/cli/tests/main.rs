//! The product as its users meet it: the `lifeboat` binary, its exit codes, its words, its files.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a helper of a test that fails, fails the test; seeds are printed so that it can be repeated"
)]

mod main {
    mod application_http;
    mod applications;
    mod archive;
    mod capture;
    mod copies;
    mod damage;
    mod drill_ends;
    mod drill_plans;
    mod estate;
    mod etcd;
    mod extract;
    mod failures;
    mod following;
    mod handover;
    mod holds;
    mod hostile_account;
    mod in_place;
    mod inventory;
    mod isolation;
    mod kills;
    mod lessons;
    mod locks;
    mod log_damage;
    mod log_histories;
    mod peers;
    mod pg_verifybackup;
    mod places;
    mod point_objectives;
    mod postgres;
    mod redis;
    mod redis_cache;
    mod redis_cluster;
    mod redis_faults;
    mod redis_files;
    mod redis_load;
    mod redis_log;
    mod redis_merge;
    mod redis_resume;
    mod redis_scan;
    mod redis_sentinel;
    mod reference_estate;
    mod retention;
    mod retention_doubts;
    mod retention_log;
    mod secrets;
    mod serve;
    mod shred;
    mod stalled;
    mod tablespaces;
    mod tree;
    mod truth;
    mod vectors;
    mod whole_loop;
    mod world;
}
