//! Traffic that goes on for as long as a soak takes, in a bounded amount of memory and with few threads: calls of many
//! accounts in an open loop, one after the other stream beside them, and an account whose credit runs out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::histogram::Histogram;
use crate::load::{self, BODY, Caller};
use crate::stream;

pub const PATH: &str = "/openai/v1/chat/completions";
const STREAM_PATH: &str = "/streams/v1/chat/completions";
/// Of so many calls one is of the account whose credit runs out.
const POOR_EACH: usize = 50;

/// Who calls whom, how often, and for how long.
pub struct Plan<'a> {
    /// What its callers' threads are called, so that one that fails says whose it was.
    pub name: &'a str,
    /// The base URL of the proxy.
    pub proxy: &'a str,
    /// The keys of accounts that never run dry.
    pub rich: Vec<&'a str>,
    /// The key of one that does.
    pub poor: &'a str,
    pub per_second: f64,
    pub connections: usize,
    /// How many streams are open at any time.
    pub streams: usize,
    pub time: Duration,
}

/// What callers note down.
#[derive(Default)]
pub struct Seen {
    /// Of calls that are not streamed, refused ones too.
    pub taken: Histogram,
    /// Calls that were answered by the upstream.
    pub admitted: AtomicU64,
    pub refused: AtomicU64,
    pub streamed: AtomicU64,
}

/// Everybody who calls.
pub struct Traffic {
    pub seen: Arc<Seen>,
    callers: Vec<thread::JoinHandle<()>>,
    streams: Vec<JoinHandle<()>>,
}

/// A call, and whether it may be refused.
struct Turn {
    request: Vec<u8>,
    is_poor: bool,
}

impl Traffic {
    pub fn begin(plan: &Plan<'_>, runtime: &Runtime, began: Instant) -> Self {
        let seen = Arc::new(Seen::default());
        let turns = Arc::new(turns(plan));
        let next = Arc::new(AtomicU64::new(0));
        let address = load::address(plan.proxy);
        let (per_second, time) = (plan.per_second, plan.time);
        let callers = (0..plan.connections).map(|_| {
            let (seen, turns, next) = (seen.clone(), turns.clone(), next.clone());
            let mut caller = Caller::connect(address);
            let thread = thread::Builder::new().name(plan.name.to_owned());
            let caller = thread.spawn(move || {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let meant = Duration::from_secs_f64(place as f64 / per_second);
                    if meant >= time {
                        return;
                    }
                    thread::sleep(meant.saturating_sub(began.elapsed()));
                    let turn = &turns[place as usize % turns.len()];
                    let is_admitted = turn.is_admitted(&mut caller);
                    seen.taken.note(began.elapsed().saturating_sub(meant));
                    seen.count(is_admitted);
                }
            });
            caller.expect("there is room for a thread")
        });
        let callers = callers.collect();
        let streams = plan.rich.iter().cycle().take(plan.streams).map(|key| {
            let request = stream::request(plan.proxy, STREAM_PATH, key);
            runtime.spawn(stream_on(address, request, seen.clone(), began + time))
        });
        let streams = streams.collect();
        Self {
            seen,
            callers,
            streams,
        }
    }

    /// Fails at once where a call has failed: whoever made it is gone, and has said why.
    pub fn goes_on(&self, is_over: bool) {
        let gone = self.callers.iter().any(thread::JoinHandle::is_finished)
            || self.streams.iter().any(JoinHandle::is_finished);
        assert!(
            is_over || !gone,
            "a call has failed: its caller has said why"
        );
    }

    /// Waits until all are done, and says how many calls the upstream has answered.
    pub fn end(self, runtime: &Runtime) -> u64 {
        for caller in self.callers {
            caller.join().expect("all calls are answered");
        }
        for stream in self.streams {
            let ended = runtime.block_on(stream);
            ended.expect("all streams come to their end");
        }
        self.seen.admitted.load(Ordering::Relaxed) + self.seen.streamed.load(Ordering::Relaxed)
    }
}

impl Seen {
    fn count(&self, is_admitted: bool) {
        let counter = if is_admitted {
            &self.admitted
        } else {
            &self.refused
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Turn {
    /// Any other answer ends the run.
    fn is_admitted(&self, caller: &mut Caller) -> bool {
        let answer = caller.ask(&self.request);
        let is_refused = answer.starts_with(b"HTTP/1.1 429") || answer.starts_with(b"HTTP/1.1 402");
        let is_admitted = answer.starts_with(b"HTTP/1.1 200");
        assert!(
            is_admitted || self.is_poor && is_refused,
            "{}",
            String::from_utf8_lossy(answer)
        );
        is_admitted
    }
}

/// The accounts in turn.
fn turns(plan: &Plan<'_>) -> Vec<Turn> {
    let turn = |key: &str, is_poor| Turn {
        request: load::request(plan.proxy, PATH, key, BODY),
        is_poor,
    };
    let rich = plan.rich.iter().cycle().take(plan.rich.len() * POOR_EACH);
    let rich = rich.map(|key| turn(key, false));
    let mut turns: Vec<Turn> = rich.collect();
    for place in (0..turns.len()).step_by(POOR_EACH) {
        turns[place] = turn(plan.poor, true);
    }
    turns
}

/// One stream after the other, each on a connection of its own.
async fn stream_on(address: SocketAddr, request: Vec<u8>, seen: Arc<Seen>, until: Instant) {
    while Instant::now() < until {
        stream::stream(address, &request).await;
        seen.streamed.fetch_add(1, Ordering::Relaxed);
    }
}
