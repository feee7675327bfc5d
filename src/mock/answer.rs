//! How an answer leaves: whole or as events, slowly, broken off or stalled, as the steering asks.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::Value;

use super::steering::Steering;
use super::{Broken, Mock, MockBody, plain};

/// When everything was created: a fixed moment, since the mock is deterministic.
pub(super) const CREATED: i64 = 1_700_000_000;

/// Counts an answer as abandoned unless it came to the end that the mock meant it to have.
pub(super) struct Abandoned {
    mock: Arc<Mock>,
    finished: bool,
}

impl Abandoned {
    pub(super) fn watch(mock: &Arc<Mock>) -> Self {
        Self {
            mock: Arc::clone(mock),
            finished: false,
        }
    }

    pub(super) fn finished(mut self) {
        self.finished = true;
    }
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        if !self.finished {
            self.mock.abandoned.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// A JSON answer in one piece, or its first half where it is to break or to stall.
pub(super) fn whole(mock: &Arc<Mock>, body: &Value, steering: Steering) -> Response<MockBody> {
    let mut response = plain(StatusCode::OK, body);
    if steering.break_after.is_some() || steering.stall_after.is_some() {
        let text = Bytes::from(body.to_string());
        let half = text.slice(..text.len() / 2);
        let steering = Steering {
            break_after: steering.break_after.map(|_| 1),
            stall_after: steering.stall_after.map(|_| 1),
            ..steering
        };
        let rest = text.slice(half.len()..);
        let mut halves = [half, rest].into_iter();
        *response.body_mut() = pieces(mock, steering, move |_| halves.next());
        let length = HeaderValue::from(text.len());
        response.headers_mut().insert(CONTENT_LENGTH, length);
    }
    dress(&mut response);
    response
}

/// Server-sent events; `event` makes the event of each number, `None` ends them.
pub(super) fn events(
    mock: &Arc<Mock>,
    steering: Steering,
    event: impl FnMut(u64) -> Option<Bytes> + Send + 'static,
) -> Response<MockBody> {
    let mut response = Response::new(pieces(mock, steering, event));
    let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    dress(&mut response);
    response
}

/// What the real upstream puts on its answers, and what a proxy must replace.
fn dress(response: &mut Response<MockBody>) {
    for (name, value) in [
        ("x-request-id", "req_mock"),
        ("openai-processing-ms", "1"),
        ("x-ratelimit-limit-requests", "30000"),
        ("x-ratelimit-remaining-requests", "29999"),
        ("x-ratelimit-reset-requests", "2ms"),
        ("x-ratelimit-limit-tokens", "150000000"),
        ("x-ratelimit-remaining-tokens", "149999999"),
        ("x-ratelimit-reset-tokens", "0s"),
    ] {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
}

fn pieces(
    mock: &Arc<Mock>,
    steering: Steering,
    piece: impl FnMut(u64) -> Option<Bytes> + Send + 'static,
) -> MockBody {
    let start = Some((0, piece, Abandoned::watch(mock)));
    let stream = stream::unfold(start, move |state| {
        let steering = steering.clone();
        async move {
            let (number, mut piece, abandoned) = state?;
            if steering.break_after == Some(number) {
                abandoned.finished();
                return Some((Err(Broken), None));
            }
            if steering.stall_after == Some(number) {
                std::future::pending::<()>().await;
            }
            let Some(bytes) = piece(number) else {
                abandoned.finished();
                return None;
            };
            tokio::time::sleep(steering.chunk_delay).await;
            let next = Some((number + 1, piece, abandoned));
            Some((Ok(Frame::data(bytes)), next))
        }
    });
    StreamBody::new(stream).boxed_unsync()
}
