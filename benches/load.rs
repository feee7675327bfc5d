//! Callers: as many connections as asked for, each a thread that writes a request as it stands and reads the answer.
//!
//! In a closed loop the next call goes out when the last is answered. In an open loop each call has its moment, and its
//! latency counts from then, so that a proxy that stalls is charged for the calls that had to wait (no coordinated
//! omission). Threads that block, because they cost least on two cores that everything shares, and sleep to the
//! microsecond, which a timer wheel of milliseconds does not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const BUFFER_BYTES: usize = 64 * 1024;
const STUCK: Duration = Duration::from_secs(30);

/// Whom to call, and with what: connections take the requests in turn.
#[derive(Clone)]
pub struct Calls {
    pub address: SocketAddr,
    pub requests: Arc<Vec<Vec<u8>>>,
}

/// One connection.
pub struct Caller {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What the calls of one round took.
pub struct Sample {
    pub calls: usize,
    pub elapsed: Duration,
    sorted: Vec<Duration>,
}

impl Calls {
    /// A chat call with a key, to a path of a proxy at a base URL.
    pub fn chat(base: &str, path: &str, key: &str) -> Self {
        Self::chats(base, path, &[key.to_owned()])
    }

    /// The same of many keys.
    pub fn chats(base: &str, path: &str, keys: &[String]) -> Self {
        let requests = keys.iter().map(|key| request(base, path, key, BODY));
        Self {
            address: address(base),
            requests: Arc::new(requests.collect()),
        }
    }
}

/// A small chat call: two short messages.
pub const BODY: &str = r#"{"model":"house-chat","max_tokens":64,"messages":[{"role":"system","content":"You are a helpful assistant. Answer in one short sentence."},{"role":"user","content":"Which is the longest river of Europe, and how long is it?"}]}"#;

pub fn request(base: &str, path: &str, key: &str, body: &str) -> Vec<u8> {
    let host = address(base);
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n\
         accept: application/json\r\nuser-agent: OpenAI/Python 1.99.0\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

pub fn address(base: &str) -> SocketAddr {
    let host = base.trim_start_matches("http://").trim_end_matches('/');
    host.parse().expect("a base URL with an address")
}

impl Caller {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("somebody listens");
        stream.set_nodelay(true).expect("a connected socket");
        stream.set_read_timeout(Some(STUCK)).expect("a bound");
        Self {
            stream,
            buffer: vec![0; BUFFER_BYTES],
        }
    }

    /// One call, whose answer must be 200; it allocates nothing.
    pub fn call(&mut self, request: &[u8]) {
        let answer = self.ask(request);
        let is_well = answer.starts_with(b"HTTP/1.1 200");
        assert!(is_well, "{}", String::from_utf8_lossy(answer));
    }

    /// One call, and its answer.
    pub fn ask(&mut self, request: &[u8]) -> &[u8] {
        self.stream
            .write_all(request)
            .expect("the request goes out");
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]);
            let read = read.expect("an answer comes");
            assert!(read > 0, "the connection was closed: {}", self.text(filled));
            filled += read;
            if is_whole(&self.buffer[..filled]) {
                return &self.buffer[..filled];
            }
        }
    }

    fn text(&self, filled: usize) -> String {
        String::from_utf8_lossy(&self.buffer[..filled]).into_owned()
    }
}

fn is_whole(answer: &[u8]) -> bool {
    let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return false;
    };
    match length(&answer[..head + 2]) {
        Some(length) => answer.len() >= head + 4 + length,
        None => answer.ends_with(b"0\r\n\r\n"),
    }
}

/// What the head says of the body's length; nothing where it comes in chunks.
fn length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    let line = head
        .split(|byte| *byte == b'\n')
        .find(|line| line.len() > NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME))?;
    std::str::from_utf8(&line[NAME.len()..])
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// As fast as answers come.
pub fn closed(calls: &Calls, connections: usize, time: Duration) -> Sample {
    run(calls, connections, move |caller, request, began| {
        let mut taken = Vec::with_capacity(1 << 16);
        while began.elapsed() < time {
            let sent = Instant::now();
            caller.call(request);
            taken.push(sent.elapsed());
        }
        taken
    })
}

/// So many a second, whatever the answers take.
pub fn open(calls: &Calls, connections: usize, per_second: f64, time: Duration) -> Sample {
    let next = Arc::new(AtomicU64::new(0));
    run(calls, connections, move |caller, request, began| {
        let mut taken = Vec::with_capacity(1 << 16);
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed) as f64;
            let meant = Duration::from_secs_f64(place / per_second);
            if meant >= time {
                return taken;
            }
            thread::sleep(meant.saturating_sub(began.elapsed()));
            caller.call(request);
            taken.push(began.elapsed().saturating_sub(meant));
        }
    })
}

fn run(
    calls: &Calls,
    connections: usize,
    work: impl Fn(&mut Caller, &[u8], Instant) -> Vec<Duration> + Clone + Send + 'static,
) -> Sample {
    let callers: Vec<_> = (0..connections)
        .map(|_| Caller::connect(calls.address))
        .collect();
    let began = Instant::now();
    let threads: Vec<_> = (0..)
        .zip(callers)
        .map(|(place, mut caller)| {
            let (calls, work) = (calls.clone(), work.clone());
            thread::spawn(move || {
                let request = &calls.requests[place % calls.requests.len()];
                work(&mut caller, request, began)
            })
        })
        .collect();
    let taken = threads
        .into_iter()
        .map(|it| it.join().expect("all calls are answered"));
    let mut sorted: Vec<Duration> = taken.flatten().collect();
    let elapsed = began.elapsed();
    sorted.sort_unstable();
    Sample {
        calls: sorted.len(),
        elapsed,
        sorted,
    }
}

impl Sample {
    pub fn per_second(&self) -> f64 {
        self.calls as f64 / self.elapsed.as_secs_f64()
    }

    pub fn percentile_us(&self, percent: f64) -> f64 {
        let place = (self.sorted.len() as f64 * percent / 100.0) as usize;
        let at = self.sorted[place.min(self.sorted.len() - 1)];
        at.as_secs_f64() * 1e6
    }
}
