//! The tests of the adapters through their public contract: the conformance suite, then what is special to each.

#[cfg(test)]
#[path = "main/etcd.rs"]
mod etcd;
#[cfg(test)]
#[path = "main/files.rs"]
mod files;
#[cfg(test)]
#[path = "main/postgres.rs"]
mod postgres;
#[cfg(test)]
#[path = "main/redis.rs"]
mod redis;
#[cfg(test)]
#[path = "main/redis_rest.rs"]
mod redis_rest;
#[cfg(test)]
#[path = "main/redis_resume.rs"]
mod redis_resume;
#[cfg(test)]
#[path = "main/redis_scan.rs"]
mod redis_scan;
#[cfg(test)]
#[path = "main/sqlite.rs"]
mod sqlite;
#[cfg(test)]
#[path = "main/vector.rs"]
mod vector;
#[cfg(test)]
#[path = "main/vector_s2.rs"]
mod vector_s2;
