//! `withdraw`: credit that is taken out of a lot again, because it was granted by mistake or its price was paid back.
//!
//! The ledger asks and the store takes (rule 27): at the most what calls have left of the lot when it gets there.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::json;

use super::arguments;
use super::catch_up;
use super::failure::Failure;
use super::output::Output;
use super::place::Place;
use crate::ledger::admin::{Asked, NewWithdrawal};
use crate::money::Nanos;
use crate::quota::{AccountId, LotId, WithdrawalReason};

pub(super) const EXAMPLES: &str = "\
Examples:
  tollgate withdraw acme 17 void --source-ref ticket-4
  tollgate withdraw acme 17 refund --credits 20 --source-ref refund-9

`tollgate account show` lists the lots. What calls have used or hold is not taken: `tollgate explain` says what waits.";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The account's id.
    account: AccountId,
    /// The number of the lot, as `tollgate grant` named it.
    #[arg(value_parser = arguments::lot)]
    lot: LotId,
    /// void: it should not have been granted; refund: its price is paid back.
    #[arg(value_parser = reason())]
    reason: WithdrawalReason,
    /// How many credits at the most, exactly: up to nine decimals [default: all that was granted].
    #[arg(long, value_name = "N", value_parser = Nanos::from_credits, allow_negative_numbers = true)]
    credits: Option<Nanos>,
    /// Your name for it: the same twice withdraws once, so a withdrawal with one is safe to repeat.
    #[arg(long, value_name = "R", value_parser = arguments::label)]
    source_ref: Option<String>,
}

fn reason() -> impl TypedValueParser<Value = WithdrawalReason> {
    let reasons = [WithdrawalReason::Void, WithdrawalReason::Refund];
    PossibleValuesParser::new(reasons.map(WithdrawalReason::as_str))
        .map(|word| word.parse().expect("no other word is possible"))
}

pub(super) async fn run(
    place: &Place,
    arguments: Arguments,
    output: &Output,
) -> Result<(), Failure> {
    let admin = place.admin().await?;
    let account = arguments.account;
    let asked = NewWithdrawal {
        lot: arguments.lot,
        reason: arguments.reason,
        amount: arguments.credits,
        source_ref: arguments.source_ref,
    };
    let asked = admin.withdraw(&account, &asked).await?;
    // Told even where it was asked for already: the last time the store may have been away.
    let told = catch_up::account(place, &account).await;
    let (withdrawal, already) = match asked {
        Asked::New(withdrawal) => (withdrawal, false),
        Asked::Already(withdrawal) => (withdrawal, true),
    };
    let value = json!({
        "account": account,
        "withdrawal": withdrawal.id,
        "lot": withdrawal.lot,
        "reason": withdrawal.reason,
        "at_most_nanos": withdrawal.amount,
        "already": already,
        "pending": told.is_pending(),
    });
    let (reason, lot, amount) = (
        withdrawal.reason.as_str(),
        withdrawal.lot,
        withdrawal.amount,
    );
    let before = if already {
        " had been asked for before"
    } else {
        ""
    };
    let text = format!(
        "account {account}: {reason} of lot {lot}, at most {amount} credits{before}, as withdrawal {}",
        withdrawal.id
    );
    output.answer(&value, &told.say(&text))
}
