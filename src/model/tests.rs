//! That all rules together hold, and that none of them can be spared.

use std::env;
use std::time::Duration;

use super::exhaustive::exhaust;
use super::rules::{Rule, Rules};
use super::scenes::{ONE_CALL, ONE_CALL_AND_A_CRASH, ONE_CALL_AND_A_LOSS, TWO_CALLS, WIDE};
use super::search::{Until, replay, search, shrink, story};
use super::world::Bounds;
use super::wrong::Broken;

fn number(text: Result<String, env::VarError>) -> Option<u64> {
    let number = text.ok()?.parse();
    Some(number.expect("a number"))
}

#[test]
fn whatever_happens_nothing_is_lost_leaked_oversold_or_charged_twice() {
    let seed =
        number(env::var("TOLLGATE_TEST_SEED")).unwrap_or_else(|| u64::from(std::process::id()));
    let longer = number(env::var("TOLLGATE_MODEL_RUNS"));
    let until = Until {
        runs: longer.unwrap_or(4000),
        time: longer.map_or(Duration::from_secs(10), |_| Duration::MAX),
    };
    println!("TOLLGATE_TEST_SEED={seed}");
    let searched = search(Rules::ALL, &WIDE, seed, until, None);
    println!("{} runs, {} steps", searched.runs, searched.steps);
    if let Some(failure) = searched.failure {
        let failure = shrink(Rules::ALL, &WIDE, failure);
        panic!("{}", story(Rules::ALL, &WIDE, &failure));
    }
}

/// Every run of at most so many steps; says whether there are no longer ones.
fn every_run(bounds: &Bounds, steps: usize) -> bool {
    let longer = number(env::var("TOLLGATE_MODEL_STEPS"));
    let longer = longer.map(|longer| usize::try_from(longer).expect("a number of steps"));
    let steps = longer.unwrap_or_default().max(steps);
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
