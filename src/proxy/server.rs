//! Listeners: accepting connections, and letting those in flight finish when the process is asked to end.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// How long a connection may take to send the head of a request: slow ones are not waited for.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest head of a request.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// After an error that is ours (no file descriptors left), so that accepting does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A bound address, before anybody is answered.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))
}

/// Answers until `shutdown` is true, then takes no new connection and waits up to `drain` for calls in flight.
pub async fn run<F, A, B>(
    listener: TcpListener,
    answer: F,
    mut shutdown: watch::Receiver<bool>,
    drain: Duration,
) where
    F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + 'static,
{
    let in_flight = GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            _ = shutdown.wait_for(|ending| *ending) => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = stream else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let connection = in_flight.watch(connection(stream, answer.clone()));
        tokio::spawn(async move {
            // A caller who breaks the connection has been dealt with where its call was dropped.
            let _ = connection.await;
        });
    }
    drop(listener);
    let _ = timeout(drain, in_flight.shutdown()).await;
}

fn connection<F, A, B>(
    stream: TcpStream,
    answer: F,
) -> auto::Connection<'static, TokioIo<TcpStream>, impl hyper::service::HttpService<Incoming, ResBody = B>, TokioExecutor>
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + 'static,
{
    // Small pieces of a stream must leave at once: Nagle's algorithm would keep each for 40 ms.
    let _ = stream.set_nodelay(true);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES);
    builder.http2().timer(TokioTimer::new()).max_header_list_size(16 * 1024);
    let service = service_fn(move |request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    builder.serve_connection(TokioIo::new(stream), service).into_owned()
}
