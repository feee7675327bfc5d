//! An entry that nobody can read keeps neither the others nor their account (rule 26).

use tollgate::quota::{Epoch, OutSeq, Store};

use crate::harness::redis;
use crate::store::stage::Stage;

#[tokio::test]
async fn an_entry_that_makes_no_sense_is_handed_over_as_it_is() {
    let stage = Stage::redis().await.with_lots(&[10]).await;
    let first = stage.end(&stage.settled(&stage.claim(0), 1, &[])).await;
    let stream = format!("{{{}}}:o", stage.tag());
    let header = format!("{{{}}}:h", stage.tag());
    let server = redis::server();
    let account = stage.account.to_string();
    for fields in [
        ["account", &account, "entry", "\u{0}garbage"],
        ["nothing", "known", "at", "all"],
    ] {
        let seq: i64 = server.command(&["HINCRBY", &header, "out_seq", "1"]);
        let id = format!("{seq}-0");
        let mut words = vec!["XADD", &stream, &id];
        words.extend(fields);
        server.command::<String>(&words);
    }
    let last = stage.end(&stage.settled(&stage.claim(0), 1, &[])).await;

    let outbox = stage.store.outbox(stage.shard, 10).await.unwrap();
    let seqs: Vec<OutSeq> = outbox.entries.iter().map(|entry| entry.seq).collect();
    assert_eq!(seqs, [first.seq, last.seq]);
    let [one, other] = &outbox.unreadable[..] else {
        panic!("{:?}", outbox.unreadable);
    };
    assert_eq!((one.seq, other.seq), (OutSeq(2), OutSeq(3)));
    assert_eq!(one.account.as_ref(), Some(&stage.account));
    assert_eq!(other.account, None);
    assert!(one.raw.windows(7).any(|bytes| bytes == b"garbage"));
    assert_eq!(stage.account().await.unflushed.len(), 2);

    // Whatever its epoch was, nothing is loaded before it is out of the way.
    stage.store.forget(stage.shard, &[first.seq]).await.unwrap();
    let view = stage.store.view(stage.shard).await.unwrap();
    assert_eq!(view.oldest_epoch, Some(Epoch(0)));
}
