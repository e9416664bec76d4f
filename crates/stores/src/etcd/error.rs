//! Failures of etcd, as adapters report them.

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_etcd::EtcdError;

/// A failure of the source or of a program.
pub(crate) fn etcd(what: impl Into<String>) -> impl FnOnce(EtcdError) -> Failure {
    let what = what.into();
    move |error| Failure::with_source(error.kind(), what, error)
}

/// A failure of what is stored: a snapshot that is not whole is damage there.
pub(crate) fn stored(what: impl Into<String>) -> impl FnOnce(EtcdError) -> Failure {
    let what = what.into();
    move |error| {
        let kind = match &error {
            EtcdError::NoDigest { .. } | EtcdError::WrongDigest | EtcdError::Corrupt(_) => {
                FailureKind::Damaged
            }
            other => other.kind(),
        };
        Failure::with_source(kind, what, error)
    }
}

/// A failure as an error of etcd, for work inside a visit.
pub(crate) fn inside(failure: Failure) -> EtcdError {
    EtcdError::Io { what: failure.to_string(), source: std::io::Error::other(failure) }
}
