//! Streams of events: what a proxy adds to the first byte and to each event, and what an open stream takes of it.
//!
//! Upstream and callers are tasks of this process, so that each event can carry the moment it was sent.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::Effort;
use crate::load::{self, BODY};
use crate::nginx::Nginx;
use crate::process::resident_bytes;
use crate::report::{Report, median};
use crate::setting::Setting;

const PATH: &str = "/v1/chat/completions";
const STREAMS: usize = 200;
/// Between two events of a stream.
const PACE: Duration = Duration::from_millis(20);
const BUFFER_BYTES: usize = 16 * 1024;

/// What moments are counted from.
static ZERO: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What one stream took, in microseconds.
pub struct Streamed {
    first_byte_us: f64,
    /// From the upstream to the caller, an event each.
    delays_us: Vec<f64>,
}

/// What a round of a contestant came to, in microseconds.
struct Round {
    first_byte: f64,
    delay: f64,
    late_delay: f64,
}

pub fn run(report: &mut Report, effort: Effort) {
    let runtime = Runtime::new().expect("a runtime");
    let events = effort.of(50, 500);
    let upstream = runtime.block_on(upstream(events));
    let nginx = Nginx::plain(&upstream);
    let setting = Setting::embedded();
    let customer = setting.customer();
    let sidecar = setting.sidecar(&upstream, None);
    let metered = format!("/openai{PATH}");
    let contestants = [
        ("direct", upstream.as_str(), PATH, None),
        (
            "nginx, proxy_pass",
            nginx.url.as_str(),
            PATH,
            Some(nginx.pid()),
        ),
        (
            "Tollgate, embedded",
            sidecar.proxy.as_str(),
            metered.as_str(),
            Some(sidecar.pid()),
        ),
    ];
    let mut rounds: Vec<Vec<Round>> = contestants.iter().map(|_| Vec::new()).collect();
    let mut grown: Vec<Vec<f64>> = contestants.iter().map(|_| Vec::new()).collect();
    for _ in 0..effort.of(1, 5) {
        for (place, (_, base, path, pid)) in contestants.iter().enumerate() {
            let streams = runtime.block_on(streams(base, path, &customer.key, *pid));
            rounds[place].push(round(streams.0));
            grown[place].push(streams.1);
        }
    }
    let of = |place: usize, what: fn(&Round) -> f64| median(rounds[place].iter().map(what));
    for (place, (name, ..)) in contestants.iter().enumerate() {
        report.figure(
            &format!("{name}: to the first byte, p50"),
            of(place, |it| it.first_byte),
            "us",
        );
        report.figure(
            &format!("{name}: an event on its way, p50"),
            of(place, |it| it.delay),
            "us",
        );
        report.figure(
            &format!("{name}: an event on its way, p99"),
            of(place, |it| it.late_delay),
            "us",
        );
        if place > 0 {
            let bytes = median(grown[place].iter().copied()) / STREAMS as f64;
            report.figure(&format!("{name}: an open stream, resident"), bytes, "bytes");
        }
    }
    let added = |what: fn(&Round) -> f64| {
        let pairs = rounds[2].iter().zip(&rounds[1]);
        median(pairs.map(|(ours, theirs)| what(ours) - what(theirs)))
    };
    report.figure(
        "added to nginx: to the first byte, p50",
        added(|it| it.first_byte),
        "us",
    );
    report.figure(
        "added to nginx: an event on its way, p50",
        added(|it| it.delay),
        "us",
    );
    report.figure(
        "added to nginx: an event on its way, p99",
        added(|it| it.late_delay),
        "us",
    );
}

fn round(streams: Vec<Streamed>) -> Round {
    let first_byte = median(streams.iter().map(|stream| stream.first_byte_us));
    let mut delays: Vec<f64> = streams
        .into_iter()
        .flat_map(|stream| stream.delays_us)
        .collect();
    delays.sort_by(f64::total_cmp);
    Round {
        first_byte,
        delay: delays[delays.len() / 2],
        late_delay: delays[delays.len() * 99 / 100],
    }
}

/// All streams at once; what they took, and by how much they made a process grow while they were open.
async fn streams(base: &str, path: &str, key: &str, pid: Option<u32>) -> (Vec<Streamed>, f64) {
    let request = request(base, path, key);
    let address = load::address(base);
    let before = pid.map_or(0.0, resident_bytes);
    let streams = (0..STREAMS).map(|place| {
        let request = request.clone();
        tokio::spawn(async move {
            // Spread over one pace: a stampede would measure the machine's queue.
            sleep(PACE * u32::try_from(place).expect("few") / 20).await;
            stream(address, &request).await
        })
    });
    let streams = join_all(streams);
    let look = async {
        sleep(PACE * 25).await;
        pid.map_or(0.0, resident_bytes) - before
    };
    let (streams, grown) = tokio::join!(streams, look);
    (
        streams.into_iter().map(|it| it.expect("it ends")).collect(),
        grown,
    )
}

/// A chat call whose answer is to be streamed.
pub fn request(base: &str, path: &str, key: &str) -> Vec<u8> {
    let body = BODY.replacen(
        '{',
        r#"{"stream":true,"stream_options":{"include_usage":true},"#,
        1,
    );
    load::request(base, path, key, &body)
}

/// One stream to its end.
pub async fn stream(address: std::net::SocketAddr, request: &[u8]) -> Streamed {
    let mut stream = TcpStream::connect(address).await.expect("somebody listens");
    stream.set_nodelay(true).expect("a connected socket");
    let sent = Instant::now();
    stream
        .write_all(request)
        .await
        .expect("the request goes out");
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut filled = 0;
    let mut first_byte_us = None;
    let mut delays_us = Vec::new();
    loop {
        let read = stream
            .read(&mut buffer[filled..])
            .await
            .expect("events come");
        assert!(
            read > 0,
            "it broke off: {}",
            String::from_utf8_lossy(&buffer[..filled])
        );
        let now = ZERO.elapsed();
        first_byte_us.get_or_insert_with(|| {
            assert!(
                buffer.starts_with(b"HTTP/1.1 200"),
                "{}",
                String::from_utf8_lossy(&buffer[..read])
            );
            sent.elapsed().as_secs_f64() * 1e6
        });
        filled += read;
        let is_over = buffer[..filled]
            .windows(6)
            .any(|window| window == b"[DONE]");
        let used = note_events(&buffer[..filled], now, &mut delays_us);
        buffer.copy_within(used..filled, 0);
        filled -= used;
        if is_over {
            let first_byte_us = first_byte_us.expect("something came");
            return Streamed {
                first_byte_us,
                delays_us,
            };
        }
    }
}

/// Notes how long ago each event was sent; returns how much was read.
fn note_events(bytes: &[u8], now: Duration, delays_us: &mut Vec<f64>) -> usize {
    const MARK: &[u8] = b"\"id\":\"at-";
    let mut used = 0;
    while let Some(end) = bytes[used..].windows(2).position(|two| two == b"\n\n") {
        let event = &bytes[used..used + end];
        if let Some(at) = event.windows(MARK.len()).position(|window| window == MARK) {
            let digits = event[at + MARK.len()..]
                .iter()
                .take_while(|byte| byte.is_ascii_digit());
            let sent = digits.fold(0, |sum: u64, digit| sum * 10 + u64::from(digit - b'0'));
            delays_us.push(now.saturating_sub(Duration::from_nanos(sent)).as_secs_f64() * 1e6);
        }
        used += end + 2;
    }
    used
}

/// An upstream whose streams have so many events, one a [`PACE`].
pub async fn upstream(events: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::spawn(answer(stream, events));
        }
    });
    format!("http://{address}")
}

/// Answers one call after the other, as long as the connection lives.
async fn answer(mut stream: TcpStream, events: usize) -> Option<()> {
    const HEAD: &[u8] =
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let mut filled = 0;
        // Every call's body ends so, and nothing before it does.
        while !buffer[..filled].ends_with(b"\"}]}") {
            match stream.read(&mut buffer[filled..]).await.ok()? {
                0 => return None,
                read => filled += read,
            }
        }
        stream.write_all(HEAD).await.ok()?;
        let mut ticks = interval(PACE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for _ in 0..events {
            ticks.tick().await;
            let at = ZERO.elapsed().as_nanos();
            let event = format!(
                r#"data: {{"id":"at-{at}","object":"chat.completion.chunk","created":1,"model":"house-chat","choices":[{{"index":0,"delta":{{"content":" river"}},"finish_reason":null}}]}}"#
            );
            chunk(&mut stream, &event).await?;
        }
        let usage = r#"data: {"id":"end","object":"chat.completion.chunk","created":1,"model":"house-chat","choices":[],"usage":{"prompt_tokens":38,"completion_tokens":500,"total_tokens":538}}"#;
        chunk(&mut stream, usage).await?;
        chunk(&mut stream, "data: [DONE]").await?;
        stream.write_all(b"0\r\n\r\n").await.ok()?;
    }
}

async fn chunk(stream: &mut TcpStream, event: &str) -> Option<()> {
    let chunk = format!("{:x}\r\n{event}\n\n\r\n", event.len() + 2);
    stream.write_all(chunk.as_bytes()).await.ok()
}
