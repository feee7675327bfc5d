//! Callers: one that speaks HTTP as everybody does, and one that decides about every byte.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Between two bytes of a caller that takes its time.
const PACE: Duration = Duration::from_millis(50);
/// Nothing in a test takes this long unless it is stuck.
const STUCK: Duration = Duration::from_mins(1);

/// Keeps connections alive between calls; for one test, because connections live in its runtime.
#[derive(Clone)]
pub struct Client(Pool<HttpConnector, Full<Bytes>>);

/// A call to be made.
#[derive(Debug, Clone)]
pub struct Call {
    method: Method,
    url: String,
    headers: Vec<(String, String)>,
    body: Bytes,
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// An answer whose body is still on its way.
pub struct Opened {
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: Incoming,
}

/// A call with a JSON body.
pub fn post(url: impl Into<String>, body: &Value) -> Call {
    Call::new(Method::POST, url)
        .header("content-type", "application/json")
        .body(body.to_string())
}

/// A call without a body.
pub fn get(url: impl Into<String>) -> Call {
    Call::new(Method::GET, url)
}

impl Call {
    pub fn new(method: Method, url: impl Into<String>) -> Self {
        Self {
            method,
            url: url.into(),
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    /// Presents a secret the way the OpenAI SDKs do.
    pub fn key(self, secret: &str) -> Self {
        self.header("authorization", &format!("Bearer {secret}"))
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Calls over a connection of its own and reads the whole answer.
    pub async fn send(self) -> Answer {
        Client::new().send(self).await
    }

    /// Calls over a connection of its own and reads the head of the answer.
    pub async fn open(self) -> Opened {
        Client::new().open(self).await
    }

    /// The call as it goes over the wire, for a [`Wire`].
    pub fn bytes(&self) -> Vec<u8> {
        let uri: http::Uri = self.url.parse().expect("a URL");
        let path = uri.path_and_query().expect("a URL with a path");
        let host = uri.authority().expect("a URL with a host");
        let mut text = format!("{} {path} HTTP/1.1\r\nhost: {host}\r\n", self.method);
        for (name, value) in &self.headers {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        let _ = write!(text, "content-length: {}\r\n\r\n", self.body.len());
        [text.as_bytes(), &self.body].concat()
    }

    /// Sends the call and leaves the rest to the test.
    pub async fn wire(&self) -> Wire {
        let mut wire = Wire::connect(&self.url).await;
        wire.write(&self.bytes()).await;
        wire
    }
}

impl Client {
    pub fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self(Pool::builder(TokioExecutor::new()).build(connector))
    }

    pub async fn send(&self, call: Call) -> Answer {
        self.open(call).await.read().await
    }

    /// What a caller sees of a sidecar that may be gone.
    pub async fn try_send(&self, call: Call) -> Result<Answer, String> {
        self.try_open(call).await?.try_read().await
    }

    pub async fn open(&self, call: Call) -> Opened {
        let url = call.url.clone();
        let opened = self.try_open(call).await;
        opened.unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    async fn try_open(&self, call: Call) -> Result<Opened, String> {
        let mut request = http::Request::builder().method(call.method).uri(&call.url);
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(call.body)).expect("a request");
        let response = tokio::time::timeout(STUCK, self.0.request(request)).await;
        let response = response.map_err(|_| "no answer".to_owned())?;
        let (head, body) = response.map_err(|error| format!("{error:?}"))?.into_parts();
        Ok(Opened {
            status: head.status,
            headers: head.headers,
            body,
        })
    }
}

impl Opened {
    /// The next piece of the body; `None` at its end.
    pub async fn piece(&mut self) -> Option<Bytes> {
        let frame = tokio::time::timeout(STUCK, self.body.frame()).await;
        let frame = frame
            .expect("the answer goes on")?
            .expect("the answer does not break off");
        Some(frame.into_data().expect("no trailers"))
    }

    pub async fn read(self) -> Answer {
        let read = self.try_read().await;
        read.expect("the answer comes to its end")
    }

    pub async fn try_read(self) -> Result<Answer, String> {
        let body = tokio::time::timeout(STUCK, self.body.collect()).await;
        let body = body.map_err(|_| "the answer does not end".to_owned())?;
        Ok(Answer {
            status: self.status,
            headers: self.headers,
            body: body.map_err(|error| format!("{error:?}"))?.to_bytes(),
        })
    }
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .get(name)
            .map(|value| value.to_str().expect("a readable header"))
    }

    /// What explains a refusal, whichever of the two shapes it has.
    #[track_caller]
    pub fn explanation(&self) -> Value {
        let body = self.json();
        match self.header("content-type") {
            Some("application/problem+json") => body,
            _ => body["error"].clone(),
        }
    }

    /// The code of a refusal.
    #[track_caller]
    pub fn code(&self) -> String {
        let code = &self.explanation()["code"];
        code.as_str()
            .unwrap_or_else(|| panic!("a refusal: {}", self.text()))
            .to_owned()
    }

    /// Panics, showing the answer, unless it has this status.
    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(
            self.status.as_u16(),
            status,
            "{:?} {}",
            self.headers,
            self.text()
        );
        self
    }

    /// Panics, showing the answer, unless it is this refusal.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> Self {
        let answer = self.is(status);
        assert_eq!(answer.code(), code, "{}", answer.text());
        answer
    }
}

/// A bare connection: whoever holds it decides when which byte is sent, how much is read, and when it breaks.
pub struct Wire(TcpStream);

impl Wire {
    /// Connects to the host of a URL.
    pub async fn connect(url: &str) -> Self {
        Self::try_connect(url).await.expect("somebody listens")
    }

    /// The same where somebody may be dead.
    pub async fn try_connect(url: &str) -> Option<Self> {
        let uri: http::Uri = url.parse().expect("a URL");
        let address: SocketAddr = uri
            .authority()
            .expect("a host")
            .as_str()
            .parse()
            .expect("an address");
        let stream = TcpStream::connect(address).await.ok()?;
        stream.set_nodelay(true).expect("a connected socket");
        Some(Self(stream))
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        let written = self.try_write(bytes).await;
        written.expect("a connection that takes bytes");
    }

    /// The same where the other side may be dead.
    pub async fn try_write(&mut self, bytes: &[u8]) -> Option<()> {
        self.0.write_all(bytes).await.ok()
    }

    /// Reads so many bytes at the most, or until the other side closes the connection, cleanly or not.
    pub async fn read_at_most(&mut self, bytes: u64) -> Vec<u8> {
        let mut came = Vec::new();
        let mut some = (&mut self.0).take(bytes);
        let read = tokio::time::timeout(STUCK, some.read_to_end(&mut came)).await;
        let _ = read.expect("the connection ends");
        came
    }

    /// Reads until what came contains `needle`, and returns all that came.
    pub async fn read_until(&mut self, needle: &[u8]) -> Vec<u8> {
        let mut came = Vec::new();
        let mut buffer = [0; 4096];
        while !came.windows(needle.len()).any(|window| window == needle) {
            let read = tokio::time::timeout(STUCK, self.0.read(&mut buffer)).await;
            let read = read
                .expect("more comes")
                .expect("a connection that gives bytes");
            let shown = || String::from_utf8_lossy(&came).into_owned();
            assert_ne!(read, 0, "the connection ended after {:?}", shown());
            came.extend_from_slice(&buffer[..read]);
        }
        came
    }

    /// Reads until the other side closes the connection, cleanly or not.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        self.read_at_most(u64::MAX).await
    }

    /// Sends these bytes one after the other, and again from the first, until the other side speaks or ends the
    /// connection; returns all it says until that.
    pub async fn trickle(&mut self, bytes: &[u8]) -> Vec<u8> {
        let answered = async {
            for byte in bytes.iter().cycle() {
                let came = tokio::time::timeout(PACE, self.0.readable()).await;
                if came.is_ok() || self.try_write(&[*byte]).await.is_none() {
                    break;
                }
            }
        };
        let answered = tokio::time::timeout(STUCK, answered).await;
        answered.expect("nobody is waited for without an end");
        self.read_to_end().await
    }

    /// Tells the other side that nothing more will come, and goes on reading.
    pub async fn send_no_more(&mut self) {
        let ended = self.0.shutdown().await;
        ended.expect("a connection that takes an end");
    }

    /// Closes the connection so that the other side reads an end.
    pub fn hang_up(self) {
        drop(self.0);
    }

    /// Breaks the connection so that the other side gets an error: what it still sends is answered with a reset.
    pub fn reset(self) {
        self.0.set_zero_linger().expect("a connected socket");
        drop(self.0);
    }
}
