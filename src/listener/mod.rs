//! A plain HTTP/1.1 listener: the accept loop of every address, and of the mock upstream.
//!
//! One loop, so that a bound on connections, a time limit for heads and a clean end are forgotten nowhere.

use std::borrow::Borrow;
use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::connection::Connection;

mod connection;
mod threads;

pub use threads::{Threads, runtime};

/// How long a head may take where nothing else is said: see [`Bounds::head_timeout`].
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the accept loop rests when the machine has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The bounds of a listener.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// How many connections there may be; the next ones wait.
    pub connections: usize,
    /// How long the head of a call may take, and how long a connection may be kept without a call.
    pub head_timeout: Duration,
    /// How long calls in flight may take to end after the shutdown.
    pub drain: Duration,
    /// How long an answer may wait for its caller to read on; then the connection ends.
    pub write_timeout: Duration,
}

/// Serves until `shutdown` is done, then for as long as calls in flight need, at most [`Bounds::drain`].
///
/// Dropping it closes every connection at once.
pub async fn serve<S, B>(
    listener: impl Borrow<TcpListener>,
    bounds: Bounds,
    threads: &Threads,
    service: S,
    shutdown: impl Future<Output = ()>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    serve_each(listener, bounds, threads, |_| service.clone(), shutdown).await;
}

/// The same where it matters who has connected: each connection is served by what `service` makes for it.
pub async fn serve_each<S, B>(
    listener: impl Borrow<TcpListener>,
    bounds: Bounds,
    threads: &Threads,
    service: impl Fn(SocketAddr) -> S,
    shutdown: impl Future<Output = ()>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let permits = Arc::new(Semaphore::new(bounds.connections));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let accept = async || {
        let permit = Arc::clone(&permits).acquire_owned().await;
        let permit = permit.expect("this semaphore is never closed");
        (permit, listener.borrow().accept().await)
    };
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let (permit, accepted) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        let Ok((stream, peer)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // Without it, small answers wait 40 ms for the caller's delayed acknowledgement.
        // A connection that is gone already fails here, and again below where it is dropped.
        let _ = stream.set_nodelay(true);
        // It is taken from this runtime, and becomes one of that thread's.
        let Ok(stream) = stream.into_std() else {
            continue;
        };
        let (service, watcher) = (service(peer), graceful.watcher());
        let serve = async move {
            let Ok(stream) = TcpStream::from_std(stream) else {
                return;
            };
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(bounds.head_timeout)
                .serve_connection(
                    TokioIo::new(Connection::new(stream, bounds.write_timeout)),
                    service,
                );
            // How a connection ends is its caller's business: what matters of a call is ended by its body.
            let _ = watcher.watch(connection).await;
            drop(permit);
        };
        connections.spawn_on(serve, threads.next());
    }
    drop(listener);
    // What is still there afterwards is closed with the set.
    let _ = tokio::time::timeout(bounds.drain, graceful.shutdown()).await;
}
