//! The login: proves the password to the server, and the server to us.
//!
//! In: a connected peer that has read our startup message. Out: nothing, once the server has let us in; or why not. A
//! password goes out in the clear only where nobody can listen, and SCRAM counts only with the server's own proof.

use std::time::Duration;

use fallible_iterator::FallibleIterator;
use lifeboat_base::secret::Secret;
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;
use zeroize::Zeroizing;

use super::binding;
use super::error::{AuthFault, PgError, ServerError};
use super::frames::Frame;
use super::link::{Link, Wait};
use super::options::{ChannelBindingMode, ConnectOptions, Host};
use super::passfile;
use lifeboat_net::Deadline;

/// SQLSTATE class 28: the server does not let this role in.
const INVALID_AUTHORIZATION: &str = "28";
/// More messages no login has.
const MESSAGE_LIMIT: usize = 64;

/// How far SCRAM has come.
enum Scram {
    None,
    /// The server's challenge is awaited.
    Begun(sasl::ScramSha256),
    /// The server's proof is awaited.
    Answered(sasl::ScramSha256),
    Proven,
}

pub(super) struct Login<'a> {
    link: &'a mut Link,
    options: &'a ConnectOptions,
    host: &'a Host,
    /// What a password file calls the database.
    database: &'a str,
    deadline: Deadline,
    limit: Duration,
    scram: Scram,
    bound: bool,
}

impl<'a> Login<'a> {
    pub(super) fn new(
        link: &'a mut Link,
        options: &'a ConnectOptions,
        host: &'a Host,
        database: &'a str,
        deadline: Deadline,
    ) -> Self {
        let limit = options.connect_timeout;
        Self { link, options, host, database, deadline, limit, scram: Scram::None, bound: false }
    }

    /// Answers the server until it lets us in.
    pub(super) fn run(mut self) -> Result<(), PgError> {
        for _ in 0..MESSAGE_LIMIT {
            let frame = self.link.receive(Wait::Until(self.deadline))?;
            let Some(frame) = frame else {
                return Err(PgError::Silent { target: self.link.target.clone(), limit: self.limit });
            };
            match frame {
                Frame::Message(Message::AuthenticationOk) => return self.admitted(),
                Frame::Message(message) => self.answer(message)?,
                Frame::CopyBoth => return Err(UNEXPECTED),
            }
        }
        Err(PgError::Protocol { what: "a login without end" })
    }

    fn answer(&mut self, message: Message) -> Result<(), PgError> {
        match message {
            Message::AuthenticationCleartextPassword => self.cleartext(),
            Message::AuthenticationMd5Password(body) => self.md5(body.salt()),
            Message::AuthenticationSasl(body) => self.begin_scram(&body),
            Message::AuthenticationSaslContinue(body) => self.continue_scram(body.data()),
            Message::AuthenticationSaslFinal(body) => self.finish_scram(body.data()),
            Message::AuthenticationKerberosV5 => Err(self.fault(AuthFault::Method("Kerberos 5"))),
            Message::AuthenticationScmCredential => Err(self.fault(AuthFault::Method("SCM credentials"))),
            Message::AuthenticationGss | Message::AuthenticationGssContinue(_) => {
                Err(self.fault(AuthFault::Method("GSSAPI")))
            }
            Message::AuthenticationSspi => Err(self.fault(AuthFault::Method("SSPI"))),
            Message::NoticeResponse(_) => Ok(()),
            Message::ErrorResponse(body) => {
                Err(rejected(ServerError::read(body.fields()), &self.link.target))
            }
            _ => Err(UNEXPECTED),
        }
    }

    fn admitted(self) -> Result<(), PgError> {
        match self.scram {
            // A server that asked for a proof and then forgoes giving its own may be anybody.
            Scram::Begun(_) | Scram::Answered(_) => Err(self.fault(AuthFault::ServerNotProven)),
            Scram::None | Scram::Proven
                if self.options.channel_binding == ChannelBindingMode::Require && !self.bound =>
            {
                Err(self.fault(AuthFault::ChannelBinding("the server let us in without SCRAM")))
            }
            Scram::None | Scram::Proven => Ok(()),
        }
    }

    fn cleartext(&mut self) -> Result<(), PgError> {
        if self.link.transport.is_exposed() {
            return Err(self.fault(AuthFault::Cleartext));
        }
        let password = self.unbound_password()?;
        self.link.send(self.limit, |out| frontend::password_message(password.expose().as_bytes(), out))
    }

    fn md5(&mut self, salt: [u8; 4]) -> Result<(), PgError> {
        let password = self.unbound_password()?;
        let (user, password) = (self.options.user.as_bytes(), password.expose().as_bytes());
        let answer = Zeroizing::new(md5_hash(user, password, salt));
        self.link.send(self.limit, |out| frontend::password_message(answer.as_bytes(), out))
    }

    fn begin_scram(&mut self, body: &AuthenticationSaslBody) -> Result<(), PgError> {
        if !matches!(self.scram, Scram::None) {
            return Err(UNEXPECTED);
        }
        let (mut plain, mut plus) = (false, false);
        let mut offered = body.mechanisms();
        while let Some(mechanism) = offered.next().map_err(|_malformed| UNEXPECTED)? {
            plain |= mechanism == sasl::SCRAM_SHA_256;
            plus |= mechanism == sasl::SCRAM_SHA_256_PLUS;
        }
        let (mechanism, binding) = self.choose(plain, plus)?;
        let password = self.password()?;
        let scram = sasl::ScramSha256::new(password.expose().as_bytes(), binding);
        self.link.send(self.limit, |out| frontend::sasl_initial_response(mechanism, scram.message(), out))?;
        self.scram = Scram::Begun(scram);
        Ok(())
    }

    fn choose(&mut self, plain: bool, plus: bool) -> Result<(&'static str, sasl::ChannelBinding), PgError> {
        let mode = self.options.channel_binding;
        let hash = self.link.transport.server_certificate().and_then(binding::server_end_point);
        let tls = self.link.transport.is_tls();
        if mode == ChannelBindingMode::Require {
            let why = match (tls, plus, &hash) {
                (false, _, _) => Some("the connection has no TLS"),
                (true, false, _) => Some("the server does not offer SCRAM-SHA-256-PLUS"),
                (true, true, None) => Some("the server's certificate is signed in a way that has no hash"),
                (true, true, Some(_)) => None,
            };
            if let Some(why) = why {
                return Err(self.fault(AuthFault::ChannelBinding(why)));
            }
        }
        match hash {
            Some(hash) if plus && mode != ChannelBindingMode::Disable => {
                self.bound = true;
                Ok((sasl::SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(hash)))
            }
            // "We could, but you do not offer it": the server notices if somebody took the offer away.
            Some(_) if plain && mode != ChannelBindingMode::Disable => {
                Ok((sasl::SCRAM_SHA_256, sasl::ChannelBinding::unrequested()))
            }
            _ if plain => Ok((sasl::SCRAM_SHA_256, sasl::ChannelBinding::unsupported())),
            _ => Err(self.fault(AuthFault::Method("an unknown SASL mechanism"))),
        }
    }

    fn continue_scram(&mut self, data: &[u8]) -> Result<(), PgError> {
        let Scram::Begun(mut scram) = std::mem::replace(&mut self.scram, Scram::None) else {
            return Err(UNEXPECTED);
        };
        scram.update(data).map_err(|error| self.fault(AuthFault::Scram(error)))?;
        self.link.send(self.limit, |out| frontend::sasl_response(scram.message(), out))?;
        self.scram = Scram::Answered(scram);
        Ok(())
    }

    fn finish_scram(&mut self, data: &[u8]) -> Result<(), PgError> {
        let Scram::Answered(mut scram) = std::mem::replace(&mut self.scram, Scram::None) else {
            return Err(UNEXPECTED);
        };
        scram.finish(data).map_err(|error| self.fault(AuthFault::Scram(error)))?;
        self.scram = Scram::Proven;
        Ok(())
    }

    /// The password, for a method that cannot be tied to the TLS session.
    fn unbound_password(&self) -> Result<Secret<String>, PgError> {
        if self.options.channel_binding == ChannelBindingMode::Require {
            return Err(
                self.fault(AuthFault::ChannelBinding("the server asks for another method than SCRAM"))
            );
        }
        self.password()
    }

    fn password(&self) -> Result<Secret<String>, PgError> {
        let options = self.options;
        if let Some(password) = &options.password {
            return Ok(password.clone());
        }
        let found = match &options.pass_file {
            Some(path) => passfile::find(path, self.host, self.database, &options.user),
            None => Ok(None),
        };
        found.and_then(|found| found.ok_or(AuthFault::NoPassword)).map_err(|source| self.fault(source))
    }

    fn fault(&self, source: AuthFault) -> PgError {
        PgError::Authentication { target: self.link.target.clone(), source }
    }
}

const UNEXPECTED: PgError = PgError::Protocol { what: "an unexpected message during the login" };

/// The server's error, told apart into "you may not" and everything else.
pub(super) fn rejected(error: ServerError, target: &str) -> PgError {
    if error.code.starts_with(INVALID_AUTHORIZATION) {
        let source = AuthFault::Rejected(Box::new(error));
        return PgError::Authentication { target: target.to_owned(), source };
    }
    error.into()
}
