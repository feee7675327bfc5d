//! The way to one upstream: its connections, its time limits, and what of a request may reach it.

use std::error::Error;
use std::time::Duration;

use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Request, Response, Version, request};
use http_body_util::{Either, LengthLimitError};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use thread_local::ThreadLocal;
use tokio::time::timeout;

use super::body::{Arriving, Kept, TooSlow};
use super::identify::CREDENTIAL_HEADERS;
use super::refusal::Refusal;
use crate::config;

/// A body that was buffered for its estimate, or one that only passes through, within the route's bounds.
pub type UpstreamBody = Either<Kept, Arriving>;

type HttpClient = Client<HttpsConnector<HttpConnector>, UpstreamBody>;

/// How long an idle connection is kept: below the five seconds after which Node servers close theirs.
const IDLE_CONNECTION: Duration = Duration::from_secs(4);
/// What is read at once of an answer, so that others of its thread have their turn; a head is no longer than that either.
const READ_AT_ONCE_BYTES: usize = 64 * 1024;
/// Idle connections that a thread keeps.
const IDLE_CONNECTIONS: usize = 256;

/// Headers that speak of one connection only (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-authorization"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// One upstream.
pub struct Upstream {
    /// One a thread: a connection is used where it was made.
    clients: ThreadLocal<HttpClient>,
    connector: HttpsConnector<HttpConnector>,
    address: config::Upstream,
    credential: Option<config::Credential>,
    first_byte_timeout: Duration,
    idle_timeout: Duration,
}

impl Upstream {
    /// Connects when first needed. Fails where the machine's root certificates cannot be read.
    pub fn new(route: &config::Route) -> std::io::Result<Self> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(route.connect_timeout));
        let tls = HttpsConnectorBuilder::new()
            .with_native_roots()?
            .https_or_http();
        Ok(Self {
            clients: ThreadLocal::new(),
            connector: tls.enable_http1().wrap_connector(tcp),
            address: route.upstream.clone(),
            credential: route.credential.clone(),
            first_byte_timeout: route.first_byte_timeout,
            idle_timeout: route.idle_timeout,
        })
    }

    /// How long to wait between two pieces of an answer.
    pub fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    /// Makes the request that is forwarded: the path behind the upstream's own, no hop-by-hop header, and the route's
    /// credential in place of the caller's.
    pub fn request(
        &self,
        head: request::Parts,
        path: &str,
        body: UpstreamBody,
        metered: bool,
    ) -> Result<Request<UpstreamBody>, Refusal> {
        let mut headers = head.headers;
        drop_hop_by_hop(&mut headers);
        for name in CREDENTIAL_HEADERS
            .iter()
            .chain(&[HOST, CONTENT_LENGTH, EXPECT, TRAILER])
        {
            headers.remove(name);
        }
        let ours: Vec<_> = headers
            .keys()
            .filter(|name| name.as_str().starts_with("x-tollgate-"))
            .cloned()
            .collect();
        for name in ours {
            headers.remove(name);
        }
        if metered {
            // A usage that comes compressed cannot be read.
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        if let Some(credential) = &self.credential {
            headers.insert(credential.header.clone(), credential.value.clone());
        }
        let mut request = Request::new(body);
        *request.method_mut() = head.method;
        let unusable = || Refusal::InvalidRequest {
            message: "the path cannot be forwarded".to_owned(),
            param: None,
        };
        let uri = self.address.uri(path, head.uri.query());
        *request.uri_mut() = uri.ok_or_else(unusable)?;
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = headers;
        Ok(request)
    }

    fn client(&self) -> &HttpClient {
        self.clients.get_or(|| {
            // HTTP/1.1 on purpose: one HTTP/2 connection a host is a ceiling.
            Client::builder(TokioExecutor::new())
                .pool_idle_timeout(IDLE_CONNECTION)
                .pool_max_idle_per_host(IDLE_CONNECTIONS)
                .pool_timer(TokioTimer::new())
                .http1_max_buf_size(READ_AT_ONCE_BYTES)
                .build(self.connector.clone())
        })
    }

    /// Sends it and waits for the head of the answer.
    pub async fn send(
        &self,
        request: Request<UpstreamBody>,
    ) -> Result<Response<Incoming>, Refusal> {
        let answer = timeout(self.first_byte_timeout, self.client().request(request));
        match answer.await {
            Ok(Ok(mut response)) => {
                // What the upstream speaks is between it and this proxy: a caller's connection goes on.
                *response.version_mut() = Version::HTTP_11;
                Ok(response)
            }
            Ok(Err(error)) => Err(why_unreachable(&error)),
            Err(_) => Err(Refusal::UpstreamTimeout),
        }
    }
}

fn why_unreachable(error: &(dyn Error + 'static)) -> Refusal {
    let mut why = Refusal::UpstreamUnreachable;
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return Refusal::BodyTooLarge;
        }
        if error.is::<TooSlow>() {
            return Refusal::BodyTooSlow;
        }
        if error.downcast_ref().is_some_and(hyper::Error::is_user) {
            why = Refusal::BodyCutShort;
        }
        cause = error.source();
    }
    why
}

/// Drops what speaks of one connection only, on either side.
pub fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}
