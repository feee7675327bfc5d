//! What is in quarantine, and how it counts in loads (rule 26): the store has moved it, although the ledger could not take
//! it in.
//!
//! Otherwise an account that is loaded again would get back what it has used, or lose what it was given.

use uuid::Uuid;

use super::bounds::can_be_summed;
use super::sql::text;
use crate::clock::UnixMs;
use crate::money::{Amount, MAX_BALANCE, Nanos};
use crate::quota::{
    AccountId, AccountImage, Count, CounterBalance, Entry, Lot, LotId, Moved, OutSeq, ShardId,
    Unreadable,
};

/// An entry that is put aside, as its row has it.
pub(super) struct Aside<'a> {
    pub id: Uuid,
    pub seq: OutSeq,
    pub account: Option<&'a AccountId>,
    /// As JSON, or the bytes that it is where nobody can read it.
    pub raw: Vec<u8>,
    pub reason: String,
    /// What the store moved for it, as JSON, where that can be told.
    pub moved: Option<String>,
}

/// What is to be put aside: entries that could not be taken in, and why, and those that could not be read. It is said at
/// once, since somebody has to look after it.
// holds: 5, never silent
pub(super) fn put_aside<'a>(
    shard: ShardId,
    odd: &[(&'a Entry, String)],
    unreadable: &[&'a Unreadable],
) -> Vec<Aside<'a>> {
    let odd = odd.iter().map(|(entry, reason)| {
        let raw = text(entry).into_bytes();
        Aside {
            id: name(shard, entry.seq, &raw),
            seq: entry.seq,
            account: Some(&entry.account),
            raw,
            reason: clean(reason),
            // No store can have moved what is beyond all bounds.
            moved: can_be_summed(&[entry]).then(|| text(&entry.moved)),
        }
    });
    let unreadable = unreadable.iter().map(|odd| Aside {
        id: name(shard, odd.seq, &odd.raw),
        seq: odd.seq,
        account: odd.account.as_ref(),
        raw: odd.raw.clone(),
        reason: clean(&odd.reason),
        moved: None,
    });
    let rows: Vec<Aside> = odd.chain(unreadable).collect();
    for Aside { seq, reason, .. } in &rows {
        tracing::error!(%shard, %seq, reason, "an entry of the outbox is put into quarantine");
    }
    rows
}

/// No text column of PostgreSQL takes a NUL, and what is put aside must not be refused again.
fn clean(reason: &str) -> String {
    reason.replace('\0', "\u{fffd}")
}

/// What an entry is called in quarantine: the same entry is put aside once, however often it is flushed.
// holds: 4, never twice
fn name(shard: ShardId, seq: OutSeq, raw: &[u8]) -> Uuid {
    let mut what = format!("quarantine {shard} {seq} ").into_bytes();
    what.extend_from_slice(raw);
    Uuid::new_v5(&Uuid::NAMESPACE_OID, &what)
}

/// Adds to an image what the store moved for entries in quarantine. The image has the lots with a balance, and those that
/// these movements name, as far as there are such lots.
pub(super) fn count_in(image: &mut AccountImage, quarantined: &[Moved]) {
    for moved in quarantined {
        for (lot, nanos) in &moved.lots {
            add_to_lot(&mut image.lots, *lot, *nanos);
        }
        image.debt = Nanos(bounded_sum(image.debt.0, moved.debt.0));
        for count in &moved.counters {
            add_to_counter(&mut image.counters, count);
        }
    }
    image.lots.retain(|(_, left)| *left != Nanos::ZERO);
}

fn add_to_lot(lots: &mut Vec<(Lot, Nanos)>, lot: LotId, nanos: Nanos) {
    match lots.iter_mut().find(|(known, _)| known.id == lot) {
        Some((_, left)) => *left = Nanos(bounded_sum(left.0, nanos.0)),
        None => lots.push((never_drawn(lot), nanos)),
    }
}

/// A lot that the ledger does not know has a balance in the store, but nobody draws on it.
fn never_drawn(id: LotId) -> Lot {
    Lot {
        id,
        effective_at: UnixMs(0),
        expires_at: Some(UnixMs(1)),
    }
}

/// A counter is kept in its latest span only.
fn add_to_counter(counters: &mut Vec<CounterBalance>, count: &Count) {
    let counted = CounterBalance {
        key: count.key.clone(),
        start: count.start,
        used: count.amount,
    };
    match counters.iter_mut().find(|known| known.key == count.key) {
        None => counters.push(counted),
        Some(known) if known.start < count.start => *known = counted,
        Some(known) if known.start == count.start => {
            known.used = Amount(bounded_sum(known.used.0, count.amount.0));
        }
        Some(_) => {}
    }
}

/// What is in quarantine is odd already, so nothing is taken for granted: a sum stays what a balance may be.
fn bounded_sum(one: i64, other: i64) -> i64 {
    one.saturating_add(other).clamp(-MAX_BALANCE, MAX_BALANCE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::{ChangeSeq, Mode, Snapshot, Status, Version};

    fn image() -> AccountImage {
        let lot = |id| Lot {
            id: LotId(id),
            effective_at: UnixMs(0),
            expires_at: None,
        };
        AccountImage {
            snapshot: Snapshot {
                account: "acme".parse().unwrap(),
                version: Version(1),
                keys_version: 1,
                plan: None,
                mode: Mode::Enforce,
                status: Status::Active,
                anchor_at: None,
                limits: Vec::new(),
                overage: Nanos(0),
                markup_percent: None,
                throttle: None,
            },
            lots: vec![(lot(1), Nanos(10)), (lot(2), Nanos(0)), (lot(3), Nanos(5))],
            debt: Nanos(1),
            counters: vec![counter("account/tokens/month", 20, 4)],
            withdrawals: Vec::new(),
            as_of: ChangeSeq(0),
        }
    }

    fn counter(key: &str, start: i64, used: i64) -> CounterBalance {
        CounterBalance {
            key: key.parse().unwrap(),
            start: UnixMs(start),
            used: Amount(used),
        }
    }

    fn count(key: &str, start: i64, amount: i64) -> Count {
        Count {
            key: key.parse().unwrap(),
            start: UnixMs(start),
            amount: Amount(amount),
        }
    }

    #[test]
    fn balances_and_counters_are_what_the_store_had() {
        let mut loaded = image();
        let moved = Moved {
            lots: vec![
                (LotId(1), Nanos(-4)),
                (LotId(2), Nanos(3)),
                (LotId(3), Nanos(-5)),
                (LotId(9), Nanos(-2)),
            ],
            debt: Nanos(6),
            counters: vec![
                count("account/tokens/month", 20, 3),
                count("account/tokens/month", 10, 100),
                count("account/requests/day", 5, 1),
                count("account/requests/day", 6, 2),
            ],
        };
        count_in(&mut loaded, &[moved]);
        let lots = loaded.lots.iter().map(|(lot, left)| (lot.id.0, left.0));
        assert_eq!(lots.collect::<Vec<_>>(), [(1, 6), (2, 3), (9, -2)]);
        assert!(!loaded.lots[2].0.is_live(UnixMs(1_000)));
        assert_eq!(loaded.debt, Nanos(7));
        assert_eq!(
            loaded.counters,
            [
                counter("account/tokens/month", 20, 7),
                counter("account/requests/day", 6, 2)
            ]
        );
    }

    #[test]
    fn no_sum_passes_what_a_balance_may_be() {
        let mut loaded = image();
        let moved = Moved {
            lots: vec![(LotId(1), Nanos(-MAX_BALANCE))],
            debt: Nanos(MAX_BALANCE),
            counters: Vec::new(),
        };
        count_in(&mut loaded, &[moved.clone(), moved.clone(), moved]);
        assert_eq!(loaded.lots[0].1, Nanos(-MAX_BALANCE));
        assert_eq!(loaded.debt, Nanos(MAX_BALANCE));
    }
}
