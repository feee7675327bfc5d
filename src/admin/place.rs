//! Where a command runs: a configuration, and the store and ledger it names, each connected when it is first needed.
//!
//! With Redis and Postgres every command connects by itself. An embedded installation has one owner (rule 29): its place is
//! opened once, and every command of that process runs on it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::connect;
use super::failure::Failure;
use crate::clock::Clock;
use crate::config::{Config, LedgerUrl};
use crate::ledger::admin::Admin;
use crate::ledger::sqlite::file::File;
use crate::ledger::sqlite::journal::SqliteJournal;
use crate::ledger::{
    AnyLedger, Applier, Checked, Installation, Ledger, Looked, SqliteLedger, postgres, sqlite,
};
use crate::quota::embedded::{EmbeddedSettings, EmbeddedStore};
use crate::quota::redis::{RedisSettings, RedisStore};
use crate::quota::{AnyStore, RunId, ShardId, Store};

/// How long a command waits for one answer of the store at the least: nobody waits for it with a call in hand.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a clean end may take.
const CLOSING: Duration = Duration::from_secs(10);
/// How often a glance begins anew because the shard has changed under it.
const GLANCES: usize = 16;

pub(super) struct Place {
    pub config: Config,
    admin: OnceCell<Admin>,
    ledger: OnceCell<Arc<AnyLedger>>,
    live: OnceCell<Live>,
    /// The file of an embedded installation.
    file: Option<Arc<File>>,
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
            file: None,
        }
    }

    /// Opens the file of an embedded installation. Only who has its lease may.
    pub async fn open(config: Config) -> Result<Self, Failure> {
        let file = File::open(file_of(&config)?, config.store.durability).await?;
        Self::on(config, Arc::new(file)).await
    }

    /// The same, and creates or upgrades it first.
    pub async fn make(config: Config, shards: Option<u16>) -> Result<Self, Failure> {
        let file = File::create(file_of(&config)?, config.store.durability).await?;
        sqlite::schema::migrate(&file, shards).await?;
        Self::on(config, Arc::new(file)).await
    }

    async fn on(config: Config, file: Arc<File>) -> Result<Self, Failure> {
        let ledger = SqliteLedger::over(file.clone()).await?;
        let Installation { id, shards } = ledger.installation();
        let run_id = RunId(format!("journal-{id}"));
        let bound = config.store.outbox_bound;
        let settings = EmbeddedSettings {
            response_timeout: config.store.response_timeout,
            ..EmbeddedSettings::new(run_id, shards, bound, Clock::System)
        };
        let journal = Arc::new(SqliteJournal::new(file.clone()));
        let store = EmbeddedStore::open(journal, settings).await?;
        let ledger = Arc::new(AnyLedger::Sqlite(ledger));
        let live = Live::new(AnyStore::Embedded(store), ledger.clone());
        Ok(Self {
            config,
            admin: OnceCell::new(),
            ledger: OnceCell::new_with(Some(ledger)),
            live: OnceCell::new_with(Some(live)),
            file: Some(file),
        })
    }

    /// A clean end of what was opened. What goes wrong now loses nothing: the next one to open it takes longer.
    pub async fn close(&self) {
        let Some(file) = &self.file else { return };
        let close = async {
            if let Some(live) = self.live.get()
                && let AnyStore::Embedded(store) = &*live.store
            {
                store.close().await?;
            }
            Ok::<_, Failure>(file.close().await?)
        };
        match timeout(CLOSING, close).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the file is left as it is"),
            Err(_) => tracing::warn!("the file takes too long, and is left as it is"),
        }
    }

    /// Creates or upgrades the ledger. Says what it is, and of which schema.
    pub async fn migrate(&self, shards: Option<u16>) -> Result<(Installation, i64), Failure> {
        Ok(match &self.file {
            Some(file) => (
                sqlite::schema::migrate(file, shards).await?,
                sqlite::schema::newest(),
            ),
            None => (
                postgres::schema::migrate(connect::ledger_url(&self.config)?, shards).await?,
                postgres::schema::newest(),
            ),
        })
    }

    /// The ledger, for those who change it.
    pub async fn admin(&self) -> Result<&Admin, Failure> {
        let connect = async || {
            Ok(match &self.file {
                Some(file) => Admin::over(file.clone()).await?,
                None => Admin::connect(connect::ledger_url(&self.config)?).await?,
            })
        };
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

/// What a look at a shard found that changes nothing on either side.
pub(super) enum Glance {
    /// Its accounts can be read.
    Live,
    /// Nobody has ever called.
    Unused,
    /// The next call begins a new epoch (rule 21), so no account is live; why, in words.
    Cold(String),
    /// What is there is not ours to touch; in words.
    Refused(String),
}

/// Where an embedded installation's file is.
fn file_of(config: &Config) -> Result<&Path, Failure> {
    match &config.ledger.url {
        LedgerUrl::Sqlite(path) => Ok(path),
        LedgerUrl::Memory | LedgerUrl::Postgres(_) => Err(Failure::Usage(
            "this configuration's ledger is not a file".into(),
        )),
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
            Checked::Agreed(epoch) => {
                self.store.adopt(shard, epoch);
                Ok(())
            }
            Checked::Refused(reason) => Err(Failure::Refused { shard, reason }),
        }
    }

    /// Lets the accounts of a shard be read as they are. Unlike a check, it heals nothing.
    pub async fn glance(&self, shard: ShardId) -> Result<Glance, Failure> {
        for _ in 0..GLANCES {
            let mut row = self.ledger.row(shard).await?;
            let view = self.store.view(shard).await?;
            let after = self.ledger.row(shard).await?;
            // No lock is held: what was changed between two reads says nothing.
            if (&row.home, row.last_change) != (&after.home, after.last_change) {
                continue;
            }
            if row.home.is_none() && view.header.is_none() {
                return Ok(Glance::Unused);
            }
            return Ok(
                match row.look(self.ledger.installation().id, &view, false) {
                    Looked::Agreed(epoch) => {
                        if self.store.adopted(shard).is_none() {
                            self.store.adopt(shard, epoch);
                        }
                        Glance::Live
                    }
                    Looked::Open { reason, .. } => Glance::Cold(reason),
                    Looked::Refused(reason) => Glance::Refused(reason),
                },
            );
        }
        Err(Failure::Away(format!(
            "shard {shard} changes all the time: try again"
        )))
    }
}
