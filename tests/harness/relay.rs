//! A wire to a server that a test may cut or silence: what a network does to a sidecar, without harm to anybody else
//! who uses that server.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How the wire is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    Whole,
    /// Connections break, and new ones break as soon as they are made.
    Cut,
    /// Connections stay, and nothing comes through.
    Silent,
}

/// A wire; it is gone when dropped.
pub struct Relay {
    address: SocketAddr,
    state: Arc<watch::Sender<Wire>>,
}

impl Relay {
    /// A wire to the server that a URL names, in this test's runtime; and the URL by which it is reached.
    pub async fn to(url: &str) -> (Self, String) {
        let (before, rest) = url.split_once("//").expect("a URL");
        let host_at = rest.rfind('@').map_or(0, |at| at + 1);
        let host_end = rest[host_at..]
            .find('/')
            .map_or(rest.len(), |end| host_at + end);
        let server: SocketAddr = rest[host_at..host_end].parse().expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let state = Arc::new(watch::Sender::new(Wire::Whole));
        tokio::spawn(accept(listener, server, state.clone()));
        let (login, path) = (&rest[..host_at], &rest[host_end..]);
        let through = format!("{before}//{login}{address}{path}");
        (Self { address, state }, through)
    }

    pub fn cut(&self) {
        self.state.send_replace(Wire::Cut);
    }

    pub fn silence(&self) {
        self.state.send_replace(Wire::Silent);
    }

    pub fn mend(&self) {
        self.state.send_replace(Wire::Whole);
    }
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a wire at {}, {:?}", self.address, *self.state.borrow())
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, state: Arc<watch::Sender<Wire>>) {
    while let Ok((near, _)) = listener.accept().await {
        if *state.borrow() == Wire::Cut {
            continue;
        }
        let Ok(far) = TcpStream::connect(server).await else {
            continue;
        };
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let (near_in, near_out) = near.into_split();
        let (far_in, far_out) = far.into_split();
        tokio::spawn(carry(near_in, far_out, state.subscribe()));
        tokio::spawn(carry(far_in, near_out, state.subscribe()));
    }
}

/// Carries bytes one way until either side ends or the wire is cut.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<Wire>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = tokio::select! {
            _ = state.wait_for(|wire| *wire == Wire::Cut) => return,
            read = from.read(&mut buffer) => read,
        };
        let Ok(read @ 1..) = read else { return };
        // What was under way when the wire fell silent arrives when it speaks again.
        let spoke = state.wait_for(|wire| *wire != Wire::Silent).await;
        if spoke.is_ok_and(|wire| *wire == Wire::Cut)
            || to.write_all(&buffer[..read]).await.is_err()
        {
            return;
        }
    }
}
