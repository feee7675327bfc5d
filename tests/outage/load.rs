//! Steady load: callers who call again and again, whatever comes back, and remember what they were told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::harness::account::{chat, streamed_chat};
use crate::harness::client::{Call, Client, post};

const CALLERS: usize = 12;
/// Between two calls of a caller.
const PAUSE: Duration = Duration::from_millis(60);
/// A caller who hears nothing for so long gives up, as a client with a timeout does.
const PATIENCE: Duration = Duration::from_secs(8);

/// Where a sidecar listens, and which of the processes that were started one after another it is.
#[derive(Debug, Clone)]
pub struct Door {
    pub process: usize,
    pub url: String,
}

/// The sidecars that may be called now.
pub type Doors = Arc<RwLock<Vec<Door>>>;

/// A call that was answered as a success, its body to the end.
#[derive(Debug, Clone)]
pub struct Served {
    pub reservation: Uuid,
    pub process: usize,
    pub ended: Instant,
}

/// What all callers were told.
#[derive(Debug, Default)]
pub struct Told {
    pub served: Vec<Served>,
    pub refused: Vec<(u16, String)>,
    /// Calls that broke off or were never answered.
    pub broken: usize,
    /// The longest that anybody waited for a refusal.
    pub longest_refusal: Duration,
}

/// Callers at work.
pub struct Load {
    told: Arc<Mutex<Told>>,
    end: Arc<AtomicBool>,
    callers: Vec<JoinHandle<()>>,
}

impl Load {
    /// Callers who use one of these keys each.
    pub fn start(doors: &Doors, keys: &[String], seed: u64) -> Self {
        let told = Arc::new(Mutex::new(Told::default()));
        let end = Arc::new(AtomicBool::new(false));
        let mut rng = StdRng::seed_from_u64(seed);
        let caller = |at: usize| {
            let caller = Caller {
                key: keys[at % keys.len()].clone(),
                doors: doors.clone(),
                told: told.clone(),
                end: end.clone(),
                rng: StdRng::seed_from_u64(rng.random()),
            };
            tokio::spawn(caller.go_on())
        };
        let callers = (0..CALLERS).map(caller).collect();
        Self { told, end, callers }
    }

    /// How many calls were served so far.
    pub fn served(&self) -> usize {
        self.told.lock().unwrap().served.len()
    }

    /// Lets every caller end the call it is at.
    pub async fn end(self) -> Told {
        self.end.store(true, Ordering::Relaxed);
        for caller in self.callers {
            caller.await.expect("a caller does not panic");
        }
        std::mem::take(&mut *self.told.lock().unwrap())
    }
}

struct Caller {
    key: String,
    doors: Doors,
    told: Arc<Mutex<Told>>,
    end: Arc<AtomicBool>,
    rng: StdRng,
}

impl Caller {
    async fn go_on(mut self) {
        while !self.end.load(Ordering::Relaxed) {
            let door = {
                let doors = self.doors.read().unwrap();
                let at = self.rng.random_range(0..doors.len().max(1));
                doors.get(at).cloned()
            };
            if let Some(door) = door {
                let call = self.call(&door);
                self.make(call, &door).await;
            }
            sleep(PAUSE.mul_f64(self.rng.random_range(0.5..1.5))).await;
        }
    }

    fn call(&mut self, door: &Door) -> Call {
        let tokens = self.rng.random_range(1..40);
        let body = if self.rng.random_bool(0.4) {
            streamed_chat(tokens)
        } else {
            chat(tokens)
        };
        let call = post(format!("{}/openai/v1/chat/completions", door.url), &body).key(&self.key);
        let (name, value) = match self.rng.random_range(0..6) {
            0 => ("x-mock-delay-ms", self.rng.random_range(1..800)),
            1 => ("x-mock-chunk-delay-ms", self.rng.random_range(1..60)),
            // Never more than was asked for, and so held: an overrun is no overselling.
            2 => ("x-mock-output-tokens", self.rng.random_range(0..=tokens)),
            3 => ("x-mock-status", 500),
            _ => return call,
        };
        call.header(name, &value.to_string())
    }

    async fn make(&self, call: Call, door: &Door) {
        let began = Instant::now();
        let answer = timeout(PATIENCE, Client::new().try_send(call)).await;
        let mut told = self.told.lock().unwrap();
        let Ok(Ok(answer)) = answer else {
            told.broken += 1;
            return;
        };
        let reservation = answer.header("x-tollgate-reservation");
        if let Some(reservation) = reservation.and_then(|id| id.parse().ok()) {
            told.served.push(Served {
                reservation,
                process: door.process,
                ended: Instant::now(),
            });
            return;
        }
        told.longest_refusal = told.longest_refusal.max(began.elapsed());
        let status = answer.status.as_u16();
        let code = serde_json::from_slice::<Value>(&answer.body).ok();
        let code = code.and_then(|body| Some(body["error"]["code"].as_str()?.to_owned()));
        told.refused.push((status, code.unwrap_or_default()));
    }
}
