//! The control listener: the commands of whoever owns this process, and where the decision API will be. That is not built
//! yet, and says so on every other path.
//!
//! It is open already so that a configuration's ports are what they will stay.

use std::borrow::Borrow;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::net::TcpListener;

use crate::listener::{self, Bounds, HEAD_TIMEOUT, Threads};

const BOUNDS: Bounds = Bounds {
    head_timeout: HEAD_TIMEOUT,
    connections: 256,
    drain: Duration::from_secs(1),
    write_timeout: Duration::from_mins(1),
};
const NOT_BUILT: &str = r#"{"type":"about:blank","title":"Not built yet","status":501,"detail":"The decision API is not built yet; calls through the proxy listener are served.","code":"not_built_yet"}"#;

/// The paths of the commands begin with this.
const COMMANDS: &str = "/admin/";

/// Answers commands. It is told who asks, and sees to it that they may.
pub type Commands =
    Arc<dyn Fn(SocketAddr, Request<Incoming>) -> BoxFuture<'static, Answer> + Send + Sync>;
/// What this listener answers.
pub type Answer = Response<Full<Bytes>>;

/// Serves until `shutdown` is done.
pub async fn serve(
    listener: impl Borrow<TcpListener>,
    commands: Option<Commands>,
    shutdown: impl Future<Output = ()>,
) {
    let service = |peer: SocketAddr| {
        let commands = commands.clone();
        service_fn(move |request: Request<Incoming>| {
            let of_command = request.uri().path().starts_with(COMMANDS);
            let answer = commands.as_ref().filter(|_| of_command);
            let answer = answer.map(|commands| commands(peer, request));
            async move {
                Ok::<_, Infallible>(match answer {
                    Some(answer) => answer.await,
                    None => not_built(),
                })
            }
        })
    };
    listener::serve_each(listener, BOUNDS, &Threads::here(), service, shutdown).await;
}

fn not_built() -> Answer {
    let mut response = Response::new(Full::from(NOT_BUILT));
    *response.status_mut() = StatusCode::NOT_IMPLEMENTED;
    let kind = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Empty};
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;

    use super::*;

    #[tokio::test]
    async fn every_path_says_that_it_is_not_built() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = tokio::spawn(serve(listener, None, async {
            let _ = stopped.await;
        }));
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let uri = format!("http://{address}/v1/reserve").parse().unwrap();
        let response = client.get(uri).await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_IMPLEMENTED);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["status"], 501);
        stop.send(()).unwrap();
        server.await.unwrap();
    }
}
