//! `account show`: an account as the live store has it, or, while that is away, as the ledger last knew it.

use serde::Serialize;

use super::arguments;
use super::failure::Failure;
use super::flush;
use super::output::{Output, Table};
use super::place::Place;
use crate::clock::{Clock, UnixMs};
use crate::ledger::{Ledger, LoadError, Loader};
use crate::money::{Amount, Nanos};
use crate::quota::{
    AccountId, AccountImage, AccountView, CounterState, Lot, LotId, LotState, Mode, Resource,
    Scope, Snapshot, Status, Store, StoreError, Version, Window,
};

/// All that an operator asks of an account.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    account: AccountId,
    plan: Option<String>,
    mode: Mode,
    status: Status,
    version: Version,
    /// False while the store is away: then nothing is known of holds, nor of what ended lately.
    live: bool,
    /// Live lots less debt, and less the overage that is held: what a call could take, overage not counted.
    available_nanos: Nanos,
    held_nanos: Option<Nanos>,
    debt_nanos: Nanos,
    overage_nanos: Nanos,
    lots: Vec<ShownLot>,
    limits: Vec<ShownLimit>,
}

#[derive(Debug, Serialize)]
struct ShownLot {
    lot: LotId,
    left_nanos: Nanos,
    held_nanos: Option<Nanos>,
    effective_at: String,
    expires_at: Option<String>,
    /// Whether a call may draw on it now.
    live: bool,
}

#[derive(Debug, Serialize)]
struct ShownLimit {
    scope: Scope,
    resource: Resource,
    window: Window,
    limit: Amount,
    used: Amount,
    held: Option<Amount>,
    left: Amount,
    resets_at: Option<String>,
}

/// Shows, and fails with what is away after it has shown what is known.
pub(super) async fn run(place: &Place, id: &AccountId, output: &Output) -> Result<(), Failure> {
    let away = match live(place, id).await {
        Ok(shown) => return output.answer(&shown, &shown.text()),
        Err(failure @ (Failure::Store(_) | Failure::Refused { .. })) => failure,
        Err(failure) => return Err(failure),
    };
    let ledger = place.ledger().await?;
    let image = ledger.image(id).await?;
    let image = image.ok_or_else(|| nobody(id))?;
    let shown = Shown::of_image(image, Clock::System.now());
    output.answer(&shown, &shown.text())?;
    Err(away)
}

/// Reads the store, a cold account loaded first as a call would do it, with all its changes applied.
async fn live(place: &Place, id: &AccountId) -> Result<Shown, Failure> {
    let live = place.live().await?;
    let shard = id.shard(live.store.shards());
    live.check(shard).await?;
    live.applier.apply_shard(shard).await?;
    let now = live.store.view(shard).await?.now;
    if live.store.account(id).await?.is_none() {
        // Nobody else may be there to carry to the ledger what keeps the account from being loaded (rule 22).
        flush::flusher(live).flush(shard).await?;
        let loader = Loader::new(live.store.clone(), live.ledger.clone());
        loader.load(id).await.map_err(|error| match error {
            LoadError::NoAccount => nobody(id),
            error => error.into(),
        })?;
    }
    let view = live.store.account(id).await?;
    let cold = || StoreError::Nonsense("an account that was just loaded is cold".into());
    Ok(Shown::of_view(view.ok_or_else(cold)?, now))
}

impl Shown {
    pub(super) fn of_view(view: AccountView, now: UnixMs) -> Self {
        let state_of = |lot: LotId| {
            let found = view.lots.iter().find(|(id, _)| *id == lot);
            found.map_or_else(LotState::default, |(_, state)| *state)
        };
        let lots: Vec<ShownLot> = view
            .order
            .iter()
            .map(|lot| {
                let state = state_of(lot.id);
                ShownLot::new(lot, state.left, Some(state.held), now)
            })
            .collect();
        let on_lots: Nanos = view.lots.iter().map(|(_, state)| state.held).sum();
        Self {
            available_nanos: drawable(&lots) - view.debt.left - view.debt.held,
            held_nanos: Some(on_lots + view.debt.held),
            debt_nanos: view.debt.left,
            lots,
            limits: limits(&view.snapshot, &view.counters, now, true),
            ..Self::of_snapshot(view.snapshot, true)
        }
    }

    pub(super) fn of_image(image: AccountImage, now: UnixMs) -> Self {
        let lots = image.lots.iter();
        let lots: Vec<ShownLot> = lots
            .map(|(lot, left)| ShownLot::new(lot, *left, None, now))
            .collect();
        let counters: Vec<CounterState> = image
            .counters
            .into_iter()
            .map(|counter| CounterState {
                key: counter.key,
                start: counter.start,
                used: counter.used,
                held: Amount(0),
            })
            .collect();
        Self {
            available_nanos: drawable(&lots) - image.debt,
            debt_nanos: image.debt,
            lots,
            limits: limits(&image.snapshot, &counters, now, false),
            ..Self::of_snapshot(image.snapshot, false)
        }
    }

    fn of_snapshot(snapshot: Snapshot, live: bool) -> Self {
        Self {
            account: snapshot.account,
            plan: snapshot.plan,
            mode: snapshot.mode,
            status: snapshot.status,
            version: snapshot.version,
            live,
            available_nanos: Nanos::ZERO,
            held_nanos: None,
            debt_nanos: Nanos::ZERO,
            overage_nanos: snapshot.overage,
            lots: Vec::new(),
            limits: Vec::new(),
        }
    }

    fn text(&self) -> String {
        if self.live {
            return self.facts();
        }
        let note = "The store cannot say: this is what the ledger knew last.";
        format!("{note}\n{}", self.facts())
    }

    /// All of it, for people.
    pub(super) fn facts(&self) -> String {
        let words = format!("{:?}, {:?}", self.mode, self.status);
        let mut lines = vec![
            format!("account    {} ({})", self.account, words.to_lowercase()),
            format!("plan       {}", self.plan.as_deref().unwrap_or("-")),
            format!("available  {} credits", self.available_nanos),
            format!("held       {}", credits(self.held_nanos)),
            self.debt(),
            format!("overage    {} credits", self.overage_nanos),
        ];
        if !self.lots.is_empty() {
            let mut table = Table::new(["LOT", "LEFT", "HELD", "EFFECTIVE", "EXPIRES", "LIVE"]);
            for lot in &self.lots {
                table.row([
                    lot.lot.to_string(),
                    lot.left_nanos.to_string(),
                    or_dash(lot.held_nanos),
                    lot.effective_at.clone(),
                    or_dash(lot.expires_at.as_ref()),
                    if lot.live { "yes" } else { "no" }.into(),
                ]);
            }
            lines.push(format!("\n{table}"));
        }
        if !self.limits.is_empty() {
            let mut table = Table::new(["LIMIT", "OF", "USED", "HELD", "LEFT", "RESETS"]);
            for limit in &self.limits {
                let shown = |amount| arguments::amount(&limit.resource, amount);
                table.row([
                    format!("{}/{}/{}", limit.scope, limit.resource, limit.window),
                    shown(limit.limit),
                    shown(limit.used),
                    or_dash(limit.held.map(shown)),
                    shown(limit.left),
                    or_dash(limit.resets_at.as_ref()),
                ]);
            }
            lines.push(format!("\n{table}"));
        }
        lines.join("\n")
    }
}

impl Shown {
    /// What it owes; or what adjustments gave it beyond that, which is drawn on like a lot but has no number.
    fn debt(&self) -> String {
        if self.debt_nanos < Nanos::ZERO {
            format!("adjusted   {} credits, in no lot", -self.debt_nanos)
        } else {
            format!("debt       {} credits", self.debt_nanos)
        }
    }
}

impl ShownLot {
    fn new(lot: &Lot, left: Nanos, held: Option<Nanos>, now: UnixMs) -> Self {
        Self {
            lot: lot.id,
            left_nanos: left,
            held_nanos: held,
            effective_at: arguments::shown(lot.effective_at),
            expires_at: lot.expires_at.map(arguments::shown),
            live: lot.is_live(now),
        }
    }
}

pub(super) fn nobody(id: &AccountId) -> Failure {
    Failure::Ledger(crate::ledger::admin::no_account(id))
}

fn drawable(lots: &[ShownLot]) -> Nanos {
    let live = lots.iter().filter(|lot| lot.live);
    live.map(|lot| lot.left_nanos).sum()
}

/// Every limit, in the span that a call would be counted in now: a window never goes back (rule 12).
fn limits(
    snapshot: &Snapshot,
    counters: &[CounterState],
    now: UnixMs,
    live: bool,
) -> Vec<ShownLimit> {
    let limits = snapshot.limits.iter();
    limits
        .map(|limit| {
            let key = &limit.key;
            let counter = counters.iter().find(|counter| counter.key == *key);
            let at = counter.map_or(now, |counter| now.max(counter.start));
            let span = key.window.span(at, snapshot.anchor_at);
            let counter = counter.filter(|counter| counter.start == span.start);
            let (used, held) = counter.map_or((Amount(0), Amount(0)), |c| (c.used, c.held));
            ShownLimit {
                scope: key.scope,
                resource: key.resource.clone(),
                window: key.window,
                limit: limit.limit,
                used,
                held: live.then_some(held),
                left: limit.limit - used - held,
                resets_at: key.window.resets().then(|| arguments::shown(span.end)),
            }
        })
        .collect()
}

fn credits(nanos: Option<Nanos>) -> String {
    nanos.map_or_else(|| "-".into(), |nanos| format!("{nanos} credits"))
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}
