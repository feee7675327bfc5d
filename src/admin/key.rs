//! `key`: make, list and revoke keys.

use clap::Subcommand;
use serde_json::json;
use uuid::Uuid;

use super::failure::Failure;
use super::output::{Output, Table};
use super::place::Place;
use super::secret::KeySecret;
use super::{arguments, catch_up};
use crate::ledger::admin::{Admin, NewKey};
use crate::quota::AccountId;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a key and show its secret, this once: callers send it as `Authorization: Bearer SECRET`.
    Create {
        /// The account's id.
        account: AccountId,
        /// What people call it, to tell it from the account's others.
        #[arg(long, value_parser = arguments::label)]
        name: Option<String>,
    },
    /// List the keys of an account.
    List {
        /// The account's id.
        account: AccountId,
    },
    /// Refuse a key from now on; exact at the next call on every sidecar.
    Revoke {
        /// The key's id, as `tollgate key list` shows it; not its secret.
        #[arg(value_parser = arguments::key_id)]
        id: Uuid,
    },
}

pub(super) async fn run(place: &Place, command: Command, output: &Output) -> Result<(), Failure> {
    let admin = place.admin().await?;
    match command {
        Command::Create { account, name } => {
            create(admin, &account, name.unwrap_or_default(), output).await
        }
        Command::List { account } => list(admin, &account, output).await,
        Command::Revoke { id } => {
            let account = admin.revoke_key(id).await?;
            let told = catch_up::account(place, &account).await;
            let value = json!({ "id": id, "account": account, "pending": told.is_pending() });
            let text = format!("key {id} of account {account} is revoked");
            output.answer(&value, &told.say(&text))
        }
    }
}

// holds: 9, blind
async fn create(
    admin: &Admin,
    account: &AccountId,
    name: String,
    output: &Output,
) -> Result<(), Failure> {
    let secret = KeySecret::generate();
    let key = NewKey {
        id: Uuid::now_v7(),
        hash: secret.hash(),
        last_four: secret.last_four().to_owned(),
        name,
    };
    admin.create_key(account, &key).await?;
    let value = json!({ "id": key.id, "secret": secret.expose() });
    let text = format!(
        "key {} of account {account} is made. Its secret, shown this once:\n{}",
        key.id,
        secret.expose()
    );
    output.answer(&value, &text)
}

async fn list(admin: &Admin, account: &AccountId, output: &Output) -> Result<(), Failure> {
    let keys = admin.keys(account).await?;
    let mut table = Table::new(["KEY", "NAME", "SECRET", "MADE", "REVOKED"]);
    for key in &keys {
        output.machine(key)?;
        let revoked = key.revoked_at.map(|at| arguments::shown(at.into()));
        table.row([
            key.id.to_string(),
            key.name.clone(),
            format!("…{}", key.last_four),
            arguments::shown(key.created_at.into()),
            revoked.unwrap_or_else(|| "-".into()),
        ]);
    }
    if table.is_empty() {
        return output.people(&format!(
            "account {account} has no key. Make one: tollgate key create {account}"
        ));
    }
    output.people(&table.to_string())
}
