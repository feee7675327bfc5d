//! What goes into the scripts: the verbs' arguments, packed as the heads of `lua/*.lua` and `lua/prelude/*.lua` say.
//!
//! Lists go as one MessagePack argument each: every argument of a call costs the server time of its one thread.

use std::borrow::Cow;
use std::fmt::Display;

use serde::Serialize;

use super::exact::{Exact, OrFalse};
use super::keys::counter_name;
use crate::money::{Amount, MAX_AMOUNT, MAX_BALANCE};
use crate::quota::{
    AccountImage, Admission, ChangeBody, Lot, MAX_DETAIL_BYTES, MAX_LINES, Moved, Progress,
    Reserve, Settle, Snapshot, Window, Withdrawal,
};

/// One argument of a call.
pub(super) type Argument<'a> = Cow<'a, [u8]>;

pub(super) fn text(text: &str) -> Argument<'_> {
    Cow::Borrowed(text.as_bytes())
}

pub(super) fn owned(text: String) -> Argument<'static> {
    Cow::Owned(text.into_bytes())
}

pub(super) fn shown(value: impl Display) -> Argument<'static> {
    Cow::Owned(value.to_string().into_bytes())
}

/// version, charge, floor, admission, deadline_ms, max_age_ms, the outbox's bound, then each line's key, start, end, amount,
/// floor, limit
pub(super) fn claim(reserve: &Reserve, outbox_bound: u64) -> Argument<'static> {
    assert!(reserve.lines.len() <= MAX_LINES, "a claim has few lines");
    assert_short(&reserve.detail);
    let admission: u8 = match reserve.admission {
        Admission::Strict => 0,
        Admission::Forced => 1,
        Admission::Again => 2,
    };
    let mut packed = Packed::default();
    packed.add(reserve.version.0);
    packed.add(bounded(reserve.charge));
    packed.add(bounded(reserve.floor));
    packed.add(admission);
    packed.add(reserve.deadline_ms);
    packed.add(reserve.max_age_ms);
    packed.add(outbox_bound);
    for line in &reserve.lines {
        packed.add(counter_name(&line.key));
        packed.add(line.span.start.0);
        packed.add(line.span.end.0);
        packed.add(bounded(line.amount));
        packed.add(bounded(line.floor));
        packed.add(Exact(line.limit.0.min(MAX_BALANCE)));
    }
    packed.argument()
}

/// charge, {amount, …}
pub(super) fn metered(progress: &Progress) -> Argument<'static> {
    assert_short(&progress.detail);
    let amounts: Vec<_> = progress.amounts.iter().copied().map(bounded).collect();
    let mut packed = Packed::default();
    packed.add(bounded(progress.charge));
    packed.add(amounts);
    packed.argument()
}

/// id, outcome, charge, then each count's key, start, amount; none is zero
pub(super) fn totals(settle: &Settle) -> Argument<'static> {
    assert_short(&settle.detail);
    let mut packed = Packed::default();
    packed.add(settle.id.to_string());
    packed.add(settle.outcome.as_str());
    packed.add(bounded(settle.charge));
    for count in &settle.counts {
        let goes_down = count.key.window == Window::Cumulative && count.amount < Amount(0);
        let amount = if goes_down {
            -count.amount
        } else {
            count.amount
        };
        if bounded(amount) != 0 {
            packed.add(counter_name(&count.key));
            packed.add(count.start.0);
            packed.add(count.amount.0);
        }
    }
    packed.argument()
}

/// {as_of, version, overage, lots, debt, counters, withdrawals}
pub(super) fn image(image: &AccountImage) -> Argument<'static> {
    let lots = image.lots.iter().map(|(lot, balance)| {
        let (id, effective, expires) = packed_lot(lot);
        (id, Exact(balance.0), effective, expires)
    });
    let counters = image.counters.iter().map(|counter| {
        let key = counter_name(&counter.key);
        (key, counter.start.0, Exact(counter.used.0))
    });
    pack((
        image.as_of.0,
        image.snapshot.version.0,
        overage(&image.snapshot),
        lots.collect::<Vec<_>>(),
        Exact(image.debt.0),
        counters.collect::<Vec<_>>(),
        image.withdrawals.iter().map(withdrawal).collect::<Vec<_>>(),
    ))
}

/// {snapshot, lots, moved lots, moved debt, moved counters, repay, withdrawals}
pub(super) fn change(body: &ChangeBody) -> Argument<'static> {
    let Moved {
        lots,
        debt,
        counters,
    } = &body.moved;
    let snapshot = body.snapshot.as_ref().map(|s| (s.version.0, overage(s)));
    let order = body.lots.as_ref();
    let order = order.map(|order| order.iter().map(packed_lot).collect::<Vec<_>>());
    let moved_lots = lots.iter().map(|(id, by)| (id.0, Exact(by.0)));
    let moved_counters = counters.iter().map(|count| {
        let key = counter_name(&count.key);
        (key, count.start.0, Exact(count.amount.0))
    });
    pack((
        OrFalse(snapshot),
        OrFalse(order),
        moved_lots.collect::<Vec<_>>(),
        Exact(debt.0),
        moved_counters.collect::<Vec<_>>(),
        body.repay,
        body.withdraw.iter().map(withdrawal).collect::<Vec<_>>(),
    ))
}

/// As text, as it goes to whoever has an older one.
pub(super) fn snapshot(snapshot: &Snapshot) -> Argument<'static> {
    let text = serde_json::to_vec(snapshot);
    Cow::Owned(text.expect("a snapshot has nothing that JSON has not"))
}

/// {lot, amount, the whole of it as text}
fn withdrawal(withdrawal: &Withdrawal) -> (i64, i64, String) {
    let text = serde_json::to_string(withdrawal);
    let text = text.expect("a withdrawal has nothing that JSON has not");
    (withdrawal.lot.0, bounded(withdrawal.amount), text)
}

fn packed_lot(lot: &Lot) -> (i64, i64, OrFalse<i64>) {
    let expires = lot.expires_at.map(|at| at.0);
    (lot.id.0, lot.effective_at.0, OrFalse(expires))
}

fn overage(snapshot: &Snapshot) -> Exact {
    Exact(snapshot.overage.0.min(MAX_BALANCE))
}

/// A single amount, which the edge has bounded: beyond, it would not be exact as a double, so it is a defect.
fn bounded(amount: impl Into<Amount>) -> i64 {
    let Amount(amount) = amount.into();
    assert!((0..=MAX_AMOUNT).contains(&amount), "an amount is bounded");
    amount
}

fn assert_short(detail: &str) {
    assert!(detail.len() <= MAX_DETAIL_BYTES, "a detail is short");
}

fn pack(value: impl Serialize) -> Argument<'static> {
    let mut packed = Packed::default();
    packed.add(value);
    packed.argument()
}

/// Values one after the other: the scripts read them into one flat list, without a table for each part.
#[derive(Default)]
struct Packed(Vec<u8>);

impl Packed {
    fn add(&mut self, value: impl Serialize) {
        let written = rmp_serde::encode::write(&mut self.0, &value);
        written.expect("numbers, texts and lists can be packed");
    }

    fn argument(self) -> Argument<'static> {
        Cow::Owned(self.0)
    }
}
