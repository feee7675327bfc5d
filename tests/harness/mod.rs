//! What the tests stand on: private servers on free ports, real processes, and ways to wait for a state.

pub mod postgres;
pub mod redis;
