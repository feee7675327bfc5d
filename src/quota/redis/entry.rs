//! Entries of the outbox, read back as `lua/prelude/entry.lua` writes them.

use serde::de::DeserializeOwned;

use super::answers::{List, account_id, reservation_id};
use super::exact::Exact;
use crate::clock::UnixMs;
use crate::money::{Amount, Nanos};
use crate::quota::{
    Count, EndedEntry, Entry, EntryKind, Epoch, LotId, Moved, OutSeq, Outcome, StoreError,
};

type Counts = Vec<(String, i64, Exact)>;
/// {epoch, at, overrun, reserved, moved lots, moved debt, moved counters}
type PackedEntry = (i64, i64, bool, Exact, Vec<(i64, Exact)>, Exact, Counts);
/// {id, outcome, charge, counts}
type PackedTotals = (String, String, Exact, Counts);

/// '<seq>-0', then fields and values
pub(super) fn read(list: &mut List) -> Result<Entry, StoreError> {
    let id = list.text()?;
    let seq = id.strip_suffix("-0").and_then(|seq| seq.parse().ok());
    let seq = OutSeq(seq.ok_or_else(|| odd("an entry's id"))?);
    let mut fields = list.list()?;
    let account = account_id(&field(&mut fields, "account", List::text)?)?;
    let packed = field(&mut fields, "entry", List::bytes)?;
    let (epoch, at, overrun, reserved, lots, debt, counters) = unpack::<PackedEntry>(&packed)?;
    let moved = Moved {
        lots: lots
            .into_iter()
            .map(|(id, by)| (LotId(id), Nanos(by.0)))
            .collect(),
        debt: Nanos(debt.0),
        counters: counts(counters)?,
    };
    let kind = if fields.is_empty() {
        EntryKind::Repaid
    } else {
        let packed = field(&mut fields, "totals", List::bytes)?;
        let detail = field(&mut fields, "detail", List::text)?;
        let (id, outcome, charge, all) = unpack::<PackedTotals>(&packed)?;
        EntryKind::Ended(EndedEntry {
            id: reservation_id(&id)?,
            outcome: outcome
                .parse::<Outcome>()
                .map_err(|()| odd("an entry's outcome"))?,
            overrun,
            reserved: Nanos(reserved.0),
            charge: Nanos(charge.0),
            counts: counts(all)?,
            detail: detail.into(),
        })
    };
    Ok(Entry {
        seq,
        epoch: Epoch(epoch),
        at: UnixMs(at),
        account,
        kind,
        moved,
    })
}

fn field<T>(
    fields: &mut List,
    name: &'static str,
    read: impl Fn(&mut List) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    if fields.bytes()? != name.as_bytes() {
        return Err(odd(name));
    }
    read(fields)
}

fn counts(packed: Counts) -> Result<Vec<Count>, StoreError> {
    let count = |(key, start, amount): (String, i64, Exact)| {
        Ok(Count {
            key: key.parse().map_err(|_| odd("a counter's name"))?,
            start: UnixMs(start),
            amount: Amount(amount.0),
        })
    };
    packed.into_iter().map(count).collect()
}

fn unpack<T: DeserializeOwned>(packed: &[u8]) -> Result<T, StoreError> {
    rmp_serde::from_slice(packed).map_err(|_| odd("what is packed in an entry"))
}

fn odd(what: &str) -> StoreError {
    StoreError::Nonsense(format!("{what} does not read as one"))
}
