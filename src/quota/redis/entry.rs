//! Entries of the outbox, read back as `lua/prelude/entry.lua` writes them.

use serde::Deserialize;

use super::answers::{List, account_id, reservation_id};
use super::exact::{Exact, Unpacked};
use super::keys::counter_key;
use crate::clock::UnixMs;
use crate::money::{Amount, Nanos};
use crate::quota::{
    Count, Cut, EndedEntry, Entry, EntryKind, Epoch, LotId, Moved, OutSeq, Outcome, StoreError,
    Unreadable, Withdrawal,
};

/// Every entry of a list that can be read, and those that cannot: what is wrong with one must not keep the others.
pub(super) fn read_all(list: List) -> Result<(Vec<Entry>, Vec<Unreadable>), StoreError> {
    let (mut entries, mut unreadable) = (Vec::new(), Vec::new());
    for (seq, fields) in list.each(|entry| Ok((seq(entry)?, entry.list()?)))? {
        match read(seq, fields.clone()) {
            Ok(entry) => entries.push(entry),
            Err(error) => {
                let account = field(&mut fields.clone(), "account", List::text).ok();
                unreadable.push(Unreadable {
                    seq,
                    account: account.and_then(|id| account_id(&id).ok()),
                    raw: fields.packed(),
                    reason: error.to_string(),
                });
            }
        }
    }
    Ok((entries, unreadable))
}

/// '<seq>-0'
fn seq(entry: &mut List) -> Result<OutSeq, StoreError> {
    let id = entry.text()?;
    let seq = id.strip_suffix("-0").and_then(|seq| seq.parse().ok());
    Ok(OutSeq(seq.ok_or_else(|| odd("an entry's id"))?))
}

/// fields and values
fn read(seq: OutSeq, mut fields: List) -> Result<Entry, StoreError> {
    let account = account_id(&field(&mut fields, "account", List::text)?)?;
    let packed = field(&mut fields, "entry", List::bytes)?;
    let written = unpack(&packed).ok_or_else(|| odd("what is packed in an entry"))?;
    let why = if fields.is_empty() {
        String::new()
    } else {
        fields.text()?
    };
    let (kind, counted) = match why.as_str() {
        "" => (EntryKind::Repaid, Vec::new()),
        "expired" => (EntryKind::Expired, Vec::new()),
        "withdrawal" => (
            EntryKind::Withdrawn(withdrawal(&fields.bytes()?)?),
            Vec::new(),
        ),
        "totals" => ended(&mut fields, &written)?,
        _ => return Err(odd("what an entry tells of")),
    };
    Ok(Entry {
        seq,
        epoch: written.epoch,
        at: written.at,
        account,
        kind,
        moved: Moved {
            lots: written.lots,
            debt: written.debt,
            counters: written.counters.unwrap_or(counted),
        },
    })
}

fn ended(fields: &mut List, written: &Written) -> Result<(EntryKind, Vec<Count>), StoreError> {
    let totals = fields.bytes()?;
    let detail = field(fields, "detail", List::text)?;
    let totals = unpack_totals(&totals).ok_or_else(|| odd("an entry's totals"))?;
    let ended = EndedEntry {
        id: reservation_id(&totals.id)?,
        outcome: totals.outcome,
        overrun: written.overrun,
        reserved: written.reserved,
        charge: totals.charge,
        counts: totals.counts.clone(),
        detail: detail.into(),
        cut: written.cut.clone(),
    };
    Ok((EntryKind::Ended(ended), totals.counts))
}

fn withdrawal(text: &[u8]) -> Result<Withdrawal, StoreError> {
    serde_json::from_slice(text).map_err(|_| odd("a withdrawal"))
}

struct Written {
    epoch: Epoch,
    at: UnixMs,
    overrun: bool,
    reserved: Nanos,
    debt: Nanos,
    lots: Vec<(LotId, Nanos)>,
    /// `None` where the counters moved as the totals say.
    counters: Option<Vec<Count>>,
    cut: Cut,
}

/// epoch, at, overrun, reserved, moved debt, {lot, by, …}, {key, start, by, …} or nil, {charge, key, start, by, …} or nil
fn unpack(packed: &[u8]) -> Option<Written> {
    let mut values = Unpacked::new(packed);
    Some(Written {
        epoch: Epoch(values.take()?),
        at: UnixMs(values.take()?),
        overrun: values.take()?,
        reserved: Nanos(values.take::<Exact>()?.0),
        debt: Nanos(values.take::<Exact>()?.0),
        lots: moved_lots(&values.take::<Vec<Exact>>()?),
        counters: match values.take::<Option<Vec<Field>>>()? {
            None => None,
            Some(fields) => Some(moved_counters(&fields)?),
        },
        cut: match values.take::<Option<Vec<Field>>>()? {
            None => Cut::default(),
            Some(fields) => cut(&fields)?,
        },
    })
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Field {
    Number(i64),
    /// A counter's name, or a number that no double holds.
    Text(String),
}

impl Field {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Number(_) => None,
            Self::Text(text) => Some(text),
        }
    }

    fn number(&self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
        }
    }
}

fn moved_lots(fields: &[Exact]) -> Vec<(LotId, Nanos)> {
    let moved = fields.chunks_exact(2);
    moved
        .map(|lot| (LotId(lot[0].0), Nanos(lot[1].0)))
        .collect()
}

fn moved_counters(fields: &[Field]) -> Option<Vec<Count>> {
    let count = |field: &[Field]| {
        Some(Count {
            key: counter_key(field[0].text()?)?,
            start: UnixMs(field[1].number()?),
            amount: Amount(field[2].number()?),
        })
    };
    fields.chunks_exact(3).map(count).collect()
}

fn cut(fields: &[Field]) -> Option<Cut> {
    let (charge, counts) = fields.split_first()?;
    let mut counts = moved_counters(counts)?;
    counts.sort_by(|one, other| one.key.cmp(&other.key));
    Some(Cut {
        charge: Nanos(charge.number()?),
        counts,
    })
}

struct Totals {
    id: String,
    outcome: Outcome,
    charge: Nanos,
    counts: Vec<Count>,
}

/// id, outcome, charge, then each count's key, start, amount
fn unpack_totals(packed: &[u8]) -> Option<Totals> {
    let mut values = Unpacked::new(packed);
    let count = |values: &mut Unpacked<'_>| {
        Some(Count {
            key: counter_key(&values.take::<String>()?)?,
            start: UnixMs(values.take()?),
            amount: Amount(values.take::<Exact>()?.0),
        })
    };
    Some(Totals {
        id: values.take()?,
        outcome: values.take::<String>()?.parse().ok()?,
        charge: Nanos(values.take::<Exact>()?.0),
        counts: values.rest(count)?,
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

fn odd(what: &str) -> StoreError {
    StoreError::Nonsense(format!("{what} does not read as one"))
}
