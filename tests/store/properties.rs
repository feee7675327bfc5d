//! The one list of what every store must do. A property cannot be run on one backend only.

macro_rules! on {
    ($backend:ident: $($file:ident { $($property:ident,)* })*) => {
        mod $backend {
            use crate::store::{$($file,)* stage::Stage};
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $property() {
                    $file::$property(Stage::$backend().await).await;
                }
            )*)*
        }
    };
}

macro_rules! properties {
    ($($list:tt)*) => {
        on! { memory: $($list)* }
        on! { embedded: $($list)* }
        on! { redis: $($list)* }
        on! { cluster: $($list)* }
    };
}

properties! {
    limits {
        refuses_past_the_limit,
        refuses_past_the_wallet,
        a_refusal_takes_nothing,
        holds_every_line_and_the_wallet_together,
        asking_for_nothing_always_fits,
        rule_01_the_same_id_again_holds_nothing_twice,
        force_holds_what_does_not_fit,
        force_does_not_hold_beyond_what_is_exact,
        rule_13_an_old_version_is_answered_with_the_new_snapshot,
        rule_12_a_span_that_does_not_hold_the_stores_time_has_moved,
        a_window_never_moves_back,
        an_ending_of_the_old_window_leaves_the_new_one_alone,
        lots_are_drawn_in_their_order,
        lots_that_are_not_live_are_not_drawn,
        overage_goes_down_to_its_limit,
        rule_14_a_full_outbox_takes_no_holds_but_takes_endings,
        amounts_are_exact_at_their_bounds,
        rule_11_counters_are_exact_at_their_bounds,
    }
    bounds {
        an_overrun_is_charged_up_to_the_bound_of_a_debt_and_the_rest_is_said,
        what_is_held_is_charged_whatever_is_owed,
        a_count_goes_up_to_its_bound_and_the_rest_is_said,
        a_settle_after_a_lapse_is_cut_as_any_other,
        more_of_the_largest_endings_than_a_balance_can_hold_all_end,
    }
    endings {
        rule_04_unused_goes_back_and_the_entry_says_what_moved,
        a_release_charges_nothing_and_leaves_a_record,
        ending_twice_moves_nothing,
        a_reserve_after_the_ending_answers_how_it_ended,
        an_overrun_draws_the_next_lot_then_debt,
        an_overrun_of_a_counter_is_charged_in_full,
        a_count_that_goes_down_is_no_overrun_though_no_line_held_it,
        an_unknown_settle_is_charged_at_once,
        an_unknown_release_leaves_a_mark,
        what_an_expired_lot_held_goes_back_to_it,
    }
    deadlines {
        a_hold_lapses_only_when_it_is_due,
        the_overdue_are_found_oldest_first,
        a_lapse_charges_the_floor,
        a_lapse_charges_what_was_metered,
        rule_03_a_heartbeat_moves_the_deadline_up_to_the_total_age,
        progress_never_goes_back,
        progress_after_the_end_moves_nothing,
        a_settle_after_a_lapse_charges_the_rest,
        a_settle_after_a_lapse_gives_back_the_rest,
        a_release_after_a_lapse_gives_all_back,
        a_lapse_is_corrected_only_once,
    }
    races {
        racing_calls_never_oversell,
        racing_calls_of_one_id_hold_once,
        racing_endings_end_once,
        racing_lines_and_wallet_stay_together,
    }
    following {
        an_account_is_cold_until_it_is_loaded,
        a_load_never_replaces_what_is_live,
        an_image_older_than_the_store_is_refused,
        a_load_in_a_later_epoch_keeps_what_is_held,
        a_load_pays_debt_first,
        changes_apply_in_their_order_only,
        a_change_the_image_had_is_not_applied_twice,
        a_grant_pays_debt_first,
        debt_given_back_after_a_grant_paid_it_is_credit,
        a_change_moves_lots_debt_and_counters,
        a_lot_below_zero_counts_and_pays_nothing,
        entries_wait_in_order_until_they_are_forgotten,
        the_numbers_of_entries_are_never_used_again,
        nothing_is_answered_before_the_epoch_is_adopted,
        an_earlier_epoch_is_never_opened_again,
    }
    recovery {
        a_hold_that_was_lost_is_made_again_whatever_has_changed,
        a_hold_made_again_after_its_end_holds_nothing,
        a_hold_is_not_made_again_in_a_cold_account,
        a_later_epoch_numbers_on_from_whoever_is_further,
        the_oldest_entrys_epoch_is_seen_until_it_is_forgotten,
        what_is_left_of_an_expired_lot_is_taken_once,
        what_a_hold_does_not_use_of_an_expired_lot_is_taken_later,
        a_withdrawal_takes_what_is_there_and_says_so_even_of_nothing,
        what_is_to_be_withdrawn_of_a_cold_account_is_with_its_load,
        rule_33_a_standing_count_goes_down_and_never_below_zero,
        an_account_with_all_it_may_have_works,
    }
}
