//! What a shard's row and its header in the store say of one another (rule 21, with a single epoch).

use uuid::Uuid;

use crate::quota::{
    ChangeSeq, Epoch, Header, OutSeq, RunId, STORE_FORMAT, ShardId, ShardView, Store, StoreError,
};

/// The first life of a shard.
const FIRST_EPOCH: Epoch = Epoch(1);

/// A shard's life in the store, and the server that keeps it.
pub type Home = (Epoch, RunId);

/// A shard as the ledger knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardRow {
    /// `None` until the store was opened for the first time.
    pub home: Option<Home>,
    /// Every outbox entry up to this one is in the ledger.
    pub flushed_seq: OutSeq,
    /// The number of the last change.
    pub last_change: ChangeSeq,
}

/// What to do about a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// It was never used: write this header, then look again.
    Open(Header),
    /// Store and ledger agree.
    Agreed(Epoch),
    /// They do not, in words.
    Lost(String),
}

/// Where a shard is, or in words why the store has lost it. Its row is locked by the caller, so what the store says here
/// is no older than what the row says. A shard that was never used is opened.
pub async fn look<S: Store>(
    install: Uuid,
    shard: ShardId,
    row: &ShardRow,
    store: &S,
) -> Result<Result<Home, String>, StoreError> {
    let mut view = store.view(shard).await?;
    let mut verdict = compare(install, row, &view);
    if let Verdict::Open(header) = &verdict {
        store.open(shard, header).await?;
        view = store.view(shard).await?;
        verdict = compare(install, row, &view);
    }
    Ok(match verdict {
        Verdict::Agreed(epoch) => Ok((epoch, view.run_id)),
        Verdict::Lost(reason) => Err(reason),
        Verdict::Open(_) => Err("the header just written is not there".into()),
    })
}

fn compare(install: Uuid, row: &ShardRow, view: &ShardView) -> Verdict {
    let expected = row.home.as_ref().map(|(epoch, _)| *epoch);
    let Some(header) = &view.header else {
        if expected.is_some() {
            return Verdict::Lost("the store has no header of it".into());
        }
        return Verdict::Open(Header {
            install,
            format: STORE_FORMAT,
            epoch: FIRST_EPOCH,
            out_seq: row.flushed_seq,
            applied_seq: ChangeSeq(0),
        });
    };
    let epoch = expected.unwrap_or(FIRST_EPOCH);
    if header.install != install {
        Verdict::Lost(format!("it belongs to installation {}", header.install))
    } else if header.format != STORE_FORMAT {
        Verdict::Lost(format!(
            "its format is {}, this program's is {STORE_FORMAT}",
            header.format
        ))
    } else if header.epoch != epoch {
        Verdict::Lost(format!(
            "the store is in epoch {}, the ledger in {epoch}",
            header.epoch
        ))
    } else if header.out_seq < row.flushed_seq {
        Verdict::Lost(format!(
            "the store went back: its last entry is {}, the ledger has {}",
            header.out_seq, row.flushed_seq
        ))
    } else if header.applied_seq > row.last_change {
        Verdict::Lost(format!(
            "the ledger went back: the store has applied change {}, the ledger's last is {}",
            header.applied_seq, row.last_change
        ))
    } else {
        Verdict::Agreed(epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMs;

    fn view(header: Option<Header>) -> ShardView {
        ShardView {
            header,
            run_id: RunId("server".into()),
            now: UnixMs(0),
            noeviction: true,
            outbox_len: 0,
        }
    }

    #[test]
    fn a_shard_is_opened_once_and_never_again() {
        let install = Uuid::from_u128(1);
        let mut row = ShardRow {
            home: None,
            flushed_seq: OutSeq(0),
            last_change: ChangeSeq(3),
        };
        let Verdict::Open(header) = compare(install, &row, &view(None)) else {
            panic!("a new shard is opened");
        };
        // Whoever opened it may have died before the row was written.
        let opened = view(Some(header.clone()));
        assert_eq!(compare(install, &row, &opened), Verdict::Agreed(Epoch(1)));
        row.home = Some((Epoch(1), RunId("server".into())));
        assert_eq!(compare(install, &row, &opened), Verdict::Agreed(Epoch(1)));

        let lost = |row: &ShardRow, header: Option<Header>| {
            matches!(compare(install, row, &view(header)), Verdict::Lost(_))
        };
        assert!(lost(&row, None));
        let odd = |change: fn(&mut Header)| {
            let mut header = header.clone();
            change(&mut header);
            Some(header)
        };
        assert!(lost(&row, odd(|h| h.install = Uuid::from_u128(2))));
        assert!(lost(&row, odd(|h| h.format += 1)));
        assert!(lost(&row, odd(|h| h.epoch = Epoch(2))));
        assert!(lost(&row, odd(|h| h.applied_seq = ChangeSeq(4))));
        row.flushed_seq = OutSeq(1);
        assert!(lost(&row, Some(header)));
    }
}
