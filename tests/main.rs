//! Every test that goes through the public face: one binary, a file a behaviour.

mod admin;
mod deploy;
mod docs;
mod embedded;
mod fuzz;
mod harness;
mod ledger;
mod outage;
mod provider_data;
mod proxy;
mod redis;
mod sdk;
mod store;
