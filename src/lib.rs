//! Tollgate: the money layer for AI and tool calls.
//!
//! The map, and what is absent where:
//! - [`money`], [`clock`]: the units. Nothing else knows what a credit is made of, or asks the machine for the time.
//! - [`quota`]: reservations and the live store. It knows no HTTP, no SQL and no provider.
//! - [`ledger`]: the durable truth, and the tasks between it and the store. It knows no HTTP.
//! - [`price`], [`catalog`]: what a call costs. No I/O.
//! - [`admin`]: the commands, the only place that knows arguments and exit codes.
//! - [`dialect`]: what providers' requests and answers mean. No store, no ledger.
//! - [`config`], [`telemetry`]: what the operator says, and what the operator sees.
//! - [`proxy`]: a call's path through all of these, and the listeners it comes in by.
//! - [`listener`]: the accept loop of every address. It knows nothing of what is answered.
//! - `own_file`: opens what is kept beside another file, and follows no link.
//! - [`mock`]: an upstream that costs nothing, for `demo` and for tests. Nothing of the product depends on it.
//!
//! The ten invariants and the protocol that keeps them are in `docs/ARCHITECTURE.md`; tests and code name them by number.

pub mod clock;
pub mod money;

#[cfg(feature = "proxy")]
pub mod admin;
#[cfg(feature = "proxy")]
pub mod catalog;
#[cfg(feature = "proxy")]
pub mod config;
#[cfg(feature = "proxy")]
pub mod dialect;
#[cfg(feature = "proxy")]
pub mod ledger;
#[cfg(feature = "proxy")]
pub mod listener;
#[cfg(feature = "proxy")]
pub mod mock;
#[cfg(all(test, feature = "proxy"))]
mod model;
#[cfg(feature = "proxy")]
mod own_file;
#[cfg(feature = "proxy")]
pub mod price;
#[cfg(feature = "proxy")]
pub mod proxy;
#[cfg(feature = "proxy")]
pub mod quota;
#[cfg(feature = "proxy")]
pub mod telemetry;
