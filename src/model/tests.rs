//! That all rules together hold, and that none of them can be spared.

use std::time::Duration;

use super::exhaustive::exhaust;
use super::rules::{Rule, Rules};
use super::scenes::{ONE_CALL, ONE_CALL_AND_A_CRASH, ONE_CALL_AND_A_LOSS, TWO_CALLS, WIDE};
use super::search::{Until, replay, search, shrink, story};
use super::world::Bounds;
use super::wrong::Broken;

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

/// Every run of at most so many steps; says whether there are no longer ones.
fn every_run(bounds: &Bounds, steps: usize) -> bool {
    let steps = setting("TOLLGATE_MODEL_STEPS").map_or(steps, |steps| {
        usize::try_from(steps).expect("a number of steps")
    });
    let exhausted = exhaust(Rules::ALL, bounds, steps);
    println!("{} states, {} steps", exhausted.states, exhausted.steps);
    if let Some(failure) = exhausted.failure {
        panic!("{}", story(Rules::ALL, bounds, &failure));
    }
    exhausted.is_all
}

#[test]
fn every_run_of_one_call_is_right_to_its_very_end() {
    assert!(every_run(&ONE_CALL, usize::MAX));
}

#[test]
fn every_run_of_one_call_and_a_loss_is_right() {
    every_run(&ONE_CALL_AND_A_LOSS, 6);
}

#[test]
fn every_run_of_one_call_and_a_crash_is_right() {
    every_run(&ONE_CALL_AND_A_CRASH, 6);
}

#[test]
fn every_run_of_two_calls_is_right() {
    every_run(&TWO_CALLS, 6);
}

#[test]
fn where_an_ending_is_not_kept_the_shortest_run_that_loses_it_is_found() {
    let without = Rules::without(Rule::EndingsAreKept);
    let exhausted = exhaust(without, &ONE_CALL_AND_A_LOSS, usize::MAX);
    let failure = exhausted.failure.expect("it is lost");
    assert_eq!(failure.wrong.broken, Broken::NeverLost);
    assert_eq!(failure.trace.len(), exhausted.steps);
    let with = replay(Rules::ALL, &ONE_CALL_AND_A_LOSS, &failure.trace);
    assert!(with.is_ok(), "{}", with.expect_err("it is wrong"));
}
