//! The proxy: a request's path, from the caller's credential to the end of the answer.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::header::{CONNECTION, HeaderValue};
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
use crate::config::RefusalConfig;
use crate::ledger::{Keeper, Ledger, Loader};
use crate::quota::{Bounded, Settler, Store};
use crate::telemetry::Metrics;

mod admit;
mod body;
mod control;
mod forward;
mod framing;
mod gate;
mod health;
mod identify;
mod in_flight;
mod meter;
mod prices;
mod quote;
mod refusal;
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
pub use serve::{Addresses, ServeError, serve};

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
    routes: Routes,
    refusals: RefusalConfig,
    credit_usd: Decimal,
    deadline_ms: i64,
    max_age_ms: i64,
    clock: Clock,
    metrics: Metrics,
}

impl<S: Store + 'static, L: Ledger + 'static> Sidecar<S, L> {
    /// Answers a request, in any case.
    async fn answer(&self, request: Request<Incoming>) -> Response<Outgoing> {
        let has_body = !request.body().is_end_stream();
        let (shape, answer) = match self.routes.find(request.uri().path()) {
            Some(route) => (route.shape(), self.handle(route, request).await),
            None => (Shape::Problem, Err(Refusal::UnknownRoute)),
        };
        answer.unwrap_or_else(|refusal| {
            self.metrics.refused(refusal.code());
            let mut response = refusal.response(shape, &self.refusals, self.clock.now());
            if has_body && refusal.leaves_body_unread(shape) {
                // The connection ends here, since the rest of the call is still in it. A caller who is not told might
                // send its next call into it, and take the loss for a failure that is worth a retry.
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            response.map(Outgoing::from)
        })
    }

    /// A request's path, in order. Whoever leaves it early drops the reservation, and so ends it.
    async fn handle(
        &self,
        route: &Arc<Route>,
        request: Request<Incoming>,
    ) -> Result<Response<Outgoing>, Refusal> {
        refuse_doubtful(request.headers())?;
        let mut caller = self.keys.identify(request.headers(), &*self.ledger).await?;
        let snapshot = self.snapshots.cached(&caller.identity.account);
        self.throttle(&mut caller, &snapshot)?;
        let place = self.in_flight.enter(&caller.identity.account)?;
        let response = match gate(route, request, &place).await? {
            Gated::Free(call) => self.pass_free(route, caller, *call).await?,
            Gated::Metered(call) => {
                let (admitted, reservation) = self.admit(route, caller, &call).await?;
                self.forward(route, *call, admitted, reservation, &place)
                    .await?
            }
        };
        Ok(response.map(|body| Outgoing::new(body, place)))
    }
}
