//! An account as sidecars cache it: what it may do, and from which lots it pays.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::{AccountId, Limit, LotId, Version};
use crate::clock::UnixMs;
use crate::money::Nanos;

/// How strictly an account is held to its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// What does not fit is refused.
    #[default]
    Enforce,
    /// The decision is made and recorded, the call is held by force and charged (rule 30).
    Monitor,
    /// Metered and recorded, nothing charged.
    Off,
}

/// Whether an account may call at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It may.
    #[default]
    Active,
    /// Every call is refused.
    Suspended,
}

/// What a sidecar caches of an account; the store keeps it beside the balances and hands it to whoever has an older one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Whose.
    pub account: AccountId,
    /// Which.
    pub version: Version,
    /// Bumped when a key is revoked: a key cached under an older number is looked up again.
    pub keys_version: i64,
    /// The key of its plan.
    pub plan: Option<String>,
    /// How strictly it is held.
    pub mode: Mode,
    /// Whether it may call.
    pub status: Status,
    /// What its months are counted from; `None`: the calendar.
    pub anchor_at: Option<UnixMs>,
    /// One limit a counter, the lowest where several apply.
    pub limits: Vec<Limit>,
    /// How far below zero the wallet may go.
    pub overage: Nanos,
    /// Its plan's markup in percent, where the plan has one.
    pub markup_percent: Option<Decimal>,
}

/// When credit of one grant may be drawn on. A list of lots is in the order they are drawn:
/// priority → earliest expiry → promotional before paid → effective → created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lot {
    /// Which.
    pub id: LotId,
    /// From when on.
    pub effective_at: UnixMs,
    /// Until when, without that moment; `None`: for ever.
    pub expires_at: Option<UnixMs>,
}

impl Lot {
    /// Whether a new reservation may draw on it.
    pub fn is_live(&self, now: UnixMs) -> bool {
        self.effective_at <= now && self.expires_at.is_none_or(|end| now < end)
    }
}
