//! Store and ledger are compared before a shard is used (rule 21), and the schema before anything is.

use std::sync::Arc;

use tollgate::clock::Clock;
use tollgate::ledger::postgres::schema::migrate;
use tollgate::ledger::{Checked, Keeper, Ledger, LedgerError, PostgresLedger};
use tollgate::quota::embedded::EmbeddedStore;
use tollgate::quota::{Epoch, ShardId, Store};

use super::world::World;
use crate::harness::postgres::{SHARDS, empty_database};

pub async fn a_store_that_lost_its_state_begins_a_new_epoch(world: World) {
    let shard = ShardId(0);
    assert_eq!(
        world.ledger.check(shard, &*world.store).await.unwrap(),
        Checked::Agreed(Epoch(1))
    );
    let empty = Arc::new(EmbeddedStore::in_memory(SHARDS, 10, Clock::System));
    let keeper = Keeper::new(empty.clone(), world.ledger.clone(), Clock::System);
    assert!(keeper.round().await);
    let adopted = empty.adopted(shard);
    assert_eq!(adopted, Some(Epoch(2)));
}

pub async fn a_store_of_another_installation_is_not_used(world: World) {
    let place = world.place.another().await;
    let other = place.ledger().await;
    let checked = other.check(ShardId(0), &*world.store).await.unwrap();
    assert!(matches!(checked, Checked::Refused(reason) if reason.contains("installation")));
}

#[tokio::test]
async fn rule_17_many_may_migrate_at_once_and_the_number_of_shards_is_for_ever() {
    let url = empty_database("migrated_by_many").await;
    let unmigrated = PostgresLedger::connect(&url).await.err().unwrap();
    assert!(
        unmigrated.to_string().contains("tollgate migrate"),
        "{unmigrated}"
    );
    let migrations = (0..4).map(|_| migrate(&url, Some(16)));
    let migrated = futures_util::future::join_all(migrations).await;
    let first = *migrated[0].as_ref().unwrap();
    for other in migrated {
        assert_eq!(other.unwrap(), first);
    }
    assert_eq!(first.shards, 16);
    assert_eq!(migrate(&url, None).await.unwrap(), first);
    let changed = migrate(&url, Some(32)).await.unwrap_err();
    assert!(matches!(changed, LedgerError::Invalid(_)), "{changed}");
    assert_eq!(
        PostgresLedger::connect(&url).await.unwrap().installation(),
        first
    );
}
