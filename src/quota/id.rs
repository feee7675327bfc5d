//! What is named, and by what: accounts, reservations, shards, lots, and the numbers that put their changes in order.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

/// The customer who pays.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct AccountId(Arc<str>);

const MAX_ACCOUNT_ID_BYTES: usize = 128;

/// The text cannot name an account.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an account id is 1 to 128 of A-Z, a-z, 0-9, `.`, `_`, `-` and `@`")]
pub struct AccountIdError;

impl AccountId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The shard this account belongs to, for ever (rule 17).
    pub fn shard(&self, shards: u16) -> ShardId {
        // FNV-1a, because it is stable across versions and platforms; it needs to spread, not to resist.
        let hash = self
            .0
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        let shard = hash % u64::from(shards);
        ShardId(u16::try_from(shard).expect("a remainder of a u16 is a u16"))
    }
}

impl FromStr for AccountId {
    type Err = AccountIdError;

    fn from_str(text: &str) -> Result<Self, AccountIdError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'@');
        if text.is_empty() || text.len() > MAX_ACCOUNT_ID_BYTES || !text.bytes().all(allowed) {
            return Err(AccountIdError);
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for AccountId {
    type Error = AccountIdError;
    fn try_from(text: String) -> Result<Self, AccountIdError> {
        text.parse()
    }
}

impl Serialize for AccountId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One call's whole claim; a UUIDv7 made by the sidecar (rule 1). Its usage record has the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReservationId(pub Uuid);

impl ReservationId {
    /// A fresh id.
    #[expect(
        clippy::new_without_default,
        reason = "a default would be the same id each time"
    )]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A fixed slice of the accounts.
    ShardId(u16)
);
number!(
    /// One grant's lot: the id of its `credit_grant`.
    LotId(i64)
);
number!(
    /// For how long a shard's state in the store is one: until the store has lost the shard, or another server keeps it.
    Epoch(i64)
);
number!(
    /// The number of an outbox entry within its shard; it never restarts (rule 18).
    OutSeq(i64)
);
number!(
    /// The number of a change the ledger made, within its shard (rule 20).
    ChangeSeq(i64)
);
number!(
    /// An account's version: a change of its plan, keys, status, limits or lots bumps it (rule 13).
    Version(i64)
);

/// The server that keeps a shard, as it names itself: a Redis that starts anew, or is promoted, has another name; an
/// embedded file has one for ever.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub String);

/// What the outbox will say of a call, as JSON text made at the edge; opaque to the store.
///
/// A hold carries the one that is true if it lapses now (rule 9). At most [`MAX_DETAIL_BYTES`].
pub type Detail = Arc<str>;
