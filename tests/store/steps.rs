//! What may happen to a store, drawn at random: small pools of everything, so that steps meet each other.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::subsequence;
use tollgate::money::{MAX_AMOUNT, MAX_BALANCE, MAX_DEBT};

/// Accounts are numbers from 0, and so are reservations: number n belongs to account n % ACCOUNTS.
pub const ACCOUNTS: usize = 2;
pub const RESERVATIONS: usize = 16;
/// Counters by number.
pub const KEYS: [&str; 4] = [
    "account/tokens/day",
    "account/requests/overall",
    "account/spend/month",
    "account/agents/cumulative",
];
const LOTS: [i64; 5] = [1, 2, 3, 4, 5];

#[derive(Debug, Clone)]
pub enum Step {
    Reserve(Ask),
    Progress {
        which: usize,
        charge: i64,
        amounts: Vec<i64>,
        deadline_ms: i64,
    },
    /// Counts what was last asked for under this number; a release where it is no settle.
    End {
        which: usize,
        settle: bool,
        charge: i64,
        amounts: Vec<i64>,
    },
    Lapse {
        which: usize,
    },
    /// Every hold that is due.
    Sweep,
    Load {
        who: usize,
        lots: Vec<(i64, i64)>,
        debt: i64,
        overage: i64,
        counters: Vec<Move>,
        withdrawals: Vec<Taking>,
        /// How far the image is ahead of what the store has applied.
        ahead: i64,
    },
    Apply {
        who: usize,
        /// How far the change is from the next one.
        off: i64,
        overage: Option<i64>,
        order: Option<Vec<i64>>,
        lots: Vec<(i64, i64)>,
        debt: i64,
        counters: Vec<Move>,
        withdraw: Option<Taking>,
        repay: bool,
    },
    /// The time of a lot is over, or nearly.
    Expire {
        who: usize,
        lot: i64,
        ago_ms: i64,
    },
    /// So many of the oldest entries are in the ledger.
    Forget(usize),
    /// The clock goes on, or a little back.
    Tick(i64),
    Jump(i64),
    BeginEpoch,
}

#[derive(Debug, Clone)]
pub struct Ask {
    pub which: usize,
    pub charge: i64,
    pub floor: i64,
    pub lines: Vec<AskedLine>,
    pub is_stale: bool,
    pub is_forced: bool,
    /// As one that the store has lost.
    pub is_again: bool,
    pub deadline_ms: i64,
    pub max_age_ms: i64,
    /// How old the caller's idea of the time is.
    pub late_ms: i64,
}

#[derive(Debug, Clone)]
pub struct AskedLine {
    pub key: usize,
    pub amount: i64,
    pub floor: i64,
    pub limit: i64,
}

/// A counter in the span that held a moment so long ago.
#[derive(Debug, Clone)]
pub struct Move {
    pub key: usize,
    pub ago_ms: i64,
    pub by: i64,
}

/// What is to be taken out of a lot.
#[derive(Debug, Clone)]
pub struct Taking {
    pub id: u64,
    pub lot: i64,
    pub amount: i64,
    pub is_refund: bool,
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let some = prop_oneof![
        40 => step().prop_map(|step| vec![step]),
        1 => loads().prop_map(|loads| [vec![Step::BeginEpoch], loads].concat()),
    ];
    (loads(), vec(some, 1..80)).prop_map(|(warm, steps)| [warm, steps.concat()].concat())
}

/// A load of each account that the store cannot refuse.
fn loads() -> impl Strategy<Value = Vec<Step>> {
    let loads = (0..ACCOUNTS).map(|who| load(Just(who).boxed(), (0..3_i64).boxed()).boxed());
    loads.collect::<Vec<_>>()
}

fn step() -> impl Strategy<Value = Step> {
    let who = || (0..ACCOUNTS).boxed();
    let which = || 0..RESERVATIONS;
    let progress = (which(), amount(), vec(amount(), 0..5), deadline_ms());
    let end = (
        which(),
        prop::bool::weighted(0.8),
        amount(),
        vec(amount(), 0..5),
    );
    prop_oneof![
        12 => ask().prop_map(Step::Reserve),
        5 => progress.prop_map(|(which, charge, amounts, deadline_ms)| Step::Progress {
            which, charge, amounts, deadline_ms
        }),
        8 => end.prop_map(|(which, settle, charge, amounts)| Step::End {
            which, settle, charge, amounts
        }),
        3 => which().prop_map(|which| Step::Lapse { which }),
        3 => Just(Step::Sweep),
        1 => load(who(), (-1..3_i64).boxed()),
        5 => apply(who()),
        1 => (who(), 1..7_i64, -100..100_i64).prop_map(|(who, lot, ago_ms)| Step::Expire {
            who, lot, ago_ms
        }),
        2 => (0..10_usize).prop_map(Step::Forget),
        5 => (-500..3_000_i64).prop_map(Step::Tick),
        1 => (0..3 * DAY_MS).prop_map(Step::Jump),
    ]
}

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

fn ask() -> impl Strategy<Value = Ask> {
    let rarely = || prop::bool::weighted(0.05);
    let times = (
        deadline_ms(),
        0..6_000_i64,
        prop_oneof![9 => Just(0), 1 => 0..2 * DAY_MS],
    );
    let what = (amount(), amount(), lines());
    let how = (rarely(), prop::bool::weighted(0.15), rarely());
    (0..RESERVATIONS, what, how, times).prop_map(|(which, what, how, times)| {
        let (charge, floor, lines) = what;
        let (is_stale, is_forced, is_again) = how;
        let (deadline_ms, max_age_ms, late_ms) = times;
        Ask {
            which,
            charge,
            floor,
            lines,
            is_stale,
            is_forced,
            is_again,
            deadline_ms,
            max_age_ms,
            late_ms,
        }
    })
}

fn lines() -> impl Strategy<Value = Vec<AskedLine>> {
    let limit = prop_oneof![
        2 => 0..150_i64,
        2 => Just(MAX_BALANCE),
        1 => 0..3 * MAX_AMOUNT,
        1 => near(MAX_BALANCE),
    ];
    let line = |key| {
        (amount(), amount(), limit.clone()).prop_map(move |(amount, floor, limit)| AskedLine {
            key,
            amount,
            floor,
            limit,
        })
    };
    let all: Vec<_> = (0..KEYS.len()).map(|key| line(key).boxed()).collect();
    (subsequence(vec![0, 1, 2, 3], 0..=4), all)
        .prop_map(|(keys, lines)| keys.into_iter().map(|key| lines[key].clone()).collect())
}

fn load(who: BoxedStrategy<usize>, ahead: BoxedStrategy<i64>) -> impl Strategy<Value = Step> {
    // At the bound of what endings may make an account owe, a part of an ending fits.
    let debt = prop_oneof![
        4 => Just(0),
        2 => 0..100_i64,
        1 => near(MAX_BALANCE),
        1 => near(MAX_DEBT),
        1 => near(MAX_DEBT - MAX_AMOUNT),
    ];
    let lots = (order(), vec(credit(), LOTS.len()));
    let counters = vec(movement(used().boxed()), 0..4);
    let moves = (counters, vec(taking(), 0..3));
    (who, lots, debt, overage(), moves, ahead).prop_map(
        |(who, (order, credits), debt, overage, (counters, withdrawals), ahead)| Step::Load {
            who,
            lots: order.into_iter().zip(credits).collect(),
            debt,
            overage,
            counters: one_a_key(counters),
            withdrawals,
            ahead,
        },
    )
}

fn apply(who: BoxedStrategy<usize>) -> impl Strategy<Value = Step> {
    let off = prop_oneof![9 => Just(0), 1 => -2..3_i64];
    let head = (
        option::weighted(0.3, overage()),
        option::weighted(0.5, order()),
    );
    let grant = (
        subsequence(LOTS.to_vec(), 0..3),
        vec(signed(credit().boxed()), 3),
    );
    let debt = prop_oneof![3 => Just(0), 1 => signed(amount().boxed())];
    let counters = vec(movement(signed(amount().boxed()).boxed()), 0..3);
    let moves = (grant, debt, counters);
    let ends = (any::<bool>(), option::weighted(0.15, taking()));
    (who, off, head, moves, ends).prop_map(|(who, off, head, moves, ends)| {
        let (overage, order) = head;
        let (repay, withdraw) = ends;
        let ((ids, credits), debt, counters) = moves;
        Step::Apply {
            who,
            off,
            overage,
            order,
            lots: ids.into_iter().zip(credits).collect(),
            debt,
            counters: one_a_key(counters),
            withdraw,
            repay,
        }
    })
}

fn taking() -> impl Strategy<Value = Taking> {
    (any::<u64>(), 1..7_i64, amount(), any::<bool>()).prop_map(|(id, lot, amount, is_refund)| {
        Taking {
            id,
            lot,
            amount,
            is_refund,
        }
    })
}

fn order() -> impl Strategy<Value = Vec<i64>> {
    subsequence(LOTS.to_vec(), 0..=LOTS.len()).prop_shuffle()
}

fn movement(by: BoxedStrategy<i64>) -> impl Strategy<Value = Move> {
    let ago_ms = prop_oneof![3 => Just(0), 1 => 0..3 * DAY_MS];
    (0..KEYS.len(), ago_ms, by).prop_map(|(key, ago_ms, by)| Move { key, ago_ms, by })
}

fn one_a_key(moves: Vec<Move>) -> Vec<Move> {
    let mut kept: Vec<Move> = Vec::new();
    for each in moves {
        if kept.iter().all(|known| known.key != each.key) {
            kept.push(each);
        }
    }
    kept
}

/// What one call may claim or use: mostly little, sometimes as much as there can be.
fn amount() -> impl Strategy<Value = i64> {
    prop_oneof![16 => 0..60_i64, 1 => Just(MAX_AMOUNT), 1 => near(MAX_AMOUNT), 1 => 0..=MAX_AMOUNT]
}

fn credit() -> impl Strategy<Value = i64> {
    prop_oneof![6 => 0..120_i64, 1 => Just(MAX_AMOUNT), 1 => near(MAX_AMOUNT)]
}

fn used() -> impl Strategy<Value = i64> {
    prop_oneof![4 => 0..100_i64, 1 => near(MAX_BALANCE), 1 => near(MAX_BALANCE - 2 * MAX_AMOUNT)]
}

fn overage() -> impl Strategy<Value = i64> {
    prop_oneof![3 => Just(0), 2 => 0..100_i64, 1 => near(MAX_BALANCE)]
}

fn deadline_ms() -> impl Strategy<Value = i64> {
    0..4_000_i64
}

fn signed(amount: BoxedStrategy<i64>) -> impl Strategy<Value = i64> {
    (amount, prop::bool::weighted(0.2)).prop_map(|(by, down)| if down { -by } else { by })
}

fn near(bound: i64) -> impl Strategy<Value = i64> + Clone {
    bound - 60..=bound
}
