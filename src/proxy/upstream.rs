//! The way to one upstream: its connections, its time limits, and what of a request may reach it.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Request, Response, Uri, Version, request};
use http_body_util::{Either, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;

use super::identify::CREDENTIAL_HEADERS;
use super::refusal::Refusal;

/// A body that was buffered for its estimate, or one that only passes through, up to the route's bound.
pub type UpstreamBody = Either<Full<Bytes>, Limited<Incoming>>;

/// How long an idle connection is kept: below the five seconds after which Node servers close theirs.
const IDLE_CONNECTION: Duration = Duration::from_secs(4);
/// Idle connections that are kept.
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

/// What to connect to, and how long to wait for it.
#[derive(Debug, Clone)]
pub struct UpstreamSettings {
    /// Scheme, authority and, if any, the path that all paths are put behind.
    pub base: Uri,
    /// The header that takes the place of the caller's key.
    pub credential: Option<(HeaderName, HeaderValue)>,
    /// To be connected.
    pub connect_timeout: Duration,
    /// To begin to answer.
    pub first_byte_timeout: Duration,
    /// Between two pieces of the answer.
    pub idle_timeout: Duration,
}

/// One upstream.
pub struct Upstream {
    client: Client<HttpsConnector<HttpConnector>, UpstreamBody>,
    settings: UpstreamSettings,
}

impl Upstream {
    /// Connects when first needed. Fails where the machine's root certificates cannot be read.
    pub fn new(settings: UpstreamSettings) -> std::io::Result<Self> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(settings.connect_timeout));
        let tls = HttpsConnectorBuilder::new().with_native_roots()?.https_or_http();
        // HTTP/1.1 on purpose: one HTTP/2 connection a host is a ceiling.
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_CONNECTION)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_timer(TokioTimer::new())
            .build(tls.enable_http1().wrap_connector(tcp));
        Ok(Self { client, settings })
    }

    /// How long to wait between two pieces of an answer.
    pub fn idle_timeout(&self) -> Duration {
        self.settings.idle_timeout
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
        for name in CREDENTIAL_HEADERS.iter().chain(&[HOST, CONTENT_LENGTH, EXPECT, TRAILER]) {
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
        if let Some((name, value)) = &self.settings.credential {
            headers.insert(name, value.clone());
        }
        let mut request = Request::new(body);
        *request.method_mut() = head.method;
        *request.uri_mut() = self.uri(path, head.uri.query())?;
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = headers;
        Ok(request)
    }

    fn uri(&self, path: &str, query: Option<&str>) -> Result<Uri, Refusal> {
        let base = &self.settings.base;
        let mut whole = base.path().trim_end_matches('/').to_owned();
        whole.push_str(path);
        if let Some(query) = query {
            whole.push('?');
            whole.push_str(query);
        }
        let unusable = |_| Refusal::InvalidRequest {
            message: "the path cannot be forwarded".to_owned(),
            param: None,
        };
        let mut parts = base.clone().into_parts();
        parts.scheme = parts.scheme.or(Some(Scheme::HTTPS));
        parts.path_and_query = Some(PathAndQuery::try_from(whole).map_err(unusable)?);
        Uri::from_parts(parts).map_err(|_| Refusal::UpstreamUnreachable)
    }

    /// Sends it and waits for the head of the answer.
    pub async fn send(&self, request: Request<UpstreamBody>) -> Result<Response<Incoming>, Refusal> {
        let answer = timeout(
            self.settings.first_byte_timeout,
            self.client.request(request),
        );
        match answer.await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(why_unreachable(&error)),
            Err(_) => Err(Refusal::UpstreamTimeout),
        }
    }
}

fn why_unreachable(error: &(dyn Error + 'static)) -> Refusal {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return Refusal::BodyTooLarge;
        }
        cause = error.source();
    }
    Refusal::UpstreamUnreachable
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
