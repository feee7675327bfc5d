//! That no rule can be spared: each is taken back, and the search finds the invariant that then breaks. With the rule, the
//! same run breaks nothing, nor does any other run of the same seed.
//!
//! The tests are named after the rules of `docs/ARCHITECTURE.md`.

use std::time::Duration;

use super::rules::{Rule, Rules};
use super::scenes::*;
use super::search::{Until, replay, search, shrink, story};
use super::world::Bounds;
use super::wrong::Broken::{self, *};

/// More runs than any of these needs, so that a change elsewhere does not make a search miss by chance.
const UNTIL: Until = Until {
    runs: 20_000,
    time: Duration::from_secs(60),
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

macro_rules! rules {
    ($($name:ident: $rule:ident breaks $broken:ident in $bounds:ident,)*) => {
        $(#[test]
        fn $name() {
            breaks($broken, Rule::$rule, &$bounds);
        })*
    };
}

rules! {
    rule_05_an_ending_leaves_a_mark: EndedMarks breaks NeverTwice in CALM,
    rule_05_the_ending_of_an_unknown_id_leaves_a_mark: MarksOfUnknownIds breaks NeverLeaked in CALM,
    rule_06_a_lapse_checks_the_deadline_again: LapseChecksTheDeadline breaks NeverOversold in CALM,
    rule_07_the_settle_of_an_unknown_id_is_charged: UnknownIdsAreSettled breaks NeverLost in CALM,
    rule_18_the_numbers_of_entries_go_on_in_a_new_epoch: OutSeqNeverRestarts breaks Asserted in REBUILT,
    rule_19_what_is_flushed_is_skipped: SkipsWhatIsFlushed breaks Exact in CREDIT,
    rule_19_endings_of_an_earlier_epoch_count_whatever_their_number: EndingsOfEarlierEpochsCount breaks NeverLost in A_BRANCH_COMES_BACK,
    rule_19_only_what_is_committed_is_forgotten: ForgetsOnlyTheCommitted breaks NeverLost in CALM,
    rule_19_a_flush_is_of_the_server_that_the_ledger_knows: CommitsOnlyOfTheServer breaks NeverLost in A_FLUSH_COMES_LATE,
    rule_20_changes_are_applied_in_order_and_once: ChangesInOrder breaks Exact in CREDIT,
    rule_21_the_row_is_locked_before_the_header_is_read: LockBeforeTheHeader breaks NeverLost in LOOKS_AND_ANOTHER_BEGINS_AN_EPOCH,
    rule_21_another_server_is_another_epoch: AnotherServerIsAnotherEpoch breaks NeverLost in TWO_BRANCHES,
    rule_21_the_epoch_is_committed_before_the_header_is_written: EpochBeforeTheHeader breaks NeverLost in TWO_BEGIN_AN_EPOCH,
    rule_21_the_header_is_written_upwards_only: HeaderOnlyUpwards breaks Asserted in A_HEADER_COMES_LATE,
    rule_21_a_command_expects_the_epoch_that_was_agreed_on: CommandsExpectAnEpoch breaks Exact in A_LOAD_OUTLIVES_ITS_EPOCH,
    rule_21_what_was_agreed_on_counts_for_one_connection: AgreedForOneConnection breaks NeverLost in CHECKS_WHILE_THE_SERVER_CHANGES,
    rule_21_answers_of_an_earlier_epoch_do_not_count: AnswersOfThisEpoch breaks NeverLost in AN_ANSWER_OUTLIVES_ITS_EPOCH,
    rule_22_nothing_is_loaded_while_an_older_entry_waits: DrainedBeforeALoad breaks Exact in REBUILT,
    rule_22_the_image_is_read_after_that: DrainedBeforeTheImage breaks Exact in REBUILT,
    rule_22_an_image_behind_the_store_is_refused: ImageNotBehind breaks Exact in A_GRANT_AFTER_THE_IMAGE,
    rule_22_changes_that_the_image_has_are_passed_over: AsOfTheImage breaks Exact in A_GRANT_BEFORE_THE_IMAGE,
    rule_22_only_a_cold_account_is_loaded: LoadsOnlyTheCold breaks NeverOversold in CALM,
    rule_22_a_load_keeps_what_is_held: LoadKeepsWhatIsHeld breaks Exact in REBUILT,
    rule_23_endings_are_kept: EndingsAreKept breaks NeverLost in LOST,
    rule_23_endings_are_kept_until_the_epoch_that_acknowledged_them_is_flushed: KeptUntilThatEpochFlushed breaks NeverLost in AN_ENDING_IS_FORGOTTEN,
    rule_23_an_ending_that_the_store_had_already_is_kept_too: KeptWhereAlreadyEnded breaks NeverLost in LOST,
    rule_23_a_hold_that_was_lost_is_made_again: HeldAgain breaks NeverOversold in A_HOLD_IS_FORGOTTEN,
    rule_24_a_settle_over_a_lapse_is_a_correction: SettleCorrectsALapse breaks Exact in CALM,
    rule_24_a_lapse_is_corrected_once: CorrectsOnce breaks NeverTwice in LOST,
    rule_24_what_the_store_must_still_move_is_a_numbered_change: RestIsAChange breaks Exact in AGED,
    rule_24_nothing_of_an_earlier_epoch_is_undone: NothingIsUndoneOfAnEarlierEpoch breaks Exact in TWO_FLUSHERS,
    rule_27_only_the_store_takes_from_a_lot: OnlyTheStoreExpires breaks NeverOversold in CALM,
    rule_27_a_withdrawal_takes_once: WithdrawsOnce breaks NeverTwice in A_WITHDRAWAL_COMES_BACK,
}
