//! The health listener: whether the sidecar lives, whether it is ready, and its metrics.
//!
//! Readiness says what is away and since when, so that nobody has to guess why calls are refused (invariant 8).

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::service::service_fn;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::json;
use tokio::net::TcpListener;

use crate::ledger::Away;
use crate::listener::{self, Bounds, Threads};
use crate::telemetry::Telemetry;

const BOUNDS: Bounds = Bounds {
    // Whoever keeps connections for nothing keeps nobody from asking for long.
    head_timeout: Duration::from_secs(2),
    connections: 256,
    drain: Duration::from_secs(1),
    write_timeout: Duration::from_mins(1),
};

/// What the sidecar needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dependency {
    /// The live balances.
    Store,
    /// The durable truth.
    Ledger,
    /// The task that carries the ledger's changes to the store (rule 20).
    Applier,
    /// The task that carries the outbox to the ledger (rule 19).
    Flusher,
}

/// Whether calls are served, and if not, why; shared by the tasks that notice.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    away: BTreeMap<Dependency, Away>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Phase {
    #[default]
    Starting,
    Serving,
    Draining,
}

impl Readiness {
    /// The listeners are open and the first checks are done.
    pub fn serving(&self) {
        self.0.lock().phase = Phase::Serving;
    }

    /// The sidecar was told to stop: send nothing new.
    pub fn draining(&self) {
        self.0.lock().phase = Phase::Draining;
    }

    /// What a dependency's tasks say of it: away, or `None` where it answers. The reason is shown: no secrets in it.
    pub fn note(&self, dependency: Dependency, away: Option<Away>) {
        let known = &mut self.0.lock().away;
        match away {
            Some(away) => known.insert(dependency, away),
            None => known.remove(&dependency),
        };
    }

    /// Whether calls are served.
    pub fn is_ready(&self) -> bool {
        let state = self.0.lock();
        state.phase == Phase::Serving && state.away.is_empty()
    }

    fn answer(&self) -> Response<Full<Bytes>> {
        let state = self.0.lock();
        let away: Vec<_> = state
            .away
            .iter()
            .map(|(dependency, away)| {
                let since = away.since.to_rfc3339();
                json!({"dependency": dependency, "since": since, "reason": away.reason})
            })
            .collect();
        let ready = state.phase == Phase::Serving && away.is_empty();
        let status = if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        let body = json!({"ready": ready, "phase": state.phase, "away": away});
        page(status, "application/json", body.to_string())
    }
}

/// Serves `/livez`, `/readyz` and `/metrics` until `shutdown` is done.
pub async fn serve(
    listener: TcpListener,
    readiness: Readiness,
    telemetry: Telemetry,
    shutdown: impl Future<Output = ()>,
) {
    let service = service_fn(move |request: Request<_>| {
        let response = answer(
            request.method(),
            request.uri().path(),
            &readiness,
            &telemetry,
        );
        async { Ok::<_, Infallible>(response) }
    });
    listener::serve(listener, BOUNDS, &Threads::here(), service, shutdown).await;
}

fn answer(
    method: &Method,
    path: &str,
    readiness: &Readiness,
    telemetry: &Telemetry,
) -> Response<Full<Bytes>> {
    let text = "text/plain; charset=utf-8";
    if method != Method::GET && method != Method::HEAD {
        let mut response = page(StatusCode::METHOD_NOT_ALLOWED, text, "use GET\n");
        let allowed = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allowed);
        return response;
    }
    match path {
        "/livez" => page(StatusCode::OK, text, "alive\n"),
        "/readyz" => readiness.answer(),
        "/metrics" => {
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            page(StatusCode::OK, kind, telemetry.render())
        }
        _ => page(
            StatusCode::NOT_FOUND,
            text,
            "there are /livez, /readyz and /metrics\n",
        ),
    }
}

fn page(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::Value;

    use super::*;
    use crate::clock::UnixMs;

    async fn get(path: &str, readiness: &Readiness) -> (StatusCode, String) {
        let response = answer(&Method::GET, path, readiness, &Telemetry::default());
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_says_what_is_away_and_since_when() {
        let readiness = Readiness::default();
        let ask = async || {
            let (status, body) = get("/readyz", &readiness).await;
            (status, serde_json::from_str::<Value>(&body).unwrap())
        };
        let (status, body) = ask().await;
        assert_eq!((status.as_u16(), &body["phase"]), (503, &json!("starting")));

        readiness.serving();
        assert_eq!(ask().await.0, StatusCode::OK);

        let away = |since, reason: &str| {
            let (since, reason) = (UnixMs(since), reason.to_owned());
            Some(Away { since, reason })
        };
        readiness.note(Dependency::Store, away(0, "refused"));
        readiness.note(Dependency::Store, away(0, "timed out"));
        readiness.note(Dependency::Ledger, away(1000, "refused"));
        let (status, body) = ask().await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let since = json!({
            "dependency": "store",
            "since": "1970-01-01T00:00:00Z",
            "reason": "timed out",
        });
        assert_eq!(body["away"][0], since);
        assert_eq!(body["away"][1]["dependency"], "ledger");

        readiness.note(Dependency::Store, None);
        assert!(!readiness.is_ready());
        readiness.note(Dependency::Ledger, None);
        assert!(readiness.is_ready());
        readiness.draining();
        assert_eq!(ask().await.0, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn a_sidecar_that_is_not_ready_lives_and_shows_its_metrics() {
        let readiness = Readiness::default();
        assert_eq!(get("/livez", &readiness).await.0, StatusCode::OK);
        let (status, body) = get("/metrics", &readiness).await;
        assert_eq!(status, StatusCode::OK);
        assert!(body.contains("tollgate_admissions_total"));
        assert_eq!(get("/", &readiness).await.0, StatusCode::NOT_FOUND);
        let refused = answer(&Method::POST, "/livez", &readiness, &Telemetry::default());
        assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}
