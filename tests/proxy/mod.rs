//! What callers of the proxy see, through the real binary.

mod answers;
mod budget;
mod changes;
mod crash;
mod flat;
mod hang_up;
mod identify;
mod modes;
mod outage;
mod paths;
mod refusals;
mod requests;
mod shutdown;
mod streams;
mod tls;
mod upkeep;
mod upstream_failures;
