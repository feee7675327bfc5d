//! Routes, ready to be used: the configured ones with a way to each upstream.

use std::io;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::refusal::{Refusal, Shape};
use super::upstream::{Upstream, UpstreamBody};
use crate::config::{self, Config, Meter, RefusalConfig};
use crate::dialect;
use crate::telemetry::{Metrics, RouteMetrics};

/// One route.
pub struct Route {
    /// As configured.
    pub config: config::Route,
    /// The prefix, as records name the route.
    pub name: Arc<str>,
    /// Whose prices.
    pub provider: Arc<str>,
    /// Where its calls go.
    pub upstream: Upstream,
    /// Where they are counted.
    pub metrics: Arc<RouteMetrics>,
}

impl Route {
    fn new(config: config::Route, metrics: &Metrics) -> io::Result<Self> {
        Ok(Self {
            name: config.prefix.as_str().into(),
            provider: config.provider.as_str().into(),
            upstream: Upstream::new(&config)?,
            metrics: metrics.route(&config.prefix),
            config,
        })
    }

    /// Sends a call to the upstream and waits for the head of its answer.
    pub async fn send(
        &self,
        request: Request<UpstreamBody>,
    ) -> Result<Response<Incoming>, Refusal> {
        let sent = Instant::now();
        let answer = self.upstream.send(request).await;
        if let Ok(answer) = &answer {
            self.metrics.answered(answer.status(), sent.elapsed());
        }
        answer
    }

    /// The shape of its refusals.
    pub fn shape(&self) -> Shape {
        Shape::of(&self.config.meter)
    }
}

/// What a reload replaces: all routes, the longest prefix first, as the configuration has them, and how refusals are worded.
pub struct Routes {
    routes: Vec<Arc<Route>>,
    /// How refusals are worded.
    pub refusals: RefusalConfig,
}

impl Routes {
    /// Makes the configured routes ready.
    pub fn new(config: &Config, metrics: &Metrics) -> io::Result<Self> {
        let nothing = Self {
            routes: Vec::new(),
            refusals: config.refusal.clone(),
        };
        nothing.replaced(config, metrics)
    }

    /// The same for another configuration. A route that stays as it was keeps its connections.
    pub fn replaced(&self, config: &Config, metrics: &Metrics) -> io::Result<Self> {
        if config
            .routes
            .iter()
            .any(|route| route.meter == Meter::OpenAi)
        {
            // Beside everything else, so that no call waits for it, and neither does readiness.
            tokio::task::spawn_blocking(dialect::warm);
        }
        let ready = config.routes.iter().map(|route| {
            match self.routes.iter().find(|known| known.config == *route) {
                Some(known) => Ok(known.clone()),
                None => Route::new(route.clone(), metrics).map(Arc::new),
            }
        });
        Ok(Self {
            routes: ready.collect::<io::Result<_>>()?,
            refusals: config.refusal.clone(),
        })
    }

    /// The route of a path.
    pub fn find(&self, path: &str) -> Option<&Arc<Route>> {
        self.routes
            .iter()
            .find(|route| route.config.rest(path).is_some())
    }
}

/// Refuses paths that an upstream may read as another than the one that was metered.
pub fn refuse_ambiguous(path: &str) -> Result<(), Refusal> {
    let lower = path.to_ascii_lowercase();
    let encoded = ["%2f", "%5c", "%25", "%00", "\\", ";"];
    let dotted = |segment: &str| segment == "." || segment == "..";
    if path.contains("//")
        || path.split('/').any(dotted)
        || encoded.iter().any(|e| lower.contains(e))
        || escapes_for_nothing(path)
    {
        return Err(Refusal::path_not_allowed(path));
    }
    Ok(())
}

/// Whether it escapes what needs no escape (RFC 3986, section 2.3): `/%74ools` may be `/tools` to an upstream, and here
/// be on a cheaper route. What is no escape at all may be anything.
fn escapes_for_nothing(path: &str) -> bool {
    path.split('%').skip(1).any(|escaped| {
        let code = escaped.get(..2).map(|hex| u8::from_str_radix(hex, 16));
        let Some(Ok(byte)) = code else { return true };
        byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
    })
}
