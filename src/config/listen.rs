//! Where the sidecar listens: three listeners, so that probes and the decision API are never on the callers' one.

use std::net::SocketAddr;
use std::thread::available_parallelism;
use std::time::Duration;

use super::error::Problem;
use super::raw::RawListen;
use super::{Secret, number, time};

/// More than that no sidecar needs.
const MAX_THREADS: i64 = 64;

/// The three listeners. Port 0 means: choose one and say which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// For the callers.
    pub proxy: SocketAddr,
    /// For the decision API: on loopback, or with a token.
    pub control: SocketAddr,
    /// For probes and metrics.
    pub health: SocketAddr,
    /// What callers of the decision API present.
    pub control_token: Option<Secret>,
    /// How many threads calls run on.
    pub threads: usize,
    /// How long calls in flight may take to end once the sidecar is told to stop.
    pub drain: Duration,
    /// How long an answer may wait for its caller to read on.
    pub write_timeout: Duration,
}

impl Listen {
    pub(super) fn usable(raw: RawListen) -> Result<Self, Problem> {
        let seconds =
            |key, typed, default, bounds| time(key, typed, default, bounds, Duration::from_secs(1));
        let processors = available_parallelism().map_or(1, usize::from);
        let one_each = i64::try_from(processors).map_or(MAX_THREADS, |all| all.min(MAX_THREADS));
        let threads = number("listen.threads", raw.threads, one_each, 1..=MAX_THREADS)?;
        let listen = Self {
            proxy: address("listen.proxy", raw.proxy.as_deref(), "127.0.0.1:8080")?,
            control: address("listen.control", raw.control.as_deref(), "127.0.0.1:8081")?,
            health: address("listen.health", raw.health.as_deref(), "127.0.0.1:8082")?,
            control_token: raw.control_token.map(Secret::from),
            threads: usize::try_from(threads).expect("the bound is within usize"),
            drain: seconds("listen.drain_s", raw.drain_s, 30, 0..=3600)?,
            write_timeout: seconds("listen.write_timeout_s", raw.write_timeout_s, 60, 1..=3600)?,
        };
        if let Some(token) = &listen.control_token
            && token.expose().trim().is_empty()
        {
            return Err(Problem::new("listen.control_token", "it is empty"));
        }
        if !listen.control.ip().is_loopback() && listen.control_token.is_none() {
            let message = "an address that others can reach needs `control_token`";
            return Err(Problem::new("listen.control", message));
        }
        listen.refuse_twins()?;
        Ok(listen)
    }

    fn refuse_twins(&self) -> Result<(), Problem> {
        let twin = |a: SocketAddr, b: SocketAddr| a == b && a.port() != 0;
        if twin(self.control, self.proxy) {
            let message = "the proxy listens at the same address";
            return Err(Problem::new("listen.control", message));
        }
        if twin(self.health, self.proxy) || twin(self.health, self.control) {
            let message = "another listener has the same address";
            return Err(Problem::new("listen.health", message));
        }
        Ok(())
    }
}

fn address(key: &str, typed: Option<&str>, default: &str) -> Result<SocketAddr, Problem> {
    let text = typed.unwrap_or(default);
    text.trim()
        .parse()
        .map_err(|_| Problem::new(key, "expected an IP address and a port: 127.0.0.1:8080"))
}
