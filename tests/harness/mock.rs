//! The project's own mock upstream, in this process.

use std::future::pending;
use std::sync::LazyLock;

use tokio::net::TcpListener;
use tollgate::mock::{Mock, serve};

static URL: LazyLock<String> = LazyLock::new(start);

/// Where the mock that all tests share is; `x-mock-…` headers steer it a call at a time.
pub fn url() -> &'static str {
    &URL
}

/// The runtime is a thread of its own: a test's ends with the test.
fn start() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener
        .set_nonblocking(true)
        .expect("a socket that need not block");
    let address = listener.local_addr().expect("a bound socket");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async move {
            let listener = TcpListener::from_std(listener).expect("a listening socket");
            serve(listener, Mock::new(), pending()).await;
        });
    });
    format!("http://{address}")
}
