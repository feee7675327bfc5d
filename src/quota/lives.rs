//! Which life each shard was last adopted with, and who is told when one begins another.
//!
//! What was acknowledged in an earlier life may be lost with it, so whoever remembers such things looks at them again
//! (rule 23).

use std::collections::BTreeMap;

use tokio::sync::watch;

use super::{Life, ShardId};

/// The life of every shard that was adopted, as the one who adopts them tells it.
#[derive(Debug)]
pub struct Lives(watch::Sender<BTreeMap<ShardId, Life>>);

/// A listener, with what it has been told so far.
#[derive(Debug)]
pub struct NewLives {
    told: watch::Receiver<BTreeMap<ShardId, Life>>,
    known: BTreeMap<ShardId, Life>,
}

/// A shard that has begun another life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewLife {
    /// Which.
    pub shard: ShardId,
    /// The life before; `None` where it is the first that was seen.
    pub before: Option<Life>,
    /// The life now.
    pub life: Life,
}

impl Default for Lives {
    fn default() -> Self {
        Self(watch::Sender::new(BTreeMap::new()))
    }
}

impl Lives {
    /// A shard was adopted; the same life again is no news.
    pub fn adopted(&self, shard: ShardId, life: Life) {
        self.0
            .send_if_modified(|lives| lives.insert(shard, life) != Some(life));
    }

    /// A listener, who has been told nothing yet.
    pub fn listen(&self) -> NewLives {
        let mut told = self.0.subscribe();
        told.mark_changed();
        NewLives {
            told,
            known: BTreeMap::new(),
        }
    }
}

impl NewLives {
    /// Waits for shards that have begun another life; a shard that began two since the last time comes once. May be cut
    /// off and asked again.
    pub async fn next(&mut self) -> Vec<NewLife> {
        loop {
            if self.told.changed().await.is_err() {
                // Whoever adopts shards is gone: there is no news any more.
                std::future::pending::<()>().await;
            }
            let lives = self.told.borrow_and_update().clone();
            let known = std::mem::replace(&mut self.known, lives);
            let new = self.known.iter().filter_map(|(shard, life)| {
                let before = known.get(shard).copied();
                (before != Some(*life)).then_some(NewLife {
                    shard: *shard,
                    before,
                    life: *life,
                })
            });
            let new: Vec<NewLife> = new.collect();
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
    use crate::quota::{Epoch, Tenure};

    fn life(epoch: i64, tenure: i64) -> Life {
        Life {
            epoch: Epoch(epoch),
            tenure: Tenure(tenure),
        }
    }

    #[tokio::test]
    async fn only_another_life_is_news() {
        let lives = Lives::default();
        let shard = ShardId(3);
        lives.adopted(shard, life(1, 1));
        let mut listener = lives.listen();
        let news = |before, life| NewLife {
            shard,
            before,
            life,
        };
        assert_eq!(listener.next().await, [news(None, life(1, 1))]);
        lives.adopted(shard, life(1, 1));
        assert_eq!(listener.next().now_or_never(), None);
        lives.adopted(shard, life(1, 2));
        lives.adopted(shard, life(2, 3));
        let before = Some(life(1, 1));
        assert_eq!(listener.next().await, [news(before, life(2, 3))]);
    }
}
