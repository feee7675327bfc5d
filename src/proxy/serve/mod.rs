//! Starting and ending a sidecar: what is opened in which order, which tasks go on beside the calls, and what a clean
//! end waits for.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Sidecar;
use super::control::Commands;
use super::health::Readiness;
use super::identify::Keys;
use super::in_flight::InFlight;
use super::listeners::{Addresses, Listeners};
use super::prices::{self, Current};
use super::route::Routes;
use super::snapshots::Snapshots;
use super::throttle::Throttles;
use crate::clock::Clock;
use crate::config::{Config, Route, StoreDown};
use crate::ledger::{Applier, Auditor, Expiry, Flusher, Keeper, Ledger, Loader};
use crate::listener::{self, Threads};
use crate::quota::{
    AccountId, Bounded, Ended, Ending, Kept, LeftOpen, NotLoaded, Outcome, Settler,
    SettlerSettings, ShardId, Store, Surroundings, Sweeper, SweeperSettings,
};
use crate::telemetry::{Metrics, Telemetry, Tracer};

mod watch;

/// Reservations that may be open, or ended and not yet acknowledged by the store.
const MAX_OPEN_CALLS: u32 = 65_536;
/// How long a start waits for store and ledger before it says that they are away.
const FIRST_CHECKS: Duration = Duration::from_secs(3);
const FIRST_CHECK_EACH: Duration = Duration::from_millis(20);
/// How long a clean end waits for the ledger: what is not flushed then is flushed by whoever comes next.
const LAST_FLUSH: Duration = Duration::from_secs(5);
const LAST_FLUSH_EACH: Duration = Duration::from_millis(50);

/// Why a sidecar did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The machine gives no more threads or files.
    #[error("cannot start a thread: {0}")]
    Runtime(io::Error),
    /// The machine's root certificates cannot be read.
    #[error("cannot verify upstreams: {0}")]
    Roots(io::Error),
    /// Nothing can be sent to the collector.
    #[error("cannot trace calls to `trace.otlp_url`: {0}")]
    Trace(io::Error),
    /// What the last process left to settle cannot be read, or the next calls could not be written down.
    #[error("the journal of bounded calls, {path}, cannot be used: {error}")]
    Journal {
        /// Where.
        path: String,
        /// Why.
        error: io::Error,
    },
}

/// What an operator asks of a running sidecar.
#[derive(Default)]
pub struct Operator {
    /// Answers at the control listener.
    pub commands: Option<Commands>,
    /// Configurations that take the place of the present one, as far as a running sidecar can take them.
    pub reloads: Option<mpsc::Receiver<Config>>,
}

/// Serves until `shutdown` is done, and then until calls in flight have ended and their endings are handed over.
/// `announce` is told once where.
pub async fn serve<S: Store + 'static, L: Ledger + 'static>(
    config: Config,
    listeners: Listeners,
    (store, ledger): (Arc<S>, Arc<L>),
    clock: Clock,
    operator: Operator,
    announce: impl FnOnce(&Addresses),
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let threads = Threads::start(config.listen.threads).map_err(ServeError::Runtime)?;
    let (readiness, telemetry) = (listeners.readiness.clone(), listeners.telemetry.clone());
    let bounds = Listeners::bounds(&config);
    let (bounded, left) = open_journal(&config)?;
    let background = Arc::new(Background::new(
        &config,
        store,
        ledger,
        &clock,
        telemetry.metrics.clone(),
    ));
    background.settle_left(left).await;
    let tracer = {
        // Spans are sent from there.
        let _beside = listeners.beside.handle().enter();
        Tracer::new(&config.trace).map_err(ServeError::Trace)?
    };
    let sidecar = background.sidecar(&config, clock, bounded, tracer);
    let sidecar = Arc::new(sidecar.map_err(ServeError::Roots)?);

    let (addresses, proxy) = (listeners.addresses().clone(), listeners.proxy.clone());
    let listeners = listeners.answer_commands(operator.commands);
    background.first_checks(&readiness).await;
    let beside = listeners.beside.handle();
    let mut tasks = background.start(&readiness, telemetry, beside);
    let throttles = sidecar.throttles.clone();
    tasks.spawn_on(async move { throttles.upkeep().await }, beside);
    if let Some(reloads) = operator.reloads {
        tasks.spawn_on(sidecar.clone().follow(config, reloads), beside);
    }
    announce(&addresses);
    readiness.serving();

    // New callers and calls in flight are served until the order to end, and then for as long as the drain allows.
    let order = async {
        shutdown.await;
        readiness.draining();
        let drain_s = bounds.drain.as_secs();
        tracing::info!(drain_s, "ending: calls in flight may finish");
    };
    let service = {
        let sidecar = sidecar.clone();
        service_fn(move |request: Request<Incoming>| {
            let sidecar = sidecar.clone();
            async move { Ok::<_, Infallible>(sidecar.answer(request).await) }
        })
    };
    listener::serve(proxy, bounds, &threads, service, order).await;

    // holds: 2 and 3, as far as a clean end can: every call is over, so every ending is on its way.
    let drained = timeout(bounds.drain, sidecar.settler.drained());
    if drained.await.is_err() {
        tracing::warn!(
            "the store did not take all endings in time; their holds lapse by themselves"
        );
    }
    if timeout(LAST_FLUSH, background.last_flush()).await.is_err() {
        tracing::warn!("the ledger did not take all endings in time; they wait in the outbox");
    }
    tasks.shutdown().await;
    sidecar.tracer.end().await;
    listeners.close().await;
    Ok(())
}

/// Whether its calls go on without the store.
pub(super) fn is_bounded(route: &Route) -> bool {
    matches!(route.on_store_down, StoreDown::Bounded(_))
}

/// Opens the journal where calls may be written down in it, or a process that was killed has left some.
fn open_journal(config: &Config) -> Result<(Option<Arc<Bounded>>, Vec<LeftOpen>), ServeError> {
    let path = &config.store.bounded_journal;
    let needed = config.routes.iter().any(is_bounded);
    let left_some = std::fs::metadata(path).is_ok_and(|file| file.len() > 0);
    if !needed && !left_some {
        return Ok((None, Vec::new()));
    }
    match Bounded::open(path) {
        Ok((bounded, left)) => Ok((Some(bounded), left)),
        Err(error) if needed => Err(ServeError::Journal {
            path: path.display().to_string(),
            error,
        }),
        Err(error) => {
            // It may be that of another sidecar, which is at work in the same directory.
            tracing::warn!(path = %path.display(), %error, "a journal of bounded calls is left alone");
            Ok((None, Vec::new()))
        }
    }
}

/// Everything of a sidecar that goes on beside the calls.
struct Background<S, L> {
    store: Arc<S>,
    ledger: Arc<L>,
    loader: Arc<Loader<S, L>>,
    keeper: Arc<Keeper<S, L>>,
    applier: Arc<Applier<S, L>>,
    flusher: Arc<Flusher<S, L>>,
    expiry: Expiry<S, L>,
    auditor: Auditor<S, L>,
    settler: Arc<Settler>,
    kept: Arc<Kept>,
    prices: Arc<ArcSwap<Current>>,
    metrics: Metrics,
    around: Arc<Around<S, L>>,
    sweeper: SweeperSettings,
}

impl<S: Store + 'static, L: Ledger + 'static> Background<S, L> {
    fn new(
        config: &Config,
        store: Arc<S>,
        ledger: Arc<L>,
        clock: &Clock,
        metrics: Metrics,
    ) -> Self {
        let keeper = Arc::new(Keeper::new(store.clone(), ledger.clone(), clock.clone()));
        let applier = Arc::new(Applier::new(store.clone(), ledger.clone(), clock.clone()));
        let flusher = Flusher::new(
            store.clone(),
            ledger.clone(),
            keeper.clone(),
            applier.clone(),
            clock.clone(),
        );
        let (counts, now) = (metrics.clone(), clock.clone());
        let kept = Arc::new(Kept::new(store.shards(), MAX_OPEN_CALLS));
        let flusher = flusher
            .keeping(kept.clone())
            .telling(move |entries| counts.flushed(entries, now.now()));
        let flusher = Arc::new(flusher);
        let drains = flusher.clone();
        let loader = Loader::new(store.clone(), ledger.clone());
        let loader = Arc::new(loader.asking(move |shard| drains.mark(shard)));
        let audit_interval = config.ledger.audit_interval;
        let auditor = Auditor::new(store.clone(), ledger.clone(), audit_interval);
        let counts = metrics.clone();
        let auditor = auditor.telling(move |accounts, drifting| counts.audited(accounts, drifting));
        let deadline = Duration::from_millis(config.store.deadline_ms.unsigned_abs());
        let settings = SettlerSettings {
            max_open: MAX_OPEN_CALLS,
            deadline,
        };
        let expiry = Expiry::new(
            store.clone(),
            ledger.clone(),
            loader.clone(),
            flusher.clone(),
            clock.clone(),
        );
        let around = Arc::new(Around {
            loader: loader.clone(),
            flusher: flusher.clone(),
            keeper: keeper.clone(),
            metrics: metrics.clone(),
        });
        let settler = Settler::start(
            store.clone(),
            around.clone(),
            kept.clone(),
            keeper.epochs(),
            settings,
        );
        Self {
            settler: Arc::new(settler),
            kept,
            around,
            store,
            ledger,
            loader,
            keeper,
            applier,
            flusher,
            expiry,
            auditor,
            prices: Arc::new(ArcSwap::from_pointee(Current::none())),
            metrics,
            sweeper: SweeperSettings {
                round: config.store.sweep_interval,
                deadline,
            },
        }
    }

    /// Ends what a process that was killed had let through without the store, like calls of this one.
    // holds: 3, never lost
    async fn settle_left(&self, left: Vec<LeftOpen>) {
        if !left.is_empty() {
            let calls = left.len();
            tracing::warn!(
                calls,
                "the last process left calls in the journal, which are settled now"
            );
        }
        for (settle, call) in left {
            let permit = self.settler.wait_for_room().await;
            let (id, account) = (settle.id, settle.account.clone());
            let metered = Arc::new(Ending::from(settle));
            let mut over = self.settler.open(permit, id, account, metered);
            over.goes_on_without_store(call);
        }
    }

    fn sidecar(
        &self,
        config: &Config,
        clock: Clock,
        bounded: Option<Arc<Bounded>>,
        tracer: Tracer,
    ) -> io::Result<Sidecar<S, L>> {
        let routes = Routes::new(config, &self.metrics)?;
        Ok(Sidecar {
            store: self.store.clone(),
            ledger: self.ledger.clone(),
            loader: self.loader.clone(),
            keeper: self.keeper.clone(),
            settler: self.settler.clone(),
            bounded,
            keys: Keys::default(),
            snapshots: Snapshots::default(),
            throttles: Arc::new(Throttles::new(config.throttle)),
            in_flight: InFlight::new(config.shed),
            prices: self.prices.clone(),
            routes: ArcSwap::from_pointee(routes),
            credit_usd: config.credit_usd,
            deadline_ms: config.store.deadline_ms,
            max_age_ms: config.store.max_age_ms,
            clock,
            metrics: self.metrics.clone(),
            tracer,
        })
    }

    /// Starts the tasks beside the calls; dropping the set ends them, and every step of each may be cut off.
    fn start(
        self: &Arc<Self>,
        readiness: &Readiness,
        telemetry: Telemetry,
        beside: &Handle,
    ) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let sweeper = Sweeper::new(self.store.clone(), self.around.clone(), self.sweeper);
        tasks.spawn_on(sweeper.run(), beside);
        let background = self.clone();
        tasks.spawn_on(async move { background.keeper.run().await }, beside);
        let background = self.clone();
        tasks.spawn_on(async move { background.applier.run().await }, beside);
        let background = self.clone();
        tasks.spawn_on(async move { background.flusher.run().await }, beside);
        let background = self.clone();
        tasks.spawn_on(async move { background.expiry.run().await }, beside);
        let background = self.clone();
        tasks.spawn_on(async move { background.auditor.run().await }, beside);
        let background = self.clone();
        tasks.spawn_on(
            async move { prices::follow(&*background.ledger, &background.prices).await },
            beside,
        );
        tasks.spawn_on(async move { telemetry.run_upkeep().await }, beside);
        let background = self.clone();
        tasks.spawn_on(async move { background.count_epochs().await }, beside);
        let background = self.clone();
        tasks.spawn_on(async move { background.count_quarantined().await }, beside);
        let (background, shown) = (self.clone(), readiness.clone());
        tasks.spawn_on(async move { background.show(&shown).await }, beside);
        let (background, readiness) = (self.clone(), readiness.clone());
        tasks.spawn_on(async move { background.watch(&readiness).await }, beside);
        tasks
    }

    /// Waits for what a call needs. Where store or ledger is away the sidecar starts all the same, and says that it is
    /// not ready.
    async fn first_checks(&self, readiness: &Readiness) {
        let checks = async {
            loop {
                let checked = self.keeper.round().await;
                let priced = prices::refresh(&*self.ledger, &self.prices).await;
                if checked && priced.is_ok() {
                    return;
                }
                // Whoever asks meanwhile is told what is waited for.
                self.look(readiness);
                sleep(FIRST_CHECK_EACH).await;
            }
        };
        let _ = timeout(FIRST_CHECKS, checks).await;
        self.look(readiness);
    }

    /// Until the ledger has every ending of this sidecar, whoever carries it there.
    async fn last_flush(&self) {
        while !self.flusher.flush_dirty().await {
            sleep(LAST_FLUSH_EACH).await;
        }
        self.kept.all_flushed().await;
    }
}

/// What the settler and the sweeper ask and tell.
struct Around<S, L> {
    loader: Arc<Loader<S, L>>,
    flusher: Arc<Flusher<S, L>>,
    keeper: Arc<Keeper<S, L>>,
    metrics: Metrics,
}

impl<S: Store + 'static, L: Ledger + 'static> Surroundings for Around<S, L> {
    async fn load(&self, account: &AccountId) -> Result<(), NotLoaded> {
        Ok(self.loader.load(account).await?)
    }

    fn outbox_grew(&self, shard: ShardId) {
        self.flusher.mark(shard);
    }

    fn ended(&self, outcome: Outcome, after: Duration) {
        match outcome {
            Outcome::Lapsed => self.metrics.lapses.increment(1),
            Outcome::Settled | Outcome::Released => self.metrics.settle.record(after),
        }
    }

    fn settled_again(&self) {
        self.metrics.settled_again.increment(1);
    }

    fn hold_gone(&self, ended: Ended) {
        tracing::debug!(?ended, "a heartbeat found that its hold had ended");
    }

    fn held_again(&self) {
        self.metrics.held_again.increment(1);
    }

    fn shard_lost(&self, _shard: ShardId) {
        self.keeper.wake();
    }
}
