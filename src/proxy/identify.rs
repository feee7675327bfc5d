//! Identify: from the caller's credential to its account, and nothing else a caller could fill in (invariant 10).

use std::time::Duration;

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName};
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::refusal::Refusal;
use crate::ledger::{Identity, KeyHash, Ledger};

/// Where callers put their key; none of these headers is ever forwarded.
pub const CREDENTIAL_HEADERS: [HeaderName; 4] = [
    AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-goog-api-key"),
];

/// Live keys that are remembered.
const KEYS: usize = 100_000;
/// Unknown keys that are remembered, so that guessing costs the ledger little and us no memory.
const UNKNOWN_KEYS: usize = 10_000;
/// How long an unknown key stays unknown: one that is made meanwhile works that much later.
const UNKNOWN_FOR: Duration = Duration::from_secs(1);

/// Knows the keys.
pub struct Keys {
    known: Cache<KeyHash, Identity>,
    unknown: Cache<KeyHash, Instant>,
}

/// A caller, and what it takes to look it up again.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who it is.
    pub identity: Identity,
    hash: KeyHash,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            known: Cache::new(KEYS),
            unknown: Cache::new(UNKNOWN_KEYS),
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
        if let Some(identity) = self.known.get(&hash) {
            return Ok(Caller { identity, hash });
        }
        self.look_up(hash, ledger).await
    }

    /// Asks the ledger again, because the account's keys have changed.
    pub async fn look_up_again(
        &self,
        caller: &Caller,
        ledger: &impl Ledger,
    ) -> Result<Caller, Refusal> {
        self.look_up(caller.hash, ledger).await
    }

    async fn look_up(&self, hash: KeyHash, ledger: &impl Ledger) -> Result<Caller, Refusal> {
        if let Some(since) = self.unknown.get(&hash)
            && since.elapsed() < UNKNOWN_FOR
        {
            return Err(Refusal::InvalidKey);
        }
        match ledger.identify(&hash).await {
            Ok(Some(identity)) => {
                self.known.insert(hash, identity.clone());
                Ok(Caller { identity, hash })
            }
            Ok(None) => {
                self.known.remove(&hash);
                self.unknown.insert(hash, Instant::now());
                Err(Refusal::InvalidKey)
            }
            Err(_) => Err(Refusal::QuotaUnavailable(
                "the ledger is away and this key is not known yet",
            )),
        }
    }
}

/// The hash of the caller's secret. Looking it up by hash takes the same time however much of a key is right.
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
