//! Forward: to the upstream and back, with a meter that never lets go of the answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request, Response, response};
use hyper::body::Incoming;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::Sidecar;
use super::admit::Admitted;
use super::body::{BodyError, MeteredStream, ProxyBody, Timed};
use super::gate::{Call, Forwardable, Reader};
use super::identify::Caller;
use super::in_flight::Place;
use super::meter::Meter;
use super::refusal::Refusal;
use super::reply::add_headers;
use super::route::Route;
use super::stream::{AnswerMeter, StreamMeter};
use super::upstream::{UpstreamBody, drop_hop_by_hop};
use crate::dialect::openai::{AnswerReader, Metered};
use crate::ledger::Ledger;
use crate::money::Nanos;
use crate::quota::{Reservation, Store};

/// Answers up to this size are held until they are whole, so that their charge can stand in the head.
const WHOLE_UP_TO_BYTES: usize = 1024 * 1024;
/// Pieces of a larger answer that wait for a slow caller.
const PIECES_WAITING: usize = 16;
/// How much of an answer, and for how long, is still read for its usage when its caller is gone.
const DRAIN_BYTES: usize = 64 * 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_mins(2);

impl<S: Store + 'static, L: Ledger + 'static> Sidecar<S, L> {
    /// Forwards a call that costs nothing.
    pub(super) async fn pass_free(
        &self,
        route: &Route,
        mut caller: Caller,
        call: Forwardable,
    ) -> Result<Response<ProxyBody>, Refusal> {
        // No reserve follows that would notice a revoked key or a suspended account, so both are asked for.
        let account = &caller.identity.account;
        let snapshot = self.snapshot_of_free_call(route, account).await?;
        self.checked(snapshot, &mut caller).await?;
        let request = route
            .upstream
            .request(call.head, &call.path, call.body, false)?;
        let response = route.send(request).await?;
        route.metrics.passed_free();
        Ok(passed_through(response, route.upstream.idle_timeout()))
    }

    /// Forwards an admitted call and lets its answer pass through its meter.
    pub(super) async fn forward(
        &self,
        route: &Arc<Route>,
        call: Call,
        admitted: Admitted,
        reservation: Reservation,
        place: &Place,
    ) -> Result<Response<ProxyBody>, Refusal> {
        let metered = !matches!(call.reader, Reader::Nothing);
        let Forwardable { head, path, body } = call.request;
        let request = route.upstream.request(head, &path, body, metered)?;
        let exchange = Exchange {
            route: route.clone(),
            meter: admitted.meter.clone(),
            _place: place.clone(),
        };
        let whole = |reader| AnswerMeter::new(admitted.meter.clone(), reader);
        let (answer, fetched) = oneshot::channel();
        match call.reader {
            Reader::Stream(reader) => {
                let response = exchange.send(request).await?;
                if response.status().is_success() && is_stream_of_events(response.headers()) {
                    let meter = StreamMeter::new(admitted.meter.clone(), reservation, reader);
                    return Ok(self.streamed(&exchange, response, meter, &admitted));
                }
                // A refusal, or an upstream that does not stream: a whole answer either way.
                let reading = Some(whole(AnswerReader::new(Metered::Chat)));
                tokio::spawn(exchange.receive(response, reservation, reading, answer));
            }
            Reader::Whole(reader) => {
                tokio::spawn(exchange.fetch(request, reservation, Some(whole(reader)), answer));
            }
            Reader::Nothing => {
                tokio::spawn(exchange.fetch(request, reservation, None, answer));
            }
        }
        // The task always answers; if it was ended, so is this process.
        let fetched = fetched.await.map_err(|_| Refusal::UpstreamUnreachable)??;
        Ok(self.fetched(fetched, &admitted))
    }

    /// The answer to a streamed call: it lives in the caller's connection and ends with it.
    fn streamed(
        &self,
        exchange: &Exchange,
        response: Response<Incoming>,
        meter: StreamMeter,
        admitted: &Admitted,
    ) -> Response<ProxyBody> {
        let idle = exchange.route.upstream.idle_timeout();
        let (mut head, body) = response.into_parts();
        drop_hop_by_hop(&mut head.headers);
        head.headers.remove(CONTENT_LENGTH);
        exchange.note_encoding(&head.headers);
        add_headers(&mut head.headers, admitted, None, self.clock.now());
        let body = MeteredStream::new(Timed::new(body, idle), meter);
        Response::from_parts(head, ProxyBody::Stream(Box::new(body)))
    }

    fn fetched(&self, fetched: Fetched, admitted: &Admitted) -> Response<ProxyBody> {
        let (mut head, body, charge) = match fetched {
            Fetched::NotServed(response) => return response,
            Fetched::Charged(head, body, charge) => (head, body, Some(charge)),
            Fetched::Pieces(head, pieces) => (head, ProxyBody::Pieces(pieces), None),
        };
        add_headers(&mut head.headers, admitted, charge, self.clock.now());
        Response::from_parts(head, body)
    }
}

/// What comes back from a call that is not streamed.
enum Fetched {
    /// The upstream refused; its answer goes through whole.
    NotServed(Response<ProxyBody>),
    /// What it came to is known.
    Charged(response::Parts, ProxyBody, Nanos),
    /// It is still being read.
    Pieces(response::Parts, mpsc::Receiver<Result<Bytes, BodyError>>),
}

/// One call and its answer.
struct Exchange {
    route: Arc<Route>,
    meter: Arc<Meter>,
    /// What goes on without its caller is in flight all the same.
    _place: Place,
}

impl Exchange {
    /// Sends it. Dropped on the way, the call counts as forwarded: nobody knows how far it got (rule 8).
    async fn send(&self, request: Request<UpstreamBody>) -> Result<Response<Incoming>, Refusal> {
        self.meter.forwarded();
        let sent = self.route.send(request).await;
        // Where it is the caller's own body that breaks off, the upstream may have done its work from what came.
        let cut_short = matches!(sent, Err(Refusal::BodyCutShort | Refusal::BodyTooSlow));
        if sent.is_err() && !cut_short {
            self.meter.not_served();
        }
        sent
    }

    /// Reads the answer to a call that is not streamed, for its true usage, in a task of its own: whether or not the
    /// caller is still there (rule 8).
    async fn fetch(
        self,
        request: Request<UpstreamBody>,
        reservation: Reservation,
        reading: Option<AnswerMeter>,
        answer: oneshot::Sender<Result<Fetched, Refusal>>,
    ) {
        match self.send(request).await {
            Ok(response) => self.receive(response, reservation, reading, answer).await,
            Err(refusal) => {
                // Before the answer, so that whoever sees the refusal finds nothing held.
                drop(reservation);
                let _ = answer.send(Err(refusal));
            }
        }
    }

    /// The same once the answer has begun.
    async fn receive(
        self,
        response: Response<Incoming>,
        reservation: Reservation,
        reading: Option<AnswerMeter>,
        answer: oneshot::Sender<Result<Fetched, Refusal>>,
    ) {
        let idle = self.route.upstream.idle_timeout();
        if !response.status().is_success() {
            self.meter.not_served();
            drop(reservation);
            let _ = answer.send(Ok(Fetched::NotServed(passed_through(response, idle))));
            return;
        }
        let (mut head, body) = response.into_parts();
        drop_hop_by_hop(&mut head.headers);
        let body = Timed::new(body, idle);
        let Some(reading) = reading else {
            // A fixed charge is due as soon as the upstream serves the call.
            drop(reservation);
            let charge = self.meter.charged();
            let _ = answer.send(Ok(Fetched::Charged(head, ProxyBody::Through(body), charge)));
            return;
        };
        self.note_encoding(&head.headers);
        self.read(head, body, reading, answer).await;
        drop(reservation);
    }

    async fn read(
        &self,
        head: response::Parts,
        mut body: Timed,
        mut reading: AnswerMeter,
        answer: oneshot::Sender<Result<Fetched, Refusal>>,
    ) {
        let mut whole = BytesMut::new();
        while whole.len() <= WHOLE_UP_TO_BYTES {
            match body.next().await {
                Some(Ok(piece)) => {
                    reading.read(&piece);
                    whole.extend_from_slice(&piece);
                }
                Some(Err(error)) => {
                    // What went by is what is charged (rule 8).
                    let whole = whole.freeze();
                    reading.finish_kept(&whole).await;
                    let (pieces, receiver) = mpsc::channel(2);
                    let _ = answer.send(Ok(Fetched::Pieces(head, receiver)));
                    let _ = pieces.send(Ok(whole)).await;
                    let _ = pieces.send(Err(error)).await;
                    return;
                }
                None => {
                    let whole = whole.freeze();
                    reading.finish_kept(&whole).await;
                    let charge = self.meter.charged();
                    let body = ProxyBody::from(whole);
                    let _ = answer.send(Ok(Fetched::Charged(head, body, charge)));
                    return;
                }
            }
        }
        let (pieces, receiver) = mpsc::channel(PIECES_WAITING);
        let _ = answer.send(Ok(Fetched::Pieces(head, receiver)));
        let _ = pieces.send(Ok(whole.freeze())).await;
        pump(body, pieces, reading).await;
    }

    /// What comes compressed although identity was asked for cannot be read: all that was held is charged.
    fn note_encoding(&self, headers: &HeaderMap) {
        let encoding = headers.get(CONTENT_ENCODING);
        if encoding.is_some_and(|encoding| encoding != "identity") {
            self.meter.unreadable("the answer is compressed");
        }
    }
}

/// Hands on the rest of a large answer; when its caller is gone, only reads it, within bounds.
async fn pump(
    mut body: Timed,
    caller: mpsc::Sender<Result<Bytes, BodyError>>,
    mut reading: AnswerMeter,
) {
    let mut drained_bytes = 0;
    let mut gone_since = None;
    while let Some(piece) = body.next().await {
        let Ok(bytes) = &piece else {
            reading.finish();
            let _ = caller.send(piece).await;
            return;
        };
        reading.read(bytes);
        let length = bytes.len();
        if caller.send(piece).await.is_err() {
            drained_bytes += length;
            let since = *gone_since.get_or_insert_with(Instant::now);
            if drained_bytes > DRAIN_BYTES || since.elapsed() > DRAIN_TIME {
                reading.finish();
                return;
            }
        }
    }
    reading.finish();
}

fn is_stream_of_events(headers: &HeaderMap) -> bool {
    let said = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let events = b"text/event-stream";
    said.and_then(|said| said.get(..events.len()))
        .is_some_and(|said| said.eq_ignore_ascii_case(events))
}

fn passed_through(response: Response<Incoming>, idle: Duration) -> Response<ProxyBody> {
    let (mut head, body) = response.into_parts();
    drop_hop_by_hop(&mut head.headers);
    Response::from_parts(head, ProxyBody::Through(Timed::new(body, idle)))
}
