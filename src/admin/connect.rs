//! From a configuration to the ledger and the store it names.

use super::failure::Failure;
use crate::config::{Config, LedgerUrl, Secret, StoreUrl};
use crate::ledger::{AnyLedger, PostgresLedger};
use crate::quota::redis::RedisSettings;

/// Where the ledger is.
pub(super) fn ledger_url(config: &Config) -> Result<&str, Failure> {
    match &config.ledger.url {
        LedgerUrl::Postgres(url) => Ok(url.expose()),
        LedgerUrl::Sqlite(_) => Err(Failure::Usage(
            "this configuration's ledger is a file, which is opened by whoever has its lease"
                .into(),
        )),
        LedgerUrl::Memory => Err(Failure::Usage(
            "this configuration's ledger is in memory, where no command can reach it".into(),
        )),
    }
}

/// The ledger, as the data plane sees it.
pub(super) async fn ledger(config: &Config) -> Result<AnyLedger, Failure> {
    let postgres = PostgresLedger::connect(ledger_url(config)?).await?;
    Ok(AnyLedger::Postgres(postgres))
}

/// The live store as configured. It connects by itself: while it is away, every verb says so.
pub(super) fn store_settings(config: &Config, shards: u16) -> Result<RedisSettings, Failure> {
    let store = &config.store;
    let url = match &store.url {
        StoreUrl::Redis(url) => url.expose().to_owned(),
        StoreUrl::Cluster(nodes) => cluster_url(nodes),
        StoreUrl::Memory | StoreUrl::Embedded => {
            return Err(Failure::Usage(
                "this configuration's store is in memory, where no command can reach it".into(),
            ));
        }
    };
    Ok(RedisSettings {
        outbox_bound: store.outbox_bound,
        response_timeout: store.response_timeout,
        connections: usize::from(store.connections),
        ..RedisSettings::new(url, &store.prefix, shards)
    })
}

/// The nodes of a Cluster as one address: the scheme and the login stand once, before all of them.
fn cluster_url(nodes: &[Secret]) -> String {
    let mut nodes = nodes.iter().map(Secret::expose);
    let first = nodes.next().unwrap_or_default();
    let host = |node: &str| {
        let rest = node.split_once("://").map_or(node, |(_, rest)| rest);
        rest.rsplit_once('@')
            .map_or(rest, |(_, host)| host)
            .to_owned()
    };
    let others: Vec<String> = nodes.map(|node| format!(",{}", host(node))).collect();
    format!(
        "{}{}",
        first.replacen("://", "+cluster://", 1),
        others.concat()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_one_address() {
        let nodes = ["rediss://me:secret@a:1", "rediss://me:secret@b:2"];
        let nodes: Vec<Secret> = nodes.map(|node| Secret::from(node.to_owned())).into();
        assert_eq!(cluster_url(&nodes), "rediss+cluster://me:secret@a:1,b:2");
    }
}
