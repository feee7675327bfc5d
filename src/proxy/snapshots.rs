//! The snapshots this sidecar has seen: only ever a first guess, since the store refuses a claim built from an old one.

use std::sync::Arc;

use quick_cache::sync::Cache;

use crate::quota::{AccountId, Mode, Snapshot, Status, Version};

/// Accounts that are remembered.
const ACCOUNTS: usize = 100_000;

/// Remembers accounts.
pub struct Snapshots {
    known: Cache<AccountId, Arc<Snapshot>>,
}

impl Default for Snapshots {
    fn default() -> Self {
        Self {
            known: Cache::new(ACCOUNTS),
        }
    }
}

impl Snapshots {
    /// What is known of the account; if nothing is, a snapshot of no version, which the store will answer with the
    /// real one.
    pub fn cached(&self, account: &AccountId) -> Arc<Snapshot> {
        let known = self.known.get(account);
        known.unwrap_or_else(|| Arc::new(unknown(account.clone())))
    }

    /// What is known of the account, if anything is.
    pub fn known(&self, account: &AccountId) -> Option<Arc<Snapshot>> {
        self.known.get(account)
    }

    /// Remembers a newer one.
    pub fn keep(&self, snapshot: Snapshot) -> Arc<Snapshot> {
        let snapshot = Arc::new(snapshot);
        self.known
            .insert(snapshot.account.clone(), snapshot.clone());
        snapshot
    }
}

fn unknown(account: AccountId) -> Snapshot {
    Snapshot {
        account,
        version: Version::default(),
        keys_version: 0,
        plan: None,
        mode: Mode::Enforce,
        status: Status::Active,
        anchor_at: None,
        limits: Vec::new(),
        overage: crate::money::Nanos::ZERO,
        markup_percent: None,
        throttle: None,
    }
}
