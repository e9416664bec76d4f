//! Port numbers that no two tests of this machine hold at once.
//!
//! The kernel's own choice (port 0) is free only until somebody else is given it. These come from below the range the
//! kernel gives to outgoing connections, and each is held through a lock file (of this user's tests)
//! for as long as its server may restart.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use lifeboat_base::lease::Lease;

use crate::fail::fail;

const FIRST: u32 = 20_000;
const COUNT: u32 = 10_000;

/// A port of 127.0.0.1 that is ours until this is dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lease: Lease,
}

impl Port {
    /// One that nobody has.
    #[track_caller]
    pub fn take() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Processes start at different places, so that they seldom meet.
        let folder = format!("lifeboat-test-ports-{}", rustix::process::geteuid().as_raw());
        let start = process::id().wrapping_mul(97);
        for _attempt in 0..COUNT {
            let at = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
            let Ok(number) = u16::try_from(FIRST + at) else { continue };
            let lock = Path::new("/tmp").join(&folder).join(number.to_string());
            // Held: taken. A listener on it is somebody who knows nothing of our locks.
            if let Ok(Ok(lease)) = Lease::try_acquire(&lock, "a test's server")
                && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok()
            {
                return Self { number, _lease: lease };
            }
        }
        fail("no free port for a test's server on 127.0.0.1")
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}
