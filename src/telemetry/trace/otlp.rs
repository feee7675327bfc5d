//! Spans for an OpenTelemetry collector, in OTLP over HTTP: made beside the call, sent in batches by a thread of their own.
//!
//! Whether a call is sampled, its caller says; where it says nothing, `OTEL_TRACES_SAMPLER` does, and all are.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanKind, Status, TraceContextExt, Tracer as _, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HeaderExtractor, HeaderInjector, HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::config::TraceConfig;
use crate::quota::{AccountId, Metered, ReservationId};

/// How long the collector may take for a batch.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How much of its answer is read.
const ANSWER_BYTES: usize = 64 * 1024;
/// The headers of W3C trace context.
const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// Makes spans, where the configuration asks for them.
pub struct Tracer(Option<Exporting>);

struct Exporting {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    names_accounts: bool,
}

/// The span of a call. Dropping it ends it.
pub struct CallSpan(Option<Open>);

struct Open {
    context: Context,
    names_accounts: bool,
    outcome: Outcome,
}

/// What becomes of the call, as far as it is known.
enum Outcome {
    /// Its caller is gone before anything was decided.
    Gone,
    Refused,
    Free,
    /// As its meter says in the end.
    Metered(Arc<dyn Metered>),
}

impl Tracer {
    /// Connects to the collector when there is something to send. Needs a runtime.
    pub fn new(config: &TraceConfig) -> io::Result<Self> {
        let Some(url) = &config.otlp_url else {
            return Ok(Self(None));
        };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}/v1/traces", url.trim_end_matches('/')))
            .with_timeout(EXPORT_TIMEOUT)
            .with_http_client(Exporter::new()?)
            .build()
            .map_err(io::Error::other)?;
        let resource = Resource::builder().with_service_name("tollgate");
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.with_attribute(version).build())
            .with_batch_exporter(exporter)
            .build();
        Ok(Self(Some(Exporting {
            tracer: provider.tracer("tollgate"),
            provider,
            names_accounts: config.account,
        })))
    }

    /// Begins the span of a call below that of its caller, and puts itself into the headers as the parent of what comes
    /// next.
    pub fn begin(&self, route: &str, headers: &mut HeaderMap) -> CallSpan {
        let Some(exporting) = &self.0 else {
            return CallSpan(None);
        };
        let w3c = TraceContextPropagator::new();
        let caller = w3c.extract_with_context(&Context::new(), &HeaderExtractor(headers));
        let span = exporting
            .tracer
            .span_builder(route.to_owned())
            .with_kind(SpanKind::Server)
            .with_attributes([KeyValue::new("tollgate.route", route.to_owned())])
            .start_with_context(&exporting.tracer, &caller);
        let context = caller.with_span(span);
        headers.remove(TRACEPARENT);
        headers.remove(TRACESTATE);
        w3c.inject_context(&context, &mut HeaderInjector(headers));
        if headers
            .get(TRACESTATE)
            .is_some_and(http::HeaderValue::is_empty)
        {
            headers.remove(TRACESTATE);
        }
        CallSpan(Some(Open {
            context,
            names_accounts: exporting.names_accounts,
            outcome: Outcome::Gone,
        }))
    }

    /// Sends what is left. Bounded by [`EXPORT_TIMEOUT`]; what the collector does not take then is lost.
    pub async fn end(&self) {
        let Some(exporting) = &self.0 else { return };
        let provider = exporting.provider.clone();
        // It blocks, and waits for what runs where the exporter was made.
        let ended =
            tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(EXPORT_TIMEOUT));
        if let Ok(Err(error)) = ended.await {
            tracing::warn!(%error, "the collector did not take all spans");
        }
    }
}

impl CallSpan {
    fn note(&self, key: &'static str, value: impl Into<opentelemetry::Value>) {
        if let Some(open) = &self.0 {
            open.context.span().set_attribute(KeyValue::new(key, value));
        }
    }

    fn outcome(&mut self, outcome: Outcome) {
        if let Some(open) = &mut self.0 {
            open.outcome = outcome;
        }
    }

    /// Whose call it is: noted where an operator asks for it.
    pub fn account(&mut self, account: &AccountId) {
        if self.0.as_ref().is_some_and(|open| open.names_accounts) {
            self.note("tollgate.account", account.to_string());
        }
    }

    /// It was admitted, and ends as its meter says.
    pub fn admitted(&mut self, id: ReservationId, metered: Arc<dyn Metered>) {
        if self.0.is_some() {
            self.note("tollgate.reservation", id.to_string());
            self.outcome(Outcome::Metered(metered));
        }
    }

    /// It passed free of charge.
    pub fn passed_free(&mut self) {
        self.outcome(Outcome::Free);
    }

    /// It was refused, by this proxy or for want of an upstream.
    pub fn refused(&mut self, code: &'static str) {
        self.note("tollgate.code", code);
        self.outcome(Outcome::Refused);
    }

    /// The caller is answered.
    pub fn answered(&mut self, status: StatusCode) {
        self.note("http.response.status_code", i64::from(status.as_u16()));
        if let (true, Some(open)) = (status.is_server_error(), &self.0) {
            open.context.span().set_status(Status::error(""));
        }
    }
}

impl Drop for CallSpan {
    fn drop(&mut self) {
        let Some(open) = self.0.take() else { return };
        let span = open.context.span();
        if span.is_recording() {
            let outcome = match &open.outcome {
                Outcome::Gone => "gone",
                Outcome::Refused => "refused",
                Outcome::Free => "free",
                Outcome::Metered(metered) => metered.ending().outcome.as_str(),
            };
            span.set_attribute(KeyValue::new("tollgate.outcome", outcome));
        }
        span.end();
    }
}

/// Sends batches with the client that the rest of the program speaks with. They come from a thread without a runtime.
#[derive(Debug)]
struct Exporter {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: Handle,
}

impl Exporter {
    fn new() -> io::Result<Self> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        let tls = HttpsConnectorBuilder::new()
            .with_native_roots()?
            .https_or_http();
        let tls = tls.enable_http1().wrap_connector(tcp);
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(tls),
            runtime: Handle::current(),
        })
    }
}

#[async_trait]
impl HttpClient for Exporter {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sent = async move {
            let answer = client.request(request.map(Full::new)).await?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_BYTES).collect().await?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        // The time-out is made on the runtime too: it needs its timer.
        let sent = self
            .runtime
            .spawn(async move { timeout(EXPORT_TIMEOUT, sent).await });
        sent.await??
    }
}
