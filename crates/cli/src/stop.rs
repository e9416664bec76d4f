//! SIGTERM and SIGINT as a request to come to an end; the second one ends the process at once, as it would without us.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use lifeboat_base::failure::{Failure, FailureKind};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// From here on these signals set the flag that is returned.
pub(crate) fn on_signals() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // In this order: the first signal finds the flag unset, sets it and does no more.
        flag::register_conditional_default(signal, Arc::clone(&stop))
            .and_then(|_id| flag::register(signal, Arc::clone(&stop)))
            .map_err(|error| {
                Failure::with_source(FailureKind::Internal, "failed to listen to signals", error)
            })?;
    }
    Ok(stop)
}

/// From here on SIGHUP sets the flag that is returned, and ends nothing.
pub(crate) fn on_hangup() -> Result<Arc<AtomicBool>, Failure> {
    let look = Arc::new(AtomicBool::new(false));
    flag::register(SIGHUP, Arc::clone(&look))
        .map_err(|error| Failure::with_source(FailureKind::Internal, "failed to listen to signals", error))?;
    Ok(look)
}
