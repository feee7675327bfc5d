//! From a configuration to the ledger and the store it names.

use std::path::Path;
use std::sync::Arc;

use super::failure::Failure;
use crate::clock::Clock;
use crate::config::{Config, LedgerUrl};
use crate::ledger::postgres::admin::Admin;
use crate::ledger::{Applier, Checked, Ledger, PostgresLedger};
use crate::quota::{ShardId, Store};

/// The configuration these commands run under.
pub(super) fn config(file: Option<&Path>) -> Result<Config, Failure> {
    Ok(Config::load(file)?)
}

/// Where the ledger is.
pub(super) fn ledger_url(config: &Config) -> Result<&str, Failure> {
    match &config.ledger.url {
        LedgerUrl::Postgres(url) => Ok(url.expose()),
        LedgerUrl::Memory => Err(Failure::Usage(
            "this configuration's ledger is in memory, where no command can reach it".into(),
        )),
    }
}

/// The ledger, for those who change it.
pub(super) async fn admin(config: &Config) -> Result<Admin, Failure> {
    Ok(Admin::connect(ledger_url(config)?).await?)
}

/// Store and ledger, as the data plane sees them.
pub(super) struct Live {
    pub store: Arc<LiveStore>,
    pub ledger: Arc<PostgresLedger>,
    pub applier: Arc<Applier<LiveStore, PostgresLedger>>,
}

impl Live {
    pub async fn connect(config: &Config) -> Result<Self, Failure> {
        let ledger = Arc::new(PostgresLedger::connect(ledger_url(config)?).await?);
        let store = Arc::new(store(config, ledger.installation().shards).await?);
        let applier = Applier::new(store.clone(), ledger.clone(), Clock::System).into();
        Ok(Self {
            store,
            ledger,
            applier,
        })
    }

    /// Checks a shard before its first use (rule 21).
    pub async fn check(&self, shard: ShardId) -> Result<(), Failure> {
        match self.ledger.check(shard, &*self.store).await? {
            Checked::Agreed(epoch) => {
                self.store.adopt(shard, epoch);
                Ok(())
            }
            Checked::Lost(reason) => Err(Failure::lost(shard, reason)),
        }
    }
}
