//! Everything at once: callers who hang up anywhere, upstreams that refuse, break and overrun, and a sidecar that is
//! killed in the middle. Whatever happened, the books balance to the nano (invariants 2, 3, 4, 6).

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::harness::account::{Account, chat, streamed_chat};
use crate::harness::client::{Call, Wire};
use crate::harness::configuration::Settings;
use crate::harness::installation::installation_with_room;
use crate::harness::sidecar::Sidecar;
use crate::harness::wait::until;

const CALLERS: usize = 24;
const CALLS_EACH: usize = 20;

#[tokio::test]
async fn whatever_callers_upstreams_and_a_killed_sidecar_do_the_books_balance() {
    let seed = std::env::var("TOLLGATE_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| rand::rng().random());
    println!("TOLLGATE_TEST_SEED={seed}");
    let installation = installation_with_room().await;
    let limits = r#"{ resource = "tokens", window = "month", limit = 100000000 },
                    { resource = "requests", window = "overall", limit = 1000000 },
                    { resource = "spend", window = "day", limit = "100" }"#;
    let account = installation.account_on(&installation.plan(limits), "1");
    let settings = || Settings {
        deadline_s: 2,
        ..Settings::default()
    };
    let count = if installation.is_embedded() { 1 } else { 3 };
    let start = || installation.sidecar(&settings());
    let mut sidecars: Vec<Sidecar> = (0..count).map(|_| start()).collect();

    let mut rng = StdRng::seed_from_u64(seed);
    let callers = (0..CALLERS).map(|_| {
        let mut rng = StdRng::seed_from_u64(rng.random());
        let attempts: Vec<_> = (0..CALLS_EACH)
            .map(|_| Attempt::new(&mut rng, &account, &sidecars))
            .collect();
        tokio::spawn(async move {
            let mut told = Vec::new();
            for attempt in attempts {
                told.extend(attempt.make().await);
            }
            told
        })
    });
    let callers: Vec<_> = callers.collect();
    // In the middle: when the first of the callers' records are there.
    until("a quarter of the calls has ended", async || {
        (account.records().await.len() >= CALLERS * CALLS_EACH / 4).then_some(())
    })
    .await;
    sidecars[0].kill();
    // Where there is no other one, whoever opens its file next finds what it has left.
    let _next = installation.is_embedded().then(start);
    let mut told = BTreeSet::new();
    for caller in callers {
        told.extend(caller.await.expect("no panic"));
    }

    account.until_nothing_held().await;
    // Endings that the store has may still be on their way to the ledger.
    until(
        "every call has its record, and the records say what the balance says",
        async || {
            let records = account.records().await;
            let known: BTreeSet<_> = records.iter().map(|record| record.id.to_string()).collect();
            let charged: i64 = records.iter().map(|record| record.charged).sum();
            (told.is_subset(&known) && account.available() == 1_000_000_000 - charged).then_some(())
        },
    )
    .await;
    installation.verify();
    assert!(
        told.len() > CALLERS * CALLS_EACH / 8,
        "too few calls got anywhere: {}",
        told.len()
    );
}

/// One call, and how its caller behaves.
struct Attempt {
    url: String,
    call: Call,
    /// Hangs up after so many bytes.
    patience_bytes: u64,
    reset: bool,
}

impl Attempt {
    fn new(rng: &mut StdRng, account: &Account<'_>, sidecars: &[Sidecar]) -> Self {
        let sidecar = &sidecars[rng.random_range(0..sidecars.len())];
        let max_tokens = rng.random_range(1..40);
        let body = if rng.random_bool(0.6) {
            streamed_chat(max_tokens)
        } else {
            chat(max_tokens)
        };
        let mut call = account.chat(sidecar, &body).header("connection", "close");
        let steering = match rng.random_range(0..8) {
            0 => Some(("x-mock-status", rng.random_range(400..600))),
            1 => Some(("x-mock-break-after-events", rng.random_range(0..12))),
            2 => Some(("x-mock-output-tokens", rng.random_range(0..100))),
            3 => Some(("x-mock-no-usage", 1)),
            4 => Some(("x-mock-chunk-delay-ms", rng.random_range(1..20))),
            5 => Some(("x-mock-delay-ms", rng.random_range(1..200))),
            _ => None,
        };
        if let Some((name, value)) = steering {
            call = call.header(name, &value.to_string());
        }
        Self {
            url: sidecar.proxy.clone(),
            call,
            patience_bytes: if rng.random_bool(0.5) {
                rng.random_range(0..4000)
            } else {
                u64::MAX
            },
            reset: rng.random_bool(0.5),
        }
    }

    /// Makes the call; returns the reservation it was told of.
    async fn make(self) -> Option<String> {
        let mut wire = Wire::try_connect(&self.url).await?;
        wire.try_write(&self.call.bytes()).await?;
        let came = wire.read_at_most(self.patience_bytes).await;
        if self.reset {
            wire.reset();
        }
        let head = String::from_utf8_lossy(&came);
        let id = head.split("x-tollgate-reservation: ").nth(1)?.get(..36)?;
        Some(id.to_owned())
    }
}
