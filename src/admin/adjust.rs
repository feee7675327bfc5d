//! `adjust`: credit that an operator gives or takes by hand, beside all grants.
//!
//! It is for what neither a grant nor a withdrawal says, and so it always has a reason in words.

use serde_json::json;

use super::failure::Failure;
use super::output::Output;
use super::place::Place;
use super::{arguments, catch_up};
use crate::ledger::admin::{Adjusted, NewAdjustment};
use crate::money::Nanos;
use crate::quota::AccountId;

pub(super) const EXAMPLES: &str = "\
Examples:
  tollgate adjust acme 2.5 --reason \"the outage of May\" --source-ref ticket-7
  tollgate adjust acme -1 --reason \"charged too little\" --source-ref ticket-8

More than zero gives credit, less takes it. It moves what the account owes: below zero, that is credit.";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The account's id.
    account: AccountId,
    /// How many credits, exactly: up to nine decimals, and less than zero to take.
    #[arg(value_parser = Nanos::from_credits, allow_negative_numbers = true)]
    credits: Nanos,
    /// Why, for whoever audits the books later.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Your name for it: the same twice adjusts once, so an adjustment with one is safe to repeat.
    #[arg(long, value_name = "R", value_parser = arguments::label)]
    source_ref: Option<String>,
}

pub(super) async fn run(
    place: &Place,
    arguments: Arguments,
    output: &Output,
) -> Result<(), Failure> {
    let admin = place.admin().await?;
    let account = arguments.account;
    let adjustment = NewAdjustment {
        credit: arguments.credits,
        reason: arguments.reason,
        source_ref: arguments.source_ref,
    };
    let adjusted = admin.adjust(&account, &adjustment).await?;
    // Told even where it was made already: the last time the store may have been away.
    let told = catch_up::account(place, &account).await;
    let (id, already) = match adjusted {
        Adjusted::Made(id) => (id, false),
        Adjusted::Already(id) => (id, true),
    };
    let credit = adjustment.credit;
    let value = json!({
        "account": account,
        "adjustment": id,
        "credit_nanos": credit,
        "already": already,
        "pending": told.is_pending(),
    });
    let text = if already {
        format!("account {account} had been adjusted by these {credit} credits before, as {id}")
    } else {
        format!("account {account} is adjusted by {credit} credits, as {id}")
    };
    output.answer(&value, &told.say(&text))
}
