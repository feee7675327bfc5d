//! What callers of the proxy see, through the real binary.

mod answers;
mod audit;
mod blind;
mod bounded;
mod budget;
mod changes;
mod chaos;
mod crash;
mod doors;
mod flat;
mod hang_up;
mod hostile;
mod identify;
mod ledger_away;
mod modes;
mod outage;
mod paths;
mod recovery;
mod refusals;
mod requests;
mod shutdown;
mod streams;
mod tls;
mod tricks;
mod upkeep;
mod upstream_failures;
