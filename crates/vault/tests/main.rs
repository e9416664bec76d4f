//! Tests of the public interface of lifeboat-vault.

mod main {
    mod damage;
    mod faults;
    mod logs;
    mod model;
    mod restic;
    mod storage;
    mod support;
    mod upkeep;
}
