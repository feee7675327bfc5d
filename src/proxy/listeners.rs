//! The listeners of a sidecar: bound before anything else is opened, so that probes are answered from the first moment
//! on, and callers are told to come again while the ledger has not been reached yet.

use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::beside::Beside;
use super::control::{self, Commands};
use super::health::{self, Dependency, Readiness};
use super::refusal::{Refusal, Shape};
use super::route::Routes;
use super::serve::ServeError;
use crate::clock::Clock;
use crate::config::{Config, MAX_CONNECTIONS};
use crate::ledger::Away;
use crate::listener::{self, Bounds, HEAD_TIMEOUT, Threads};
use crate::telemetry::{Metrics, Telemetry};

const NOT_REACHED: Refusal = Refusal::QuotaUnavailable("the ledger has not been reached yet");

/// Where a sidecar listens, as base URLs.
#[derive(Debug, Clone, Serialize)]
pub struct Addresses {
    /// For callers.
    pub proxy: String,
    /// For the app beside it.
    pub control: String,
    /// For probes.
    pub health: String,
}

/// The three listeners. Probes are answered for as long as it lives.
pub struct Listeners {
    pub(super) proxy: Arc<TcpListener>,
    pub(super) control: TcpListener,
    pub(super) readiness: Readiness,
    pub(super) telemetry: Telemetry,
    addresses: Addresses,
    pub(super) beside: Beside,
    serving: JoinSet<()>,
    end: watch::Sender<bool>,
}

impl Listeners {
    /// Binds them, and begins to answer probes: alive, and not ready yet.
    pub async fn open(config: &Config) -> Result<Self, ServeError> {
        let beside = Beside::start().map_err(ServeError::Runtime)?;
        let (proxy, proxy_url) = bind(config.listen.proxy).await?;
        // Where a socket is bound, there it is heard of callers.
        let there = |address| beside.run(bind(address));
        let (control, control_url) = there(config.listen.control).await?;
        let (probes, health_url) = there(config.listen.health).await?;
        let (readiness, telemetry) = (Readiness::default(), Telemetry::default());
        let end = watch::Sender::new(false);
        let mut serving = JoinSet::new();
        let (shown, metrics) = (readiness.clone(), telemetry.clone());
        let answering = health::serve(probes, shown, metrics, ended(&end));
        serving.spawn_on(answering, beside.handle());
        Ok(Self {
            proxy: Arc::new(proxy),
            control,
            readiness,
            telemetry,
            addresses: Addresses {
                proxy: proxy_url,
                control: control_url,
                health: health_url,
            },
            beside,
            serving,
            end,
        })
    }

    /// Where they are.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The ledger does not answer: readiness says so, and why.
    pub fn ledger_is_away(&self, away: Away) {
        self.readiness.note(Dependency::Ledger, Some(away));
    }

    /// Answers every call that it cannot be admitted yet, and the control listener as ever, until `found` is done.
    pub async fn refuse_until<T>(
        &self,
        config: &Config,
        found: impl Future<Output = T>,
    ) -> Result<T, ServeError> {
        let metrics = self.telemetry.metrics.clone();
        let routes = Routes::new(config, &metrics).map_err(ServeError::Roots)?;
        let closed = Arc::new(Closed { routes, metrics });
        let service = service_fn(move |request: Request<Incoming>| {
            let response = closed.answer(&request);
            async { Ok::<_, Infallible>(response) }
        });
        let threads = Threads::here();
        let bounds = Self::bounds(config);
        let refusing = listener::serve(self.proxy.clone(), bounds, &threads, service, pending());
        let commands = control::serve(&self.control, None, pending());
        tokio::select! {
            found = found => Ok(found),
            () = refusing => unreachable!("nothing ends it"),
            () = commands => unreachable!("nothing ends it"),
        }
    }

    /// Of the callers' listener.
    pub(super) fn bounds(config: &Config) -> Bounds {
        Bounds {
            head_timeout: HEAD_TIMEOUT,
            connections: MAX_CONNECTIONS,
            drain: config.listen.drain,
            write_timeout: config.listen.write_timeout,
        }
    }

    /// Opens the control listener, too. What is left is to be closed.
    pub(super) fn answer_commands(self, commands: Option<Commands>) -> Open {
        let Self {
            control,
            beside,
            mut serving,
            end,
            ..
        } = self;
        let answering = control::serve(control, commands, ended(&end));
        serving.spawn_on(answering, beside.handle());
        Open {
            beside,
            serving,
            end,
        }
    }
}

/// The listeners beside the callers' one, at work.
pub(super) struct Open {
    pub beside: Beside,
    serving: JoinSet<()>,
    end: watch::Sender<bool>,
}

impl Open {
    /// Answers nobody any more.
    pub async fn close(mut self) {
        let _ = self.end.send(true);
        while self.serving.join_next().await.is_some() {}
    }
}

fn ended(end: &watch::Sender<bool>) -> impl Future<Output = ()> + use<> {
    let mut end = end.subscribe();
    async move {
        // A sender that is gone means the same.
        let _ = end.wait_for(|ended| *ended).await;
    }
}

/// What callers meet before there is anything to ask.
struct Closed {
    routes: Routes,
    metrics: Metrics,
}

impl Closed {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let (shape, refusal, counted) = self.routes.find(request.uri().path()).map_or(
            (
                Shape::Problem,
                Refusal::UnknownRoute,
                self.metrics.no_route(),
            ),
            |route| (route.shape(), NOT_REACHED, &*route.metrics),
        );
        counted.refused(refusal.code());
        let has_body = !request.body().is_end_stream();
        let now = Clock::System.now();
        let response = refusal.answer(shape, has_body, &self.routes.refusals, now);
        response.map(Full::from)
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, String), ServeError> {
    let bound = async {
        let listener = TcpListener::bind(address).await?;
        let url = format!("http://{}", listener.local_addr()?);
        Ok((listener, url))
    };
    bound
        .await
        .map_err(|error| ServeError::Listen { address, error })
}
