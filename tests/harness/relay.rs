//! A wire to a server that a test may cut or silence: what a network does to a sidecar, without harm to anybody else
//! who uses that server.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use regex::bytes::Regex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How the wire is, and how often it was cut: a cut ends connections also where it is mended at once.
#[derive(Debug)]
struct State {
    wire: Wire,
    cuts: u64,
    /// It falls silent before this goes to the server.
    awaited: Option<Regex>,
    /// What it fell silent at.
    met: Option<Vec<u8>>,
}

/// What is awaited is no longer than this; it may come in pieces.
const AWAITED_BYTES: usize = 512;

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
    state: Arc<watch::Sender<State>>,
    /// Where new connections go.
    server: Arc<Mutex<SocketAddr>>,
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
        let server = Arc::new(Mutex::new(server));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let state = Arc::new(watch::Sender::new(State {
            wire: Wire::Whole,
            cuts: 0,
            awaited: None,
            met: None,
        }));
        tokio::spawn(accept(listener, server.clone(), state.clone()));
        let (login, path) = (&rest[..host_at], &rest[host_end..]);
        let through = format!("{before}//{login}{address}{path}");
        let relay = Self {
            address,
            state,
            server,
        };
        (relay, through)
    }

    /// Leads to another server from now on; connections to the old one break.
    pub fn lead_to(&self, server: SocketAddr) {
        self.cut();
        *self.server.lock().unwrap() = server;
        self.mend();
    }

    pub fn cut(&self) {
        self.state.send_modify(|state| {
            state.wire = Wire::Cut;
            state.cuts += 1;
        });
    }

    pub fn silence(&self) {
        self.state.send_modify(|state| state.wire = Wire::Silent);
    }

    /// Falls silent before the last of what looks so has gone to the server.
    pub fn silence_at(&self, awaited: Regex) {
        self.state.send_modify(|state| {
            state.awaited = Some(awaited);
            state.met = None;
        });
    }

    /// What it fell silent at, with some of what went before.
    pub fn met(&self) -> Option<Vec<u8>> {
        self.state.borrow().met.clone()
    }

    pub fn mend(&self) {
        self.state.send_modify(|state| state.wire = Wire::Whole);
    }
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "a wire at {}, {:?}",
            self.address,
            self.state.borrow().wire
        )
    }
}

async fn accept(
    listener: TcpListener,
    server: Arc<Mutex<SocketAddr>>,
    state: Arc<watch::Sender<State>>,
) {
    while let Ok((near, _)) = listener.accept().await {
        if state.borrow().wire == Wire::Cut {
            continue;
        }
        let server = *server.lock().unwrap();
        let Ok(far) = TcpStream::connect(server).await else {
            continue;
        };
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let (near_in, near_out) = near.into_split();
        let (far_in, far_out) = far.into_split();
        tokio::spawn(carry(near_in, far_out, state.subscribe(), look_out(&state)));
        tokio::spawn(carry(far_in, near_out, state.subscribe(), |_| ()));
    }
}

/// Looks at what goes to the server of one connection, before it goes.
fn look_out(state: &Arc<watch::Sender<State>>) -> impl FnMut(&[u8]) + use<> {
    let state = state.clone();
    let mut lately = Vec::new();
    move |bytes| {
        lately.extend_from_slice(bytes);
        state.send_if_modified(|state| {
            let comes = |awaited: &mut Regex| awaited.is_match(&lately);
            let meets = state.awaited.take_if(comes).is_some();
            if meets {
                state.wire = Wire::Silent;
                state.met = Some(lately.clone());
            }
            meets
        });
        lately.drain(..lately.len().saturating_sub(AWAITED_BYTES));
    }
}

/// Carries bytes one way until either side ends or the wire is cut.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    mut look_at: impl FnMut(&[u8]),
) {
    let cuts = state.borrow().cuts;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = tokio::select! {
            _ = state.wait_for(|state| state.cuts != cuts) => return,
            read = from.read(&mut buffer) => read,
        };
        let Ok(read @ 1..) = read else { return };
        look_at(&buffer[..read]);
        // What was under way when the wire fell silent arrives when it speaks again.
        let spoke = state
            .wait_for(|state| state.wire != Wire::Silent || state.cuts != cuts)
            .await;
        if spoke.is_ok_and(|state| state.cuts != cuts)
            || to.write_all(&buffer[..read]).await.is_err()
        {
            return;
        }
    }
}
