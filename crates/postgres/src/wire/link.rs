//! One connected peer: messages in, bytes out, every wait limited, every fault typed.
//!
//! In: a transport and the name of the target. Out: frames, or the error that says why there are none. When sending
//! fails, the server's parting message is looked for first: "terminating connection" says more than "broken pipe".

use std::time::Duration;

use bytes::BytesMut;
use lifeboat_base::time::{Clock, SystemClock};
use postgres_protocol::message::backend::Message;

use super::error::{PgError, ServerError};
use super::frames::{Frame, Frames};
use lifeboat_net::Deadline;
use lifeboat_net::{Fault, TlsError, Transport};

/// How long a broken connection is searched for a parting message.
const PARTING_LIMIT: Duration = Duration::from_secs(1);
/// How many messages are passed over in that search.
const PARTING_MESSAGE_LIMIT: usize = 10_000;

/// How long to wait for a message.
#[derive(Clone, Copy)]
pub(super) enum Wait {
    /// As long as something comes at least this often.
    Quiet(Duration),
    /// Until this moment.
    Until(Deadline),
}

pub(super) struct Link {
    pub(super) transport: Transport,
    pub(super) frames: Frames,
    pub(super) target: String,
    out: BytesMut,
    clock: SystemClock,
    heard: Duration,
}

impl Link {
    pub(super) fn new(transport: Transport, target: String) -> Self {
        let (frames, out) = (Frames::new(), BytesMut::new());
        Self { transport, frames, target, out, clock: SystemClock::new(), heard: Duration::ZERO }
    }

    /// How long ago the last byte came.
    pub(super) fn quiet_for(&self) -> Duration {
        self.clock.monotonic().saturating_sub(self.heard)
    }

    /// The next message; nothing when the deadline passes. Silence under [`Wait::Quiet`] is an error.
    pub(super) fn receive(&mut self, wait: Wait) -> Result<Option<Frame>, PgError> {
        loop {
            if let Some(frame) = self.frames.next()? {
                return Ok(Some(frame));
            }
            let limit = match wait {
                Wait::Quiet(limit) => limit,
                Wait::Until(deadline) => match deadline.remaining() {
                    Some(left) => left,
                    None => return Ok(None),
                },
            };
            match self.transport.read(limit) {
                Ok(bytes) => {
                    self.frames.push(bytes);
                    self.heard = self.clock.monotonic();
                }
                Err(Fault::TimedOut) if matches!(wait, Wait::Until(_)) => return Ok(None),
                Err(fault) => return Err(self.fault(fault, limit)),
            }
        }
    }

    /// Builds one or more messages with `build` and sends them.
    pub(super) fn send(
        &mut self,
        limit: Duration,
        build: impl FnOnce(&mut BytesMut) -> std::io::Result<()>,
    ) -> Result<(), PgError> {
        self.out.clear();
        let built = build(&mut self.out);
        // The only text a message cannot hold is a NUL; the only other fault is a length beyond 31 bits.
        let sent = match built {
            Err(_nul) => return Err(PgError::Misuse { what: "a message holds a NUL byte or is too long" }),
            Ok(()) => self.transport.write(&self.out, limit),
        };
        // A password may have been in it.
        self.out.fill(0);
        sent.map_err(|fault| match fault {
            Fault::Io(_) | Fault::End => {
                self.parting().map_or_else(|| self.fault(fault, limit), PgError::from)
            }
            fault => self.fault(fault, limit),
        })
    }

    /// What the server said before the connection broke.
    fn parting(&mut self) -> Option<ServerError> {
        let deadline = Deadline::after(PARTING_LIMIT);
        for _ in 0..PARTING_MESSAGE_LIMIT {
            if let Frame::Message(Message::ErrorResponse(body)) =
                self.receive(Wait::Until(deadline)).ok().flatten()?
            {
                return Some(ServerError::read(body.fields()));
            }
        }
        None
    }

    pub(super) fn fault(&self, fault: Fault, limit: Duration) -> PgError {
        let target = self.target.clone();
        match fault {
            Fault::TimedOut => PgError::Silent { target, limit },
            Fault::End => PgError::Closed { target, source: None },
            Fault::Io(error) => PgError::Closed { target, source: Some(error) },
            Fault::Tls(error) => PgError::Tls { target, source: TlsError::Handshake(error).into() },
        }
    }
}
