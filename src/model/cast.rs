//! Who and what there is in the model: accounts, lots, calls, and what each of them asks for.
//!
//! Amounts are small, so that credit and quota run out within a few calls.

use std::rc::Rc;

use uuid::Uuid;

use super::world::World;
use crate::clock::UnixMs;
use crate::ledger::{Installation, NewGrant, Truth};
use crate::money::{Amount, Nanos};
use crate::quota::{
    AccountId, Admission, Count, Line, Mode, Outcome, Progress, ReservationId, Reserve, Settle,
    ShardId, Snapshot, Span, Status, Version,
};

/// The one shard that there is: shards know nothing of one another.
pub const SHARD: ShardId = ShardId(0);
pub const ACCOUNTS: usize = 2;
/// What a call holds of the wallet.
pub const HOLD: i64 = 4;
/// What a lapse charges at the least.
pub const FLOOR: i64 = 1;
/// How long a hold lives.
pub const DEADLINE_MS: i64 = 10;
/// When the first lot's time is over.
pub const EXPIRY: UnixMs = UnixMs(20);
/// How many calls of an account may be counted at once.
const LIMIT: i64 = 3;
const COUNTER: &str = "account/requests/overall";

/// Whose call it is.
pub fn account_of(call: usize) -> usize {
    usize::from(call % 3 == 2)
}

pub fn account(index: usize) -> AccountId {
    ["a", "b"][index].parse().expect("a name")
}

pub fn id(call: usize) -> ReservationId {
    let first = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000);
    let (high, low) = first.as_u64_pair();
    ReservationId(Uuid::from_u64_pair(high, low + call as u64))
}

/// A ledger with two accounts: one has a lot that expires and one that does not, the other has one lot.
pub fn ledger() -> Truth {
    let mut truth = Truth::new(Installation {
        id: Uuid::from_u128(1),
        shards: 1,
    });
    for index in 0..ACCOUNTS {
        truth.create_account(snapshot(index));
    }
    for (index, amount, expires_at) in [(0, 3, Some(EXPIRY)), (0, 6, None), (1, 5, None)] {
        let lot = truth.grant(&account(index), &grant(amount, expires_at));
        lot.expect("a small grant to an account that exists");
    }
    truth
}

pub fn grant(amount: i64, expires_at: Option<UnixMs>) -> NewGrant {
    NewGrant {
        amount: Nanos(amount),
        priority: 0,
        promotional: false,
        effective_at: UnixMs(0),
        expires_at,
    }
}

fn snapshot(index: usize) -> Snapshot {
    Snapshot {
        account: account(index),
        version: Version(1),
        keys_version: 1,
        plan: None,
        mode: Mode::Enforce,
        status: Status::Active,
        anchor_at: None,
        limits: Vec::new(),
        overage: Nanos::ZERO,
        markup_percent: None,
        throttle: None,
    }
}

pub fn reserve(call: usize, admission: Admission) -> Reserve {
    Reserve {
        id: id(call),
        account: account(account_of(call)),
        version: Version(1),
        charge: Nanos(HOLD),
        floor: Nanos(FLOOR),
        lines: vec![Line {
            key: COUNTER.parse().expect("a counter"),
            span: Span::EVER,
            amount: Amount(1),
            floor: Amount(1),
            limit: Amount(LIMIT),
        }],
        deadline_ms: DEADLINE_MS,
        max_age_ms: 20 * DEADLINE_MS,
        admission,
        detail: "{}".into(),
    }
}

pub fn progress(call: usize, metered: i64) -> Progress {
    Progress {
        id: id(call),
        account: account(account_of(call)),
        charge: Nanos(metered),
        amounts: vec![Amount(1)],
        deadline_ms: DEADLINE_MS,
        detail: "{}".into(),
    }
}

/// An ending with nothing used is a release.
pub fn settle(call: usize, charge: i64) -> Settle {
    let used = i64::from(charge > 0);
    Settle {
        id: id(call),
        account: account(account_of(call)),
        outcome: if charge > 0 {
            Outcome::Settled
        } else {
            Outcome::Released
        },
        charge: Nanos(charge),
        counts: vec![Count {
            key: COUNTER.parse().expect("a counter"),
            start: Span::EVER.start,
            amount: Amount(used),
        }],
        detail: "{}".into(),
    }
}

impl World {
    /// The calls of one account.
    pub fn calls_of(&self, account: usize) -> impl Iterator<Item = usize> + use<> {
        (0..self.calls.len()).filter(move |call| account_of(*call) == account)
    }

    /// The ledger, to be changed.
    pub fn truth_mut(&mut self) -> &mut Truth {
        Rc::make_mut(&mut self.truth)
    }
}
