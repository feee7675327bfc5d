//! That all rules together hold, and that none of them can be spared.

use std::time::Duration;

use super::rules::{Rule, Rules};
use super::search::{Until, search, shrink, story};
use super::world::{Bounds, Budget};

const WIDE: Bounds = Bounds {
    sides: 2,
    calls: 4,
    flights: 4,
    budget: Budget {
        losses: 2,
        crashes: 1,
        disconnects: 2,
        rebuilds: 1,
        grants: 1,
        adjustments: 1,
        withdrawals: 2,
        ages: 1,
        ticks: 3,
        heartbeats: 4,
    },
    opening: &[],
};

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn whatever_happens_nothing_is_lost_leaked_oversold_or_charged_twice() {
    let seed = setting("TOLLGATE_MODEL_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let longer = setting("TOLLGATE_MODEL_RUNS");
    let until = Until {
        runs: longer.unwrap_or(4000),
        time: longer.map_or(Duration::from_secs(10), |_| Duration::MAX),
    };
    let searched = search(Rules::ALL, &WIDE, seed, until, None);
    println!(
        "seed {seed}: {} runs, {} steps",
        searched.runs, searched.steps
    );
    if let Some(failure) = searched.failure {
        let failure = shrink(Rules::ALL, &WIDE, failure);
        panic!("seed {seed}: {}", story(Rules::ALL, &WIDE, &failure));
    }
}

const RULES: &[Rule] = &[
    Rule::UnknownIdsAreSettled,
    Rule::EndingsOfEarlierEpochsCount,
    Rule::AnotherServerIsAnotherEpoch,
    Rule::EndedMarks,
    Rule::MarksOfUnknownIds,
    Rule::LapseChecksTheDeadline,
    Rule::OutSeqNeverRestarts,
    Rule::SkipsWhatIsFlushed,
    Rule::ForgetsOnlyTheCommitted,
    Rule::CommitsOnlyOfTheServer,
    Rule::ChangesInOrder,
    Rule::LockBeforeTheHeader,
    Rule::EpochBeforeTheHeader,
    Rule::HeaderOnlyUpwards,
    Rule::CommandsExpectAnEpoch,
    Rule::AgreedForOneConnection,
    Rule::AnswersOfThisEpoch,
    Rule::DrainedBeforeALoad,
    Rule::DrainedBeforeTheImage,
    Rule::ImageNotBehind,
    Rule::AsOfTheImage,
    Rule::LoadsOnlyTheCold,
    Rule::LoadKeepsWhatIsHeld,
    Rule::EndingsAreKept,
    Rule::KeptUntilThatEpochFlushed,
    Rule::KeptWhereAlreadyEnded,
    Rule::HeldAgain,
    Rule::SettleCorrectsALapse,
    Rule::CorrectsOnce,
    Rule::RestIsAChange,
    Rule::OnlyTheStoreExpires,
    Rule::WithdrawsOnce,
];

#[test]
fn hunt() {
    let only = std::env::var("ONLY").unwrap_or_default();
    for rule in RULES {
        if !format!("{rule:?}").contains(&only) {
            continue;
        }
        let until = Until {
            runs: 100_000,
            time: Duration::from_secs(5),
        };
        let searched = search(Rules::without(*rule), &WIDE, 1, until, None);
        println!(
            "{rule:?}: {} runs: {:?}",
            searched.runs,
            searched.failure.map(|f| {
                let f = shrink(Rules::without(*rule), &WIDE, f);
                (
                    f.wrong.to_string().chars().take(100).collect::<String>(),
                    f.trace,
                )
            })
        );
    }
}
