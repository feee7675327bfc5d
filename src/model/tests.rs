//! That all rules together hold, and that none of them can be spared.

use std::time::Duration;

use super::rules::Rules;
use super::scenes::WIDE;
use super::search::{Until, search, shrink, story};

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
