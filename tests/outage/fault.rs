//! What may go wrong, as one list: each is done to a world of servers, and undone again.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

/// The random part, unless the environment says otherwise.
const SHORT: Duration = Duration::from_secs(12);
/// How long the ledger is away once in a run that is longer.
const A_MINUTE: Duration = Duration::from_mins(1);

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    PostgresStopped,
    PostgresSilent,
    FlusherKilled,
    SidecarKilled,
    RedisKilledWithAof,
    RedisFlushed,
    /// A replica takes over that has not heard the last of it.
    ReplicaPromoted,
    /// The server before comes back, under its old run id, with what it has copied from the one after it.
    FailedBack,
    /// A replica of a Cluster takes over from a node that is there.
    ClusterFailover,
    /// A node of a Cluster dies, and its replica takes over.
    ClusterNodeKilled,
}

/// When the store forgot something: what was acknowledged and not flushed by then is gone from it.
#[derive(Debug, Clone, Copy)]
pub struct Loss {
    pub from: Instant,
    pub until: Instant,
}

/// A sidecar's process that was killed.
#[derive(Debug, Clone, Copy)]
pub struct Death {
    pub process: usize,
    pub at: Instant,
}

/// How long the random part goes on.
pub fn random_part() -> Duration {
    let given = std::env::var("TOLLGATE_OUTAGE_SECONDS").ok();
    let seconds = given.and_then(|seconds| seconds.parse().ok());
    seconds.map_or(SHORT, Duration::from_secs)
}

/// Each once, in their order, the ledger for a minute where there is time; and then at random until the time is over.
pub async fn schedule(faults: &[Fault], seed: u64, mut each: impl AsyncFnMut(Fault, Duration)) {
    let mut rng = StdRng::seed_from_u64(seed);
    let is_long = random_part() > SHORT;
    for fault in faults {
        let lasting = match fault {
            Fault::PostgresStopped if is_long => A_MINUTE,
            _ => Duration::from_millis(1500),
        };
        each(*fault, lasting).await;
    }
    let until = Instant::now() + random_part();
    let mut order = faults.to_vec();
    while Instant::now() < until {
        order.shuffle(&mut rng);
        for fault in &order {
            if Instant::now() >= until {
                return;
            }
            each(*fault, Duration::from_millis(rng.random_range(50..3000))).await;
        }
    }
}
