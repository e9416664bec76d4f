//! One encrypted repository in the restic format for one store in one copy, with its recovery points and logs.

pub mod crypto;
pub mod logs;
pub mod storage;
