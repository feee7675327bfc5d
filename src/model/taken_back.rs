//! That no rule can be spared: each is taken back, and the search finds the invariant that then breaks. With the rule, the
//! same run breaks nothing, nor does any other run of the same seed.
//!
//! The tests are named after the rules of `docs/ARCHITECTURE.md`.

use std::time::Duration;

use super::rules::{Rule, Rules};
use super::search::{Until, replay, search, shrink, story};
use super::world::Bounds;
use super::wrong::Broken;
use super::{openings, scenes};

/// More runs than any of these needs, so that a change elsewhere does not make a search miss by chance.
const UNTIL: Until = Until {
    runs: 20_000,
    time: Duration::from_mins(1),
};
const SEED: u64 = 3;

fn breaks(broken: Broken, rule: Rule, bounds: &Bounds) {
    let without = Rules::without(rule);
    let searched = search(without, bounds, SEED, UNTIL, Some(broken));
    println!(
        "seed {SEED}: {} runs, {} steps",
        searched.runs, searched.steps
    );
    let failure = searched.failure.expect("the rule can be spared");
    let failure = shrink(without, bounds, failure);
    println!("{}", story(without, bounds, &failure));

    let with = replay(Rules::ALL, bounds, &failure.trace);
    assert!(with.is_ok(), "{}", with.expect_err("it is wrong"));
    let same = Until {
        runs: searched.runs.min(200),
        ..UNTIL
    };
    let searched = search(Rules::ALL, bounds, SEED, same, None);
    if let Some(failure) = searched.failure {
        panic!("{}", story(Rules::ALL, bounds, &failure));
    }
}

#[test]
fn rule_05_an_ending_leaves_a_mark() {
    breaks(Broken::NeverTwice, Rule::EndedMarks, &scenes::CALM);
}

#[test]
fn rule_05_the_ending_of_an_unknown_id_leaves_a_mark() {
    breaks(Broken::NeverLeaked, Rule::MarksOfUnknownIds, &scenes::CALM);
}

#[test]
fn rule_06_a_lapse_checks_the_deadline_again() {
    breaks(
        Broken::NeverOversold,
        Rule::LapseChecksTheDeadline,
        &scenes::CALM,
    );
}

#[test]
fn rule_07_the_settle_of_an_unknown_id_is_charged() {
    breaks(Broken::NeverLost, Rule::UnknownIdsAreSettled, &scenes::CALM);
}

#[test]
fn rule_18_the_numbers_of_entries_go_on_in_a_new_epoch() {
    breaks(
        Broken::Asserted,
        Rule::OutSeqNeverRestarts,
        &scenes::REBUILT,
    );
}

#[test]
fn rule_19_what_is_flushed_is_skipped() {
    breaks(Broken::Exact, Rule::SkipsWhatIsFlushed, &scenes::CREDIT);
}

#[test]
fn rule_19_endings_of_an_earlier_epoch_count_whatever_their_number() {
    breaks(
        Broken::NeverLost,
        Rule::EndingsOfEarlierEpochsCount,
        &openings::A_BRANCH_COMES_BACK,
    );
}

#[test]
fn rule_19_only_what_is_committed_is_forgotten() {
    breaks(
        Broken::NeverLost,
        Rule::ForgetsOnlyTheCommitted,
        &scenes::CALM,
    );
}

#[test]
fn rule_19_a_flush_is_of_the_server_that_the_ledger_knows() {
    breaks(
        Broken::NeverLost,
        Rule::CommitsOnlyOfTheServer,
        &openings::A_FLUSH_COMES_LATE,
    );
}

#[test]
fn rule_20_changes_are_applied_in_order_and_once() {
    breaks(Broken::Exact, Rule::ChangesInOrder, &scenes::CREDIT);
}

#[test]
fn rule_21_the_row_is_locked_before_the_header_is_read() {
    breaks(
        Broken::NeverLost,
        Rule::LockBeforeTheHeader,
        &openings::LOOKS_AND_ANOTHER_BEGINS_AN_EPOCH,
    );
}

#[test]
fn rule_21_another_server_is_another_epoch() {
    breaks(
        Broken::NeverLost,
        Rule::AnotherServerIsAnotherEpoch,
        &openings::TWO_BRANCHES,
    );
}

#[test]
fn rule_21_the_epoch_is_committed_before_the_header_is_written() {
    breaks(
        Broken::NeverLost,
        Rule::EpochBeforeTheHeader,
        &openings::TWO_BEGIN_AN_EPOCH,
    );
}

#[test]
fn rule_21_the_header_is_written_upwards_only() {
    breaks(
        Broken::Asserted,
        Rule::HeaderOnlyUpwards,
        &openings::A_HEADER_COMES_LATE,
    );
}

#[test]
fn rule_21_a_command_expects_the_epoch_that_was_agreed_on() {
    breaks(
        Broken::Exact,
        Rule::CommandsExpectAnEpoch,
        &openings::A_LOAD_OUTLIVES_ITS_EPOCH,
    );
}

#[test]
fn rule_21_what_was_agreed_on_counts_for_one_connection() {
    breaks(
        Broken::NeverLost,
        Rule::AgreedForOneConnection,
        &openings::CHECKS_WHILE_THE_SERVER_CHANGES,
    );
}

#[test]
fn rule_21_answers_of_an_earlier_epoch_do_not_count() {
    breaks(
        Broken::NeverLost,
        Rule::AnswersOfThisEpoch,
        &openings::AN_ANSWER_OUTLIVES_ITS_EPOCH,
    );
}

#[test]
fn rule_22_nothing_is_loaded_while_an_older_entry_waits() {
    breaks(Broken::Exact, Rule::DrainedBeforeALoad, &scenes::REBUILT);
}

#[test]
fn rule_22_the_image_is_read_after_that() {
    breaks(Broken::Exact, Rule::DrainedBeforeTheImage, &scenes::REBUILT);
}

#[test]
fn rule_22_an_image_behind_the_store_is_refused() {
    breaks(
        Broken::Exact,
        Rule::ImageNotBehind,
        &openings::A_GRANT_AFTER_THE_IMAGE,
    );
}

#[test]
fn rule_22_changes_that_the_image_has_are_passed_over() {
    breaks(
        Broken::Exact,
        Rule::AsOfTheImage,
        &openings::A_GRANT_BEFORE_THE_IMAGE,
    );
}

#[test]
fn rule_22_only_a_cold_account_is_loaded() {
    breaks(Broken::NeverOversold, Rule::LoadsOnlyTheCold, &scenes::CALM);
}

#[test]
fn rule_22_a_load_keeps_what_is_held() {
    breaks(Broken::Exact, Rule::LoadKeepsWhatIsHeld, &scenes::REBUILT);
}

#[test]
fn rule_23_endings_are_kept() {
    breaks(Broken::NeverLost, Rule::EndingsAreKept, &scenes::LOST);
}

#[test]
fn rule_23_endings_are_kept_until_the_epoch_that_acknowledged_them_is_flushed() {
    breaks(
        Broken::NeverLost,
        Rule::KeptUntilThatEpochFlushed,
        &openings::AN_ENDING_IS_FORGOTTEN,
    );
}

#[test]
fn rule_23_an_ending_that_the_store_had_already_is_kept_too() {
    breaks(
        Broken::NeverLost,
        Rule::KeptWhereAlreadyEnded,
        &scenes::LOST,
    );
}

#[test]
fn rule_23_a_hold_that_was_lost_is_made_again() {
    breaks(
        Broken::NeverOversold,
        Rule::HeldAgain,
        &openings::A_HOLD_IS_FORGOTTEN,
    );
}

#[test]
fn rule_24_a_settle_over_a_lapse_is_a_correction() {
    breaks(Broken::Exact, Rule::SettleCorrectsALapse, &scenes::CALM);
}

#[test]
fn rule_24_a_lapse_is_corrected_once() {
    breaks(Broken::NeverTwice, Rule::CorrectsOnce, &scenes::LOST);
}

#[test]
fn rule_24_what_the_store_must_still_move_is_a_numbered_change() {
    breaks(Broken::Exact, Rule::RestIsAChange, &scenes::AGED);
}

#[test]
fn rule_24_nothing_of_an_earlier_epoch_is_undone() {
    breaks(
        Broken::Exact,
        Rule::NothingIsUndoneOfAnEarlierEpoch,
        &openings::TWO_FLUSHERS,
    );
}

#[test]
fn rule_27_only_the_store_takes_from_a_lot() {
    breaks(
        Broken::NeverOversold,
        Rule::OnlyTheStoreExpires,
        &scenes::CALM,
    );
}

#[test]
fn rule_27_a_withdrawal_takes_once() {
    breaks(
        Broken::NeverTwice,
        Rule::WithdrawsOnce,
        &openings::A_WITHDRAWAL_COMES_BACK,
    );
}
