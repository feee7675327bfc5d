//! An account as sidecars cache it: what it may do, and from which lots it pays.

use std::num::NonZeroU32;

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

/// How fast calls may come to one sidecar. Nothing is counted in the store: with ten sidecars, ten times as many may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Throttle {
    /// Of the whole account; `None`: as they come.
    pub account: Option<Burst>,
    /// Of each of its keys.
    pub key: Option<Burst>,
}

/// A burst at once, and then so many a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Burst {
    /// Calls a second that come back of the burst.
    pub per_second: NonZeroU32,
    /// Calls at once, after a rest.
    pub burst: NonZeroU32,
}

/// The largest number of calls in a [`Burst`].
pub const MAX_BURST: u32 = 1_000_000;

impl Burst {
    /// `None` where one of them is zero or above [`MAX_BURST`].
    pub fn new(per_second: i64, burst: i64) -> Option<Self> {
        let bounded = |calls: i64| {
            let calls = u32::try_from(calls)
                .ok()
                .filter(|calls| *calls <= MAX_BURST);
            calls.and_then(NonZeroU32::new)
        };
        Some(Self {
            per_second: bounded(per_second)?,
            burst: bounded(burst)?,
        })
    }
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
    /// Its plan's throttle, in place of the configuration's, where the plan has one. It is the last field, so that what
    /// a journal or a store kept before there was any is read as one without.
    #[serde(default)]
    pub throttle: Option<Throttle>,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(throttle: Option<Throttle>) -> Snapshot {
        Snapshot {
            account: "acme".parse().unwrap(),
            version: Version(3),
            keys_version: 1,
            plan: None,
            mode: Mode::Enforce,
            status: Status::Active,
            anchor_at: None,
            limits: Vec::new(),
            overage: Nanos::ZERO,
            markup_percent: None,
            throttle,
        }
    }

    /// A journal from before there was a throttle ends one field earlier.
    #[test]
    fn a_snapshot_without_a_throttle_reads_as_one_that_has_none() {
        let none = snapshot(None);
        let mut packed = rmp_serde::to_vec(&none).unwrap();
        assert_eq!(
            (packed[0], packed.pop()),
            (0x9b, Some(0xc0)),
            "11 fields, and nil"
        );
        packed[0] = 0x9a;
        assert_eq!(rmp_serde::from_slice::<Snapshot>(&packed).unwrap(), none);

        let throttle = Throttle {
            account: Burst::new(5, 9),
            key: None,
        };
        let packed = rmp_serde::to_vec(&snapshot(Some(throttle))).unwrap();
        let read: Snapshot = rmp_serde::from_slice(&packed).unwrap();
        assert_eq!(read.throttle, Some(throttle));
        let mut text = serde_json::to_value(&read).unwrap();
        text.as_object_mut().unwrap().remove("throttle");
        assert_eq!(serde_json::from_value::<Snapshot>(text).unwrap(), none);
    }
}
