//! The store on Redis or Valkey, one server or a Cluster: each verb is one script, one call, one slot.
//!
//! The scripts in `lua/` are the verbs; here they are called. What they mean is [`super::engine`], against which they are
//! tested.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use self::address::Address;
use self::answers::List;
use self::arguments::Argument;
use self::client::{Answered, Call, Generation, Link};
use self::keys::Keys;
use self::scripts::{Script, Scripts};
use super::engine::DEFAULT_OUTBOX_BOUND;
use super::{AccountId, Epoch, RunId, ShardId, Store, StoreError};
use crate::clock::Clock;

mod address;
mod answers;
mod arguments;
mod client;
mod entry;
mod exact;
mod keys;
mod scripts;
mod verbs;

/// How many connections there are to a single server, unless a setting says otherwise.
pub const DEFAULT_CONNECTIONS: usize = 4;
/// How long a command may take, unless a setting says otherwise.
pub const DEFAULT_RESPONSE_TIMEOUT: Duration = Duration::from_millis(50);

/// Where the store is and how it is used.
#[derive(Clone)]
pub struct RedisSettings {
    /// `redis://`, `rediss://`, `redis+cluster://host:port,host:port` or `rediss+cluster://`. May hold a password.
    pub url: String,
    /// Separates installations that share a server.
    pub prefix: String,
    /// How many shards there are, for ever (rule 17).
    pub shards: u16,
    /// [`DEFAULT_OUTBOX_BOUND`] entries.
    pub outbox_bound: u64,
    /// [`DEFAULT_RESPONSE_TIMEOUT`].
    pub response_timeout: Duration,
    /// [`DEFAULT_CONNECTIONS`]; a Cluster has one to each node.
    pub connections: usize,
    /// The server's, but for tests.
    pub clock: ClockSource,
}

impl RedisSettings {
    /// The defaults.
    pub fn new(url: impl Into<String>, prefix: impl Into<String>, shards: u16) -> Self {
        Self {
            url: url.into(),
            prefix: prefix.into(),
            shards,
            outbox_bound: DEFAULT_OUTBOX_BOUND,
            response_timeout: DEFAULT_RESPONSE_TIMEOUT,
            connections: DEFAULT_CONNECTIONS,
            clock: ClockSource::Server,
        }
    }
}

/// Whose clock the scripts go by.
#[derive(Debug, Clone, Default)]
pub enum ClockSource {
    /// The server's `TIME`, so that all sidecars agree (rule 12).
    #[default]
    Server,
    /// The caller's, so that a test can move it by hand.
    Caller(Clock),
}

/// The live store on Redis.
pub struct RedisStore {
    keys: Keys,
    scripts: Scripts,
    clock: ClockSource,
    outbox_bound: u64,
    /// A shard is always on the same one.
    links: Vec<Link>,
    /// By shard. This is a lock and not a channel because nothing awaits while holding it.
    shards: Vec<Mutex<Shard>>,
}

/// What is known of a shard on this side of the connection.
#[derive(Debug, Default)]
struct Shard {
    /// The server that was last seen to keep it, and the connection it was seen on.
    viewed: Option<(RunId, Generation)>,
    /// The epoch that commands expect, and the connection it was checked on.
    adopted: Option<(Epoch, Generation)>,
}

impl RedisStore {
    /// Begins to connect, and waits until the first attempt came to an end: at most 200 ms, or a
    /// second for a Cluster.
    ///
    /// It comes back whether or not the store is there: until it is, every verb answers [`StoreError::Away`]. An error
    /// means that the settings cannot be used. Must be called within a Tokio runtime.
    pub async fn connect(settings: RedisSettings) -> Result<Self, StoreError> {
        let unusable = |what: &str| StoreError::Away(format!("its {what} cannot be used"));
        let address = Address::parse(&settings.url).ok_or_else(|| unusable("url"))?;
        if settings.shards == 0 {
            return Err(unusable("number of shards"));
        }
        let keys = Keys::new(&settings.prefix, settings.shards);
        let keys = keys.ok_or_else(|| unusable("prefix"))?;
        let connections = match address {
            Address::Single(_) => settings.connections.max(1),
            Address::Cluster(_) => 1,
        };
        let address = Arc::new(address);
        let link = || Link::new(Arc::clone(&address), settings.response_timeout);
        let store = Self {
            keys,
            scripts: Scripts::new(&settings.clock),
            clock: settings.clock,
            outbox_bound: settings.outbox_bound,
            links: (0..connections).map(|_| link()).collect(),
            shards: (0..settings.shards).map(|_| Mutex::default()).collect(),
        };
        for link in &store.links {
            link.first_attempt().await;
        }
        Ok(store)
    }

    /// The hash tag that all keys of a shard carry: it tells an operator which slot of a Cluster they are in.
    pub fn hash_tag(&self, shard: ShardId) -> String {
        self.keys.hashed(shard).to_owned()
    }

    fn link(&self, shard: ShardId) -> &Link {
        &self.links[usize::from(shard.0) % self.links.len()]
    }

    fn shard(&self, shard: ShardId) -> &Mutex<Shard> {
        &self.shards[usize::from(shard.0)]
    }

    fn shard_of(&self, account: &AccountId) -> ShardId {
        account.shard(self.shards())
    }

    /// The epoch that commands expect, where it was checked on the present connection.
    fn checked(&self, shard: ShardId) -> Option<(Epoch, Generation)> {
        let adopted = self.shard(shard).lock().adopted;
        let present = self.link(shard).generation();
        adopted.filter(|(_, generation)| *generation == present)
    }

    /// Runs a script on whatever server there is now: for what a check looks at.
    async fn run_unchecked(
        &self,
        shard: ShardId,
        script: &Script,
        keys: &[String],
        mut arguments: Vec<Argument<'_>>,
    ) -> Result<Answered, StoreError> {
        if let ClockSource::Caller(clock) = &self.clock {
            arguments.push(arguments::shown(clock.now().0));
        }
        let call = Call {
            script,
            keys,
            arguments,
        };
        self.link(shard).run(&call).await
    }

    /// Runs a verb in the epoch that was checked, and reads its answer's first word. An answer of another connection than
    /// the one the shard was checked on does not count (rule 21).
    async fn run(
        &self,
        shard: ShardId,
        script: &Script,
        keys: &[String],
        mut arguments: Vec<Argument<'_>>,
    ) -> Result<(String, List), StoreError> {
        let lost = |reason: String| StoreError::Lost { shard, reason };
        let unchecked = || lost("it has not been checked on this connection".into());
        let (epoch, generation) = self.checked(shard).ok_or_else(unchecked)?;
        arguments.insert(0, arguments::shown(epoch));
        let answered = self.run_unchecked(shard, script, keys, arguments).await?;

        if answered.generation != generation || self.link(shard).generation() != generation {
            return Err(unchecked());
        }
        if answered.moved {
            self.leave(shard);
        }
        let mut answer = List::of(answered.value)?;
        let word = answer.text()?;
        if word == "lost" {
            self.leave(shard);
            let found = answer.text()?;
            return Err(lost(format!("epoch {epoch} expected, {found} found")));
        }
        Ok((word, answer))
    }

    /// The shard is to be checked again before its next command.
    fn leave(&self, shard: ShardId) {
        self.shard(shard).lock().adopted = None;
    }
}
