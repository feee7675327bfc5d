//! `grant`: credit for an account.

use serde_json::json;

use super::failure::Failure;
use super::output::Output;
use super::place::Place;
use super::{arguments, catch_up};
use crate::clock::UnixMs;
use crate::ledger::admin::{Granted, NewGrant};
use crate::money::Nanos;
use crate::quota::AccountId;

pub(super) const EXAMPLES: &str = "\
Examples:
  tollgate grant acme 50 --source-ref invoice-17
  tollgate grant acme 5 --expires 2027-01-31T00:00:00Z --priority -1 --source-ref welcome";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The account's id.
    account: AccountId,
    /// How many credits, exactly: up to nine decimals.
    #[arg(value_parser = Nanos::from_credits, allow_negative_numbers = true)]
    credits: Nanos,
    /// The moment from which on it is no longer drawn on, as in 2027-01-31T00:00:00Z [default: never].
    #[arg(long, value_name = "RFC3339", value_parser = arguments::moment)]
    expires: Option<UnixMs>,
    /// Lots with lower numbers are drawn first.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        value_parser = arguments::priority,
        allow_negative_numbers = true
    )]
    priority: i32,
    /// Your name for the reason: the same reason twice grants once, so a grant with one is safe to repeat.
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
    let grant = NewGrant {
        amount: arguments.credits,
        priority: arguments.priority,
        expires_at: arguments.expires,
        source_ref: arguments.source_ref,
    };
    let granted = admin.grant(&account, &grant).await?;
    // Told even where the grant was there already: the last time the store may have been away.
    let told = catch_up::account(place, &account).await;
    let (lot, already) = match granted {
        Granted::Made(lot) => (lot, false),
        Granted::Already(lot) => (lot, true),
    };
    let value = json!({
        "account": account,
        "lot": lot,
        "amount_nanos": grant.amount,
        "already": already,
        "pending": told.is_pending(),
    });
    let credits = grant.amount;
    let text = if already {
        format!("account {account} had been granted these {credits} credits before, as lot {lot}")
    } else {
        format!("account {account} is granted {credits} credits, as lot {lot}")
    };
    output.answer(&value, &told.say(&text))
}
