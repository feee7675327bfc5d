//! A store in memory, a fresh ledger, and the tasks between them, worked by hand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tollgate::clock::{Clock, UnixMs};
use tollgate::ledger::admin::Admin;
use tollgate::ledger::audit::{Page, compare};
use tollgate::ledger::{AnyLedger, Applier, Flushed, Flusher, Keeper, Ledger, Loader};
use tollgate::money::{Amount, Nanos};
use tollgate::quota::embedded::EmbeddedStore;
use tollgate::quota::{
    AccountId, Admission, Count, CounterKey, LapseAnswer, Line, LotId, Outcome, Overdue,
    ReservationId, Reserve, Reserved, Settle, SettleAnswer, ShardId, Store, Version, Window,
};
use uuid::Uuid;

use super::place::{Place, TestGrant};
use crate::harness::postgres::SHARDS;

/// How long a hold of these tests lives.
pub const DEADLINE_MS: i64 = 60_000;

pub struct World {
    pub place: Place,
    pub store: Arc<EmbeddedStore>,
    pub ledger: Arc<AnyLedger>,
    pub keeper: Arc<Keeper<EmbeddedStore, AnyLedger>>,
    pub applier: Arc<Applier<EmbeddedStore, AnyLedger>>,
    pub flusher: Arc<Flusher<EmbeddedStore, AnyLedger>>,
    pub loader: Arc<Loader<EmbeddedStore, AnyLedger>>,
    pub time: Arc<AtomicI64>,
}

pub fn tokens() -> CounterKey {
    "account/tokens/month".parse().unwrap()
}

const LOTS_THAT_DRIFT: &str = "\
    SELECT 'lot ' || id FROM credit_grant WHERE account_id = $1 AND balance_nanos <> coalesce( \
        (SELECT sum(amount_nanos) FROM ledger_entry WHERE account_id = $1 AND book = 'lot' AND lot_id = id), 0)";
const DEBTS_THAT_DRIFT: &str = "\
    SELECT 'debt ' || debt_nanos FROM account WHERE id = $1 AND -debt_nanos <> coalesce( \
        (SELECT sum(amount_nanos) FROM ledger_entry WHERE account_id = $1 AND book = 'debt'), 0)";
const RECORDS_THAT_DRIFT: &str = "\
    SELECT 'charged ' || charged FROM \
        (SELECT coalesce(sum(charged_nanos), 0) AS charged FROM usage_record WHERE account_id = $1) AS records \
    WHERE charged <> coalesce( \
        (SELECT sum(amount_nanos) FROM ledger_entry WHERE account_id = $1 AND book = 'used'), 0)";
const POSTINGS_THAT_DRIFT: &str = "\
    SELECT kind FROM posting WHERE account_id = $1 AND kind IN ('usage', 'correction') \
    AND coalesce((SELECT sum(charged_nanos) FROM usage_record WHERE posting_id = posting.id), 0) \
        <> coalesce((SELECT sum(amount_nanos) FROM ledger_entry WHERE posting_id = posting.id AND book = 'used'), 0)";

impl World {
    /// With its ledger in PostgreSQL.
    pub async fn new() -> Self {
        Self::at(Place::postgres().await).await
    }

    /// With its ledger in a SQLite file.
    pub async fn in_a_file() -> Self {
        Self::at(Place::sqlite().await).await
    }

    async fn at(place: Place) -> Self {
        let time = Arc::new(AtomicI64::new(Clock::System.now().0));
        let clock = Clock::Manual(time.clone());
        let store = Arc::new(EmbeddedStore::in_memory(SHARDS, 1000, clock));
        Self::over(place, store, time).await
    }

    /// Another process over the same store and ledger.
    pub async fn neighbour(&self) -> Self {
        Self::over(self.place.clone(), self.store.clone(), self.time.clone()).await
    }

    /// The same ledger over another store, as after a loss or a failover. The keeper has looked at it.
    pub async fn over_store(&self, store: EmbeddedStore) -> Self {
        Self::over(self.place.clone(), Arc::new(store), self.time.clone()).await
    }

    /// A store that knows nothing, by the same clock.
    pub fn empty_store(&self) -> EmbeddedStore {
        EmbeddedStore::in_memory(SHARDS, 1000, Clock::Manual(self.time.clone()))
    }

    /// What the commands do, over the same ledger.
    pub async fn admin(&self) -> Admin {
        self.place.admin().await
    }

    async fn over(place: Place, store: Arc<EmbeddedStore>, time: Arc<AtomicI64>) -> Self {
        let clock = Clock::Manual(time.clone());
        let ledger = Arc::new(place.ledger().await);
        let keeper = Arc::new(Keeper::new(store.clone(), ledger.clone(), clock.clone()));
        let applier = Arc::new(Applier::new(store.clone(), ledger.clone(), clock.clone()));
        assert!(keeper.round().await, "{:?}", keeper.health());
        Self {
            flusher: Arc::new(Flusher::new(
                store.clone(),
                ledger.clone(),
                keeper.clone(),
                applier.clone(),
                clock,
            )),
            loader: Arc::new(Loader::new(store.clone(), ledger.clone())),
            place,
            store,
            ledger,
            keeper,
            applier,
            time,
        }
    }

    pub fn now(&self) -> UnixMs {
        UnixMs(self.time.load(Ordering::Relaxed))
    }

    pub fn pass_ms(&self, ms: i64) {
        self.time.fetch_add(ms, Ordering::Relaxed);
    }

    /// A new account with these lots, drawn in this order, and live in the store.
    pub async fn account(&self, grants: &[i64]) -> AccountId {
        let account = self.cold_account(grants).await;
        self.loader.load(&account).await.unwrap();
        account
    }

    pub async fn cold_account(&self, grants: &[i64]) -> AccountId {
        let account: AccountId = Uuid::now_v7().to_string().parse().unwrap();
        self.place.add_account(&account, self.shard(&account)).await;
        for grant in grants {
            self.grant(&account, *grant).await;
        }
        account
    }

    /// A new account of the same shard, live in the store.
    pub async fn account_beside(&self, other: &AccountId, grants: &[i64]) -> AccountId {
        loop {
            let account = self.account(&[]).await;
            if self.shard(&account) == self.shard(other) {
                for grant in grants {
                    self.grant(&account, *grant).await;
                }
                self.quiesce(&account).await;
                return account;
            }
        }
    }

    /// Grants credit as a command does: the grant and its change in one transaction.
    pub async fn grant(&self, account: &AccountId, nanos: i64) -> LotId {
        let grant = TestGrant {
            nanos,
            priority: 0,
            kind: "paid",
            effective_at: UnixMs(0),
            expires_at: None,
        };
        self.place.grant(account, self.shard(account), &grant).await
    }

    pub fn shard(&self, account: &AccountId) -> ShardId {
        account.shard(self.store.shards())
    }

    /// Holds `charge` nanos and as many tokens.
    pub async fn hold(&self, account: &AccountId, charge: i64) -> ReservationId {
        let id = ReservationId::new();
        let span = Window::Month.span(self.now(), None);
        let view = self.store.account(account).await.unwrap();
        let reserve = Reserve {
            id,
            account: account.clone(),
            version: view.map_or(Version(1), |view| view.snapshot.version),
            charge: Nanos(charge),
            floor: Nanos(charge / 2),
            lines: vec![Line {
                key: tokens(),
                span,
                amount: Amount(charge),
                floor: Amount(charge / 2),
                limit: Amount(1_000_000),
            }],
            deadline_ms: DEADLINE_MS,
            max_age_ms: DEADLINE_MS,
            admission: Admission::Strict,
            detail: r#"{"input_tokens":1}"#.into(),
        };
        let reserved = self.store.reserve(&reserve).await.unwrap();
        assert!(matches!(reserved, Reserved::Held { .. }), "{reserved:?}");
        id
    }

    /// Ends a reservation with `charge` nanos and as many tokens.
    pub async fn settle(
        &self,
        account: &AccountId,
        id: ReservationId,
        charge: i64,
    ) -> SettleAnswer {
        let settle = Settle {
            id,
            account: account.clone(),
            outcome: if charge == 0 {
                Outcome::Released
            } else {
                Outcome::Settled
            },
            charge: Nanos(charge),
            counts: vec![Count {
                key: tokens(),
                start: Window::Month.span(self.now(), None).start,
                amount: Amount(charge),
            }],
            detail: format!(r#"{{"input_tokens":{charge},"cost_nanos":{charge}}}"#).into(),
        };
        self.store.settle(&settle).await.unwrap()
    }

    pub async fn lapse(&self, account: &AccountId, id: ReservationId) {
        let overdue = Overdue {
            id,
            account: account.clone(),
        };
        let answer = self.store.lapse(&overdue).await.unwrap();
        assert!(matches!(answer, LapseAnswer::Lapsed(_)), "{answer:?}");
    }

    pub async fn flush(&self, account: &AccountId) -> usize {
        match self.flusher.flush(self.shard(account)).await.unwrap() {
            Flushed::Drained(entries) => entries,
            other => panic!("{other:?}"),
        }
    }

    /// Carries everything both ways until nothing is left to carry.
    pub async fn quiesce(&self, account: &AccountId) {
        loop {
            let flushed = self.flush(account).await;
            let applied = self.applier.apply_shard(self.shard(account)).await.unwrap();
            if flushed + applied == 0 {
                return;
            }
        }
    }

    /// (outcome, charged, input tokens) of each record, in the order they were written.
    pub async fn records(&self, account: &AccountId) -> Vec<(String, i64, i64)> {
        let records = "SELECT outcome, charged_nanos, input_tokens FROM usage_record \
             WHERE account_id = $1 ORDER BY recorded_at, corrects NULLS FIRST";
        self.place.rows(records, account).await
    }

    /// Store and ledger are one, and the records say why: invariants 3, 4 and 6.
    pub async fn assert_one(&self, account: &AccountId) {
        self.quiesce(account).await;
        let image = self.ledger.image(account).await.unwrap().unwrap();
        let view = self.store.account(account).await.unwrap().unwrap();
        assert!(view.holds.is_empty(), "these tests compare after all ended");

        let left = |lots: Vec<(LotId, Nanos)>| {
            let mut lots: Vec<_> = lots
                .into_iter()
                .filter(|(_, n)| *n != Nanos::ZERO)
                .collect();
            lots.sort();
            lots
        };
        let ledger_lots = image.lots.iter().map(|(lot, n)| (lot.id, *n)).collect();
        let store_lots = view
            .lots
            .iter()
            .map(|(lot, state)| (*lot, state.left))
            .collect();
        assert_eq!(left(ledger_lots), left(store_lots));
        for (lot, _) in &image.lots {
            assert!(view.order.contains(lot), "{lot:?} can be drawn");
        }
        assert_eq!(image.debt, view.debt.left);
        let used = |used: Option<Amount>| used.unwrap_or_default();
        assert_eq!(
            used(image.counters.first().map(|counter| counter.used)),
            used(view.counters.first().map(|counter| counter.used)),
        );
        self.assert_posted(account).await;
        self.assert_no_drift(account).await;
    }

    /// What the ledger says of an account is what its postings and its records come to.
    pub async fn assert_posted(&self, account: &AccountId) {
        for (what, drifts) in [
            ("the balance of a lot", LOTS_THAT_DRIFT),
            ("the debt", DEBTS_THAT_DRIFT),
            ("what records charge", RECORDS_THAT_DRIFT),
            ("the records of a posting", POSTINGS_THAT_DRIFT),
        ] {
            let drifts: Vec<(String,)> = self.place.rows(drifts, account).await;
            assert!(
                drifts.is_empty(),
                "{what} is not what was posted: {drifts:?}"
            );
        }
    }

    /// The store's side of an account is what the ledger's books say of it, holds and quarantine included.
    pub async fn assert_no_drift(&self, account: &AccountId) {
        let page = Page::Only(account.clone());
        let books = self.ledger.books(self.shard(account), &*self.store, &page);
        let books = books.await.unwrap();
        let (books, view) = &books[0];
        assert_eq!(compare(books, view.as_ref()), []);
    }

    /// By how much the books of an account went up, by their names; lots together.
    pub async fn posted(&self, account: &AccountId) -> BTreeMap<String, i64> {
        let books = "SELECT book, CAST(sum(amount_nanos) AS bigint) FROM ledger_entry WHERE account_id = $1 GROUP BY book";
        let rows: Vec<(String, i64)> = self.place.rows(books, account).await;
        rows.into_iter().filter(|(_, nanos)| *nanos != 0).collect()
    }

    /// What is left of the wallet, as the store says.
    pub async fn balance(&self, account: &AccountId) -> i64 {
        let view = self.store.account(account).await.unwrap().unwrap();
        view.lots.iter().map(|(_, lot)| lot.left.0).sum::<i64>() - view.debt.left.0
    }
}
