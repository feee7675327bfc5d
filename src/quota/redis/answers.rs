//! What comes out of the scripts: answers read item by item, as the heads of `lua/*.lua` say.
//!
//! Whatever does not read as one of them is [`StoreError::Nonsense`], never a guess.

use std::fmt::Display;
use std::str::FromStr;
use std::vec::IntoIter;

use redis::Value;

use super::entry;
use super::exact::{Exact, Unpacked};
use super::keys::counter_key;
use crate::clock::UnixMs;
use crate::money::{Amount, Nanos};
use crate::quota::{
    AccountId, AccountView, ChangeSeq, Count, CounterKey, CounterState, Ended, Epoch, Header,
    LineState, Lot, LotId, LotState, OpenHold, OutSeq, Outcome, Overdue, ReservationId, RunId,
    Seen, ShardView, StoreError,
};

type Read<T> = Result<T, StoreError>;

/// A list, read from its beginning.
#[derive(Clone)]
pub(super) struct List(IntoIter<Value>);

impl List {
    pub fn of(value: Value) -> Read<Self> {
        match value {
            Value::Array(items) => Ok(Self(items.into_iter())),
            other => Err(nonsense("a list", &other)),
        }
    }

    pub fn int(&mut self) -> Read<i64> {
        match self.next()? {
            Value::Int(int) => Ok(int),
            Value::BulkString(text) => parse(&text),
            other => Err(nonsense("a number", &other)),
        }
    }

    pub fn text(&mut self) -> Read<String> {
        String::from_utf8(self.bytes()?).map_err(|_| StoreError::Nonsense("not UTF-8".into()))
    }

    pub fn bytes(&mut self) -> Read<Vec<u8>> {
        match self.next()? {
            Value::BulkString(text) => Ok(text),
            other => Err(nonsense("a text", &other)),
        }
    }

    pub fn parsed<T: FromStr>(&mut self) -> Read<T> {
        parse(&self.bytes()?)
    }

    fn counter(&mut self) -> Read<CounterKey> {
        let odd = || StoreError::Nonsense("no counter's name".into());
        counter_key(&self.text()?).ok_or_else(odd)
    }

    pub fn list(&mut self) -> Read<Self> {
        Self::of(self.next()?)
    }

    /// The rest of this list, each item a list of its own.
    pub fn each<T>(self, read: impl Fn(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        self.0.map(|item| read(&mut Self::of(item)?)).collect()
    }

    /// The rest of this list, as long as there is any.
    fn rest<T>(mut self, read: impl Fn(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let mut items = Vec::new();
        while !self.is_empty() {
            items.push(read(&mut self)?);
        }
        Ok(items)
    }

    /// A number, or nothing.
    fn maybe_int(&mut self) -> Read<Option<i64>> {
        if let Some(Value::Nil) = self.0.as_slice().first() {
            self.0.next();
            return Ok(None);
        }
        self.int().map(Some)
    }

    fn next(&mut self) -> Read<Value> {
        let missing = || StoreError::Nonsense("the answer is too short".into());
        self.0.next().ok_or_else(missing)
    }

    pub fn unix_ms(&mut self) -> Read<UnixMs> {
        self.int().map(UnixMs)
    }

    pub fn seq(&mut self) -> Read<OutSeq> {
        self.int().map(OutSeq)
    }

    /// outcome, charge
    pub fn ended(&mut self) -> Read<Ended> {
        let outcome = self.bytes()?;
        let outcome = std::str::from_utf8(&outcome).unwrap_or_default();
        let unknown = |()| StoreError::Nonsense("it ended in an unknown way".into());
        Ok(Ended {
            outcome: Outcome::from_str(outcome).map_err(unknown)?,
            charge: Nanos(self.int()?),
        })
    }

    /// packed: balance, held, then used and held of each line
    pub fn seen(&mut self) -> Read<Seen> {
        let packed = self.bytes()?;
        let read = || {
            let mut values = Unpacked::new(&packed);
            Some(Seen {
                balance: Nanos(values.take::<Exact>()?.0),
                held: Nanos(values.take::<Exact>()?.0),
                lines: values.rest(line_state)?,
            })
        };
        read().ok_or_else(|| StoreError::Nonsense("what was seen does not read as it".into()))
    }

    /// Its texts as they are, packed: for what nobody can read.
    pub fn packed(self) -> Vec<u8> {
        let text = |item| match item {
            Value::BulkString(text) => text,
            other => format!("{other:?}").into_bytes(),
        };
        let texts: Vec<_> = self.0.map(text).collect();
        rmp_serde::to_vec(&texts).expect("texts can be packed")
    }

    pub fn is_empty(&self) -> bool {
        self.0.as_slice().is_empty()
    }

    /// The texts that are left.
    pub fn texts(self) -> Read<Vec<String>> {
        self.rest(Self::text)
    }
}

fn line_state(values: &mut Unpacked<'_>) -> Option<LineState> {
    Some(LineState {
        used: Amount(values.take::<Exact>()?.0),
        held: Amount(values.take::<Exact>()?.0),
    })
}

/// run_id, now, policy, outbox length, oldest entry's epoch, then the header's fields
pub(super) fn shard_view(answer: Value) -> Read<ShardView> {
    let mut list = List::of(answer)?;
    let run_id = RunId(list.text()?);
    let now = list.unix_ms()?;
    let noeviction = list.bytes()? == b"noeviction";
    let outbox_len = u64::try_from(list.int()?);
    let outbox_len = outbox_len.map_err(|_| StoreError::Nonsense("a length below zero".into()))?;
    let oldest_epoch = Some(list.int()?).filter(|epoch| *epoch >= 0).map(Epoch);
    let header = match list.0.as_slice().first() {
        None | Some(Value::Nil) => None,
        Some(_) => Some(Header {
            install: list.parsed()?,
            format: list.parsed()?,
            epoch: Epoch(list.int()?),
            out_seq: OutSeq(list.int()?),
            applied_seq: ChangeSeq(list.int()?),
        }),
    };
    Ok(ShardView {
        header,
        run_id,
        now,
        noeviction,
        outbox_len,
        oldest_epoch,
    })
}

/// now, members
pub(super) fn overdue(mut list: List) -> Read<(UnixMs, Vec<Overdue>)> {
    let now = list.unix_ms()?;
    let members = list.list()?.texts()?;
    let read = |member: &String| {
        let (id, account) = member.split_once('|')?;
        Some(Overdue {
            id: reservation_id(id).ok()?,
            account: account.parse().ok()?,
        })
    };
    let odd = || StoreError::Nonsense("a deadline of something unknown".into());
    let overdue = members.iter().map(|member| read(member).ok_or_else(odd));
    Ok((now, overdue.collect::<Read<_>>()?))
}

/// snapshot, as_of, applied_seq, debt, debt held, order, lots, counters, holds, entries
pub(super) fn account_view(mut list: List) -> Read<AccountView> {
    let snapshot = snapshot(&list.bytes()?)?;
    let (as_of, applied_seq) = (ChangeSeq(list.int()?), ChangeSeq(list.int()?));
    let debt = lot_state(&mut list)?;
    let order = list.list()?.each(lot)?;
    let lot_balance = |list: &mut List| Ok((LotId(list.int()?), lot_state(list)?));
    let mut lots = list.list()?.each(lot_balance)?;
    let mut counters = list.list()?.each(counter_state)?;
    let mut holds = list.list()?.each(open_hold)?;
    let (unflushed, _) = entry::read_all(list.list()?)?;
    lots.sort_by_key(|(id, _)| *id);
    counters.sort_by(|one, other| one.key.cmp(&other.key));
    holds.sort_by_key(|hold| hold.id);
    Ok(AccountView {
        snapshot,
        order,
        lots,
        debt,
        counters,
        as_of,
        applied_seq,
        unflushed,
        holds,
    })
}

fn lot_state(list: &mut List) -> Read<LotState> {
    let (left, held) = (Nanos(list.int()?), Nanos(list.int()?));
    Ok(LotState { left, held })
}

fn lot(list: &mut List) -> Read<Lot> {
    Ok(Lot {
        id: LotId(list.int()?),
        effective_at: list.unix_ms()?,
        expires_at: list.maybe_int()?.map(UnixMs),
    })
}

fn counter_state(list: &mut List) -> Read<CounterState> {
    Ok(CounterState {
        key: list.counter()?,
        start: list.unix_ms()?,
        used: Amount(list.int()?),
        held: Amount(list.int()?),
    })
}

fn open_hold(list: &mut List) -> Read<OpenHold> {
    let slice = |list: &mut List| Ok((LotId(list.int()?), Nanos(list.int()?)));
    let count = |list: &mut List| {
        Ok(Count {
            key: list.counter()?,
            start: list.unix_ms()?,
            amount: Amount(list.int()?),
        })
    };
    Ok(OpenHold {
        id: reservation_id(&list.text()?)?,
        deadline: list.unix_ms()?,
        reserved: Nanos(list.int()?),
        slices: list.list()?.each(slice)?,
        counts: list.list()?.each(count)?,
    })
}

pub(super) fn reservation_id(text: &str) -> Read<ReservationId> {
    let odd = |_| StoreError::Nonsense("a reservation's id is no UUID".into());
    text.parse().map(ReservationId).map_err(odd)
}

pub(super) fn account_id(text: &str) -> Read<AccountId> {
    let odd = |_| StoreError::Nonsense("an account's id is none".into());
    text.parse().map_err(odd)
}

pub(super) fn snapshot(text: &[u8]) -> Read<crate::quota::Snapshot> {
    // serde_json's errors quote no more than a field's name or a type.
    let odd = |error: serde_json::Error| StoreError::Nonsense(format!("a snapshot: {error}"));
    serde_json::from_slice(text).map_err(odd)
}

fn parse<T: FromStr>(text: &[u8]) -> Read<T> {
    let parsed = std::str::from_utf8(text).ok().and_then(|t| t.parse().ok());
    let odd = || StoreError::Nonsense(format!("no {}", short_name::<T>()));
    parsed.ok_or_else(odd)
}

fn short_name<T>() -> &'static str {
    std::any::type_name::<T>()
        .rsplit("::")
        .next()
        .unwrap_or_default()
}

/// Says what was expected and of what kind it was, not what it says: it might be anybody's.
fn nonsense(expected: impl Display, found: &Value) -> StoreError {
    let kind = match found {
        Value::Nil => "nothing",
        Value::Int(_) => "a number",
        Value::BulkString(_) | Value::SimpleString(_) | Value::Okay => "a text",
        Value::Array(_) => "a list",
        _ => "something else",
    };
    StoreError::Nonsense(format!("{expected} was expected, {kind} came"))
}
