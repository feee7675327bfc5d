//! Which epoch each shard was last adopted with, and who is told when one begins another.
//!
//! What was acknowledged in an earlier epoch may be lost with it, so whoever remembers such things looks at them again
//! (rule 23).

use std::collections::BTreeMap;

use tokio::sync::watch;

use super::{Epoch, ShardId};

/// The epoch of every shard that was adopted, as the one who adopts them tells it.
#[derive(Debug)]
pub struct Epochs(watch::Sender<BTreeMap<ShardId, Epoch>>);

/// A listener, with what it has been told so far.
#[derive(Debug)]
pub struct NewEpochs {
    told: watch::Receiver<BTreeMap<ShardId, Epoch>>,
    known: BTreeMap<ShardId, Epoch>,
}

/// A shard that has begun another epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewEpoch {
    /// Which.
    pub shard: ShardId,
    /// The epoch before; `None` where it is the first that was seen.
    pub before: Option<Epoch>,
    /// The epoch now.
    pub epoch: Epoch,
}

impl Default for Epochs {
    fn default() -> Self {
        Self(watch::Sender::new(BTreeMap::new()))
    }
}

impl Epochs {
    /// A shard was adopted; the same epoch again is no news.
    pub fn adopted(&self, shard: ShardId, epoch: Epoch) {
        self.0
            .send_if_modified(|epochs| epochs.insert(shard, epoch) != Some(epoch));
    }

    /// A listener, who has been told nothing yet.
    pub fn listen(&self) -> NewEpochs {
        let mut told = self.0.subscribe();
        told.mark_changed();
        NewEpochs {
            told,
            known: BTreeMap::new(),
        }
    }
}

impl NewEpochs {
    /// Waits for shards that have begun another epoch; a shard that began two since the last time comes once. May be cut
    /// off and asked again.
    pub async fn next(&mut self) -> Vec<NewEpoch> {
        loop {
            if self.told.changed().await.is_err() {
                // Whoever adopts shards is gone: there is no news any more.
                std::future::pending::<()>().await;
            }
            let epochs = self.told.borrow_and_update().clone();
            let known = std::mem::replace(&mut self.known, epochs);
            let new = self.known.iter().filter_map(|(shard, epoch)| {
                let before = known.get(shard).copied();
                (before != Some(*epoch)).then_some(NewEpoch {
                    shard: *shard,
                    before,
                    epoch: *epoch,
                })
            });
            let new: Vec<NewEpoch> = new.collect();
            if !new.is_empty() {
                return new;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    #[tokio::test]
    async fn only_another_epoch_is_news() {
        let epochs = Epochs::default();
        let shard = ShardId(3);
        epochs.adopted(shard, Epoch(1));
        let mut listener = epochs.listen();
        let news = |before, epoch| NewEpoch {
            shard,
            before,
            epoch,
        };
        assert_eq!(listener.next().await, [news(None, Epoch(1))]);
        epochs.adopted(shard, Epoch(1));
        assert_eq!(listener.next().now_or_never(), None);
        epochs.adopted(shard, Epoch(2));
        epochs.adopted(shard, Epoch(3));
        let before = Some(Epoch(1));
        assert_eq!(listener.next().await, [news(before, Epoch(3))]);
    }
}
