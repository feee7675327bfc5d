//! The proxy: the sidecar's three doors, for callers, for the app beside it and for probes.

pub mod control;
pub mod health;
