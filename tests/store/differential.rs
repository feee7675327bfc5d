//! Every store answers as the engine does: the same steps on both, all answers and all state compared after each.
//!
//! The clock is the test's on both sides. A failure prints its seed and the shortest sequence that shows it;
//! `PROPTEST_RNG_SEED=<seed>` repeats it, `PROPTEST_CASES` asks for more.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestCaseError, TestError, TestRunner};
use tollgate::clock::{Clock, UnixMs};
use tollgate::money::{Amount, Nanos};
use tollgate::quota::embedded::{EmbeddedSettings, EmbeddedStore};
use tollgate::quota::engine::Engine;
use tollgate::quota::redis::{ClockSource, RedisSettings};
use tollgate::quota::{
    AccountId, AccountImage, Admission, ApplyAnswer, ChangeBody, ChangeSeq, Count, CounterBalance,
    CounterKey, Detail, Epoch, ExpiredLot, Header, Line, LoadAnswer, Lot, LotId, Mode, Moved,
    OutSeq, Outcome, Overdue, Progress, ReservationId, Reserve, RunId, STORE_FORMAT, Settle,
    ShardId, Snapshot, Status, Store, StoreChange, Version, Window, Withdrawal, WithdrawalReason,
};
use uuid::Uuid;

use super::books::Books;
use super::journal::InFile;
use super::stage::until_it_answers;
use super::steps::{ACCOUNTS, Ask, KEYS, Move, RESERVATIONS, Step, Taking, steps};
use crate::harness::redis;

const OUTBOX_BOUND: u64 = 8;
const SHARD: ShardId = ShardId(0);
const BEGIN: UnixMs = UnixMs(1_790_000_000_000);
const ALL: usize = 10_000;
/// So many sequences are a few seconds.
const CASES: u32 = 96;

#[test]
fn memory_answers_as_the_engine_does() {
    compare(
        async |clock| EmbeddedStore::in_memory(1, OUTBOX_BOUND, clock),
        stays,
    );
}

/// It is dropped and opened again before each step: the journal and the snapshots have all that the engine has.
#[test]
fn the_embedded_store_answers_as_the_engine_does_that_never_stopped() {
    let file = RefCell::new(None::<InFile>);
    let open = async |clock| {
        let journal = file.borrow().as_ref().unwrap().journal.clone();
        // Small, so that snapshots are made, too.
        let settings = EmbeddedSettings {
            snapshot_after_bytes: 1024,
            ..EmbeddedSettings::new(RunId("a journal".into()), 1, OUTBOX_BOUND, clock)
        };
        EmbeddedStore::open(journal, settings).await.unwrap()
    };
    let fresh = async |clock| {
        let new = InFile::new().await;
        file.replace(Some(new));
        open(clock).await
    };
    compare(fresh, async |store, clock| {
        store.stop().await;
        open(clock).await
    });
}

/// A store that nothing happens to between two steps.
async fn stays<S>(store: S, _: Clock) -> S {
    store
}

#[test]
fn redis_answers_as_the_engine_does() {
    compare(
        async |clock| {
            let settings = RedisSettings {
                outbox_bound: OUTBOX_BOUND,
                clock: ClockSource::Caller(clock),
                ..redis::settings(&redis::server().url(), 1)
            };
            redis::connected(settings).await
        },
        stays,
    );
}

/// Runs random sequences, each on a fresh engine and a fresh store of one shard; before each step, `again` happens to it.
fn compare<S: Store>(open: impl AsyncFn(Clock) -> S, again: impl AsyncFn(S, Clock) -> S) {
    let mut config = ProptestConfig {
        failure_persistence: None,
        max_shrink_time: 60_000,
        ..ProptestConfig::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(rand::random());
    }
    let seed = config.rng_seed;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let outcome = TestRunner::new(config).run(&steps(), |steps| {
        runtime.block_on(async {
            let hand = Arc::new(AtomicI64::new(BEGIN.0));
            let store = open(Clock::Manual(hand.clone())).await;
            let mut pair = Pair::begin(store, hand).await;
            for step in &steps {
                pair.store = again(pair.store, Clock::Manual(pair.hand.clone())).await;
                pair.store.adopt(SHARD, pair.engine.header().epoch);
                pair.step(step).await?;
                pair.compare().await?;
            }
            Ok(())
        })
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Abort(reason)) => panic!("{seed:?}: {reason}"),
        Err(TestError::Fail(reason, steps)) => {
            let lines: Vec<_> = steps.iter().map(|step| format!("{step:?}")).collect();
            panic!(
                "{seed:?}: {reason}\nafter these steps:\n{}",
                lines.join("\n")
            );
        }
    }
}

/// The engine and the store that must answer as it does.
struct Pair<S> {
    engine: Engine,
    store: S,
    hand: Arc<AtomicI64>,
    /// The clock does not step back before this, since a mark once forgotten stays forgotten.
    not_before: UnixMs,
    books: BTreeMap<AccountId, Books>,
    booked: OutSeq,
    /// What was last asked for under each number.
    asked: BTreeMap<usize, Vec<Line>>,
}

fn same<T: Debug + PartialEq>(engine: &T, store: &T) -> Result<(), TestCaseError> {
    prop_assert_eq!(engine, store, "the engine left, the store right");
    Ok(())
}

impl<S: Store> Pair<S> {
    async fn begin(store: S, hand: Arc<AtomicI64>) -> Self {
        let header = Header {
            install: Uuid::nil(),
            format: STORE_FORMAT,
            epoch: Epoch(1),
            out_seq: OutSeq(0),
            applied_seq: ChangeSeq(0),
        };
        until_it_answers(&store, SHARD).await;
        store.open(SHARD, &header).await.unwrap();
        store.adopt(SHARD, header.epoch);
        Self {
            engine: Engine::new(header, OUTBOX_BOUND),
            store,
            hand,
            not_before: BEGIN,
            books: BTreeMap::new(),
            booked: OutSeq(0),
            asked: BTreeMap::new(),
        }
    }

    fn now(&self) -> UnixMs {
        UnixMs(self.hand.load(Ordering::Relaxed))
    }

    async fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let now = self.now();
        match step {
            Step::Reserve(ask) => {
                let reserve = self.reserve(ask);
                let answer = self.engine.reserve(now, &reserve);
                same(&answer, &self.store.reserve(&reserve).await.unwrap())
            }
            Step::Progress { .. } => {
                let progress = progress(step);
                let answer = self.engine.progress(now, &progress);
                same(&answer, &self.store.progress(&progress).await.unwrap())
            }
            Step::End { .. } => {
                let settle = self.settle(step);
                let answer = self.engine.settle(now, &settle);
                same(&answer, &self.store.settle(&settle).await.unwrap())
            }
            Step::Lapse { which } => {
                self.lapse(Overdue {
                    id: id(*which),
                    account: payer(*which),
                })
                .await
            }
            Step::Sweep => {
                for overdue in self.engine.overdue(now, ALL) {
                    self.lapse(overdue).await?;
                }
                Ok(())
            }
            Step::Expire { who, lot, ago_ms } => {
                let expired = ExpiredLot {
                    account: account(*who),
                    lot: LotId(*lot),
                    expires_at: now.plus_ms(-ago_ms),
                };
                let answer = self.engine.expire(now, &expired);
                same(&answer, &self.store.expire(&expired).await.unwrap())
            }
            Step::Load { .. } => self.load(step).await,
            Step::Apply { .. } => self.apply(step).await,
            Step::Forget(oldest) => {
                let entries = self.engine.outbox(*oldest);
                let seqs: Vec<_> = entries.iter().map(|entry| entry.seq).collect();
                self.engine.forget(&seqs);
                self.store.forget(SHARD, &seqs).await.unwrap();
                Ok(())
            }
            Step::Tick(ms) => {
                self.hand
                    .store(now.plus_ms(*ms).max(self.not_before).0, Ordering::Relaxed);
                Ok(())
            }
            Step::Jump(ms) => {
                self.not_before = now.plus_ms(*ms).max(self.not_before);
                self.hand.store(self.not_before.0, Ordering::Relaxed);
                Ok(())
            }
            Step::BeginEpoch => {
                let mut header = self.engine.header().clone();
                header.epoch.0 += 1;
                // Whoever looked at it saw less of it: numbers go on all the same.
                header.out_seq = OutSeq(0);
                self.engine.open(&header);
                self.store.open(SHARD, &header).await.unwrap();
                self.store.adopt(SHARD, header.epoch);
                Ok(())
            }
        }
    }

    async fn lapse(&mut self, overdue: Overdue) -> Result<(), TestCaseError> {
        let answer = self.engine.lapse(self.now(), &overdue);
        same(&answer, &self.store.lapse(&overdue).await.unwrap())
    }

    async fn load(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let image = self.image(step);
        let answer = self.engine.load(self.now(), &image);
        if answer == LoadAnswer::Loaded {
            let books = Books::of(&image);
            self.books.insert(image.snapshot.account.clone(), books);
        }
        same(&answer, &self.store.load(&image).await.unwrap())
    }

    async fn apply(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let change = self.change(step);
        let before = self.engine.account(&change.account);
        let answer = self.engine.apply(self.now(), &change);
        let follows = before.is_some_and(|account| change.seq > account.as_of);
        if answer == ApplyAnswer::Applied && follows {
            let books = self.books.get_mut(&change.account);
            books
                .expect("a live account was loaded")
                .record(&change.body.moved);
        }
        same(&answer, &self.store.apply(&change).await.unwrap())
    }

    /// All that can be seen is the same, the engine's invariants hold, and balances are what the records say.
    async fn compare(&mut self) -> Result<(), TestCaseError> {
        self.engine.check_invariants();
        let outbox = self.engine.outbox(ALL);
        for entry in outbox.iter().filter(|entry| entry.seq > self.booked) {
            let books = self.books.get_mut(&entry.account);
            books
                .expect("only a loaded account has entries")
                .record(&entry.moved);
        }
        self.booked = self.engine.header().out_seq;
        same(
            &outbox,
            &self.store.outbox(SHARD, ALL).await.unwrap().entries,
        )?;
        for who in 0..ACCOUNTS {
            let view = self.engine.account(&account(who));
            if let Some(view) = &view {
                self.books[&account(who)].check(view);
            }
            same(&view, &self.store.account(&account(who)).await.unwrap())?;
        }
        let overdue = (self.now(), self.engine.overdue(self.now(), ALL));
        same(&overdue, &self.store.overdue(SHARD, ALL).await.unwrap())?;
        let view = self.store.view(SHARD).await.unwrap();
        same(&Some(self.engine.header().clone()), &view.header)?;
        same(&self.engine.oldest_epoch(), &view.oldest_epoch)?;
        same(&self.engine.outbox_len(), &view.outbox_len)
    }

    fn reserve(&mut self, ask: &Ask) -> Reserve {
        let built_at = self.now().plus_ms(-ask.late_ms);
        let line = |asked: &super::steps::AskedLine| Line {
            key: key(asked.key),
            span: key(asked.key).window.span(built_at, None),
            amount: Amount(asked.amount),
            floor: Amount(asked.floor),
            limit: Amount(asked.limit),
        };
        let lines: Vec<_> = ask.lines.iter().map(line).collect();
        self.asked.insert(ask.which, lines.clone());
        let account = payer(ask.which);
        let version = self.version(&account).0 - i64::from(ask.is_stale);
        Reserve {
            id: id(ask.which),
            account,
            version: Version(version),
            charge: Nanos(ask.charge),
            floor: Nanos(ask.floor),
            lines,
            deadline_ms: ask.deadline_ms,
            max_age_ms: ask.max_age_ms,
            admission: if ask.is_again {
                Admission::Again
            } else if ask.is_forced {
                Admission::Forced
            } else {
                Admission::Strict
            },
            detail: detail("reserved", ask.charge),
        }
    }

    fn settle(&self, step: &Step) -> Settle {
        let Step::End {
            which,
            settle,
            charge,
            amounts,
        } = step
        else {
            unreachable!("it ends nothing")
        };
        let lines = self.asked.get(which).map_or(&[][..], Vec::as_slice);
        let count = |(line, amount): (&Line, &i64)| Count {
            key: line.key.clone(),
            start: line.span.start,
            // A standing count goes down as often as up.
            amount: match line.key.window {
                Window::Cumulative if amount % 2 == 1 => Amount(-amount),
                _ => Amount(*amount),
            },
        };
        let settled = Settle {
            id: id(*which),
            account: payer(*which),
            outcome: Outcome::Settled,
            charge: Nanos(*charge),
            counts: lines.iter().zip(amounts).map(count).collect(),
            detail: detail("settled", *charge),
        };
        if *settle {
            return settled;
        }
        Settle {
            outcome: Outcome::Released,
            charge: Nanos(0),
            counts: Vec::new(),
            ..settled
        }
    }

    fn image(&self, step: &Step) -> AccountImage {
        let Step::Load {
            who,
            lots,
            debt,
            overage,
            counters,
            withdrawals,
            ahead,
        } = step
        else {
            unreachable!("it loads nothing")
        };
        let counter = |moved: &Move| {
            let Count { key, start, amount } = self.count(moved);
            CounterBalance {
                key,
                start,
                used: amount,
            }
        };
        let account = account(*who);
        let version = self.version(&account).0 + 1;
        AccountImage {
            withdrawals: withdrawals.iter().map(withdrawal).collect(),
            snapshot: snapshot(account, version, *overage),
            lots: lots
                .iter()
                .map(|(id, left)| (lot(*id), Nanos(*left)))
                .collect(),
            debt: Nanos(*debt),
            counters: counters.iter().map(counter).collect(),
            as_of: ChangeSeq(self.engine.header().applied_seq.0 + ahead),
        }
    }

    fn change(&self, step: &Step) -> StoreChange {
        let Step::Apply {
            who,
            off,
            overage,
            order,
            lots,
            debt,
            counters,
            withdraw,
            repay,
        } = step
        else {
            unreachable!("it changes nothing")
        };
        let account = account(*who);
        let version = self.version(&account).0 + 1;
        let moved = Moved {
            lots: lots
                .iter()
                .map(|(id, by)| (LotId(*id), Nanos(*by)))
                .collect(),
            debt: Nanos(*debt),
            counters: counters.iter().map(|moved| self.count(moved)).collect(),
        };
        let order = order.as_ref();
        let body = ChangeBody {
            withdraw: withdraw.as_ref().map(withdrawal),
            snapshot: overage.map(|overage| snapshot(account.clone(), version, overage)),
            lots: order.map(|ids| ids.iter().copied().map(lot).collect()),
            moved,
            repay: *repay,
        };
        StoreChange {
            shard: SHARD,
            seq: ChangeSeq(self.engine.header().applied_seq.0 + 1 + off),
            account,
            body,
        }
    }

    fn count(&self, moved: &Move) -> Count {
        let key = key(moved.key);
        let span = key.window.span(self.now().plus_ms(-moved.ago_ms), None);
        Count {
            key,
            start: span.start,
            amount: Amount(moved.by),
        }
    }

    fn version(&self, account: &AccountId) -> Version {
        let view = self.engine.account(account);
        view.map_or(Version(1), |view| view.snapshot.version)
    }
}

fn progress(step: &Step) -> Progress {
    let Step::Progress {
        which,
        charge,
        amounts,
        deadline_ms,
    } = step
    else {
        unreachable!("it is no heartbeat")
    };
    Progress {
        id: id(*which),
        account: payer(*which),
        charge: Nanos(*charge),
        amounts: amounts.iter().copied().map(Amount).collect(),
        deadline_ms: *deadline_ms,
        detail: detail("metered", *charge),
    }
}

fn account(who: usize) -> AccountId {
    format!("account-{who}").parse().unwrap()
}

fn payer(which: usize) -> AccountId {
    account(which % ACCOUNTS)
}

fn id(which: usize) -> ReservationId {
    assert!(which < RESERVATIONS);
    let low = u128::try_from(which).unwrap();
    ReservationId(Uuid::from_u128(
        0x0190_0000_0000_7000_8000_0000_0000_0000 + low,
    ))
}

fn key(number: usize) -> CounterKey {
    KEYS[number].parse().unwrap()
}

/// Mostly a short one, sometimes none at all or one that looks like what a store may keep beside it.
fn detail(what: &str, charge: i64) -> Detail {
    match charge % 5 {
        0 => "".into(),
        1 => format!("\0\u{1}\u{7f}\u{c0}{}", "\u{a7}".repeat(300)).into(),
        _ => format!(r#"{{"{what}":{charge}}}"#).into(),
    }
}

/// Lots differ in when they are live: 3 soon expires, 4 is soon effective, 5 is for a day.
fn lot(id: i64) -> Lot {
    let (effective_at, expires_at) = match id {
        3 => (UnixMs(0), Some(BEGIN.plus_ms(5_000))),
        4 => (BEGIN.plus_ms(3_000), None),
        5 => (BEGIN, Some(BEGIN.plus_ms(24 * 60 * 60 * 1000))),
        _ => (UnixMs(0), None),
    };
    Lot {
        id: LotId(id),
        effective_at,
        expires_at,
    }
}

fn snapshot(account: AccountId, version: i64, overage: i64) -> Snapshot {
    Snapshot {
        account,
        version: Version(version),
        keys_version: version,
        plan: None,
        mode: Mode::Enforce,
        status: Status::Active,
        anchor_at: None,
        limits: Vec::new(),
        overage: Nanos(overage),
        markup_percent: None,
        throttle: None,
    }
}

fn withdrawal(taking: &Taking) -> Withdrawal {
    Withdrawal {
        id: Uuid::from_u64_pair(1, taking.id),
        lot: LotId(taking.lot),
        reason: if taking.is_refund {
            WithdrawalReason::Refund
        } else {
            WithdrawalReason::Void
        },
        amount: Nanos(taking.amount),
    }
}
