//! The names of all keys, in one place, and of the counters inside them: scripts are handed every key they touch, and make none.
//!
//! All keys of a shard carry its hash tag, `{<prefix>:<shard>}`, so that they share a slot and a node of a Cluster
//! (rules 10 and 17).

use uuid::Uuid;

use crate::quota::{AccountId, CounterKey, ReservationId, Scope, ShardId};

/// Names the keys of one installation. Each is one allocation, because every call names a handful of them.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// By shard: what all its keys begin with, `{<prefix>:<shard>}`.
    tags: Vec<String>,
}

const MAX_PREFIX_BYTES: usize = 64;

impl Keys {
    /// `None` where the prefix could be mistaken for a hash tag's brace, or is empty or long.
    pub fn new(prefix: &str, shards: u16) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b':');
        let usable =
            !prefix.is_empty() && prefix.len() <= MAX_PREFIX_BYTES && prefix.bytes().all(plain);
        let tags = (0..shards).map(|shard| format!("{{{prefix}:{shard}}}"));
        usable.then(|| Self {
            tags: tags.collect(),
        })
    }

    /// What a Cluster hashes of every key of a shard.
    pub fn hashed(&self, shard: ShardId) -> &str {
        self.tag(shard).trim_matches(['{', '}'])
    }

    fn tag(&self, shard: ShardId) -> &str {
        &self.tags[usize::from(shard.0)]
    }

    /// A hash: the shard's header.
    pub fn header(&self, shard: ShardId) -> String {
        [self.tag(shard), ":h"].concat()
    }

    /// A hash: the account's state and snapshot.
    pub fn account(&self, shard: ShardId, account: &AccountId) -> String {
        [self.tag(shard), ":a:", account.as_str()].concat()
    }

    /// A string: the hold, or the mark that it ended.
    pub fn reservation(&self, shard: ShardId, id: ReservationId) -> String {
        let mut text = Uuid::encode_buffer();
        [
            self.tag(shard),
            ":r:",
            id.0.hyphenated().encode_lower(&mut text),
        ]
        .concat()
    }

    /// A stream: the outbox.
    pub fn outbox(&self, shard: ShardId) -> String {
        [self.tag(shard), ":o"].concat()
    }

    /// A sorted set: the holds by their deadlines.
    pub fn deadlines(&self, shard: ShardId) -> String {
        [self.tag(shard), ":d"].concat()
    }
}

/// How the deadlines name a hold: its account too, so that a sweeper knows whose it is.
pub(super) fn member(id: ReservationId, account: &AccountId) -> String {
    let mut text = Uuid::encode_buffer();
    [
        id.0.hyphenated().encode_lower(&mut text),
        "|",
        account.as_str(),
    ]
    .concat()
}

/// How the scripts know a counter: `<resource>/<window>`. Redis hashes every byte of it some fifteen times a call, so the scope
/// of all counters that there are so far is not said.
pub(super) fn counter_name(key: &CounterKey) -> String {
    let CounterKey {
        scope: Scope::Account,
        resource,
        window,
    } = key;
    format!("{resource}/{window}")
}

/// What [`counter_name`] names.
pub(super) fn counter_key(name: &str) -> Option<CounterKey> {
    let (resource, window) = name.split_once('/')?;
    Some(CounterKey {
        scope: Scope::Account,
        resource: resource.parse().ok()?,
        window: window.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counters_name_reads_back() {
        for key in ["account/tokens/month", "account/projects/overall"] {
            let key: CounterKey = key.parse().unwrap();
            assert_eq!(counter_key(&counter_name(&key)), Some(key));
        }
        assert_eq!(counter_key("tokens"), None);
        assert_eq!(counter_key("account/tokens/month"), None);
    }

    /// The part of a key that a Cluster hashes.
    fn hash_tag(key: &str) -> &str {
        let (_, after) = key.split_once('{').expect("a key has a hash tag");
        after.split_once('}').expect("a hash tag is closed").0
    }

    #[test]
    fn keys_of_a_shard_share_a_slot_whatever_they_name() {
        let keys = Keys::new("tollgate", 8).unwrap();
        let (shard, id) = (ShardId(7), ReservationId::new());
        let account: AccountId = "a.b-c_d@e".parse().unwrap();
        let names = [
            keys.header(shard),
            keys.account(shard, &account),
            keys.reservation(shard, id),
            keys.outbox(shard),
            keys.deadlines(shard),
        ];
        assert!(names.iter().all(|name| hash_tag(name) == "tollgate:7"));
    }

    #[test]
    fn a_prefix_that_would_break_the_hash_tag_is_refused() {
        let long = "x".repeat(MAX_PREFIX_BYTES + 1);
        let unusable = ["", "a}", "{a", "a b", long.as_str()];
        assert!(unusable.iter().all(|prefix| Keys::new(prefix, 1).is_none()));
    }
}
