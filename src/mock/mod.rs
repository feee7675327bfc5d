//! The mock upstream: an OpenAI that costs nothing, for `demo` and for tests.
//!
//! It counts tokens as the real one does, is deterministic, does what `x-mock-…` headers ask of it ([`Steering`]), and
//! remembers what it heard: so a test can prove what reached the upstream, and what never did.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::TcpListener;

use crate::listener::{self, Bounds, HEAD_TIMEOUT, Threads};

mod answer;
mod chat;
mod embeddings;
mod steering;

use steering::Steering;

const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;
const BOUNDS: Bounds = Bounds {
    head_timeout: HEAD_TIMEOUT,
    connections: 10_000,
    drain: Duration::from_secs(1),
    write_timeout: Duration::from_mins(1),
};
const MODELS: [&str; 4] = [
    "gpt-4o",
    "gpt-4o-mini",
    "text-embedding-3-large",
    "text-embedding-3-small",
];

/// What an answer is made of; an error in it breaks the connection.
type MockBody = UnsyncBoxBody<Bytes, Broken>;

/// The answer was broken off, as asked.
#[derive(Debug, thiserror::Error)]
#[error("broken off, as asked")]
struct Broken;

/// What the mock remembers.
#[derive(Debug, Default)]
pub struct Mock {
    requests: AtomicU64,
    abandoned: AtomicU64,
    last: Mutex<Option<Heard>>,
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Heard {
    /// Its method.
    pub method: Method,
    /// Its path and query.
    pub target: String,
    /// Its headers, credentials and all.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Mock {
    /// One that has heard nothing yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// How many requests it has heard, those about the mock itself left out.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    /// How many answers were given up by the caller before their end.
    pub fn abandoned(&self) -> u64 {
        self.abandoned.load(Ordering::SeqCst)
    }

    /// The latest request.
    pub fn last(&self) -> Option<Heard> {
        self.last.lock().clone()
    }
}

/// Serves until `shutdown` is done. Dropping it closes every connection at once.
///
/// - `POST /v1/chat/completions`, `POST /v1/embeddings`, `GET /v1/models`, with or without `/v1`.
/// - `/echo…`: any method; says what arrived.
/// - `GET /_mock/requests`, `GET /_mock/last-headers`, `GET /_mock/last-body`: what it remembers.
pub async fn serve(listener: TcpListener, mock: Arc<Mock>, shutdown: impl Future<Output = ()>) {
    let service = service_fn(move |request| {
        let mock = Arc::clone(&mock);
        async move { Ok::<_, Infallible>(handle(mock, request).await) }
    });
    listener::serve(listener, BOUNDS, &Threads::here(), service, shutdown).await;
}

async fn handle(mock: Arc<Mock>, request: Request<Incoming>) -> Response<MockBody> {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_BODY_BYTES).collect().await else {
        return refusal(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is too large or broken",
        );
    };
    let body = body.to_bytes();
    let path = head.uri.path();
    if let Some(about) = path.strip_prefix("/_mock/") {
        return remembered(&mock, about);
    }
    mock.requests.fetch_add(1, Ordering::SeqCst);
    *mock.last.lock() = Some(Heard {
        method: head.method.clone(),
        target: head.uri.to_string(),
        headers: head.headers.clone(),
        body: body.clone(),
    });
    let steering = match Steering::read(&head.headers) {
        Ok(steering) => steering,
        Err(message) => return refusal(StatusCode::BAD_REQUEST, &message),
    };
    // An answer that is given up while it is still waited for counts as abandoned, too.
    let waiting = answer::Abandoned::watch(&mock);
    tokio::time::sleep(steering.delay).await;
    waiting.finished();
    if let Some(status) = steering.status {
        let mut response = refusal(status, "this is the refusal you asked for");
        if let Some(after) = steering.retry_after {
            let seconds = HeaderValue::from(after);
            response.headers_mut().insert("retry-after", seconds);
        }
        return response;
    }
    match (&head.method, path.strip_prefix("/v1").unwrap_or(path)) {
        (&Method::POST, "/chat/completions") => chat::complete(&mock, &body, steering),
        (&Method::POST, "/embeddings") => embeddings::embed(&mock, &body, steering),
        (&Method::GET, "/models") => models(),
        (_, path) if path.starts_with("/echo") => {
            let echo = json!({
                "method": head.method.as_str(),
                "target": head.uri.to_string(),
                "body_bytes": body.len(),
            });
            answer::whole(&mock, &echo, steering)
        }
        _ => refusal(StatusCode::NOT_FOUND, "the mock has no such path"),
    }
}

fn models() -> Response<MockBody> {
    let model =
        |id| json!({"id": id, "object": "model", "created": answer::CREATED, "owned_by": "mock"});
    let models: Vec<_> = MODELS.into_iter().map(model).collect();
    plain(StatusCode::OK, &json!({"object": "list", "data": models}))
}

fn remembered(mock: &Mock, about: &str) -> Response<MockBody> {
    match (about, mock.last()) {
        ("requests", _) => {
            let counts = json!({"requests": mock.requests(), "abandoned": mock.abandoned()});
            plain(StatusCode::OK, &counts)
        }
        ("last-headers", Some(last)) => {
            let mut headers: BTreeMap<&str, Vec<String>> = BTreeMap::new();
            for (name, value) in &last.headers {
                let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                headers.entry(name.as_str()).or_default().push(value);
            }
            plain(StatusCode::OK, &json!(headers))
        }
        ("last-body", Some(last)) => Response::new(full(last.body)),
        _ => refusal(StatusCode::NOT_FOUND, "nothing is remembered under this"),
    }
}

/// An error as OpenAI words it.
fn refusal(status: StatusCode, message: &str) -> Response<MockBody> {
    let kind = if status.is_server_error() {
        "server_error"
    } else {
        "invalid_request_error"
    };
    let error = json!({"error": {"message": message, "type": kind, "param": null, "code": null}});
    plain(status, &error)
}

fn plain(status: StatusCode, body: &serde_json::Value) -> Response<MockBody> {
    let mut response = Response::new(full(body.to_string().into()));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

fn full(body: Bytes) -> MockBody {
    Full::new(body)
        .map_err(|never| match never {})
        .boxed_unsync()
}

#[cfg(test)]
mod tests;
