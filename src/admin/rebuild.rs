//! `rebuild`: the store, made again from the ledger.
//!
//! Nothing is deleted: a new epoch begins, in which every account is cold, and each is loaded from the ledger again. What
//! is held stays held, and what the outbox has to tell reaches the ledger first.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use tokio::time::sleep;

use super::failure::Failure;
use super::flush;
use super::output::{Output, counted};
use super::place::{Live, Place};
use super::show::nobody;
use crate::ledger::{AnyLedger, Checked, Flusher, Ledger, Loader};
use crate::quota::{AccountId, AnyStore, ShardId, Store};

/// Accounts that are listed at once.
const PAGE: usize = 500;
/// Accounts that are loaded at once.
const AT_ONCE: usize = 8;
/// How often long work says how far it is.
const SAY_EACH: Duration = Duration::from_secs(2);
/// How long another flusher may be at a shard.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EACH: Duration = Duration::from_millis(20);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only this account; the others of its shard are loaded again at their next call.
    #[arg(long, value_name = "ID")]
    account: Option<AccountId>,
    /// Do not ask whether this is meant.
    #[arg(long)]
    yes: bool,
}

impl Arguments {
    /// Whoever types this at a terminal has to say that it is meant.
    pub fn confirmed(&self) -> Result<(), Failure> {
        if self.yes || !std::io::stdin().is_terminal() {
            return Ok(());
        }
        Err(Failure::Usage(
            "this begins a new epoch, and calls wait while their accounts are loaded again: add --yes if you mean it"
                .into(),
        ))
    }
}

/// What was done.
#[derive(Default)]
struct Done {
    shards: usize,
    flushed: usize,
    loaded: usize,
}

pub(super) async fn run(
    place: &Place,
    arguments: &Arguments,
    output: &Output,
) -> Result<(), Failure> {
    let live = place.live().await?;
    let shards: Vec<ShardId> = match &arguments.account {
        Some(account) if live.ledger.image(account).await?.is_none() => {
            return Err(nobody(account));
        }
        Some(account) => vec![account.shard(live.store.shards())],
        None => (0..live.store.shards()).map(ShardId).collect(),
    };
    let mut done = Done::default();
    let flusher = flush::flusher(live);
    for shard in shards {
        done.flushed += begin(live, &flusher, shard).await?;
        done.shards += 1;
    }
    let loader = Loader::new(live.store.clone(), live.ledger.clone());
    match &arguments.account {
        Some(account) => {
            loader.load(account).await?;
            done.loaded = 1;
        }
        None => load_all(place, &loader, &mut done, output).await?,
    }
    let Done {
        shards,
        flushed,
        loaded,
    } = done;
    let value = json!({ "shards": shards, "flushed": flushed, "loaded": loaded });
    output.answer(
        &value,
        &format!(
            "{} to the ledger; {} a new epoch; {} loaded.\n\
             See whether all adds up: tollgate verify",
            counted(flushed, "entry went", "entries went"),
            counted(shards, "shard began", "shards began"),
            counted(loaded, "account is", "accounts are")
        ),
    )
}

/// Begins a new epoch of a shard, with its outbox drained before and after: no account may be loaded while entries of an
/// older epoch wait (rule 22).
async fn begin(
    live: &Live,
    flusher: &Flusher<AnyStore, AnyLedger>,
    shard: ShardId,
) -> Result<usize, Failure> {
    let before = drain(live, flusher, shard).await?;
    match live.ledger.rebuild(shard, &*live.store).await? {
        Checked::Agreed(epoch) => live.store.adopt(shard, epoch),
        Checked::Refused(reason) => return Err(Failure::Refused { shard, reason }),
    }
    let after = drain(live, flusher, shard).await?;
    // What the ledger decided otherwise than the store must reach the store (rule 24).
    live.applier.apply_shard(shard).await?;
    Ok(before + after)
}

async fn drain(
    live: &Live,
    flusher: &Flusher<AnyStore, AnyLedger>,
    shard: ShardId,
) -> Result<usize, Failure> {
    let began = Instant::now();
    loop {
        if let Some(entries) = flush::shard(live, flusher, shard).await? {
            return Ok(entries);
        }
        if began.elapsed() > PATIENCE {
            return Err(Failure::Away(format!(
                "the outbox of shard {shard} could not be drained: others are at it all the time"
            )));
        }
        sleep(LOOK_EACH).await;
    }
}

async fn load_all(
    place: &Place,
    loader: &Loader<AnyStore, AnyLedger>,
    done: &mut Done,
    output: &Output,
) -> Result<(), Failure> {
    let admin = place.admin().await?;
    let mut after: Option<AccountId> = None;
    let mut said_at = Instant::now();
    loop {
        let page = admin.accounts_after(after.as_ref(), PAGE).await?;
        after = page.last().map(|row| row.account.clone());
        let full = page.len() == PAGE;
        let loads = stream::iter(page).map(async |row| loader.load(&row.account).await);
        let mut loads = loads.buffer_unordered(AT_ONCE);
        while loads.try_next().await?.is_some() {
            done.loaded += 1;
            if said_at.elapsed() >= SAY_EACH {
                said_at = Instant::now();
                output.note(&format!("{} accounts loaded", done.loaded));
            }
        }
        if !full {
            return Ok(());
        }
    }
}
