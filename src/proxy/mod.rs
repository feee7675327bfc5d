//! The proxy: a request's path, from the caller's credential to the end of the answer.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use rust_decimal::Decimal;

use self::body::Outgoing;
use self::framing::refuse_doubtful;
use self::gate::{Gated, gate};
use self::identify::Keys;
use self::in_flight::InFlight;
use self::refusal::{Refusal, Shape};
use self::route::{Route, Routes};
use self::snapshots::Snapshots;
use self::throttle::Throttles;
use crate::clock::Clock;
use crate::ledger::{Keeper, Ledger, Loader};
use crate::quota::{Bounded, Settler, Store};
use crate::telemetry::list::NO_ROUTE;
use crate::telemetry::{CallSpan, Metrics, Tracer};

mod admit;
mod beside;
mod body;
mod control;
mod forward;
mod framing;
mod gate;
mod health;
mod identify;
mod in_flight;
mod listeners;
mod meter;
mod prices;
mod quote;
mod refusal;
mod reload;
mod reply;
mod route;
mod serve;
mod shortage;
mod snapshots;
mod stream;
mod throttle;
mod upstream;
mod without_store;

pub use control::{Answer, Commands};
pub use listeners::{Addresses, Listeners};
pub use serve::{Operator, ServeError, serve};

/// What stands beside each app pod.
struct Sidecar<S, L> {
    store: Arc<S>,
    ledger: Arc<L>,
    loader: Arc<Loader<S, L>>,
    keeper: Arc<Keeper<S, L>>,
    settler: Arc<Settler>,
    /// Where a route is bounded.
    bounded: Option<Arc<Bounded>>,
    keys: Keys,
    snapshots: Snapshots,
    throttles: Arc<Throttles>,
    in_flight: InFlight,
    prices: Arc<ArcSwap<prices::Current>>,
    routes: ArcSwap<Routes>,
    credit_usd: Decimal,
    deadline_ms: i64,
    max_age_ms: i64,
    clock: Clock,
    metrics: Metrics,
    tracer: Tracer,
}

impl<S: Store + 'static, L: Ledger + 'static> Sidecar<S, L> {
    /// Answers a request, in any case.
    async fn answer(&self, mut request: Request<Incoming>) -> Response<Outgoing> {
        let has_body = !request.body().is_end_stream();
        let route = self.routes.load().find(request.uri().path()).cloned();
        let name = route.as_ref().map_or(NO_ROUTE, |route| &route.name);
        let mut span = self.tracer.begin(name, request.headers_mut());
        let (shape, counted, answer) = match &route {
            Some(route) => {
                let answer = self.handle(route, request, &mut span).await;
                (route.shape(), &*route.metrics, answer)
            }
            None => (
                Shape::Problem,
                self.metrics.no_route(),
                Err(Refusal::UnknownRoute),
            ),
        };
        let response = answer.unwrap_or_else(|refusal| {
            counted.refused(refusal.code());
            span.refused(refusal.code());
            let wording = &self.routes.load().refusals;
            let response = refusal.answer(shape, has_body, wording, self.clock.now());
            response.map(Outgoing::from)
        });
        span.answered(response.status());
        response.map(|body| body.followed_by(span))
    }

    /// A request's path, in order. Whoever leaves it early drops the reservation, and so ends it.
    async fn handle(
        &self,
        route: &Arc<Route>,
        request: Request<Incoming>,
        span: &mut CallSpan,
    ) -> Result<Response<Outgoing>, Refusal> {
        refuse_doubtful(request.headers())?;
        let mut caller = self.keys.identify(request.headers(), &*self.ledger).await?;
        span.account(&caller.identity.account);
        let snapshot = self.snapshots.cached(&caller.identity.account);
        self.throttle(&mut caller, &snapshot)?;
        let place = self.in_flight.enter(&caller.identity.account)?;
        let response = match gate(route, request, &place).await? {
            Gated::Free(call) => {
                span.passed_free();
                self.pass_free(route, caller, *call).await?
            }
            Gated::Metered(call) => {
                let read = Instant::now();
                let admitted = self.admit(route, caller, &call).await;
                self.metrics.admit.record(read.elapsed());
                let (admitted, reservation) = admitted?;
                span.admitted(admitted.id, admitted.meter.clone());
                self.forward(route, *call, admitted, reservation, &place)
                    .await?
            }
        };
        Ok(response.map(|body| Outgoing::new(body, place)))
    }
}
