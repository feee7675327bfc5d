//! What a shard's row and its header in the store say of one another (rule 21).

use uuid::Uuid;

use super::Looked;
use crate::quota::{
    ChangeSeq, Entry, EntryKind, Epoch, Header, OutSeq, Outbox, RunId, STORE_FORMAT, ShardView,
};

/// Where a shard is: its epoch in the store, and the server that keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Home {
    /// Its epoch.
    pub epoch: Epoch,
    /// The server's.
    pub run_id: RunId,
}

/// A shard as the ledger knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ShardRow {
    /// `None` until the store was opened for the first time.
    pub home: Option<Home>,
    /// Every outbox entry up to this one is in the ledger.
    pub flushed_seq: OutSeq,
    /// The number of the last change.
    pub last_change: ChangeSeq,
}

impl ShardRow {
    /// Takes note of what a look at the store found, and says what to do. The caller sees to it that the row stands still
    /// from before the store was read until it is saved, so that what the store says is no older than what the row says;
    /// it is to be saved before anything is written to the store.
    ///
    /// With `anew`, a new epoch begins although nothing is lost.
    // holds: 1, never oversold; 3, never lost
    pub fn look(&mut self, install: Uuid, view: &ShardView, anew: bool) -> Looked {
        let header = view.header.as_ref();
        if let Some(reason) = header.and_then(|header| refusal(install, header)) {
            return Looked::Refused(reason);
        }
        let run_id = &view.run_id;
        let lost = match (&self.home, header) {
            (None, _) => Some("it was never used".to_owned()),
            (Some(_), None) => Some("the store has no header of it".to_owned()),
            (Some(home), Some(header)) => self.lost(home, header, run_id),
        };
        let lost = lost.or_else(|| anew.then(|| "it is to be rebuilt".to_owned()));
        let Some(reason) = lost else {
            let home = self.home.as_ref();
            return Looked::Agreed(home.expect("a shard without a home is new").epoch);
        };
        let epochs = [
            self.home.as_ref().map(|home| home.epoch),
            header.map(|header| header.epoch),
        ];
        let latest = epochs.into_iter().flatten().max();
        // Of every epoch that ledger or store has known, this is a later one.
        let epoch = Epoch(latest.map_or(0, |epoch| epoch.0) + 1);
        self.home = Some(Home {
            epoch,
            run_id: run_id.clone(),
        });
        let header = Header {
            install,
            format: STORE_FORMAT,
            epoch,
            out_seq: header.map_or(self.flushed_seq, |header| {
                header.out_seq.max(self.flushed_seq)
            }),
            // Every account is cold now, and will be loaded with all changes up to this one.
            applied_seq: self.last_change,
        };
        Looked::Open { header, reason }
    }

    /// Whether entries that were read there are this shard's, and not of an epoch that was (rule 19).
    pub fn is_of(&self, outbox: &Outbox) -> bool {
        let same = |home: &Home| home.run_id == outbox.run_id && home.epoch == outbox.epoch;
        self.home.as_ref().is_some_and(same)
    }

    /// Whether an entry may say something that the ledger does not know. What is numbered up to `flushed_seq` is known, but
    /// for one case: a server that comes back with what it had when another took over has numbered its entries as that one
    /// did. So the endings of an earlier epoch count whatever their number, and are known by their ids (rule 24).
    // holds: 3, never lost; 4, never twice
    pub fn is_news(&self, entry: &Entry) -> bool {
        let of_this_epoch = |home: &Home| home.epoch == entry.epoch;
        let may_be_of_another_branch = !self.home.as_ref().is_some_and(of_this_epoch)
            && matches!(entry.kind, EntryKind::Ended(_));
        entry.seq > self.flushed_seq || may_be_of_another_branch
    }

    /// Why the store has lost the shard, or may have, in words.
    fn lost(&self, home: &Home, header: &Header, run_id: &RunId) -> Option<String> {
        if home.run_id != *run_id {
            // It may have all that the one before it had, or not the last of it, or what it had long ago: nobody can say.
            Some("another server keeps it now".to_owned())
        } else if header.epoch != home.epoch {
            Some(format!(
                "the store is in epoch {}, the ledger in {}",
                header.epoch, home.epoch
            ))
        } else if header.out_seq < self.flushed_seq {
            Some(format!(
                "the store went back: its last entry is {}, the ledger has {}",
                header.out_seq, self.flushed_seq
            ))
        } else if header.applied_seq > self.last_change {
            Some(format!(
                "the ledger went back: the store has applied change {}, the ledger's last is {}",
                header.applied_seq, self.last_change
            ))
        } else {
            None
        }
    }
}

/// Why this store is not to be touched at all, in words.
fn refusal(install: Uuid, header: &Header) -> Option<String> {
    if header.install != install {
        Some(format!(
            "it belongs to installation {}. Are [store] url and prefix those that this ledger was used with?",
            header.install
        ))
    } else if header.format != STORE_FORMAT {
        Some(format!(
            "its format is {}, this program's is {STORE_FORMAT}. Run the same release of Tollgate for all sidecars and \
             commands; the README says how to go over to one with another format",
            header.format
        ))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMs;

    const INSTALL: Uuid = Uuid::from_u128(1);

    fn view(header: Option<Header>, run_id: &str) -> ShardView {
        ShardView {
            header,
            run_id: RunId(run_id.into()),
            now: UnixMs(0),
            noeviction: true,
            outbox_len: 0,
            oldest_epoch: None,
        }
    }

    fn new_row() -> ShardRow {
        ShardRow {
            home: None,
            flushed_seq: OutSeq(0),
            last_change: ChangeSeq(3),
        }
    }

    fn opened(row: &mut ShardRow, header: Option<Header>, anew: bool) -> Header {
        match row.look(INSTALL, &view(header, "one"), anew) {
            Looked::Open { header, .. } => header,
            other => panic!("a new epoch was due: {other:?}"),
        }
    }

    fn agreed(epoch: i64) -> Looked {
        Looked::Agreed(Epoch(epoch))
    }

    #[test]
    fn a_shard_that_agrees_is_left_alone() {
        let mut row = new_row();
        let header = opened(&mut row, None, false);
        assert_eq!((header.epoch, header.applied_seq), (Epoch(1), ChangeSeq(3)));
        let looked = row.look(INSTALL, &view(Some(header), "one"), false);
        assert_eq!(looked, agreed(1));
    }

    #[test]
    fn another_server_is_another_epoch_even_under_a_name_that_was_known() {
        let mut row = new_row();
        let mut header = opened(&mut row, None, false);
        for (name, epoch) in [("two", 2), ("one", 3)] {
            let looked = row.look(INSTALL, &view(Some(header.clone()), name), false);
            let Looked::Open { header: next, .. } = looked else {
                panic!("a new epoch was due: {looked:?}");
            };
            header = next;
            let looked = row.look(INSTALL, &view(Some(header.clone()), name), false);
            assert_eq!(looked, agreed(epoch));
        }
    }

    #[test]
    fn whatever_is_lost_begins_an_epoch_that_nobody_has_known() {
        let mut row = new_row();
        let header = opened(&mut row, None, false);
        row.flushed_seq = OutSeq(7);
        let odd = |change: fn(&mut Header)| {
            let mut header = header.clone();
            header.out_seq = OutSeq(9);
            change(&mut header);
            Some(header)
        };
        let renewed = |header: Option<Header>, anew| opened(&mut row.clone(), header, anew);
        let missing = renewed(None, false);
        assert_eq!((missing.epoch, missing.out_seq), (Epoch(2), OutSeq(7)));
        let rewound = renewed(odd(|h| h.out_seq = OutSeq(6)), false);
        assert_eq!((rewound.epoch, rewound.out_seq), (Epoch(2), OutSeq(7)));
        let later = renewed(odd(|h| h.epoch = Epoch(5)), false);
        assert_eq!((later.epoch, later.out_seq), (Epoch(6), OutSeq(9)));
        let ledger_went_back = renewed(odd(|h| h.applied_seq = ChangeSeq(4)), false);
        assert_eq!(ledger_went_back.applied_seq, ChangeSeq(3));
        let rebuilt = renewed(odd(|_| {}), true);
        assert_eq!((rebuilt.epoch, rebuilt.out_seq), (Epoch(2), OutSeq(9)));
    }

    #[test]
    fn what_belongs_to_others_is_not_touched() {
        let mut row = new_row();
        let header = opened(&mut row, None, false);
        let before = row.clone();
        for change in [
            |h: &mut Header| h.install = Uuid::from_u128(2),
            |h: &mut Header| h.format += 1,
        ] {
            let mut header = header.clone();
            change(&mut header);
            let looked = row.look(INSTALL, &view(Some(header), "one"), true);
            assert!(matches!(looked, Looked::Refused(_)), "{looked:?}");
            assert_eq!(row, before);
        }
    }
}
