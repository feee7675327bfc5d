//! A store that lost its state heals from the ledger, in a new epoch; and a server that comes back is not taken for what
//! it was (rules 18, 19, 21 to 23).

use tollgate::ledger::{Checked, Committed, Ledger};
use tollgate::quota::embedded::EmbeddedStore;
use tollgate::quota::{AccountId, ChangeSeq, Epoch, Header, STORE_FORMAT, ShardId, Store};

use super::world::World;

/// What the world's store says its shard begins with.
async fn header(world: &World, shard: ShardId) -> Header {
    world.store.view(shard).await.unwrap().header.unwrap()
}

/// A store whose shards begin as those of the world's, and the account's with this change.
async fn store_with(world: &World, account: &AccountId, change: fn(&mut Header)) -> EmbeddedStore {
    let store = world.empty_store();
    for shard in (0..store.shards()).map(ShardId) {
        let mut header = header(world, shard).await;
        if shard == world.shard(account) {
            change(&mut header);
        }
        store.open(shard, &header).await.unwrap();
    }
    store
}

fn epoch(world: &World, account: &AccountId) -> Option<Epoch> {
    world.store.adopted(world.shard(account))
}

/// An account that has used 8 of 100, in a world that knows it.
async fn used(world: World) -> (World, AccountId) {
    let account = world.account(&[100]).await;
    let id = world.hold(&account, 10).await;
    world.settle(&account, id, 8).await;
    world.assert_one(&account).await;
    (world, account)
}

pub async fn a_wiped_store_begins_a_new_epoch_and_its_accounts_are_loaded_again(world: World) {
    let (world, account) = used(world).await;
    let shard = world.shard(&account);
    let flushed = world.ledger.row(shard).await.unwrap().flushed_seq;
    // What was not flushed is lost with the store.
    let id = world.hold(&account, 10).await;
    world.settle(&account, id, 9).await;

    let world = world.over_store(world.empty_store()).await;
    assert_eq!(epoch(&world, &account), Some(Epoch(2)));
    assert_eq!(header(&world, shard).await.out_seq, flushed);
    assert_eq!(world.store.account(&account).await.unwrap(), None);
    world.loader.load(&account).await.unwrap();
    assert_eq!(world.balance(&account).await, 92);

    // The sidecar that has kept the ending settles it again, and so does another that has.
    world.settle(&account, id, 9).await;
    world.settle(&account, id, 9).await;
    world.assert_one(&account).await;
    assert_eq!(world.balance(&account).await, 83);
    assert_eq!(world.records(&account).await.len(), 2);
    let row = world.ledger.row(shard).await.unwrap();
    assert!(row.flushed_seq > flushed, "entries are numbered on");
}

pub async fn a_store_that_went_back_begins_a_new_epoch(world: World) {
    let (world, account) = used(world).await;
    let rewound = store_with(&world, &account, |header| header.out_seq.0 -= 1).await;
    let world = world.over_store(rewound).await;
    assert_eq!(epoch(&world, &account), Some(Epoch(2)));
    world.loader.load(&account).await.unwrap();
    let id = world.hold(&account, 10).await;
    world.settle(&account, id, 2).await;
    world.assert_one(&account).await;
    assert_eq!(world.balance(&account).await, 90);
}

pub async fn a_ledger_that_went_back_begins_a_new_epoch(world: World) {
    let (world, account) = used(world).await;
    let ahead = store_with(&world, &account, |header| {
        header.applied_seq = ChangeSeq(header.applied_seq.0 + 5);
    });
    let world = world.over_store(ahead.await).await;
    assert_eq!(epoch(&world, &account), Some(Epoch(2)));
    world.loader.load(&account).await.unwrap();
    world.grant(&account, 1).await;
    world.assert_one(&account).await;
    assert_eq!(world.balance(&account).await, 93);
}

pub async fn a_rebuilt_shard_keeps_what_is_held_and_flushes_what_its_earlier_epoch_wrote(
    world: World,
) {
    let (world, account) = used(world).await;
    let shard = world.shard(&account);
    let held = world.hold(&account, 10).await;
    let ended = world.hold(&account, 20).await;
    world.settle(&account, ended, 25).await;
    let checked = world.ledger.rebuild(shard, &*world.store).await.unwrap();
    let Checked::Agreed(epoch) = checked else {
        panic!("{checked:?}");
    };
    assert_eq!(epoch, Epoch(2));
    world.store.adopt(shard, epoch);
    let view = world.store.view(shard).await.unwrap();
    assert_eq!(view.oldest_epoch, Some(Epoch(1)));
    assert_eq!(world.store.account(&account).await.unwrap(), None);

    assert_eq!(world.flush(&account).await, 1, "of the earlier epoch");
    assert_eq!(world.store.view(shard).await.unwrap().oldest_epoch, None);
    world.loader.load(&account).await.unwrap();
    world.assert_no_drift(&account).await;
    world.settle(&account, held, 3).await;
    world.assert_one(&account).await;
    assert_eq!(world.balance(&account).await, 100 - 8 - 25 - 3);
    assert_eq!(world.records(&account).await.len(), 3);
}

pub async fn an_entry_of_an_earlier_epoch_that_is_recorded_already_is_undone(world: World) {
    let (world, account) = used(world).await;
    let shard = world.shard(&account);
    let lapsed = world.hold(&account, 10).await;
    world.pass_ms(super::world::DEADLINE_MS);
    world.lapse(&account, lapsed).await;
    world.flush(&account).await;
    // The settle that corrects the lapse, and a duplicate that the store knew nothing of, are of the first epoch.
    world.settle(&account, lapsed, 8).await;
    world.pass_ms(tollgate::quota::ENDED_MARK_MS + 1);
    world.settle(&account, lapsed, 8).await;
    let checked = world.ledger.rebuild(shard, &*world.store).await.unwrap();
    let Checked::Agreed(epoch) = checked else {
        panic!("{checked:?}");
    };
    world.store.adopt(shard, epoch);
    world.flush(&account).await;
    world.loader.load(&account).await.unwrap();
    world.assert_one(&account).await;
    assert_eq!(world.balance(&account).await, 100 - 8 - 8);
    assert_eq!(world.records(&account).await.len(), 3);
}

pub async fn two_checks_at_once_agree(world: World) {
    let (world, account) = used(world).await;
    let empty = world.empty_store();
    let neighbour = world.neighbour().await;
    for shard in (0..empty.shards()).map(ShardId) {
        let (one, two) = tokio::join!(
            world.ledger.check(shard, &empty),
            neighbour.ledger.check(shard, &empty)
        );
        let one = one.unwrap();
        assert_eq!(one, two.unwrap());
        // A later epoch than the second: one may look between the other's commit and its opening of the store.
        let row = world.ledger.row(shard).await.unwrap();
        let epoch = row.home.unwrap().epoch;
        assert!(epoch >= Epoch(2), "{epoch:?}");
        assert_eq!(one, Checked::Agreed(epoch));
    }
    world.assert_posted(&account).await;
}

pub async fn rebuilds_at_once_end_in_one_epoch(world: World) {
    let (world, account) = used(world).await;
    let shard = world.shard(&account);
    let neighbour = world.neighbour().await;
    let (one, two) = tokio::join!(
        world.ledger.rebuild(shard, &*world.store),
        neighbour.ledger.rebuild(shard, &*world.store)
    );
    one.unwrap();
    two.unwrap();
    let agreed = world.ledger.check(shard, &*world.store).await.unwrap();
    let header = header(&world, shard).await;
    assert!(
        matches!(agreed, Checked::Agreed(epoch) if epoch == header.epoch),
        "{agreed:?}"
    );
}

pub async fn another_installation_is_not_touched_even_to_rebuild(world: World) {
    let (world, account) = used(world).await;
    let shard = world.shard(&account);
    let before = header(&world, shard).await;
    let place = world.place.another().await;
    let other = place.ledger().await;
    let refused = other.rebuild(shard, &*world.store).await.unwrap();
    assert!(
        matches!(&refused, Checked::Refused(reason) if reason.contains("installation")),
        "{refused:?}"
    );
    assert_eq!(other.row(shard).await.unwrap().home, None);
    assert_eq!(header(&world, shard).await, before);
    assert_eq!(before.format, STORE_FORMAT);
}

/// Found by the model: the second flusher's duplicates were undone in balances that had never had them.
pub async fn two_flushers_with_the_same_entry_of_an_earlier_epoch_move_it_once(world: World) {
    let (world, account) = used(world).await;
    let shard = world.shard(&account);
    let id = world.hold(&account, 10).await;
    world.settle(&account, id, 5).await;
    let rebuilt = world.ledger.rebuild(shard, &*world.store).await.unwrap();
    assert_eq!(rebuilt, Checked::Agreed(Epoch(2)));
    world.store.adopt(shard, Epoch(2));
    let late = world.store.outbox(shard, 10).await.unwrap();
    assert_eq!(world.flush(&account).await, 1);
    world.loader.load(&account).await.unwrap();

    let committed = world.ledger.commit(shard, &late).await.unwrap();
    assert!(matches!(committed, Committed::UpTo { changed: false, .. }));
    world.assert_one(&account).await;
    assert_eq!(world.balance(&account).await, 87);
}

pub async fn what_was_read_in_an_earlier_epoch_of_a_server_is_refused(world: World) {
    let (world, account) = used(world).await;
    let shard = world.shard(&account);
    let id = world.hold(&account, 10).await;
    world.settle(&account, id, 5).await;
    let read = world.store.outbox(shard, 10).await.unwrap();
    assert_eq!((read.epoch, read.entries.len()), (Epoch(1), 1));

    // Another server takes over with the same data, and then the first one again.
    let replica = store_with(&world, &account, |_| {}).await;
    let checked = world.ledger.check(shard, &replica).await.unwrap();
    assert_eq!(checked, Checked::Agreed(Epoch(2)));
    let refused = world.ledger.commit(shard, &read).await.unwrap();
    assert_eq!(refused, Committed::OtherServer, "the replica keeps it");
    let checked = world.ledger.check(shard, &*world.store).await.unwrap();
    assert_eq!(checked, Checked::Agreed(Epoch(3)));
    let refused = world.ledger.commit(shard, &read).await.unwrap();
    assert_eq!(refused, Committed::OtherServer, "read in the first epoch");

    world.store.adopt(shard, Epoch(3));
    world.flush(&account).await;
    world.loader.load(&account).await.unwrap();
    world.assert_one(&account).await;
    assert_eq!(world.balance(&account).await, 87);
}

pub async fn what_two_servers_that_parted_have_numbered_alike_is_all_recorded(world: World) {
    let (world, account) = used(world).await;
    let shard = world.shard(&account);
    // What ends now, the replica never hears of.
    let replica = store_with(&world, &account, |_| {}).await;
    let unheard = world.hold(&account, 10).await;
    world.settle(&account, unheard, 5).await;

    let replica = world.over_store(replica).await;
    replica.loader.load(&account).await.unwrap();
    let heard = replica.hold(&account, 10).await;
    replica.settle(&account, heard, 7).await;
    replica.assert_one(&account).await;

    // The first server is in use again, and nobody is left who would settle again what it had acknowledged.
    let checked = world.ledger.check(shard, &*world.store).await.unwrap();
    assert_eq!(checked, Checked::Agreed(Epoch(3)));
    world.store.adopt(shard, Epoch(3));
    assert_eq!(world.flush(&account).await, 1);
    world.loader.load(&account).await.unwrap();
    world.assert_one(&account).await;
    assert_eq!(world.balance(&account).await, 100 - 8 - 7 - 5);
    assert_eq!(world.records(&account).await.len(), 3);
}
