//! Where a command runs: a configuration, and the store and ledger it names, each connected when it is first needed.
//!
//! With Redis and Postgres every command connects by itself. An embedded installation has one owner (rule 29): its place is
//! opened once, and every command of that process runs on it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;

use super::connect;
use super::failure::Failure;
use crate::clock::Clock;
use crate::config::Config;
use crate::ledger::postgres::admin::Admin;
use crate::ledger::{AnyLedger, Applier, Checked, Ledger};
use crate::quota::redis::{RedisSettings, RedisStore};
use crate::quota::{AnyStore, ShardId, Store};

/// How long a command waits for one answer of the store at the least: nobody waits for it with a call in hand.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) struct Place {
    pub config: Config,
    admin: OnceCell<Admin>,
    ledger: OnceCell<Arc<AnyLedger>>,
    live: OnceCell<Live>,
}

/// Store and ledger, as the data plane sees them.
pub(super) struct Live {
    pub store: Arc<AnyStore>,
    pub ledger: Arc<AnyLedger>,
    pub applier: Arc<Applier<AnyStore, AnyLedger>>,
}

impl Place {
    pub fn new(config: Config) -> Self {
        Self {
            config,
            admin: OnceCell::new(),
            ledger: OnceCell::new(),
            live: OnceCell::new(),
        }
    }

    /// Opens an embedded installation. Only who has its lease may.
    pub async fn open(config: Config) -> Result<Self, Failure> {
        let _ = config;
        Err(Failure::not_built("embedded"))
    }

    /// A clean end.
    pub async fn close(&self) {
        let Some(live) = self.live.get() else { return };
        if let AnyStore::Embedded(store) = &*live.store
            && let Err(error) = store.close().await
        {
            tracing::warn!(%error, "the next start takes longer: the journal could not be cut short");
        }
    }

    /// The ledger, for those who change it.
    pub async fn admin(&self) -> Result<&Admin, Failure> {
        let connect = async || Ok(Admin::connect(connect::ledger_url(&self.config)?).await?);
        self.admin.get_or_try_init(connect).await
    }

    /// The ledger, as the data plane sees it.
    pub async fn ledger(&self) -> Result<&Arc<AnyLedger>, Failure> {
        let connect = async || Ok(Arc::new(connect::ledger(&self.config).await?));
        self.ledger.get_or_try_init(connect).await
    }

    /// Store and ledger.
    pub async fn live(&self) -> Result<&Live, Failure> {
        let connect = async || {
            let ledger = self.ledger().await?.clone();
            let settings = connect::store_settings(&self.config, ledger.installation().shards)?;
            let store = RedisStore::connect(RedisSettings {
                response_timeout: settings.response_timeout.max(PATIENCE),
                connections: 1,
                ..settings
            });
            Ok(Live::new(AnyStore::Redis(store.await?), ledger))
        };
        self.live.get_or_try_init(connect).await
    }
}

impl Live {
    pub fn new(store: AnyStore, ledger: Arc<AnyLedger>) -> Self {
        let store = Arc::new(store);
        let applier = Applier::new(store.clone(), ledger.clone(), Clock::System).into();
        Self {
            store,
            ledger,
            applier,
        }
    }

    /// Checks a shard before its first use (rule 21).
    pub async fn check(&self, shard: ShardId) -> Result<(), Failure> {
        match self.ledger.check(shard, &*self.store).await? {
            Checked::Agreed(life) => {
                self.store.adopt(shard, life);
                Ok(())
            }
            Checked::Refused(reason) => Err(Failure::lost(shard, reason)),
        }
    }
}
