//! What comes back from a journal is exactly what was, whenever it stops and whatever fails.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};
use tokio::sync::Semaphore;

use super::*;
use crate::money::{Amount, Nanos};
use crate::quota::{
    Admission, Burst, ChangeBody, ChangeSeq, Count, Epoch, Line, Lot, LotId, Mode, Moved, Outcome,
    ReservationId, STORE_FORMAT, Snapshot, Span, Status, Throttle, Version,
};

mod away;

const SHARDS: u16 = 2;
const BOUND: u64 = 20;
const BEGIN: i64 = 1_790_000_000_000;
const MINUTE: i64 = 60_000;
const ALL: usize = 1000;
/// Small, so that snapshots are made again and again.
const SNAPSHOT_AFTER: u64 = 4096;

/// A journal in memory, which can be made to fail and to stand still.
struct MemoryJournal {
    kept: Mutex<Kept>,
    /// Whether writes fail from now on, and whether groups are there all the same.
    fails: AtomicBool,
    fails_late: AtomicBool,
    /// Whether it cannot be read either.
    unreadable: AtomicBool,
    /// How often it was probed.
    probes: AtomicU64,
    /// A commit takes one; without any it waits.
    may_commit: Semaphore,
    /// The same for a snapshot.
    may_keep: Semaphore,
}

#[derive(Default, Clone)]
struct Kept {
    groups: BTreeMap<i64, Vec<u8>>,
    snapshots: BTreeMap<ShardId, ShardSnapshot>,
}

impl MemoryJournal {
    fn new() -> Arc<Self> {
        Self::of(Kept::default())
    }

    fn of(kept: Kept) -> Arc<Self> {
        Arc::new(Self {
            kept: Mutex::new(kept),
            fails: AtomicBool::new(false),
            fails_late: AtomicBool::new(false),
            unreadable: AtomicBool::new(false),
            probes: AtomicU64::new(0),
            may_commit: Semaphore::new(Semaphore::MAX_PERMITS),
            may_keep: Semaphore::new(Semaphore::MAX_PERMITS),
        })
    }

    /// What a process that dies now leaves behind.
    fn left_behind(&self) -> Arc<Self> {
        Self::of(self.kept.lock().clone())
    }
}

impl Journal for MemoryJournal {
    async fn commit(&self, group: Group) -> Result<(), JournalError> {
        self.may_commit.acquire().await.unwrap().forget();
        let refused = || JournalError("no space is left".into());
        if self.fails.load(Ordering::Relaxed) {
            return Err(refused());
        }
        let before = self.kept.lock().groups.insert(group.seq.0, group.body);
        assert!(before.is_none(), "no number is used twice");
        if self.fails_late.load(Ordering::Relaxed) {
            return Err(refused());
        }
        Ok(())
    }

    async fn probe(&self) -> Result<(), JournalError> {
        self.probes.fetch_add(1, Ordering::Relaxed);
        if self.fails.load(Ordering::Relaxed) {
            return Err(JournalError("no space is left".into()));
        }
        Ok(())
    }

    async fn keep(&self, snapshot: ShardSnapshot) -> Result<(), JournalError> {
        self.may_keep.acquire().await.unwrap().forget();
        self.kept.lock().snapshots.insert(snapshot.shard, snapshot);
        Ok(())
    }

    async fn prune(&self, upto: GroupSeq) -> Result<(), JournalError> {
        self.kept.lock().groups.retain(|seq, _| *seq > upto.0);
        Ok(())
    }

    async fn snapshots(&self) -> Result<Vec<ShardSnapshot>, JournalError> {
        if self.unreadable.load(Ordering::Relaxed) {
            return Err(JournalError("it cannot be read".into()));
        }
        Ok(self.kept.lock().snapshots.values().cloned().collect())
    }

    async fn groups(&self, after: GroupSeq, max: usize) -> Result<Vec<Group>, JournalError> {
        let kept = self.kept.lock();
        let groups = kept.groups.range(after.0 + 1..).take(max.min(3));
        let group = |(seq, body): (&i64, &Vec<u8>)| Group {
            seq: GroupSeq(*seq),
            body: body.clone(),
        };
        Ok(groups.map(group).collect())
    }
}

/// A store over a journal, with its clock.
struct World {
    store: EmbeddedStore,
    journal: Arc<MemoryJournal>,
    hand: Arc<AtomicI64>,
}

impl World {
    async fn open(journal: Arc<MemoryJournal>, at: i64) -> Self {
        let hand = Arc::new(AtomicI64::new(at));
        let settings = EmbeddedSettings {
            snapshot_after_bytes: SNAPSHOT_AFTER,
            ..EmbeddedSettings::new(
                RunId("a journal".into()),
                SHARDS,
                BOUND,
                Clock::Manual(hand.clone()),
            )
        };
        let store = EmbeddedStore::open(journal.clone(), settings)
            .await
            .unwrap();
        let epoch = Epoch(1);
        (0..SHARDS).for_each(|shard| store.adopt(ShardId(shard), epoch));
        Self {
            store,
            journal,
            hand,
        }
    }

    /// Two accounts of two shards, each with credit.
    async fn fresh() -> Self {
        let world = Self::open(MemoryJournal::new(), BEGIN).await;
        let header = Header {
            install: Uuid::nil(),
            format: STORE_FORMAT,
            epoch: Epoch(1),
            out_seq: OutSeq(0),
            applied_seq: ChangeSeq(0),
        };
        for shard in world.store.shards.ids() {
            world.store.open(shard, &header).await.unwrap();
        }
        for who in 0..2 {
            let loaded = world.store.load(&image(who)).await;
            assert_eq!(loaded, Ok(LoadAnswer::Loaded));
        }
        world
    }

    /// Another process opens what this one would leave behind if it died now.
    async fn after_a_kill(&self) -> Self {
        let at = self.hand.load(Ordering::Relaxed);
        Self::open(self.journal.left_behind(), at).await
    }

    fn engines(&self) -> Vec<Engine> {
        let engine = |shard| self.store.shards.lock(shard).engine.clone();
        let engines = self.store.shards.ids().map(engine);
        engines.map(|engine| engine.unwrap().unwrap()).collect()
    }

    async fn round(&self) -> Result<(), StoreError> {
        self.store.journal.as_ref().unwrap().snapshots.round().await
    }

    async fn hold(&self, who: usize, which: u128) -> Result<Reserved, StoreError> {
        self.store.reserve(&reserve(who, which, 100, 5)).await
    }
}

/// An account of each shard.
fn account(who: usize) -> AccountId {
    let mut names = (0..).map(|n| format!("account-{n}").parse().unwrap());
    let in_shard = |id: &AccountId| usize::from(id.shard(SHARDS).0) == who % 2;
    names.find(in_shard).unwrap()
}

fn image(who: usize) -> AccountImage {
    let lot = |id| Lot {
        id: LotId(id),
        effective_at: UnixMs(0),
        expires_at: Some(UnixMs(BEGIN + id * 20 * MINUTE)),
    };
    AccountImage {
        snapshot: Snapshot {
            account: account(who),
            version: Version(1),
            keys_version: 1,
            plan: Some("project".into()),
            mode: Mode::Enforce,
            status: Status::Active,
            anchor_at: None,
            limits: Vec::new(),
            overage: Nanos(50),
            markup_percent: Some("12.5".parse().unwrap()),
            throttle: Some(Throttle {
                account: Burst::new(5, 9),
                key: None,
            }),
        },
        lots: vec![(lot(1), Nanos(500)), (lot(2), Nanos(700))],
        debt: Nanos(0),
        counters: Vec::new(),
        withdrawals: Vec::new(),
        as_of: ChangeSeq(0),
    }
}

fn line(amount: i64) -> Line {
    Line {
        key: "account/tokens/overall".parse().unwrap(),
        span: Span::EVER,
        amount: Amount(amount),
        floor: Amount(1),
        limit: Amount(1000),
    }
}

fn reserve(who: usize, which: u128, charge: i64, amount: i64) -> Reserve {
    Reserve {
        id: ReservationId(Uuid::from_u128(which)),
        account: account(who),
        version: Version(1),
        charge: Nanos(charge),
        floor: Nanos(charge / 3),
        lines: vec![line(amount)],
        deadline_ms: MINUTE,
        max_age_ms: 10 * MINUTE,
        admission: Admission::Strict,
        detail: "{}".into(),
    }
}

fn settle(who: usize, which: u128, charge: i64) -> Settle {
    Settle {
        id: ReservationId(Uuid::from_u128(which)),
        account: account(who),
        outcome: Outcome::Settled,
        charge: Nanos(charge),
        counts: vec![Count {
            key: line(0).key,
            start: Span::EVER.start,
            amount: Amount(charge / 10),
        }],
        detail: r#"{"n":1}"#.into(),
    }
}

fn change(who: usize, seq: ChangeSeq) -> StoreChange {
    StoreChange {
        shard: account(who).shard(SHARDS),
        seq: ChangeSeq(seq.0 + 1),
        account: account(who),
        body: ChangeBody {
            moved: Moved {
                lots: vec![(LotId(2), Nanos(90))],
                ..Moved::default()
            },
            repay: true,
            ..ChangeBody::default()
        },
    }
}

#[derive(Debug, Clone)]
enum Step {
    Reserve(usize, u128, i64),
    Progress(usize, u128, i64),
    Settle(usize, u128, i64),
    Sweep(usize),
    Expire(usize, i64),
    Apply(usize),
    Forget(usize, usize),
    Tick(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (who, which, amount) = (0..2usize, 0..12u128, 0..400i64);
    let call = (who.clone(), which, amount);
    let step = prop_oneof![
        6 => call.clone().prop_map(|(who, which, amount)| Step::Reserve(who, which, amount)),
        2 => call.clone().prop_map(|(who, which, amount)| Step::Progress(who, which, amount)),
        4 => call.prop_map(|(who, which, amount)| Step::Settle(who, which, amount)),
        1 => who.clone().prop_map(Step::Sweep),
        1 => (who.clone(), 1..3i64).prop_map(|(who, lot)| Step::Expire(who, lot)),
        1 => who.clone().prop_map(Step::Apply),
        1 => (who, 1..6usize).prop_map(|(who, most)| Step::Forget(who, most)),
        // Back, too: a clock may be set.
        2 => (-2 * MINUTE..10 * MINUTE).prop_map(Step::Tick),
    ];
    proptest::collection::vec(step, 1..80)
}

impl World {
    async fn step(&self, step: &Step) -> Result<(), StoreError> {
        let store = &self.store;
        match *step {
            Step::Reserve(who, which, amount) => {
                let reserve = reserve(who, which, amount, amount / 7);
                store.reserve(&reserve).await.map(drop)
            }
            Step::Progress(who, which, charge) => {
                let progress = Progress {
                    id: ReservationId(Uuid::from_u128(which)),
                    account: account(who),
                    charge: Nanos(charge),
                    amounts: vec![Amount(charge / 9)],
                    deadline_ms: 2 * MINUTE,
                    detail: "{}".into(),
                };
                store.progress(&progress).await.map(drop)
            }
            Step::Settle(who, which, charge) => {
                store.settle(&settle(who, which, charge)).await.map(drop)
            }
            Step::Sweep(who) => {
                let shard = account(who).shard(SHARDS);
                for overdue in store.overdue(shard, ALL).await?.1 {
                    store.lapse(&overdue).await?;
                }
                Ok(())
            }
            Step::Expire(who, lot) => {
                let expired = ExpiredLot {
                    account: account(who),
                    lot: LotId(lot),
                    expires_at: UnixMs(BEGIN + lot * 20 * MINUTE),
                };
                store.expire(&expired).await.map(drop)
            }
            Step::Apply(who) => {
                let view = store.view(account(who).shard(SHARDS)).await?;
                let at = view.header.unwrap().applied_seq;
                store.apply(&change(who, at)).await.map(drop)
            }
            Step::Forget(who, most) => {
                let shard = account(who).shard(SHARDS);
                let entries = store.outbox(shard, most).await?.entries;
                let seqs: Vec<_> = entries.iter().map(|entry| entry.seq).collect();
                store.forget(shard, &seqs).await
            }
            Step::Tick(ms) => {
                self.hand.fetch_add(ms, Ordering::Relaxed);
                Ok(())
            }
        }
    }
}

#[test]
fn whenever_it_dies_what_comes_back_is_what_was() {
    let mut config = ProptestConfig {
        failure_persistence: None,
        cases: 48,
        ..ProptestConfig::default()
    };
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(rand::random());
    }
    let seed = config.rng_seed;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let outcome = TestRunner::new(config).run(&steps(), |steps| {
        runtime.block_on(async {
            let world = World::fresh().await;
            for step in &steps {
                world.step(step).await.unwrap();
                let again = world.after_a_kill().await;
                prop_assert_eq!(world.engines(), again.engines());
            }
            world.store.close().await.unwrap();
            prop_assert!(world.journal.kept.lock().groups.is_empty());
            Ok(())
        })
    });
    outcome.unwrap_or_else(|error| panic!("{seed:?}: {error}"));
}

#[tokio::test]
async fn a_clean_end_leaves_snapshots_only_and_numbers_go_on() {
    let world = World::fresh().await;
    world.hold(0, 1).await.unwrap();
    let before = world.engines();
    world.store.close().await.unwrap();
    assert!(matches!(world.hold(0, 2).await, Err(StoreError::Away(_))));
    assert!(world.journal.kept.lock().groups.is_empty());
    let again = world.after_a_kill().await;
    assert_eq!(again.engines(), before);
    again.hold(1, 3).await.unwrap();
    let kept = again.journal.kept.lock().clone();
    let last = kept.snapshots.values().map(|one| one.after.0).max();
    assert!(kept.groups.keys().min() > last.as_ref());
    assert_eq!(again.after_a_kill().await.engines(), again.engines());
}

#[tokio::test]
async fn a_refusal_waits_for_what_it_saw() {
    let world = World::fresh().await;
    world
        .journal
        .may_commit
        .forget_permits(Semaphore::MAX_PERMITS);
    let all = reserve(0, 1, 1200, 5);
    let mut held = std::pin::pin!(world.store.reserve(&all));
    assert!(futures_util::poll!(&mut held).is_pending());
    let mut refused = std::pin::pin!(world.hold(0, 2));
    assert!(futures_util::poll!(&mut refused).is_pending());
    // Another shard saw nothing of it.
    let elsewhere = world.store.overdue(account(1).shard(SHARDS), ALL);
    let mut elsewhere = std::pin::pin!(elsewhere);
    assert!(futures_util::poll!(&mut elsewhere).is_ready());
    world.journal.may_commit.add_permits(1);
    let (held, refused) = tokio::join!(held, refused);
    assert!(matches!(held, Ok(Reserved::Held { .. })), "{held:?}");
    assert!(matches!(refused, Ok(Reserved::Short(_))), "{refused:?}");
}

#[tokio::test]
async fn what_waits_goes_into_one_group_in_its_order() {
    let world = World::fresh().await;
    let before = world.journal.kept.lock().groups.len();
    world
        .journal
        .may_commit
        .forget_permits(Semaphore::MAX_PERMITS);
    let holds = (0..20).map(|which| world.hold(0, which));
    let mut holds = std::pin::pin!(futures_util::future::join_all(holds));
    assert!(futures_util::poll!(&mut holds).is_pending());
    tokio::task::yield_now().await;
    world.journal.may_commit.add_permits(2);
    let answers = holds.await;
    let held = |answer: &Result<Reserved, _>| matches!(answer, Ok(Reserved::Held { .. }));
    let held = answers.iter().map(held);
    let expected = (0..20).map(|which| which < 12);
    assert!(held.eq(expected), "credit for twelve: {answers:?}");
    let groups = world.journal.kept.lock().groups.len() - before;
    assert!(groups <= 2, "{groups} groups");
    assert_eq!(world.after_a_kill().await.engines(), world.engines());
}

#[tokio::test]
async fn the_journal_stays_short_however_long_it_goes_on() {
    let world = World::fresh().await;
    for which in 0..400 {
        world.hold(0, which).await.unwrap();
        world.store.settle(&settle(0, which, 0)).await.unwrap();
        let seqs = world.engines()[0].outbox(ALL);
        let seqs: Vec<_> = seqs.iter().map(|entry| entry.seq).collect();
        world.store.forget(ShardId(0), &seqs).await.unwrap();
    }
    let is_short = || {
        let kept = world.journal.kept.lock();
        let written: usize = kept.groups.values().map(Vec::len).sum();
        let snapshots: usize = kept.snapshots.values().map(|one| one.body.len()).sum();
        written < 2 * snapshots
    };
    while !is_short() {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.after_a_kill().await.engines(), world.engines());
}

/// What Redis keeps is laid out otherwise now and then; a journal is not, and its file is served all the same.
#[tokio::test]
async fn a_journal_of_an_earlier_store_format_goes_on() {
    let world = World::fresh().await;
    let known = world.store.view(ShardId(0)).await.unwrap().header.unwrap();
    let earlier = Header {
        format: STORE_FORMAT - 1,
        epoch: Epoch(known.epoch.0 + 1),
        ..known
    };
    world.store.open(ShardId(0), &earlier).await.unwrap();
    let again = world.after_a_kill().await;
    let found = again.store.view(ShardId(0)).await.unwrap().header.unwrap();
    assert_eq!((found.format, found.epoch), (STORE_FORMAT, earlier.epoch));
}

#[tokio::test]
async fn another_format_is_refused_with_what_to_do() {
    let world = World::fresh().await;
    let left = world.journal.left_behind();
    for body in left.kept.lock().groups.values_mut() {
        body[0] = 7;
    }
    let settings = EmbeddedSettings::new(RunId("a journal".into()), SHARDS, BOUND, Clock::System);
    let error = EmbeddedStore::open(left, settings).await.err().unwrap();
    assert_eq!(error, RecoveryError::Format(7));
    let said = error.to_string();
    assert!(
        said.contains("open the file with a tollgate of the release"),
        "{said}"
    );
}

#[tokio::test]
async fn a_snapshot_that_is_given_up_is_no_reason_to_prune_what_it_would_have_had() {
    let world = World::fresh().await;
    world.hold(0, 1).await.unwrap();
    world.hold(1, 2).await.unwrap();
    world
        .journal
        .may_keep
        .forget_permits(Semaphore::MAX_PERMITS);
    let given_up = timeout(Duration::from_millis(1), world.round()).await;
    assert!(given_up.is_err());
    world.journal.may_keep.add_permits(ALL);
    world.hold(1, 3).await.unwrap();
    world.round().await.unwrap();
    assert!(world.journal.kept.lock().groups.is_empty(), "it was pruned");
    let again = world.after_a_kill().await;
    assert_eq!(again.engines(), world.engines());
}
