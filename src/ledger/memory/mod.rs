//! The ledger of the demo and of tests: nothing of it outlives the process.
//!
//! It takes the same decisions as any other, since it writes the same [`Batch`].

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio::sync::Mutex;
use uuid::Uuid;

use super::batch::{Batch, Known, UsageRecord};
use super::{
    CheckError, Committed, Identity, Installation, KeyHash, Ledger, LedgerError, Looked, Prices,
    ShardRow, audit,
};
use crate::clock::UnixMs;
use crate::money::{Amount, MAX_AMOUNT, Nanos};
use crate::quota::{
    AccountId, AccountImage, AccountView, ChangeBody, ChangeSeq, CounterBalance, CounterKey, Entry,
    EntryKind, ExpiredLot, Lot, LotId, MAX_LOTS, Moved, OutSeq, Outbox, ReservationId, ShardId,
    Snapshot, Store, StoreChange, Version,
};

/// The ledger in memory.
pub struct MemoryLedger {
    installation: Installation,
    /// One lock for all; it is held across the read of a store during a check, as rule 21 wants it.
    state: Mutex<State>,
}

/// A grant that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGrant {
    /// How much; positive.
    pub amount: Nanos,
    /// Lower numbers are drawn first.
    pub priority: i32,
    /// Whether it was given away.
    pub promotional: bool,
    /// From when on.
    pub effective_at: UnixMs,
    /// Until when; `None`: for ever.
    pub expires_at: Option<UnixMs>,
}

struct State {
    shards: Vec<Shard>,
    accounts: HashMap<AccountId, Account>,
    keys: HashMap<KeyHash, (Uuid, AccountId)>,
    records: Vec<UsageRecord>,
    known: HashMap<ReservationId, Known>,
    prices: Prices,
    last_lot: LotId,
}

struct Shard {
    row: ShardRow,
    changes: Vec<StoreChange>,
}

struct Account {
    snapshot: Snapshot,
    /// In the order they are drawn.
    lots: Vec<(DrawOrder, Lot, Nanos)>,
    debt: Nanos,
    counters: BTreeMap<(CounterKey, UnixMs), Amount>,
}

/// priority → earliest expiry → promotional before paid → effective → created
type DrawOrder = (i32, UnixMs, bool, UnixMs, LotId);

impl MemoryLedger {
    /// An installation without accounts.
    pub fn new(shards: u16, prices: Prices) -> Self {
        let shard = || Shard {
            row: ShardRow {
                home: None,
                flushed_seq: OutSeq(0),
                last_change: ChangeSeq(0),
            },
            changes: Vec::new(),
        };
        Self {
            installation: Installation {
                id: Uuid::now_v7(),
                shards,
            },
            state: Mutex::new(State {
                shards: (0..shards).map(|_| shard()).collect(),
                accounts: HashMap::new(),
                keys: HashMap::new(),
                records: Vec::new(),
                known: HashMap::new(),
                prices,
                last_lot: LotId(0),
            }),
        }
    }

    /// Makes an account, with nothing on it.
    pub async fn create_account(&self, snapshot: Snapshot) {
        let account = Account {
            lots: Vec::new(),
            debt: Nanos::ZERO,
            counters: BTreeMap::new(),
            snapshot,
        };
        let mut state = self.state.lock().await;
        let id = account.snapshot.account.clone();
        state.accounts.insert(id, account);
    }

    /// Makes a key, and says its id.
    pub async fn create_key(&self, account: &AccountId, hash: KeyHash) -> Uuid {
        let id = Uuid::now_v7();
        let mut state = self.state.lock().await;
        state.keys.insert(hash, (id, account.clone()));
        id
    }

    /// Grants credit, as a numbered change (rule 20).
    pub async fn grant(&self, account: &AccountId, grant: &NewGrant) -> Result<LotId, LedgerError> {
        if grant.amount <= Nanos::ZERO || grant.amount.0 > MAX_AMOUNT {
            return Err(LedgerError::Invalid("a grant is 1 to 9e15 nanos".into()));
        }
        let mut state = self.state.lock().await;
        let lot = LotId(state.last_lot.0 + 1);
        let to = state.account(account)?;
        if to.image_lots().len() >= MAX_LOTS {
            return Err(LedgerError::Invalid(format!(
                "an account has at most {MAX_LOTS} lots with something left"
            )));
        }
        to.add_lot(lot, grant);
        let body = ChangeBody {
            lots: Some(to.order()),
            moved: Moved {
                lots: vec![(lot, grant.amount)],
                ..Moved::default()
            },
            repay: true,
            ..ChangeBody::default()
        };
        state.last_lot = lot;
        state.append(account.shard(self.installation.shards), account, body);
        Ok(lot)
    }

    /// Changes what sidecars know of an account, as a numbered change with a new version (rules 13, 20).
    pub async fn update(
        &self,
        account: &AccountId,
        update: impl FnOnce(&mut Snapshot) + Send,
    ) -> Result<(), LedgerError> {
        let mut state = self.state.lock().await;
        let snapshot = &mut state.account(account)?.snapshot;
        update(snapshot);
        snapshot.version = Version(snapshot.version.0 + 1);
        let body = ChangeBody {
            snapshot: Some(snapshot.clone()),
            ..ChangeBody::default()
        };
        state.append(account.shard(self.installation.shards), account, body);
        Ok(())
    }

    /// An account's usage records, in the order they were written.
    pub async fn records(&self, account: &AccountId) -> Vec<UsageRecord> {
        let state = self.state.lock().await;
        let records = state.records.iter();
        records.filter(|r| r.account == *account).cloned().collect()
    }
}

impl State {
    fn account(&mut self, id: &AccountId) -> Result<&mut Account, LedgerError> {
        let missing = || LedgerError::Invalid(format!("there is no account `{id}`"));
        self.accounts.get_mut(id).ok_or_else(missing)
    }

    fn shard(&mut self, shard: ShardId) -> &mut Shard {
        &mut self.shards[usize::from(shard.0)]
    }

    fn append(&mut self, id: ShardId, account: &AccountId, body: ChangeBody) {
        let shard = self.shard(id);
        let seq = ChangeSeq(shard.row.last_change.0 + 1);
        shard.row.last_change = seq;
        shard.changes.push(StoreChange {
            shard: id,
            seq,
            account: account.clone(),
            body,
        });
    }

    fn write(&mut self, shard: ShardId, batch: Batch, last: OutSeq) -> Result<(), LedgerError> {
        let mut changes = batch.rests;
        for ((id, lot), moved) in batch.lots {
            let account = self.account(&id)?;
            let found = account
                .lots
                .iter_mut()
                .find(|(_, known, _)| known.id == lot);
            let (_, _, left) =
                found.ok_or_else(|| LedgerError::Nonsense(format!("no lot {lot}")))?;
            let before = *left;
            *left += moved;
            if before <= Nanos::ZERO && *left > Nanos::ZERO {
                let lots = Some(account.order());
                let body = ChangeBody {
                    lots,
                    ..ChangeBody::default()
                };
                changes.push((id, body));
            }
        }
        for (id, moved) in batch.debts {
            self.account(&id)?.debt += moved;
        }
        for ((id, key, start), moved) in batch.counters {
            *self.account(&id)?.counters.entry((key, start)).or_default() += moved;
        }
        for (account, body) in changes {
            self.append(shard, &account, body);
        }
        self.records.extend(batch.records);
        self.known.extend(batch.known);
        self.shard(shard).row.flushed_seq = last;
        Ok(())
    }
}

impl Account {
    fn add_lot(&mut self, id: LotId, grant: &NewGrant) {
        let order = (
            grant.priority,
            grant.expires_at.unwrap_or(UnixMs(i64::MAX)),
            !grant.promotional,
            grant.effective_at,
            id,
        );
        let lot = Lot {
            id,
            effective_at: grant.effective_at,
            expires_at: grant.expires_at,
        };
        let at = self.lots.partition_point(|(other, _, _)| *other < order);
        self.lots.insert(at, (order, lot, grant.amount));
    }

    fn image_lots(&self) -> Vec<(Lot, Nanos)> {
        let lots = self.lots.iter().map(|(_, lot, left)| (lot.clone(), *left));
        lots.filter(|(_, left)| *left != Nanos::ZERO).collect()
    }

    fn order(&self) -> Vec<Lot> {
        self.image_lots().into_iter().map(|(lot, _)| lot).collect()
    }

    /// Each counter in its latest span.
    fn image_counters(&self) -> Vec<CounterBalance> {
        let mut latest: BTreeMap<&CounterKey, (UnixMs, Amount)> = BTreeMap::new();
        for ((key, start), used) in &self.counters {
            latest.insert(key, (*start, *used));
        }
        let balance = |(key, (start, used)): (&CounterKey, (UnixMs, Amount))| CounterBalance {
            key: key.clone(),
            start,
            used,
        };
        latest.into_iter().map(balance).collect()
    }
}

impl Ledger for MemoryLedger {
    fn installation(&self) -> Installation {
        self.installation
    }

    async fn look<S: Store>(
        &self,
        shard: ShardId,
        store: &S,
        anew: bool,
    ) -> Result<Looked, CheckError> {
        let mut state = self.state.lock().await;
        let view = store.view(shard).await?;
        let row = &mut state.shard(shard).row;
        Ok(row.look(self.installation.id, &view, anew))
    }

    async fn row(&self, shard: ShardId) -> Result<ShardRow, LedgerError> {
        Ok(self.state.lock().await.shard(shard).row.clone())
    }

    async fn expired(
        &self,
        shard: ShardId,
        now: UnixMs,
        max: usize,
    ) -> Result<Vec<ExpiredLot>, LedgerError> {
        let state = self.state.lock().await;
        let here = |id: &&AccountId| id.shard(self.installation.shards) == shard;
        let accounts = state.accounts.keys().filter(here);
        let expired = accounts.flat_map(|id| {
            let lots = state.accounts[id].lots.iter();
            lots.filter_map(move |(_, lot, left)| {
                let expires_at = lot.expires_at.filter(|end| *end <= now)?;
                (*left != Nanos::ZERO).then(|| ExpiredLot {
                    account: id.clone(),
                    lot: lot.id,
                    expires_at,
                })
            })
        });
        Ok(expired.take(max).collect())
    }

    async fn books<S: Store>(
        &self,
        _shard: ShardId,
        _store: &S,
        _page: &audit::Page,
    ) -> Result<Vec<(audit::Books, Option<AccountView>)>, CheckError> {
        // Nobody audits a ledger that ends with its process.
        Ok(Vec::new())
    }

    async fn own_sums(
        &self,
        _shard: ShardId,
        _page: &audit::Page,
        _depth: audit::Depth,
    ) -> Result<audit::OwnSums, LedgerError> {
        Ok(audit::OwnSums::default())
    }

    async fn trace(&self, _drift: &audit::Drift) -> Result<Vec<audit::Clue>, LedgerError> {
        Ok(Vec::new())
    }

    async fn upkeep(&self) -> Result<u64, LedgerError> {
        Ok(0)
    }

    async fn commit(&self, shard: ShardId, outbox: &Outbox) -> Result<Committed, LedgerError> {
        let mut state = self.state.lock().await;
        let row = state.shard(shard).row.clone();
        if !row.is_of(outbox) {
            return Ok(Committed::OtherServer);
        }
        let stands = row.home.as_ref().map(|home| home.epoch);
        let entries = outbox.entries.iter();
        let fresh: Vec<&Entry> = entries.filter(|entry| row.is_news(entry)).collect();
        let last = fresh.last().map(|entry| entry.seq.max(row.flushed_seq));
        let Some(last) = last else {
            return Ok(Committed::UpTo {
                entry: row.flushed_seq,
                changed: false,
            });
        };
        let ended = fresh.iter().filter_map(|entry| match &entry.kind {
            EntryKind::Ended(ended) => Some(ended.id),
            EntryKind::Repaid | EntryKind::Expired | EntryKind::Withdrawn(_) => None,
        });
        let known = ended.filter_map(|id| Some((id, state.known.get(&id)?.clone())));
        let batch = Batch::decided(&fresh, known.collect(), BTreeSet::new(), stands);
        state.write(shard, batch, last)?;
        Ok(Committed::UpTo {
            entry: last,
            changed: state.shard(shard).row.last_change > row.last_change,
        })
    }

    async fn changes_after(
        &self,
        shard: ShardId,
        seq: ChangeSeq,
        max: usize,
    ) -> Result<Vec<StoreChange>, LedgerError> {
        let mut state = self.state.lock().await;
        let changes = state.shard(shard).changes.iter();
        let later = changes.filter(|change| change.seq > seq).take(max);
        Ok(later.cloned().collect())
    }

    async fn image(&self, account: &AccountId) -> Result<Option<AccountImage>, LedgerError> {
        let mut state = self.state.lock().await;
        let as_of = state
            .shard(account.shard(self.installation.shards))
            .row
            .last_change;
        Ok(state.accounts.get(account).map(|found| AccountImage {
            snapshot: found.snapshot.clone(),
            lots: found.image_lots(),
            debt: found.debt,
            counters: found.image_counters(),
            withdrawals: Vec::new(),
            as_of,
        }))
    }

    async fn identify(&self, hash: &KeyHash) -> Result<Option<Identity>, LedgerError> {
        let state = self.state.lock().await;
        let key = state.keys.get(hash);
        Ok(key.and_then(|(key, account)| {
            let snapshot = &state.accounts.get(account)?.snapshot;
            Some(Identity {
                key: *key,
                account: account.clone(),
                keys_version: snapshot.keys_version,
            })
        }))
    }

    async fn prices_version(&self) -> Result<i64, LedgerError> {
        Ok(self.state.lock().await.prices.version)
    }

    async fn prices(&self) -> Result<Prices, LedgerError> {
        Ok(self.state.lock().await.prices.clone())
    }
}

#[cfg(test)]
mod tests;
