//! Tests of the public interface of lifeboat-vault.

mod main {
    mod logs;
    mod restic;
    mod support;
}
