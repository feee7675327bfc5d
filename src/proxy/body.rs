//! Bodies: what the caller gets, a whole answer or an upstream's that passes through while it is watched, and what the
//! upstream gets.

use std::error::Error;
use std::mem::replace;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Full, Limited};
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::in_flight::{Place, Room};
use super::stream::StreamMeter;
use crate::config;
use crate::telemetry::CallSpan;

/// The body of an answer to a caller.
pub enum ProxyBody {
    /// All of it is here.
    Whole(Full<Bytes>),
    /// It passes through, unmetered.
    Through(Timed),
    /// A stream of events that passes through while its meter reads it.
    Stream(Box<MeteredStream>),
    /// Pieces read by a task that goes on even if the caller does not.
    Pieces(mpsc::Receiver<Result<Bytes, BodyError>>),
}

/// An answer that ends too early for its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The connection broke.
    #[error("the upstream broke off its answer")]
    Broken,
    /// Nothing came for too long.
    #[error("the upstream fell silent in the middle of its answer")]
    Silent,
}

impl From<Bytes> for ProxyBody {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(Full::new(bytes))
    }
}

impl Body for ProxyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|never| match never {}),
            Self::Through(body) => body.poll_frame(cx),
            Self::Stream(body) => body.poll_frame(cx),
            Self::Pieces(pieces) => {
                let piece = ready!(pieces.poll_recv(cx));
                Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(body) if body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

/// An upstream's body that may not fall silent for too long.
pub struct Timed {
    body: Incoming,
    idle: Duration,
    /// One timer for the whole body, moved on with each piece.
    silence: Pin<Box<Sleep>>,
}

impl Timed {
    /// Watches `body`.
    pub fn new(body: Incoming, idle: Duration) -> Self {
        Self {
            body,
            idle,
            silence: Box::pin(sleep(idle)),
        }
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.silence.as_mut().reset(Instant::now() + self.idle);
                Poll::Ready(frame.map(|frame| frame.map_err(|_| BodyError::Broken)))
            }
            Poll::Pending => {
                ready!(self.silence.as_mut().poll(cx));
                Poll::Ready(Some(Err(BodyError::Silent)))
            }
        }
    }

    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        loop {
            let frame = std::future::poll_fn(|cx| self.poll_frame(cx)).await?;
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => return Some(Ok(data)),
                // Trailers say nothing of usage and HTTP/1.1 callers expect none.
                Ok(Err(_)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// What of a stream is read before others of its thread have their turn, or twice that where hyper asks again at once: little,
/// because a thread may take some sixty such turns before it looks for what has come.
const READ_IN_PLACE_BYTES: usize = 4 * 1024;

/// A stream of events on its way to the caller. Dropping it, because it ended or because the caller left, ends the
/// reservation that its meter holds.
pub struct MeteredStream {
    body: Timed,
    meter: StreamMeter,
    /// What has come and was not read yet.
    unread: Bytes,
    /// Whether nothing was read since it last gave way to others of its thread.
    rested: bool,
    ended: bool,
}

impl MeteredStream {
    /// Lets `body` pass through `meter`.
    pub fn new(body: Timed, meter: StreamMeter) -> Self {
        Self {
            body,
            meter,
            unread: Bytes::new(),
            rested: true,
            ended: false,
        }
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if let Some(piece) = self.meter.next_piece() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if !self.unread.is_empty() {
                if !replace(&mut self.rested, true) {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let length = self.unread.len().min(READ_IN_PLACE_BYTES);
                self.meter.read(&self.unread.split_to(length));
                self.rested = false;
                continue;
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let Poll::Ready(frame) = self.body.poll_frame(cx) else {
                self.rested = true;
                return Poll::Pending;
            };
            match frame {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.unread = data;
                    }
                }
                Some(Err(error)) => {
                    self.ended = true;
                    self.meter.finish();
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    self.ended = true;
                    self.meter.finish();
                }
            }
        }
    }
}

impl Drop for MeteredStream {
    /// What has come is charged, although its caller has left (rule 8).
    fn drop(&mut self) {
        if !self.unread.is_empty() {
            self.meter.read(&self.unread);
        }
    }
}

/// A body, and what is held until it is over or given up.
pub struct Holding<B, H> {
    body: B,
    held: H,
}

/// An answer on its way to the caller, with the place and the span of its call.
pub type Outgoing = Holding<ProxyBody, (Option<Place>, Option<CallSpan>)>;
/// A body that is kept whole until it has been forwarded, and the room that was made for it.
pub type Kept = Holding<Full<Bytes>, Room>;

impl Outgoing {
    /// An answer of a call that has a place.
    pub fn new(body: ProxyBody, place: Place) -> Self {
        let held = (Some(place), None);
        Self { body, held }
    }

    /// The same with its call's span.
    pub fn followed_by(mut self, span: CallSpan) -> Self {
        self.held.1 = Some(span);
        self
    }
}

impl From<Bytes> for Outgoing {
    fn from(bytes: Bytes) -> Self {
        let held = (None, None);
        let body = bytes.into();
        Self { body, held }
    }
}

impl Kept {
    /// A body, and the room that was made for it.
    pub fn whole(body: Bytes, held: Room) -> Self {
        let body = body.into();
        Self { body, held }
    }
}

impl<B: Body + Unpin, H: Unpin> Body for Holding<B, H> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A call's body on its way in, no larger and no slower than its route allows.
pub struct Arriving {
    body: Limited<Incoming>,
    idle: Duration,
    /// All of it must have come by then, however little it pauses.
    deadline: Instant,
    /// One timer for the whole body, made when it is first waited for and moved on with each piece.
    patience: Option<Pin<Box<Sleep>>>,
}

/// The caller takes too long over its body.
#[derive(Debug, thiserror::Error)]
#[error("the body came too slowly")]
pub struct TooSlow;

impl Arriving {
    /// Watches `body` from now on.
    pub fn new(body: Incoming, route: &config::Route) -> Self {
        Self {
            body: Limited::new(body, route.max_body_bytes),
            idle: route.idle_timeout,
            deadline: Instant::now() + route.body_timeout,
            patience: None,
        }
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let until = || this.deadline.min(Instant::now() + this.idle);
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            if let Some(patience) = &mut this.patience {
                patience.as_mut().reset(until());
            }
            return Poll::Ready(frame);
        }
        let patience = this
            .patience
            .get_or_insert_with(|| Box::pin(sleep_until(until())));
        ready!(patience.as_mut().poll(cx));
        Poll::Ready(Some(Err(TooSlow.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
