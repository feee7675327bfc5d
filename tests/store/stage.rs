//! What a property plays on: a backend of its own, one account, and short ways to say what happens to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tollgate::clock::{Clock, UnixMs};
use tollgate::money::{Amount, Nanos};
use tollgate::quota::embedded::{EmbeddedSettings, EmbeddedStore};
use tollgate::quota::redis::{RedisSettings, RedisStore};
use tollgate::quota::{
    AccountId, AccountImage, AccountView, Admission, ApplyAnswer, ChangeBody, ChangeSeq, Count,
    Detail, EndedEntry, Entry, EntryKind, Epoch, Header, LapseAnswer, Line, LoadAnswer, Lot, LotId,
    LotState, Mode, Moved, OutSeq, Outcome, Overdue, Progress, Progressed, ReservationId, Reserve,
    Reserved, RunId, STORE_FORMAT, Seen, Settle, SettleAnswer, ShardId, ShardView, Snapshot, Span,
    Status, Store, StoreChange, Version,
};
use uuid::Uuid;

use super::journal::InFile;
use crate::harness::redis;

/// Small, so that a property can fill it; large enough for 64 racing calls to end.
pub const OUTBOX_BOUND: u64 = 128;
pub const SHARDS: u16 = 4;
/// Longer than any test: a hold with this deadline lapses in none.
pub const LONG_MS: i64 = 10 * 60 * 1000;
/// Short enough to wait for where the clock is the server's.
pub const SHORT_MS: i64 = 40;
const PATIENCE: Duration = Duration::from_secs(10);
const SOME_DAY: i64 = 1_790_000_000_000;

pub struct Stage<S> {
    pub store: Arc<S>,
    pub account: AccountId,
    pub shard: ShardId,
    /// Where the clock is ours to move.
    hand: Option<Arc<AtomicI64>>,
    /// Where the journal is.
    _journal: Option<InFile>,
}

impl Stage<EmbeddedStore> {
    pub async fn memory() -> Self {
        let hand = Arc::new(AtomicI64::new(SOME_DAY));
        let clock = Clock::Manual(hand.clone());
        let store = EmbeddedStore::in_memory(SHARDS, OUTBOX_BOUND, clock);
        Self::opened(store, Some(hand)).await
    }

    pub async fn embedded() -> Self {
        let hand = Arc::new(AtomicI64::new(SOME_DAY));
        let clock = Clock::Manual(hand.clone());
        let settings =
            EmbeddedSettings::new(RunId("a journal".into()), SHARDS, OUTBOX_BOUND, clock);
        let file = InFile::new().await;
        let store = EmbeddedStore::open(file.journal.clone(), settings).await;
        Self {
            _journal: Some(file),
            ..Self::opened(store.unwrap(), Some(hand)).await
        }
    }
}

impl Stage<RedisStore> {
    pub async fn redis() -> Self {
        Self::redis_at(&redis::server().url()).await
    }

    pub async fn cluster() -> Self {
        Self::redis_at(&redis::cluster().url()).await
    }

    pub async fn redis_at(url: &str) -> Self {
        Self::redis_with(redis::settings(url, SHARDS)).await
    }

    pub async fn redis_with(settings: RedisSettings) -> Self {
        let settings = RedisSettings {
            outbox_bound: OUTBOX_BOUND,
            ..settings
        };
        Self::opened(redis::connected(settings).await, None).await
    }

    pub fn tag(&self) -> String {
        self.store.hash_tag(self.shard)
    }
}

/// Setting the stage.
impl<S: Store> Stage<S> {
    /// Every shard is open in epoch 1, the account is cold.
    pub async fn opened(store: S, hand: Option<Arc<AtomicI64>>) -> Self {
        let account: AccountId = format!("acct-{}", Uuid::now_v7()).parse().unwrap();
        let shard = account.shard(SHARDS);
        let stage = Self {
            store: Arc::new(store),
            account,
            shard,
            hand,
            _journal: None,
        };
        stage.begin_epoch(1).await;
        stage
    }

    pub async fn begin_epoch(&self, epoch: i64) {
        let view = until_it_answers(&*self.store, self.shard).await;
        let (out_seq, applied_seq) = view.header.map_or_else(Default::default, |header| {
            (header.out_seq, header.applied_seq)
        });
        let header = Header {
            install: Uuid::nil(),
            format: STORE_FORMAT,
            epoch: Epoch(epoch),
            out_seq,
            applied_seq,
        };
        self.store.open(self.shard, &header).await.unwrap();
        self.store.adopt(self.shard, Epoch(epoch));
    }

    /// The account is live with these lots, numbered from 1.
    pub async fn with_lots(self, lots: &[i64]) -> Self {
        let image = self.image(lots);
        self.load(image).await;
        self
    }

    pub fn image(&self, lots: &[i64]) -> AccountImage {
        let lots = (1..).zip(lots).map(|(id, left)| (lot(id), Nanos(*left)));
        AccountImage {
            withdrawals: Vec::new(),
            snapshot: self.snapshot(1),
            lots: lots.collect(),
            debt: Nanos(0),
            counters: Vec::new(),
            as_of: ChangeSeq(0),
        }
    }

    pub fn snapshot(&self, version: i64) -> Snapshot {
        Snapshot {
            account: self.account.clone(),
            version: Version(version),
            keys_version: 0,
            plan: Some("project".into()),
            mode: Mode::Enforce,
            status: Status::Active,
            anchor_at: None,
            limits: Vec::new(),
            overage: Nanos(0),
            markup_percent: None,
            throttle: None,
        }
    }

    pub async fn now(&self) -> UnixMs {
        self.store.view(self.shard).await.unwrap().now
    }

    /// Until the store's clock has come to this moment.
    pub async fn reach(&self, at: UnixMs) {
        if let Some(hand) = &self.hand {
            hand.fetch_max(at.0, Ordering::Relaxed);
        }
        let reached = async {
            while self.now().await < at {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let reached = tokio::time::timeout(PATIENCE, reached).await;
        reached.expect("the store's clock goes on");
    }
}

/// The verbs, for a store that is there.
impl<S: Store> Stage<S> {
    pub async fn load(&self, image: AccountImage) {
        assert_eq!(self.store.load(&image).await, Ok(LoadAnswer::Loaded));
    }

    pub async fn reserve(&self, reserve: &Reserve) -> Reserved {
        self.store.reserve(reserve).await.unwrap()
    }

    /// It fits, so it is held until the moment returned.
    pub async fn hold(&self, reserve: &Reserve) -> UnixMs {
        match self.reserve(reserve).await {
            Reserved::Held {
                deadline,
                fits: true,
                ..
            } => deadline,
            other => panic!("it should fit: {other:?}"),
        }
    }

    pub async fn short(&self, reserve: &Reserve) -> Seen {
        match self.reserve(reserve).await {
            Reserved::Short(seen) => seen,
            other => panic!("it should not fit: {other:?}"),
        }
    }

    pub async fn progress(&self, progress: &Progress) -> Progressed {
        self.store.progress(progress).await.unwrap()
    }

    pub async fn settle(&self, settle: &Settle) -> SettleAnswer {
        self.store.settle(settle).await.unwrap()
    }

    /// It ends now; the entry it wrote.
    pub async fn end(&self, settle: &Settle) -> Entry {
        match self.settle(settle).await {
            SettleAnswer::Ended(seq) => self.entry(seq).await,
            other => panic!("it should end: {other:?}"),
        }
    }

    pub async fn lapse(&self, id: ReservationId) -> LapseAnswer {
        let account = self.account.clone();
        self.store.lapse(&Overdue { id, account }).await.unwrap()
    }

    /// It lapses now; the entry it wrote.
    pub async fn lapsed(&self, id: ReservationId) -> Entry {
        match self.lapse(id).await {
            LapseAnswer::Lapsed(seq) => self.entry(seq).await,
            other => panic!("it should lapse: {other:?}"),
        }
    }

    pub async fn apply(&self, seq: i64, body: ChangeBody) -> ApplyAnswer {
        let change = StoreChange {
            shard: self.shard,
            seq: ChangeSeq(seq),
            account: self.account.clone(),
            body,
        };
        self.store.apply(&change).await.unwrap()
    }

    pub async fn outbox(&self) -> Vec<Entry> {
        self.store
            .outbox(self.shard, usize::from(u16::MAX))
            .await
            .unwrap()
            .entries
    }

    pub async fn entry(&self, seq: OutSeq) -> Entry {
        let outbox = self.outbox().await;
        let found = outbox.into_iter().find(|entry| entry.seq == seq);
        found.expect("an entry waits until it is forgotten")
    }

    pub async fn account(&self) -> AccountView {
        let view = self.store.account(&self.account).await.unwrap();
        view.expect("the account is live")
    }

    pub async fn lots(&self) -> Vec<(i64, i64, i64)> {
        let lots = self.account().await.lots;
        let row = |(LotId(id), lot): (LotId, LotState)| (id, lot.left.0, lot.held.0);
        lots.into_iter().map(row).collect()
    }

    pub async fn debt(&self) -> (i64, i64) {
        let debt = self.account().await.debt;
        (debt.left.0, debt.held.0)
    }

    /// What a counter has used and holds.
    pub async fn counter(&self, line: &Line) -> (i64, i64) {
        let counters = self.account().await.counters;
        let found = counters.iter().find(|counter| counter.key == line.key);
        found.map_or((0, 0), |counter| (counter.used.0, counter.held.0))
    }
}

/// What is said to the store.
impl<S: Store> Stage<S> {
    /// A claim on the wallet alone; others are this one with something changed.
    pub fn claim(&self, charge: i64) -> Reserve {
        Reserve {
            id: ReservationId::new(),
            account: self.account.clone(),
            version: Version(1),
            charge: Nanos(charge),
            floor: Nanos(0),
            lines: Vec::new(),
            deadline_ms: LONG_MS,
            max_age_ms: 2 * LONG_MS,
            admission: Admission::Strict,
            detail: detail("reserved"),
        }
    }

    pub fn settled(&self, of: &Reserve, charge: i64, amounts: &[i64]) -> Settle {
        Settle {
            id: of.id,
            account: self.account.clone(),
            outcome: Outcome::Settled,
            charge: Nanos(charge),
            counts: counts(of, amounts),
            detail: detail("settled"),
        }
    }

    pub fn released(&self, of: &Reserve) -> Settle {
        Settle {
            outcome: Outcome::Released,
            ..self.settled(of, 0, &[])
        }
    }

    pub fn metered(&self, of: &Reserve, charge: i64, amounts: &[i64]) -> Progress {
        Progress {
            id: of.id,
            account: self.account.clone(),
            charge: Nanos(charge),
            amounts: amounts.iter().copied().map(Amount).collect(),
            deadline_ms: LONG_MS,
            detail: detail(&format!("metered {charge}")),
        }
    }
}

/// A server that was just connected to may not be there at once.
pub async fn until_it_answers<S: Store>(store: &S, shard: ShardId) -> ShardView {
    let answered = async {
        loop {
            match store.view(shard).await {
                Ok(view) => return view,
                Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    };
    let answered = tokio::time::timeout(PATIENCE, answered).await;
    answered.expect("the store's server is there")
}

/// A lot that is live for ever.
pub fn lot(id: i64) -> Lot {
    Lot {
        id: LotId(id),
        effective_at: UnixMs(0),
        expires_at: None,
    }
}

/// A line on a counter that never resets.
pub fn line(resource: &str, amount: i64, limit: i64) -> Line {
    Line {
        key: format!("account/{resource}/overall").parse().unwrap(),
        span: Span::EVER,
        amount: Amount(amount),
        floor: Amount(0),
        limit: Amount(limit),
    }
}

/// One count for each line of a claim, in their order.
pub fn counts(of: &Reserve, amounts: &[i64]) -> Vec<Count> {
    let count = |(line, amount): (&Line, &i64)| Count {
        key: line.key.clone(),
        start: line.span.start,
        amount: Amount(*amount),
    };
    of.lines.iter().zip(amounts).map(count).collect()
}

pub fn detail(text: &str) -> Detail {
    format!(r#"{{"what":"{text}"}}"#).into()
}

/// A grant of one new lot behind those that are there.
pub fn grant(order: &[i64], id: i64, credit: i64) -> ChangeBody {
    ChangeBody {
        lots: Some(order.iter().map(|id| lot(*id)).collect()),
        moved: Moved {
            lots: vec![(LotId(id), Nanos(credit))],
            ..Moved::default()
        },
        repay: true,
        ..ChangeBody::default()
    }
}

pub fn drawn(moved: &Moved) -> Vec<(i64, i64)> {
    moved.lots.iter().map(|(id, by)| (id.0, by.0)).collect()
}

/// What an entry's counters moved by, in their order.
pub fn counted(counts: &[Count]) -> Vec<i64> {
    counts.iter().map(|count| count.amount.0).collect()
}

pub fn ended(entry: &Entry) -> &EndedEntry {
    match &entry.kind {
        EntryKind::Ended(ended) => ended,
        _ => panic!("an ending was expected: {entry:?}"),
    }
}
