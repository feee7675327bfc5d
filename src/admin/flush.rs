//! `flush`: the outbox, carried to the ledger.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::failure::Failure;
use super::output::Output;
use super::place::{Live, Place};
use super::quarantined;
use super::serve::told_to_stop;
use crate::clock::Clock;
use crate::ledger::{AnyLedger, Flushed, Flusher, Keeper};
use crate::quota::{AnyStore, ShardId, Store};

/// How long a watch rests between two rounds.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a shard may move to another server while it is flushed.
const SERVERS: usize = 8;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Go on until SIGTERM or Ctrl-C, a round a second.
    #[arg(long)]
    pub(super) watch: bool,
    /// Try the entries in quarantine again, once what `tollgate verify` says of them is mended; those that are still
    /// refused stay there, and exit code 1 says so.
    #[arg(long, conflicts_with = "watch")]
    quarantined: bool,
}

pub(super) async fn run(
    place: &Place,
    arguments: &Arguments,
    output: &Output,
) -> Result<(), Failure> {
    if arguments.quarantined {
        return quarantined::retry(place, output).await;
    }
    let live = place.live().await?;
    if !arguments.watch {
        return round(live).await?.say(output);
    }
    let told = told_to_stop()?;
    tokio::select! {
        failure = watch(live, output) => failure,
        () = told => Ok(()),
    }
}

/// Goes on through whatever is away, and says so.
async fn watch(live: &Live, output: &Output) -> Result<(), Failure> {
    loop {
        match round(live).await {
            Ok(done) if done.entries > 0 => done.say(output)?,
            Ok(_) => {}
            Err(failure) => output.note(&format!("tollgate: {failure}")),
        }
        sleep(PAUSE).await;
    }
}

/// What one round over all shards did.
#[derive(Default)]
struct Done {
    entries: usize,
    busy: usize,
}

impl Done {
    fn say(&self, output: &Output) -> Result<(), Failure> {
        let value = json!({ "flushed": self.entries, "busy_shards": self.busy });
        let busy = match self.busy {
            0 => String::new(),
            shards => format!(" Another flusher is at {shards} shards."),
        };
        let entries = self.entries;
        output.answer(
            &value,
            &format!("{entries} entries went to the ledger.{busy}"),
        )
    }
}

async fn round(live: &Live) -> Result<Done, Failure> {
    let flusher = flusher(live);
    let mut done = Done::default();
    for shard in (0..live.store.shards()).map(ShardId) {
        match self::shard(live, &flusher, shard).await? {
            Some(entries) => done.entries += entries,
            None => done.busy += 1,
        }
        // What the ledger decided otherwise than the store must reach the store (rule 24).
        live.applier.apply_shard(shard).await?;
    }
    Ok(done)
}

/// Carries what a shard has; `None`: another flusher is at it.
pub(super) async fn shard(
    live: &Live,
    flusher: &Flusher<AnyStore, AnyLedger>,
    shard: ShardId,
) -> Result<Option<usize>, Failure> {
    for _ in 0..SERVERS {
        live.check(shard).await?;
        match flusher.flush(shard).await? {
            Flushed::Drained(entries) => return Ok(Some(entries)),
            Flushed::Busy => return Ok(None),
            Flushed::OtherServer => {}
        }
    }
    Err(Failure::Away(format!(
        "shard {shard} moves from server to server: try again"
    )))
}

/// Carries what is in the store of this command's configuration.
pub(super) fn flusher(live: &Live) -> Flusher<AnyStore, AnyLedger> {
    let (store, ledger) = (live.store.clone(), live.ledger.clone());
    let keeper = Arc::new(Keeper::new(store.clone(), ledger.clone(), Clock::System));
    Flusher::new(store, ledger, keeper, live.applier.clone(), Clock::System)
}
