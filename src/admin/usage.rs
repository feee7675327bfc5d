//! `usage`: an account's records, or what they come to by day, model, route, project, key or user.

use rust_decimal::Decimal;
use serde::Serialize;

use super::arguments;
use super::failure::Failure;
use super::output::{Output, Table};
use super::place::Place;
use super::show::nobody;
use crate::clock::UnixMs;
use crate::ledger::usage::{By, GroupLine, PAGE, RecordLine, UsageOf};
use crate::ledger::{AnyLedger, Ledger};
use crate::quota::{AccountId, Span};

pub(super) const EXAMPLES: &str = "\
Examples:
  tollgate usage acme --from 2027-01-01 --to 2027-02-01 --by model
  tollgate usage acme --from 2027-01-31T12:00:00Z --json

A day stands for its first moment in UTC; --to is the first moment that does not count.";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The account's id.
    account: AccountId,
    /// The first moment, or the first day [default: the beginning].
    #[arg(long, value_name = "WHEN", value_parser = arguments::day_or_moment)]
    from: Option<UnixMs>,
    /// The first moment after, or the first day after [default: the end].
    #[arg(long, value_name = "WHEN", value_parser = arguments::day_or_moment)]
    to: Option<UnixMs>,
    /// Sum the records up.
    #[arg(long, value_parser = arguments::by())]
    by: Option<By>,
}

/// A group as machines read it.
#[derive(Serialize)]
struct Group<'a> {
    by: By,
    #[serde(flatten)]
    line: &'a GroupLine,
}

pub(super) async fn run(
    place: &Place,
    arguments: &Arguments,
    output: &Output,
) -> Result<(), Failure> {
    let of = UsageOf {
        account: arguments.account.clone(),
        from: arguments.from.unwrap_or(Span::EVER.start),
        to: arguments.to.unwrap_or(Span::EVER.end),
    };
    if of.from >= of.to {
        return Err(Failure::Usage("--from must come before --to".into()));
    }
    let ledger = place.ledger().await?;
    if ledger.image(&of.account).await?.is_none() {
        return Err(nobody(&of.account));
    }
    let any = match arguments.by {
        None => records(ledger, &of, output).await?,
        Some(by) => groups(ledger, &of, by, output).await?,
    };
    if any {
        return Ok(());
    }
    output.people("Nothing was used.")
}

async fn records(ledger: &AnyLedger, of: &UsageOf, output: &Output) -> Result<bool, Failure> {
    let mut last: Option<RecordLine> = None;
    loop {
        let mut page = ledger.records(of, last.as_ref()).await?;
        let mut table = Table::new([
            "TIME", "OUTCOME", "ROUTE", "MODEL", "INPUT", "OUTPUT", "CHARGED", "RECORD",
        ]);
        for line in &page {
            output.machine(line)?;
            let overrun = if line.overrun { " (overrun)" } else { "" };
            let outcome = format!("{}{overrun}", line.outcome);
            table.row([
                arguments::shown(line.occurred_at),
                outcome,
                or_dash(&line.route),
                or_dash(&line.model),
                line.input_tokens.to_string(),
                line.output_tokens.to_string(),
                line.charged_nanos.to_string(),
                line.id.to_string(),
            ]);
        }
        if !table.is_empty() {
            output.people(&table.to_string())?;
        }
        let any = last.is_some() || !page.is_empty();
        if page.len() < PAGE {
            return Ok(any);
        }
        last = page.pop();
    }
}

async fn groups(
    ledger: &AnyLedger,
    of: &UsageOf,
    by: By,
    output: &Output,
) -> Result<bool, Failure> {
    let mut last: Option<GroupLine> = None;
    loop {
        let mut page = ledger.groups(of, by, last.as_ref()).await?;
        let heading = by.as_str().to_uppercase();
        let mut table = Table::new([&heading, "RECORDS", "INPUT", "OUTPUT", "COST", "CHARGED"]);
        for line in &page {
            output.machine(&Group { by, line })?;
            table.row([
                or_dash(&line.group),
                line.records.to_string(),
                line.input_tokens.to_string(),
                line.output_tokens.to_string(),
                credits(line.cost_nanos),
                credits(line.charged_nanos),
            ]);
        }
        if !table.is_empty() {
            output.people(&table.to_string())?;
        }
        let any = last.is_some() || !page.is_empty();
        if page.len() < PAGE {
            return Ok(any);
        }
        last = page.pop();
    }
}

/// A sum may be beyond what one balance can be.
fn credits(sum: i128) -> String {
    let credits = Decimal::try_from_i128_with_scale(sum, 9);
    credits.map_or_else(
        |_| format!("{sum} nanos"),
        |credits| credits.normalize().to_string(),
    )
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-" } else { text }.to_owned()
}
