//! The scanner of the write-ahead log against a writer of our own, and against real servers and their `pg_waldump`.

mod damage;
mod forks;
mod history;
mod logs;
mod peers;
mod segments;
mod writer;
