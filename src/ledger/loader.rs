//! Makes cold accounts live: reads their image from the ledger and puts it into the store (rule 22).
//!
//! After a loss of the store every account is cold at once. So each account has one load under way in a process,
//! a failed one is not tried again at once, and only so many ask the ledger at the same time. What ended in an earlier
//! epoch has to be in the ledger before: an image without it would give its credit back.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::{Mutex, OnceCell, Semaphore};
use tokio::time::{Instant, sleep};

use super::{Ledger, LedgerError};
use crate::quota::{AccountId, Epoch, LoadAnswer, NotLoaded, ShardId, Store, StoreError};

/// Loads that may be at the ledger at once.
const LOADS_AT_ONCE: usize = 8;
/// How long a failure stands as the answer to others.
const BACK_OFF: Duration = Duration::from_millis(250);
/// How often an image is read again because the store was ahead of it, and how often an outbox is looked at that is not
/// drained.
const ATTEMPTS: u32 = 6;
/// The first pause before that, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// More flights than this are looked through for those that are over.
const MANY_FLIGHTS: usize = 10_000;

/// Why an account could not be made live.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LoadError {
    /// The ledger does not know it.
    #[error("there is no such account")]
    NoAccount,
    /// The ledger did not answer.
    #[error(transparent)]
    Ledger(#[from] Arc<LedgerError>),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store was ahead of the ledger's image each time.
    #[error("the ledger stays behind the store")]
    Behind,
    /// The outbox did not empty in time.
    #[error("endings of an earlier epoch wait in the outbox: they must reach the ledger first")]
    Undrained,
}

impl From<LoadError> for NotLoaded {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::NoAccount => Self::NoAccount,
            LoadError::Ledger(_)
            | LoadError::Store(_)
            | LoadError::Behind
            | LoadError::Undrained => Self::Away,
        }
    }
}

/// Whoever can carry a shard's outbox to the ledger.
type Drain = Box<dyn Fn(ShardId) + Send + Sync>;

/// Loads accounts, one flight an account.
pub struct Loader<S, L> {
    store: Arc<S>,
    ledger: Arc<L>,
    room: Semaphore,
    flights: DashMap<AccountId, Arc<Flight>>,
    /// By shard.
    drained: Vec<Mutex<Drained>>,
    drain: Drain,
}

/// What is known of the entries that a shard's earlier epochs have left behind.
#[derive(Default)]
struct Drained {
    /// In this epoch there are none, and so there never will be.
    epoch: Option<Epoch>,
    /// When there were some.
    waited_at: Option<Instant>,
}

/// One load, and everybody who waits for it. If the one who makes it goes away, the next goes on.
type Flight = OnceCell<Result<(), (LoadError, Instant)>>;

impl<S: Store, L: Ledger> Loader<S, L> {
    /// A loader between these.
    pub fn new(store: Arc<S>, ledger: Arc<L>) -> Self {
        Self {
            drained: (0..store.shards()).map(|_| Mutex::default()).collect(),
            store,
            ledger,
            room: Semaphore::new(LOADS_AT_ONCE),
            flights: DashMap::new(),
            drain: Box::new(|_| {}),
        }
    }

    /// Asks for a shard's outbox to be flushed when entries of an earlier epoch keep its accounts from being loaded.
    #[must_use]
    pub fn asking(self, drain: impl Fn(ShardId) + Send + Sync + 'static) -> Self {
        Self {
            drain: Box::new(drain),
            ..self
        }
    }

    /// Makes an account live, or waits for whoever does.
    pub async fn load(&self, account: &AccountId) -> Result<(), LoadError> {
        let flight = self.flight(account);
        let landing = async || {
            let loaded = self.read_and_load(account).await;
            loaded.map_err(|error| (error, Instant::now()))
        };
        let landed = flight.get_or_init(landing).await.clone();
        if landed.is_ok() {
            // The account may grow cold again, and must then be loaded again.
            let same = |_: &AccountId, there: &Arc<Flight>| Arc::ptr_eq(there, &flight);
            self.flights.remove_if(account, same);
        }
        landed.map_err(|(error, _)| error)
    }

    /// The flight under way, or a new one where the last one is over.
    fn flight(&self, account: &AccountId) -> Arc<Flight> {
        if self.flights.len() > MANY_FLIGHTS {
            self.flights.retain(|_, flight| !is_over(flight));
        }
        let mut flight = self.flights.entry(account.clone()).or_default();
        if is_over(&flight) {
            *flight = Arc::default();
        }
        flight.clone()
    }

    async fn read_and_load(&self, account: &AccountId) -> Result<(), LoadError> {
        // Before the image is read, so that the image has in it what was drained.
        self.wait_until_drained(account.shard(self.store.shards()))
            .await?;
        let mut pause = FIRST_PAUSE;
        for _ in 0..ATTEMPTS {
            let image = {
                let _room = self.room.acquire().await;
                self.ledger.image(account).await.map_err(Arc::new)?
            };
            let image = image.ok_or(LoadError::NoAccount)?;
            match self.store.load(&image).await? {
                LoadAnswer::Loaded | LoadAnswer::Warm => return Ok(()),
                LoadAnswer::Behind => sleep(pause).await,
            }
            pause *= 2;
        }
        Err(LoadError::Behind)
    }

    // holds: 1, never oversold; 6, exact
    async fn wait_until_drained(&self, shard: ShardId) -> Result<(), LoadError> {
        let mut pause = FIRST_PAUSE;
        for _ in 0..ATTEMPTS {
            if self.is_drained(shard).await? {
                return Ok(());
            }
            (self.drain)(shard);
            sleep(pause).await;
            pause *= 2;
        }
        Err(LoadError::Undrained)
    }

    /// Whether no entry of an earlier epoch is left. Everybody who loads waits for one look, and it is not repeated at
    /// once: all accounts of the shard may be waiting.
    async fn is_drained(&self, shard: ShardId) -> Result<bool, LoadError> {
        let lost = |reason: &str| StoreError::Lost {
            shard,
            reason: reason.into(),
        };
        let mut drained = self.drained[usize::from(shard.0)].lock().await;
        let adopted = self.store.adopted(shard);
        let epoch = adopted.ok_or_else(|| lost("it must be checked first"))?;
        if drained.epoch == Some(epoch) {
            return Ok(true);
        }
        if drained
            .waited_at
            .is_some_and(|at| at.elapsed() < FIRST_PAUSE)
        {
            return Ok(false);
        }
        let view = self.store.view(shard).await?;
        if view.header.is_none_or(|header| header.epoch != epoch) {
            return Err(lost("its epoch is over").into());
        }
        if view.oldest_epoch.is_some_and(|oldest| oldest < epoch) {
            drained.waited_at = Some(Instant::now());
            return Ok(false);
        }
        *drained = Drained {
            epoch: Some(epoch),
            waited_at: None,
        };
        Ok(true)
    }
}

/// Whether nobody is to get this flight's answer any more.
fn is_over(flight: &Flight) -> bool {
    match flight.get() {
        None => false,
        Some(Ok(())) => true,
        Some(Err((_, failed_at))) => failed_at.elapsed() >= BACK_OFF,
    }
}
