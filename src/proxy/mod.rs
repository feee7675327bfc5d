//! The proxy: a request's path, from the caller's credential to the end of the answer.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use rust_decimal::Decimal;

use self::body::ProxyBody;
use self::gate::{Gated, gate};
use self::identify::Keys;
use self::refusal::{Refusal, Shape};
use self::route::{Route, Routes};
use self::snapshots::Snapshots;
use crate::clock::Clock;
use crate::ledger::{Keeper, Ledger, Loader};
use crate::quota::{Bounded, Settler, Store};
use crate::telemetry::Metrics;

mod admit;
mod body;
mod control;
mod doors;
mod forward;
mod gate;
mod health;
mod identify;
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
mod upstream;
mod without_store;

pub use control::{Answer, Commands};
pub use doors::{Addresses, Doors};
pub use serve::{Beside, ServeError, serve};

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
    prices: Arc<ArcSwap<prices::Current>>,
    routes: ArcSwap<Routes>,
    credit_usd: Decimal,
    deadline_ms: i64,
    max_age_ms: i64,
    clock: Clock,
    metrics: Metrics,
}

impl<S: Store + 'static, L: Ledger + 'static> Sidecar<S, L> {
    /// Answers a request, in any case.
    async fn answer(&self, request: Request<Incoming>) -> Response<ProxyBody> {
        let has_body = !request.body().is_end_stream();
        let found = self.routes.load().find(request.uri().path()).cloned();
        let (shape, answer) = match found {
            Some(route) => (route.shape(), self.handle(&route, request).await),
            None => (Shape::Problem, Err(Refusal::UnknownRoute)),
        };
        answer.unwrap_or_else(|refusal| {
            self.metrics.refused(refusal.code());
            let wording = &self.routes.load().refusals;
            let response = refusal.answer(shape, has_body, wording, self.clock.now());
            response.map(ProxyBody::from)
        })
    }

    /// A request's path, in order. Whoever leaves it early drops the reservation, and so ends it.
    async fn handle(
        &self,
        route: &Arc<Route>,
        request: Request<Incoming>,
    ) -> Result<Response<ProxyBody>, Refusal> {
        let caller = self.keys.identify(request.headers(), &*self.ledger).await?;
        match gate(route, request).await? {
            Gated::Free(call) => self.pass_free(route, caller, *call).await,
            Gated::Metered(call) => {
                let (admitted, reservation) = self.admit(route, caller, &call).await?;
                self.forward(route, *call, admitted, reservation).await
            }
        }
    }
}
