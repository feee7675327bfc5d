//! Identify: from the caller's credential to its account, and nothing else a caller could fill in (invariant 10).

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::MonotonicClock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName};
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::refusal::Refusal;
use crate::ledger::{Identity, KeyHash, Ledger};
use crate::quota::Throttle;

/// Where callers put their key; none of these headers is ever forwarded.
pub const CREDENTIAL_HEADERS: [HeaderName; 4] = [
    AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-goog-api-key"),
];

/// Live keys that are remembered.
const KEYS: usize = 100_000;
/// Keys that are remembered for having been refused, so that guessing costs the ledger little and us no memory.
const REFUSED_KEYS: usize = 10_000;
/// How long an unknown key stays unknown: one that is made meanwhile works that much later.
const UNKNOWN_FOR: Duration = Duration::from_secs(1);

/// How often keys that are not remembered may be looked up: so many at once after a rest, and then so many a second. It is
/// what a flood of made-up keys may cost the ledger, and what the keys of a sidecar that has just started may need.
const LOOK_UPS_AT_ONCE: NonZeroU32 = NonZeroU32::new(1_000).unwrap();
const LOOK_UPS_PER_SECOND: NonZeroU32 = NonZeroU32::new(200).unwrap();
/// Of these, so many may wait for a ledger that is slow, or away.
const LOOK_UPS_WAITING: usize = 64;

const LEDGER_AWAY: Refusal =
    Refusal::QuotaUnavailable("the ledger is away and this key is not known yet");
const TOO_MANY_LOOK_UPS: Refusal =
    Refusal::Overloaded("too many keys that are not known yet are being looked up");

/// Knows the keys.
pub struct Keys {
    known: Cache<KeyHash, Identity>,
    /// Why, and when.
    refused: Cache<KeyHash, (Refusal, Instant)>,
    rate: RateLimiter<NotKeyed, InMemoryState, MonotonicClock, NoOpMiddleware<std::time::Instant>>,
    waiting: Semaphore,
}

/// A caller, and what it takes to look it up again.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who it is.
    pub identity: Identity,
    hash: KeyHash,
    /// The throttle of its plan that it has passed.
    pub throttle: Option<Throttle>,
    /// In monitor mode, what the throttle would have refused it with.
    pub would_refuse: Option<&'static str>,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            known: Cache::new(KEYS),
            refused: Cache::new(REFUSED_KEYS),
            rate: RateLimiter::direct_with_clock(
                Quota::per_second(LOOK_UPS_PER_SECOND).allow_burst(LOOK_UPS_AT_ONCE),
                MonotonicClock,
            ),
            waiting: Semaphore::new(LOOK_UPS_WAITING),
        }
    }
}

impl Keys {
    /// Who calls. Whether the key was revoked since it was looked up is noticed by the account's snapshot (rule 13).
    pub async fn identify(
        &self,
        headers: &HeaderMap,
        ledger: &impl Ledger,
    ) -> Result<Caller, Refusal> {
        let hash = hash_of(headers)?;
        let identity = match self.known.get(&hash) {
            Some(identity) => identity,
            // Rare, and large: in a box, so that no call is made larger by it.
            None => Box::pin(self.first_look_up(&hash, ledger)).await?,
        };
        Ok(Caller {
            identity,
            hash,
            throttle: None,
            would_refuse: None,
        })
    }

    /// Asks the ledger again, because the account's keys have changed. A flood of made-up keys keeps nobody from it.
    pub async fn look_up_again(
        &self,
        caller: &Caller,
        ledger: &impl Ledger,
    ) -> Result<Identity, Refusal> {
        self.refuse_again(&caller.hash, Instant::now())?;
        let identity = self.look_up(&caller.hash, ledger).await;
        match &identity {
            Ok(identity) => self.known.insert(caller.hash, identity.clone()),
            Err(Refusal::InvalidKey) => drop(self.known.remove(&caller.hash)),
            Err(_) => {}
        }
        identity
    }

    /// Asks the ledger once for all that call with the same key at the same time, within the bounds of such questions.
    async fn first_look_up(
        &self,
        hash: &KeyHash,
        ledger: &impl Ledger,
    ) -> Result<Identity, Refusal> {
        let asked = Instant::now();
        self.refuse_again(hash, asked)?;
        let look_up = async {
            // Whoever asked before may have learned it: nobody waits for the same answer again.
            self.refuse_again(hash, asked)?;
            let waits = self.waiting.try_acquire();
            let waits = waits.map_err(|_| TOO_MANY_LOOK_UPS)?;
            self.rate.check().map_err(|_| TOO_MANY_LOOK_UPS)?;
            let identity = self.look_up(hash, ledger).await;
            drop(waits);
            identity
        };
        self.known.get_or_insert_async(hash, look_up).await
    }

    /// Refuses what is known to be unknown, and what the ledger has not answered since this was `asked`.
    fn refuse_again(&self, hash: &KeyHash, asked: Instant) -> Result<(), Refusal> {
        match self.refused.get(hash) {
            Some((refusal, at))
                if at >= asked || refusal == Refusal::InvalidKey && at.elapsed() < UNKNOWN_FOR =>
            {
                Err(refusal)
            }
            _ => Ok(()),
        }
    }

    async fn look_up(&self, hash: &KeyHash, ledger: &impl Ledger) -> Result<Identity, Refusal> {
        let refusal = match ledger.identify(hash).await {
            Ok(Some(identity)) => return Ok(identity),
            Ok(None) => Refusal::InvalidKey,
            Err(_) => LEDGER_AWAY,
        };
        let refused = (refusal.clone(), Instant::now());
        self.refused.insert(*hash, refused);
        Err(refusal)
    }
}

/// The hash of the caller's secret.
///
/// Keys are compared by their hashes alone, here and in the ledger: how long that takes tells at the most how the hash of a
/// guess begins. Nobody can choose that without choosing anew all that follows, so no guess leads to a better one.
fn hash_of(headers: &HeaderMap) -> Result<KeyHash, Refusal> {
    let secret = CREDENTIAL_HEADERS.iter().find_map(|name| {
        let value = headers.get(name)?.as_bytes();
        if name != AUTHORIZATION {
            return Some(value);
        }
        let (scheme, secret) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(secret)
    });
    let secret = secret
        .map(<[u8]>::trim_ascii)
        .filter(|secret| !secret.is_empty());
    let secret = secret.ok_or(Refusal::InvalidKey)?;
    Ok(KeyHash(Sha256::digest(secret).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(secret: &str) -> [u8; 32] {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, format!("Bearer {secret}").parse().unwrap());
        hash_of(&headers).unwrap().0
    }

    #[test]
    fn a_key_that_is_nearly_right_is_as_far_off_as_any_other() {
        const KEY: &str = "tg_0123456789abcdefghijklmnopqrstuv";
        let right = hash(KEY);
        let guesses = (0..KEY.len()).map(|at| format!("{}x{}", &KEY[..at], &KEY[at + 1..]));
        let halves = (1..KEY.len()).map(|length| KEY[..length].to_owned());
        for guess in guesses.chain(halves) {
            let pairs = hash(&guess).into_iter().zip(right);
            let bits: u32 = pairs.map(|(a, b)| (a ^ b).count_ones()).sum();
            assert!((80..=176).contains(&bits), "{guess}: {bits} of 256 bits");
        }
    }

    #[test]
    fn both_ledgers_know_a_key_by_its_hash_alone() {
        for source in [
            include_str!("../ledger/postgres/mod.rs"),
            include_str!("../ledger/sqlite/mod.rs"),
        ] {
            assert!(source.contains("WHERE api_key.hash = "));
            assert!(!source.contains("secret"));
        }
    }
}
