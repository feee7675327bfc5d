//! What is in quarantine: found shard by shard, and tried again once what was wrong is mended (rule 26).
//!
//! An entry that is taken in late leaves the store as it is: it had moved for it all along.

use serde_json::json;

use super::catch_up;
use super::failure::Failure;
use super::output::Output;
use super::place::Place;
use crate::ledger::Ledger;
use crate::ledger::admin::Retried;
use crate::quota::{AccountId, OutSeq, ShardId};

/// `flush --quarantined`: tries all of it again, and says of each entry what came of it.
pub(super) async fn retry(place: &Place, output: &Output) -> Result<(), Failure> {
    let (admin, ledger) = (place.admin().await?, place.ledger().await?);
    let (mut taken_in, mut refused) = (0, 0);
    let mut moved = Vec::new();
    for shard in (0..ledger.installation().shards).map(ShardId) {
        let mut after = OutSeq(0);
        loop {
            let tried = admin.retry_quarantined(shard, after).await?;
            let Some(last) = tried.last() else { break };
            after = last.seq;
            for entry in &tried {
                say(shard, entry, output)?;
                match entry.refused {
                    Some(_) => refused += 1,
                    None => taken_in += 1,
                }
            }
            if tried.iter().any(|entry| entry.refused.is_none()) && moved.last() != Some(&shard) {
                moved.push(shard);
            }
        }
    }
    // What the ledger had had from elsewhere meanwhile must reach the store (rule 24).
    let told = catch_up::shards(place, moved).await;
    if refused > 0 {
        return Err(Failure::Check(format!(
            "{taken_in} entries left quarantine; {refused} are still refused: mend what is wrong and try again"
        )));
    }
    output.people(&told.say(&format!(
        "{taken_in} entries left quarantine, none is left there"
    )))
}

fn say(shard: ShardId, entry: &Retried, output: &Output) -> Result<(), Failure> {
    let Retried {
        seq,
        account,
        refused,
    } = entry;
    let value = json!({
        "shard": shard, "seq": seq, "account": account, "taken_in": refused.is_none(), "reason": refused,
    });
    let outcome = match refused {
        None => "it is in the ledger now".to_owned(),
        Some(reason) => format!("still refused: {reason}"),
    };
    let of = named(shard, *seq, account.as_ref());
    output.answer(&value, &format!("{of}: {outcome}"))
}

/// An entry, as people find it again.
pub(super) fn named(shard: ShardId, seq: OutSeq, account: Option<&AccountId>) -> String {
    let of = account.map(|account| format!(" of account {account}"));
    format!("entry {seq} of shard {shard}{}", of.unwrap_or_default())
}
