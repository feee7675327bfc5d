//! The one list of what every ledger must do. A property cannot be run on one backend only.

macro_rules! on {
    ($backend:ident, $make:ident: $($file:ident { $($property:ident,)* })*) => {
        mod $backend {
            use crate::ledger::{$($file,)* world::World};
            $($(
                #[tokio::test]
                async fn $property() {
                    $file::$property(World::$make().await).await;
                }
            )*)*
        }
    };
}

macro_rules! properties {
    ($($list:tt)*) => {
        on! { postgres, new: $($list)* }
        on! { sqlite, in_a_file: $($list)* }
    };
}

properties! {
    check {
        a_store_that_lost_its_state_begins_a_new_epoch,
        a_store_of_another_installation_is_not_used,
    }
    flush {
        an_ending_becomes_one_record_and_moves_the_ledger,
        a_flusher_that_dies_before_it_forgets_is_repeated_harmlessly,
        what_was_read_from_another_server_is_not_committed,
        an_unreadable_detail_stops_nothing_and_is_recorded_as_that,
        more_of_the_largest_endings_than_a_balance_can_hold_are_all_recorded,
        flushers_grants_and_checks_at_once_neither_deadlock_nor_lose_anything,
    }
    decide {
        a_settle_after_a_lapse_corrects_it_by_the_difference,
        a_lapse_and_its_settle_may_arrive_in_one_batch,
        a_settle_that_the_store_knew_nothing_of_is_charged_once,
        a_duplicate_ending_is_undone_in_the_store,
        credit_that_comes_back_to_an_empty_lot_can_be_drawn_again,
        an_overrun_becomes_debt_that_the_next_grant_pays_first,
        the_row_remembers_how_far_it_has_come,
    }
    apply {
        only_the_next_change_is_accepted,
        appliers_at_once_apply_each_change_once,
        a_load_counts_a_change_that_comes_after_it_and_none_that_came_before,
        an_image_older_than_the_store_is_read_again,
        many_callers_of_a_cold_account_make_one_load,
        lots_are_drawn_by_priority_expiry_promotion_and_age,
    }
    tasks {
        a_marked_ending_reaches_the_ledger_and_its_correction_the_store,
        a_shard_that_the_store_does_not_trust_any_more_is_checked_and_adopted,
    }
    epochs {
        a_wiped_store_begins_a_new_epoch_and_its_accounts_are_loaded_again,
        a_store_that_went_back_begins_a_new_epoch,
        a_ledger_that_went_back_begins_a_new_epoch,
        a_rebuilt_shard_keeps_what_is_held_and_flushes_what_its_earlier_epoch_wrote,
        an_entry_of_an_earlier_epoch_that_is_recorded_already_is_undone,
        two_checks_at_once_agree,
        rebuilds_at_once_end_in_one_epoch,
        another_installation_is_not_touched_even_to_rebuild,
        two_flushers_with_the_same_entry_of_an_earlier_epoch_move_it_once,
        what_was_read_in_an_earlier_epoch_of_a_server_is_refused,
        what_two_servers_that_parted_have_numbered_alike_is_all_recorded,
    }
    expiry {
        what_is_left_of_an_expired_lot_becomes_breakage_once,
        lots_expire_by_themselves_whether_their_account_is_live_or_cold,
        only_expired_lots_with_something_left_are_listed_and_no_more_than_asked_for,
    }
    unreadable {
        what_nobody_can_read_is_forgotten_once_it_is_put_aside,
    }
    postings {
        the_usage_of_an_account_in_one_flush_is_one_posting_that_its_records_name,
        a_correction_and_a_repayment_are_postings_of_their_own,
    }
    adjustments {
        credit_is_given_and_taken_and_the_lots_pay_what_is_owed,
        a_cold_account_is_adjusted_too,
        the_same_reference_adjusts_once_and_bounds_are_kept,
    }
    withdrawals {
        a_void_takes_what_is_left_and_what_is_held_stays,
        a_refund_of_a_part_takes_that_part,
        the_same_reason_withdraws_once_and_another_amount_for_it_is_refused,
        a_cold_account_is_withdrawn_from_when_it_is_loaded,
        a_store_that_forgot_what_it_took_takes_it_when_the_account_is_loaded_again,
        what_the_store_takes_twice_is_undone,
    }
    quarantine {
        rule_26_an_odd_entry_amid_good_ones_is_put_aside_and_counts_until_it_is_taken_in,
        what_was_settled_again_meanwhile_is_undone_when_its_entry_is_taken_in_late,
        garbage_of_every_kind_is_put_aside_to_the_byte,
        an_outbox_of_which_nothing_can_be_read_passes_too,
        an_outbox_full_of_garbage_passes_in_steps_and_holds_up_nothing_for_ever,
        what_is_wrong_with_the_ledger_puts_nothing_aside,
        a_withdrawal_of_an_account_that_is_not_there_is_put_aside,
    }
    operator {
        an_account_is_made_once_edited_and_listed,
        a_reason_grants_once_and_bounds_are_kept,
        a_revoked_key_is_nobodys_and_its_account_learns_of_it,
        a_catalogue_is_written_once_and_its_accounts_follow,
        prices_that_come_along_are_put_in_place_of_older_ones,
    }
}
