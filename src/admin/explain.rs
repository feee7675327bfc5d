//! `explain`: why an account has what it has: every limit, lot and open reservation, and all that is still on its way;
//! or what became of a reservation.
//!
//! It loads nothing and changes nothing: an account that no call has loaded yet is explained from the ledger.

use serde::Serialize;
use uuid::Uuid;

use super::arguments;
use super::failure::Failure;
use super::history;
use super::output::{Output, Table};
use super::place::{Glance, Place};
use super::show::{Shown, nobody};
use crate::clock::{Clock, UnixMs};
use crate::ledger::Ledger;
use crate::ledger::audit::{Books, Page};
use crate::money::Nanos;
use crate::quota::{
    AccountId, AccountView, ChangeSeq, Count, Entry, EntryKind, LotId, Moved, OpenHold, OutSeq,
    ReservationId, Store, Withdrawal, WithdrawalReason,
};

const COLD: &str = "No call has loaded it yet: this is what the ledger knows.";
const AWAY: &str = "The store cannot say: this is what the ledger knew last.";

#[derive(Debug, Serialize)]
struct Explained {
    #[serde(flatten)]
    shown: Shown,
    reservations: Vec<ShownHold>,
    pending: Pending,
    #[serde(skip)]
    note: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct ShownHold {
    reservation: ReservationId,
    held_nanos: Nanos,
    lots: Vec<(LotId, Nanos)>,
    counts: Vec<Count>,
    lapses_at: String,
}

/// What one side knows and the other does not yet.
#[derive(Debug, Default, Serialize)]
struct Pending {
    changes: Vec<PendingChange>,
    entries: Vec<PendingEntry>,
    withdrawals: Vec<PendingWithdrawal>,
    quarantined: Vec<PendingQuarantined>,
}

/// A change that the store has not applied.
#[derive(Debug, Serialize)]
struct PendingChange {
    seq: ChangeSeq,
    moved: Moved,
}

/// An entry that the ledger does not have.
#[derive(Debug, Serialize)]
struct PendingEntry {
    seq: OutSeq,
    what: &'static str,
    reservation: Option<ReservationId>,
    at: String,
    moved: Moved,
}

/// Credit that is to be taken out of a lot.
#[derive(Debug, Serialize)]
struct PendingWithdrawal {
    id: Uuid,
    lot: LotId,
    reason: WithdrawalReason,
    amount_nanos: Nanos,
}

/// An entry that the ledger could not take in.
#[derive(Debug, Serialize)]
struct PendingQuarantined {
    seq: OutSeq,
    reason: String,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  tollgate explain acme
  tollgate explain 0198c5f0-6f3e-7c41-9d0a-2b8e64d1a7f3 --json

A reservation's id is in the answer's header x-tollgate-reservation, and is that of its usage record.";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The account's id, or the id of a reservation that has ended.
    #[arg(value_name = "ACCOUNT|RESERVATION")]
    subject: AccountId,
}

pub(super) async fn run(
    place: &Place,
    arguments: &Arguments,
    output: &Output,
) -> Result<(), Failure> {
    let subject = &arguments.subject;
    let Ok(reservation) = Uuid::try_parse(subject.as_str()) else {
        return account(place, subject, output).await;
    };
    if history::tell(place, ReservationId(reservation), output).await? {
        return Ok(());
    }
    if place.ledger().await?.image(subject).await?.is_none() {
        return Err(Failure::Usage(format!(
            "there is no account `{subject}`, and no record of such a reservation: while it is open, or on its way to \
             the ledger, it is explained with its account"
        )));
    }
    account(place, subject, output).await
}

async fn account(place: &Place, id: &AccountId, output: &Output) -> Result<(), Failure> {
    let ledger = place.ledger().await?;
    let image = ledger.image(id).await?.ok_or_else(|| nobody(id))?;
    let withdrawals = image.withdrawals.iter().map(PendingWithdrawal::of);
    let mut pending = Pending {
        withdrawals: withdrawals.collect(),
        quarantined: quarantined(place, id).await?,
        ..Pending::default()
    };
    let (seen, away) = match seen(place, id).await {
        Ok(seen) => (seen, None),
        Err(failure @ (Failure::Store(_) | Failure::Refused { .. })) => (None, Some(failure)),
        Err(failure) => return Err(failure),
    };
    let (shown, reservations, note) = if let Some((books, view, now)) = seen {
        pending.changes = changes(&books, &view);
        let unflushed = view.unflushed.iter();
        let unflushed = unflushed.filter(|entry| entry.seq > books.flushed_seq);
        pending.entries = unflushed.map(PendingEntry::of).collect();
        let holds = view.holds.iter().map(ShownHold::of).collect();
        (Shown::of_view(view, now), holds, None)
    } else {
        let note = if away.is_some() { AWAY } else { COLD };
        let shown = Shown::of_image(image, Clock::System.now());
        (shown, Vec::new(), Some(note))
    };
    let explained = Explained {
        shown,
        reservations,
        pending,
        note,
    };
    output.answer(&explained, &explained.text())?;
    away.map_or(Ok(()), Err)
}

/// Store and ledger at one moment; `None` where the store does not have the account.
async fn seen(
    place: &Place,
    id: &AccountId,
) -> Result<Option<(Books, AccountView, UnixMs)>, Failure> {
    let live = place.live().await?;
    let shard = id.shard(live.store.shards());
    match live.glance(shard).await? {
        Glance::Live => {}
        Glance::Unused | Glance::Cold(_) => return Ok(None),
        Glance::Refused(reason) => return Err(Failure::Refused { shard, reason }),
    }
    let now = live.store.view(shard).await?.now;
    let page = Page::Only(id.clone());
    let books = live.ledger.books(shard, &*live.store, &page).await?;
    let pair = books.into_iter().next();
    Ok(pair.and_then(|(books, view)| Some((books, view?, now))))
}

async fn quarantined(place: &Place, id: &AccountId) -> Result<Vec<PendingQuarantined>, Failure> {
    let (admin, ledger) = (place.admin().await?, place.ledger().await?);
    let shard = id.shard(ledger.installation().shards);
    let mut of_it = Vec::new();
    let mut after = OutSeq(0);
    loop {
        let entries = admin.quarantined(shard, after).await?;
        let Some(last) = entries.last() else {
            return Ok(of_it);
        };
        after = last.seq;
        let entries = entries.into_iter();
        let entries = entries.filter(|entry| entry.account.as_ref() == Some(id));
        of_it.extend(entries.map(|entry| PendingQuarantined {
            seq: entry.seq,
            reason: entry.reason,
        }));
    }
}

fn changes(books: &Books, view: &AccountView) -> Vec<PendingChange> {
    let applied = view.applied_seq.max(view.as_of);
    let waiting = books.changes.iter().filter(|(seq, _)| *seq > applied);
    waiting
        .map(|(seq, moved)| PendingChange {
            seq: *seq,
            moved: moved.clone(),
        })
        .collect()
}

impl ShownHold {
    fn of(hold: &OpenHold) -> Self {
        Self {
            reservation: hold.id,
            held_nanos: hold.reserved,
            lots: hold.slices.clone(),
            counts: hold.counts.clone(),
            lapses_at: arguments::shown(hold.deadline),
        }
    }
}

impl PendingEntry {
    fn of(entry: &Entry) -> Self {
        let (what, reservation) = match &entry.kind {
            EntryKind::Ended(ended) => (ended.outcome.as_str(), Some(ended.id)),
            EntryKind::Repaid => ("repaid", None),
            EntryKind::Expired => ("expired", None),
            EntryKind::Withdrawn(_) => ("withdrawn", None),
        };
        Self {
            seq: entry.seq,
            what,
            reservation,
            at: arguments::shown(entry.at),
            moved: entry.moved.clone(),
        }
    }
}

impl PendingWithdrawal {
    fn of(withdrawal: &Withdrawal) -> Self {
        Self {
            id: withdrawal.id,
            lot: withdrawal.lot,
            reason: withdrawal.reason,
            amount_nanos: withdrawal.amount,
        }
    }
}

impl Explained {
    fn text(&self) -> String {
        let mut lines: Vec<String> = self.note.iter().map(ToString::to_string).collect();
        lines.push(self.shown.facts());
        let of_ledger_alone = self.note == Some(AWAY);
        if of_ledger_alone {
            lines.push("\nWhich reservations are open, the store cannot say.".into());
        } else if self.reservations.is_empty() {
            lines.push("\nNo reservation is open.".into());
        } else {
            let mut table = Table::new(["RESERVATION", "HELD", "COUNTS", "LAPSES"]);
            for hold in &self.reservations {
                let counts = hold.counts.iter().map(|count| {
                    let amount = arguments::amount(&count.key.resource, count.amount);
                    format!("{} {amount}", count.key)
                });
                table.row([
                    hold.reservation.to_string(),
                    hold.held_nanos.to_string(),
                    counts.collect::<Vec<_>>().join(", "),
                    hold.lapses_at.clone(),
                ]);
            }
            lines.push(format!("\n{table}"));
        }
        if !(of_ledger_alone && self.pending.is_empty()) {
            lines.push(self.pending.text());
        }
        if of_ledger_alone {
            lines.push("\nWhat else is pending is known once the store answers.".into());
        }
        lines.join("\n")
    }
}

impl Pending {
    fn is_empty(&self) -> bool {
        let Self {
            changes,
            entries,
            withdrawals,
            quarantined,
        } = self;
        changes.is_empty() && entries.is_empty() && withdrawals.is_empty() && quarantined.is_empty()
    }

    fn text(&self) -> String {
        let mut table = Table::new(["PENDING", "SINCE", "CREDITS", "WHAT"]);
        for change in &self.changes {
            table.row([
                format!("change {}", change.seq),
                "-".into(),
                change.moved.wallet().to_string(),
                "the store has yet to apply it".into(),
            ]);
        }
        for entry in &self.entries {
            let of = entry.reservation.map(|id| format!(" {id}"));
            table.row([
                format!("entry {}", entry.seq),
                entry.at.clone(),
                entry.moved.wallet().to_string(),
                format!(
                    "{}{}: the ledger has yet to take it in",
                    entry.what,
                    of.unwrap_or_default()
                ),
            ]);
        }
        for withdrawal in &self.withdrawals {
            let reason = withdrawal.reason.as_str();
            table.row([
                format!("withdrawal {}", withdrawal.id),
                "-".into(),
                withdrawal.amount_nanos.to_string(),
                format!("{reason} of lot {}, at the most", withdrawal.lot),
            ]);
        }
        for entry in &self.quarantined {
            table.row([
                format!("entry {}", entry.seq),
                "-".into(),
                "-".into(),
                format!("in quarantine: {}", entry.reason),
            ]);
        }
        if table.is_empty() {
            return "\nNothing is pending: store and ledger know the same.".into();
        }
        format!("\n{table}")
    }
}
