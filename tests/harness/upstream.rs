//! An upstream that does what a test's script says, byte by byte, and remembers what it was sent.
//!
//! One serves the whole test process, so that all tests share one sidecar: the header `x-script` says whose call it is.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock, Mutex};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use uuid::Uuid;

use super::wait::until;

/// The header that names a script.
pub const SCRIPT: &str = "x-script";
/// The header of a call whose script begins when its head is there, whatever becomes of its body.
pub const HASTY: &str = "x-hasty";

/// One step of a script.
#[derive(Clone)]
pub enum Act {
    /// Sends these bytes as they are.
    Send(Bytes),
    /// Waits, until the gate opens or the other side hangs up.
    Wait(Gate),
    /// Breaks the connection.
    Close,
}

/// Something to wait for; once open, always open.
#[derive(Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Arrived {
    /// `POST /v1/chat/completions HTTP/1.1`
    pub line: String,
    /// In the order and the case in which they came.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

#[derive(Default)]
struct Log {
    arrived: Vec<Arrived>,
    abandoned: usize,
}

/// A script, and all that was asked of it. It is forgotten when dropped.
pub struct Script {
    pub id: String,
    log: Arc<Mutex<Log>>,
}

struct Registered {
    acts: Vec<Act>,
    log: Arc<Mutex<Log>>,
}

static SCRIPTS: LazyLock<Mutex<HashMap<String, Registered>>> = LazyLock::new(Mutex::default);
static ADDRESS: LazyLock<String> = LazyLock::new(start);

/// Where the scripted upstream is.
pub fn scripted() -> &'static str {
    &ADDRESS
}

/// Every call that names this script is answered by these acts.
pub fn script(acts: impl IntoIterator<Item = Act>) -> Script {
    let id = Uuid::now_v7().to_string();
    let log = Arc::new(Mutex::new(Log::default()));
    let registered = Registered {
        acts: acts.into_iter().collect(),
        log: log.clone(),
    };
    SCRIPTS.lock().unwrap().insert(id.clone(), registered);
    Script { id, log }
}

impl Script {
    /// The requests that have arrived.
    pub fn arrived(&self) -> Vec<Arrived> {
        self.log.lock().unwrap().arrived.clone()
    }

    /// Waits until so many requests have arrived.
    pub async fn until_arrived(&self, count: usize) {
        let what = format!("{count} requests arrive at the upstream");
        until(&what, async || {
            (self.log.lock().unwrap().arrived.len() >= count).then_some(())
        })
        .await;
    }

    /// Waits until so many requests were given up by the other side while their script waited.
    pub async fn until_abandoned(&self, count: usize) {
        let what = format!("{count} requests are abandoned");
        until(&what, async || {
            (self.log.lock().unwrap().abandoned >= count).then_some(())
        })
        .await;
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        SCRIPTS.lock().unwrap().remove(&self.id);
    }
}

impl Gate {
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    pub fn open(&self) {
        self.0.send_replace(true);
    }
}

impl Arrived {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Everything that came, as one text: where a secret must not be found.
    pub fn whole(&self) -> String {
        format!(
            "{} {:?} {}",
            self.line,
            self.headers,
            String::from_utf8_lossy(&self.body)
        )
    }
}

/// The runtime is a thread of its own: a test's ends with the test.
fn start() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener
        .set_nonblocking(true)
        .expect("a socket that need not block");
    let address = listener.local_addr().expect("a bound socket");
    let serve = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async move {
            let listener = TcpListener::from_std(listener).expect("a listening socket");
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve_connection(stream));
                }
            }
        });
    };
    std::thread::spawn(serve);
    format!("http://{address}")
}

async fn serve_connection(stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream).await {
        let found = request.header(SCRIPT).and_then(|id| {
            let scripts = SCRIPTS.lock().unwrap();
            scripts
                .get(id)
                .map(|found| (found.acts.clone(), found.log.clone()))
        });
        let (acts, log) =
            found.unwrap_or_else(|| (vec![answer(599, &[], b"no such script")], Arc::default()));
        log.lock().unwrap().arrived.push(request);
        for act in acts {
            if perform(act, &mut stream, &log).await.is_none() {
                return;
            }
        }
    }
}

/// `None`: the connection is over.
async fn perform(act: Act, stream: &mut BufReader<TcpStream>, log: &Mutex<Log>) -> Option<()> {
    match act {
        Act::Send(bytes) => stream.write_all(&bytes).await.ok(),
        Act::Wait(gate) => {
            let mut opened = gate.0.subscribe();
            tokio::select! {
                _ = opened.wait_for(|open| *open) => Some(()),
                _ = stream.read_u8() => {
                    log.lock().unwrap().abandoned += 1;
                    None
                }
            }
        }
        Act::Close => None,
    }
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> Option<Arrived> {
    let line = read_line(stream).await?;
    let mut request = Arrived {
        line,
        headers: Vec::new(),
        body: Vec::new(),
    };
    loop {
        let line = read_line(stream).await?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        request
            .headers
            .push((name.to_owned(), value.trim().to_owned()));
    }
    if request.header(HASTY).is_some() {
        return Some(request);
    }
    if let Some(length) = request.header("content-length") {
        request.body.resize(length.parse().ok()?, 0);
        stream.read_exact(&mut request.body).await.ok()?;
    } else if request.header("transfer-encoding").is_some() {
        loop {
            let length = usize::from_str_radix(&read_line(stream).await?, 16).ok()?;
            let from = request.body.len();
            request.body.resize(from + length, 0);
            stream.read_exact(&mut request.body[from..]).await.ok()?;
            read_line(stream).await?;
            if length == 0 {
                break;
            }
        }
    }
    Some(request)
}

async fn read_line(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    match stream.read_line(&mut line).await {
        Ok(read) if read > 0 => Some(line.trim_end().to_owned()),
        _ => None,
    }
}

/// Bytes as they are.
pub fn send(bytes: impl Into<Bytes>) -> Act {
    Act::Send(bytes.into())
}

/// A whole answer, whose length its head says.
pub fn answer(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Act {
    let mut head = format!("HTTP/1.1 {status} Scripted\r\n");
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let _ = write!(head, "content-length: {}\r\n\r\n", body.len());
    send([head.as_bytes(), body].concat())
}

/// A whole answer of JSON.
pub fn json_answer(status: u16, body: &Value) -> Act {
    let headers = [("content-type", "application/json")];
    answer(status, &headers, body.to_string().as_bytes())
}

/// A chat completion that says what it used.
pub fn completion(model: &str, input: i64, output: i64) -> Value {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model,
        "choices": [{
            "index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": "one two three"},
        }],
        "usage": usage(input, output),
    })
}

/// What OpenAI reports of a call.
pub fn usage(input: i64, output: i64) -> Value {
    json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output})
}

/// The head of a stream of events.
pub fn events_head() -> Act {
    send(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
         transfer-encoding: chunked\r\n\r\n",
    )
}

/// One piece of a body whose length nobody says.
pub fn chunk(bytes: impl AsRef<[u8]>) -> Act {
    let bytes = bytes.as_ref();
    let length = format!("{:x}\r\n", bytes.len());
    send([length.as_bytes(), bytes, b"\r\n"].concat())
}

/// The end of such a body.
pub fn last_chunk() -> Act {
    send("0\r\n\r\n")
}

/// An event with a piece of the answer.
pub fn delta(model: &str, text: &str) -> String {
    let event = json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model,
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}],
    });
    format!("data: {event}\n\n")
}

/// A stream of one word that waits before it says its usage.
pub fn stream_that_waits(gate: &Gate, model: &str, input: i64, output: i64) -> Script {
    script([
        events_head(),
        chunk(delta(model, " one")),
        Act::Wait(gate.clone()),
        chunk(usage_event(model, input, output)),
        chunk(DONE),
        last_chunk(),
    ])
}

/// The event with no choices that says what the stream used.
pub fn usage_event(model: &str, input: i64, output: i64) -> String {
    let event = json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model,
        "choices": [], "usage": usage(input, output),
    });
    format!("data: {event}\n\n")
}

/// The event that ends a stream.
pub const DONE: &str = "data: [DONE]\n\n";
