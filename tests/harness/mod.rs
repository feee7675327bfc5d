//! What the tests stand on: private servers on free ports, real processes, and ways to wait for a state.

pub mod account;
pub mod client;
pub mod configuration;
pub mod installation;
pub mod mock;
pub mod postgres;
pub mod python;
pub mod redis;
pub mod relay;
pub mod seed;
pub mod sidecar;
pub mod upstream;
pub mod wait;
