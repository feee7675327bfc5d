//! Every test that goes through the public face: one binary, a file a behaviour.

mod harness;
mod ledger;
mod provider_data;
mod store;
