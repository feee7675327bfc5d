//! `account`: make, show, list and set accounts.

use clap::{ArgGroup, Args, Subcommand};
use serde_json::json;

use super::catch_up;
use super::failure::Failure;
use super::output::{Output, Table};
use super::place::Place;
use super::{arguments, show};
use crate::ledger::admin::{AccountEdit, Admin};
use crate::money::Nanos;
use crate::quota::{AccountId, Mode, Status};

/// Accounts that are read at once; a list may be as long as it is.
const PAGE: usize = 500;

const EXAMPLES: &str = "\
Examples:
  tollgate account set acme --plan enterprise
  tollgate account set acme --overage 5
  tollgate account set acme --suspend";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make an account.
    Create {
        /// The customer's id: 1 to 128 of A-Z, a-z, 0-9, `.`, `_`, `-` and `@`.
        id: AccountId,
        /// The key of its plan, which `tollgate apply` has put into the ledger.
        #[arg(long)]
        plan: Option<String>,
    },
    /// Show an account as the live store has it: what is available, what is held, every lot and every limit.
    Show {
        /// The account's id.
        id: AccountId,
    },
    /// List the accounts.
    List,
    /// Change an account; exact at the next call on every sidecar.
    #[command(after_help = EXAMPLES)]
    Set(Set),
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("edit").required(true).multiple(true)
    .args(["mode", "plan", "no_plan", "suspend", "activate", "overage"]))]
pub(super) struct Set {
    /// The account's id.
    id: AccountId,
    /// What becomes of a call that does not fit: `enforce` refuses it, `monitor` lets it through, records that and
    /// charges it, `off` charges nothing at all.
    #[arg(long, value_parser = arguments::mode())]
    mode: Option<Mode>,
    /// The key of its new plan.
    #[arg(long, conflicts_with = "no_plan")]
    plan: Option<String>,
    /// Take it off its plan.
    #[arg(long)]
    no_plan: bool,
    /// Refuse all its calls.
    #[arg(long, conflicts_with = "activate")]
    suspend: bool,
    /// Let it call again.
    #[arg(long)]
    activate: bool,
    /// How many credits its wallet may go below zero.
    #[arg(long, value_name = "CREDITS", value_parser = overage)]
    overage: Option<Nanos>,
}

pub(super) async fn run(place: &Place, command: Command, output: &Output) -> Result<(), Failure> {
    match command {
        Command::Create { id, plan } => {
            create(place.admin().await?, &id, plan.as_deref(), output).await
        }
        // The live store has all of it.
        Command::Show { id } => show::run(place, &id, output).await,
        Command::List => list(place.admin().await?, output).await,
        Command::Set(set) => {
            let (id, edit) = set.edit();
            place.admin().await?.edit_account(&id, &edit).await?;
            let told = catch_up::account(place, &id).await;
            let value = json!({ "account": id, "pending": told.is_pending() });
            output.answer(&value, &told.say(&format!("account {id} is set")))
        }
    }
}

async fn create(
    admin: &Admin,
    id: &AccountId,
    plan: Option<&str>,
    output: &Output,
) -> Result<(), Failure> {
    admin.create_account(id, plan).await?;
    let value = json!({ "account": id, "plan": plan });
    let text = match plan {
        Some(plan) => format!("account {id} is made, on plan {plan}"),
        None => format!("account {id} is made, without a plan"),
    };
    output.answer(&value, &text)
}

async fn list(admin: &Admin, output: &Output) -> Result<(), Failure> {
    let mut after: Option<AccountId> = None;
    loop {
        let page = admin.accounts_after(after.as_ref(), PAGE).await?;
        let mut table = Table::new(["ACCOUNT", "PLAN", "MODE", "STATUS", "MADE"]);
        for row in &page {
            output.machine(row)?;
            table.row([
                row.account.to_string(),
                row.plan.clone().unwrap_or_else(|| "-".into()),
                row.mode.clone(),
                row.status.clone(),
                arguments::shown(row.created_at.into()),
            ]);
        }
        if after.is_none() && table.is_empty() {
            return output.people("There is no account yet. Make one: tollgate account create ID");
        }
        if !table.is_empty() {
            output.people(&table.to_string())?;
        }
        if page.len() < PAGE {
            return Ok(());
        }
        after = page.into_iter().last().map(|row| row.account);
    }
}

impl Set {
    fn edit(self) -> (AccountId, AccountEdit) {
        let status = match (self.suspend, self.activate) {
            (true, _) => Some(Status::Suspended),
            (_, true) => Some(Status::Active),
            _ => None,
        };
        let edit = AccountEdit {
            mode: self.mode,
            status,
            overage: self.overage,
            plan: self.plan.map(Some).or(self.no_plan.then_some(None)),
        };
        (self.id, edit)
    }
}

fn overage(text: &str) -> Result<Nanos, String> {
    let credits = Nanos::from_credits(text).map_err(|error| error.to_string())?;
    if credits < Nanos::ZERO {
        return Err("an overage is zero or more".into());
    }
    Ok(credits)
}
