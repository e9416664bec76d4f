//! A bound on the bytes that are between the reader and the packer.

use std::sync::{Condvar, Mutex, PoisonError};

#[derive(Default)]
struct State {
    used_bytes: usize,
    closed: bool,
}

/// Bytes that may be under way at once. One piece larger than the limit passes alone.
pub(super) struct Budget {
    limit_bytes: usize,
    state: Mutex<State>,
    changed: Condvar,
}

impl Budget {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Waits until `bytes` fit. False once the budget is closed.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self
            .changed
            .wait_while(state, |state| {
                !state.closed && state.used_bytes > 0 && state.used_bytes + bytes > self.limit_bytes
            })
            .unwrap_or_else(PoisonError::into_inner);
        state.used_bytes += bytes;
        !state.closed
    }

    /// Gives `bytes` back.
    pub(super) fn give(&self, bytes: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.used_bytes = state.used_bytes.saturating_sub(bytes);
        drop(state);
        self.changed.notify_all();
    }

    /// Nobody takes any more: wakes whoever waits.
    pub(super) fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.changed.notify_all();
    }
}
