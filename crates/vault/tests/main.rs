//! Tests of the public interface of lifeboat-vault.

mod main {
    mod damage;
    mod faults;
    mod held;
    mod locks;
    mod logs;
    mod model;
    mod restic;
    mod retire;
    mod storage;
    mod support;
    mod upkeep;
    mod years;
}
