//! What the tests stand on: private servers on free ports, real processes, and ways to wait for a state.

pub mod account;
pub mod client;
pub mod configuration;
pub mod installation;
pub mod mock;
pub mod postgres;
pub mod redis;
pub mod relay;
pub mod sidecar;
pub mod upstream;
pub mod wait;

use tollgate::quota::{Epoch, Life, Tenure};

/// The life of a shard on the first server that keeps it.
pub fn life(epoch: i64) -> Life {
    Life {
        epoch: Epoch(epoch),
        tenure: Tenure(1),
    }
}
