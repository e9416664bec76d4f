//! One connection to one member, and calls on it. The only place in which anything is asynchronous: a runtime without
//! threads of its own runs while a call waits, and stands still between calls.
//!
//! Memory: the window that the server may fill ahead of us, and the message being put together.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Uri, uri};
use lifeboat_base::human::printable;
use lifeboat_base::secret::Secret;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::options::Endpoint;
use crate::error::EtcdError;

/// How long a connection may take to be there, encryption included.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How much the server may send before we have read it.
const WINDOW_BYTES: u32 = 1024 * 1024;
/// The largest message that is put together.
const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;
/// A message starts with whether it is compressed (1 byte) and its length (4 bytes).
const PREFIX_BYTES: usize = 5;
/// How much of what a server complains about goes into an error.
const MAX_COMPLAINT_CHARS: usize = 400;

trait Transport: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Transport for T {}

/// A connection.
pub(super) struct Channel {
    // Before the runtime, so that the connection ends in order.
    requests: SendRequest<Bytes>,
    runtime: Runtime,
    endpoint: Endpoint,
    authority: String,
    token: Option<Secret<String>>,
}

/// A method of the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Method {
    /// The service, such as `etcdserverpb.KV`.
    pub(super) service: &'static str,
    /// Its name.
    pub(super) name: &'static str,
    /// The longest wait for an answer, or for the next message of one.
    pub(super) limit: Duration,
}

impl Channel {
    /// Connects to one member.
    pub(super) fn connect(endpoint: &Endpoint, tls: Option<Arc<ClientConfig>>) -> Result<Self, EtcdError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(EtcdError::doing("start waiting for the network"))?;
        let unreachable = |source: Box<dyn std::error::Error + Send + Sync>| EtcdError::Unreachable {
            endpoint: endpoint.to_string(),
            source,
        };
        let connected = runtime.block_on(async {
            timeout(CONNECT_LIMIT, async {
                let stream = open(endpoint, tls).await?;
                let mut builder = h2::client::Builder::new();
                builder
                    .initial_window_size(WINDOW_BYTES)
                    .initial_connection_window_size(2 * WINDOW_BYTES)
                    .enable_push(false);
                let (requests, connection) = builder.handshake(stream).await.map_err(io::Error::other)?;
                tokio::spawn(async move { drop(connection.await) });
                // Another protocol's server shows when it should say that it is ready.
                requests.ready().await.map_err(io::Error::other)
            })
            .await
        });
        let requests = match connected {
            Ok(Ok(requests)) => requests,
            Ok(Err(error)) => return Err(unreachable(error.into())),
            Err(_elapsed) => {
                return Err(EtcdError::Late {
                    endpoint: endpoint.to_string(),
                    call: "the connection",
                    limit_s: CONNECT_LIMIT.as_secs(),
                });
            }
        };
        let authority = match endpoint {
            Endpoint::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Endpoint::Tcp { host, port, .. } => format!("{host}:{port}"),
            Endpoint::Unix(_) => "localhost".to_owned(),
        };
        Ok(Self { requests, runtime, endpoint: endpoint.clone(), authority, token: None })
    }

    /// From now on every call shows this token.
    pub(super) fn show(&mut self, token: Secret<String>) {
        self.token = Some(token);
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// One question, one answer.
    pub(super) fn call(&mut self, method: Method, message: &[u8]) -> Result<Bytes, EtcdError> {
        let mut answer = None;
        self.stream(method, message, &mut |message| {
            answer = Some(message);
            Ok(())
        })?;
        answer.ok_or_else(|| self.broken("an answer without content"))
    }

    /// One question, any number of messages.
    pub(super) fn stream(
        &mut self,
        method: Method,
        message: &[u8],
        visit: &mut dyn FnMut(Bytes) -> Result<(), EtcdError>,
    ) -> Result<(), EtcdError> {
        let request = self.request(method)?;
        let mut frame = BytesMut::with_capacity(PREFIX_BYTES + message.len());
        let length = u32::try_from(message.len()).map_err(|_wide| self.broken("a question too large"))?;
        frame.extend_from_slice(&[0]);
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(message);
        let mut requests = self.requests.clone();
        let began = self.wait(method, async move {
            poll_fn(|context| requests.poll_ready(context)).await?;
            let (response, mut body) = requests.send_request(request, false)?;
            body.send_data(frame.freeze(), true)?;
            response.await
        })?;
        let (head, mut body) = began.into_parts();
        if head.status != http::StatusCode::OK {
            return Err(self.broken(&format!("HTTP status {}", head.status.as_u16())));
        }
        self.status(method, &head.headers)?;
        let mut pending = BytesMut::new();
        while let Some(part) = self.wait(method, next_part(&mut body))? {
            if pending.len() + part.len() > MAX_MESSAGE_BYTES + PREFIX_BYTES {
                return Err(self.too_large());
            }
            pending.extend_from_slice(&part);
            while let Some(message) = self.message(&mut pending)? {
                visit(message)?;
            }
        }
        let trailers = self.wait(method, async { body.trailers().await })?.unwrap_or_default();
        if trailers.get("grpc-status").is_none() && head.headers.get("grpc-status").is_none() {
            return Err(self.broken("an answer without its end"));
        }
        self.status(method, &trailers)?;
        if pending.is_empty() { Ok(()) } else { Err(self.broken("a message without its end")) }
    }

    fn request(&self, method: Method) -> Result<Request<()>, EtcdError> {
        let secret = matches!(&self.endpoint, Endpoint::Tcp { tls: true, .. });
        let address = Uri::builder()
            .scheme(if secret { uri::Scheme::HTTPS } else { uri::Scheme::HTTP })
            .authority(self.authority.as_str())
            .path_and_query(format!("/{}/{}", method.service, method.name))
            .build();
        let options = |error: http::Error| EtcdError::Options(error.to_string());
        let mut request = Request::post(address.map_err(options)?)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", "lifeboat");
        if let Some(token) = &self.token {
            let mut value = http::HeaderValue::from_str(token.expose())
                .map_err(|_invalid| self.broken("a token that cannot be shown again"))?;
            value.set_sensitive(true);
            request = request.header("token", value);
        }
        request.body(()).map_err(options)
    }

    /// Takes a whole message off the front, if there is one.
    fn message(&self, pending: &mut BytesMut) -> Result<Option<Bytes>, EtcdError> {
        let Some([compressed, length @ ..]) = pending.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if *compressed != 0 {
            return Err(self.broken("a compressed message that was not asked for"));
        }
        if length > MAX_MESSAGE_BYTES {
            return Err(self.too_large());
        }
        if pending.len() < PREFIX_BYTES + length {
            return Ok(None);
        }
        drop(pending.split_to(PREFIX_BYTES));
        Ok(Some(pending.split_to(length).freeze()))
    }

    /// The error of the server, if its answer is one.
    fn status(&self, method: Method, headers: &HeaderMap) -> Result<(), EtcdError> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        match text("grpc-status") {
            None | Some("0") => Ok(()),
            Some(code) => Err(EtcdError::Refused {
                endpoint: self.endpoint.to_string(),
                call: method.name,
                code: code.parse().unwrap_or(2),
                message: complaint(text("grpc-message").unwrap_or_default()),
            }),
        }
    }

    fn wait<T>(
        &self,
        method: Method,
        work: impl Future<Output = Result<T, h2::Error>>,
    ) -> Result<T, EtcdError> {
        match self.runtime.block_on(async { timeout(method.limit, work).await }) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                Err(EtcdError::Unreachable { endpoint: self.endpoint.to_string(), source: Box::new(error) })
            }
            Err(_elapsed) => Err(EtcdError::Late {
                endpoint: self.endpoint.to_string(),
                call: method.name,
                limit_s: method.limit.as_secs(),
            }),
        }
    }

    fn too_large(&self) -> EtcdError {
        EtcdError::TooLarge { endpoint: self.endpoint.to_string(), limit_bytes: MAX_MESSAGE_BYTES as u64 }
    }

    pub(super) fn broken(&self, what: &str) -> EtcdError {
        EtcdError::Unreachable {
            endpoint: self.endpoint.to_string(),
            source: format!("the server gave {what}").into(),
        }
    }
}

/// The next part of an answer; what was read makes room for more.
async fn next_part(body: &mut RecvStream) -> Result<Option<Bytes>, h2::Error> {
    match body.data().await {
        None => Ok(None),
        Some(Err(error)) => Err(error),
        Some(Ok(part)) => {
            body.flow_control().release_capacity(part.len())?;
            Ok(Some(part))
        }
    }
}

async fn open(endpoint: &Endpoint, tls: Option<Arc<ClientConfig>>) -> io::Result<Box<dyn Transport>> {
    match endpoint {
        Endpoint::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        Endpoint::Tcp { host, port, .. } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            let Some(config) = tls else { return Ok(Box::new(stream)) };
            let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
            Ok(Box::new(tokio_rustls::TlsConnector::from(config).connect(name, stream).await?))
        }
    }
}

/// What a server complains about: percent-encoded as gRPC has it, made printable, bounded.
fn complaint(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        let code = tail.first_chunk::<2>().filter(|_| *byte == b'%');
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        if let Some(byte) = code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            bytes.push(byte);
            rest = tail.get(2..).unwrap_or_default();
        } else {
            bytes.push(*byte);
            rest = tail;
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    printable(&text.chars().take(MAX_COMPLAINT_CHARS).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_decoded_and_printable() {
        assert_eq!(complaint("etcdserver: permission denied"), "etcdserver: permission denied");
        assert_eq!(complaint("100%25 %zz %"), "100% %zz %");
        assert_eq!(complaint("a%1bb"), "a\u{fffd}b");
        assert_eq!(complaint(&"x".repeat(1000)).len(), MAX_COMPLAINT_CHARS);
    }
}
