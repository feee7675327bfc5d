//! Admit: hold what the call may use at the most, or refuse it with all the numbers.

use std::sync::Arc;
use std::time::Instant;

use rust_decimal::Decimal;

use super::Sidecar;
use super::gate::Call;
use super::identify::Caller;
use super::meter::{Facts, Meter};
use super::prices;
use super::quote::{Demand, Quote, Tariff, Unpriceable};
use super::refusal::Refusal;
use super::route::Route;
use super::shortage::Shortage;
use crate::clock::UnixMs;
use crate::config::Unpriced;
use crate::ledger::{Ledger, LoadError};
use crate::money::Nanos;
use crate::quota::{
    AccountId, Admission, Mode, Reservation, ReservationId, Reserve, Reserved, Seen, Snapshot,
    Status, Store, StoreError, Version,
};

/// How often an answer of the store may ask for another attempt: a stale snapshot, a cold account and a window that
/// moved may each come twice, when changes keep coming.
const ATTEMPTS: usize = 6;

pub(super) const AWAY: Refusal = Refusal::QuotaUnavailable("the store is away");
const BUSY: Refusal = Refusal::QuotaUnavailable(
    "too many calls are open, or have ended and wait for the store or the ledger",
);
const RESTLESS: Refusal = Refusal::QuotaUnavailable("the account keeps changing");

/// A call that may be forwarded, as long as its reservation lives.
pub struct Admitted {
    /// Its id, which the usage record will have too.
    pub id: ReservationId,
    /// Says how it ends.
    pub meter: Arc<Meter>,
    /// What the decision saw; nothing where the store was away.
    pub seen: Option<Seen>,
    /// In monitor mode, what it would have been refused with.
    pub would_refuse: Option<&'static str>,
}

impl<S: Store + 'static, L: Ledger + 'static> Sidecar<S, L> {
    /// Reserves for a call. Everything that can change meanwhile, plan, keys, limits, lots, is exact here, because the
    /// store refuses a claim that was built from an older version (rule 13).
    // holds: 1, never oversold
    pub(super) async fn admit(
        &self,
        route: &Route,
        mut caller: Caller,
        call: &Call,
    ) -> Result<(Admitted, Reservation), Refusal> {
        let account = caller.identity.account.clone();
        let mut snapshot = self.snapshots.cached(&account);
        let mut now = self.clock.now();
        let mut room = self.settler.room();
        for _ in 0..ATTEMPTS {
            snapshot = self.checked(snapshot, &mut caller).await?;
            let meter = Arc::new(self.meter(route, &caller, call, &snapshot, now)?);
            let permit = room.take().ok_or(BUSY)?;
            let id = ReservationId::new();
            let open = |permit| {
                self.settler
                    .open(permit, id, account.clone(), meter.clone())
            };
            if !self.is_checked(&account) {
                let call = self.go_on_without_store(route, &snapshot, &meter, id)?;
                let reservation = open(permit);
                return self
                    .admit_bounded(route, id, meter, reservation, call, caller.would_refuse)
                    .await;
            }
            let reservation = open(permit);
            let claim = Arc::new(self.claim(id, &meter, &snapshot));
            let asked = Instant::now();
            let answer = self.store.reserve(&claim).await;
            self.metrics.reserve.record(asked.elapsed());
            let answer = match answer {
                // It may have been held all the same: dropping the reservation releases it (rule 5).
                Err(error) => {
                    if matches!(error, StoreError::Lost { .. }) {
                        self.keeper.wake();
                    }
                    let call = self.go_on_without_store(route, &snapshot, &meter, id)?;
                    return self
                        .admit_bounded(route, id, meter, reservation, call, caller.would_refuse)
                        .await;
                }
                Ok(answer) => answer,
            };
            if let Reserved::Held { fits, seen, .. } = answer {
                reservation.was_held(claim);
                let shortage = || Shortage::explain(&snapshot, meter.quote(), &seen);
                let would_refuse = (!fits).then(shortage).flatten();
                let would_refuse = would_refuse
                    .map(|shortage| shortage.kind.code())
                    .or(caller.would_refuse);
                meter.would_refuse(would_refuse);
                route.metrics.admitted(would_refuse);
                let admitted = Admitted {
                    id,
                    meter,
                    seen: Some(seen),
                    would_refuse,
                };
                return Ok((admitted, reservation));
            }
            room = reservation.was_not_held();
            match answer {
                Reserved::Short(seen) => {
                    let shortage = Shortage::explain(&snapshot, meter.quote(), &seen);
                    return Err(shortage.map_or(RESTLESS, Refusal::from));
                }
                Reserved::Stale(newer) => snapshot = self.snapshots.keep(*newer),
                Reserved::WindowMoved(at) => now = at,
                Reserved::Cold => self.load(&account).await?,
                Reserved::OutboxFull => {
                    return Err(Refusal::QuotaUnavailable(
                        "the ledger is too far behind the store",
                    ));
                }
                Reserved::Held { .. } | Reserved::Ended(_) => return Err(RESTLESS),
            }
        }
        Err(RESTLESS)
    }

    /// Whether an account's shard has been checked; where it must be first, the store is not asked (rule 21).
    fn is_checked(&self, account: &AccountId) -> bool {
        let shard = account.shard(self.store.shards());
        let checked = self.store.adopted(shard).is_some();
        if !checked {
            self.keeper.wake();
        }
        checked
    }

    /// Refuses suspended accounts, revoked keys, and what comes too fast for a plan that is newer than the one it was let
    /// through with. Of suspensions and keys, what a cached snapshot says against a caller is asked again, so that nobody is
    /// refused for what was true a while ago.
    pub(super) async fn checked(
        &self,
        mut snapshot: Arc<Snapshot>,
        caller: &mut Caller,
    ) -> Result<Arc<Snapshot>, Refusal> {
        if snapshot.status == Status::Suspended {
            snapshot = Box::pin(self.current_snapshot(&caller.identity.account)).await?;
            if snapshot.status == Status::Suspended {
                return Err(Refusal::Suspended(snapshot.account.to_string()));
            }
        }
        if caller.identity.keys_version < snapshot.keys_version {
            let looked_up = self.keys.look_up_again(caller, &*self.ledger);
            caller.identity = Box::pin(looked_up).await?;
        }
        if caller.throttle != snapshot.throttle {
            self.throttle(caller, &snapshot)?;
        }
        Ok(snapshot)
    }

    /// The snapshot that counts now: a claim of no version holds nothing and is answered with it.
    pub(super) async fn current_snapshot(
        &self,
        account: &AccountId,
    ) -> Result<Arc<Snapshot>, Refusal> {
        let question = Reserve {
            id: ReservationId::new(),
            account: account.clone(),
            version: Version::default(),
            charge: Nanos::ZERO,
            floor: Nanos::ZERO,
            lines: Vec::new(),
            deadline_ms: 0,
            max_age_ms: 0,
            admission: Admission::Strict,
            detail: "".into(),
        };
        for _ in 0..ATTEMPTS {
            match self.store.reserve(&question).await {
                Ok(Reserved::Stale(snapshot)) => return Ok(self.snapshots.keep(*snapshot)),
                Ok(Reserved::Cold) => self.load(account).await?,
                Ok(_) | Err(_) => return Err(AWAY),
            }
        }
        Err(RESTLESS)
    }

    async fn load(&self, account: &AccountId) -> Result<(), Refusal> {
        // Rare, and large: in a box, so that no call is made larger by it.
        let loaded = Box::pin(self.loader.load(account)).await;
        loaded.map_err(|error| match error {
            LoadError::Store(error) => {
                if matches!(error, StoreError::Lost { .. }) {
                    self.keeper.wake();
                }
                AWAY
            }
            LoadError::Undrained => Refusal::QuotaUnavailable(
                "what ended before the store lost its state is on its way to the ledger",
            ),
            LoadError::NoAccount | LoadError::Ledger(_) | LoadError::Behind => {
                Refusal::QuotaUnavailable("the ledger is away and this account is not loaded")
            }
        })
    }

    /// Prices the call for this account and builds its lines.
    fn meter(
        &self,
        route: &Route,
        caller: &Caller,
        call: &Call,
        snapshot: &Snapshot,
        at: UnixMs,
    ) -> Result<Meter, Refusal> {
        let current = self.prices.load();
        let tariff = match &call.demand {
            Demand::Flat(_) => Tariff::free(self.credit_usd),
            Demand::Tokens { .. } => {
                let markup = route.config.markup_percent.or(snapshot.markup_percent);
                let markup = markup.unwrap_or(current.markup_percent);
                self.tariff(&current, route, &call.model, markup, at)?
            }
        };
        let quote = Quote::new(tariff, call.demand.clone());
        let mut quote = quote.map_err(|why| match why {
            Unpriceable::PartMissing => Refusal::ModelNotPriced(call.model.clone()),
            Unpriceable::TooLarge => Refusal::InvalidRequest {
                message: "this call may cost more than the largest amount that can be held"
                    .to_owned(),
                param: None,
            },
        })?;
        if snapshot.mode == Mode::Off {
            quote.charge_nothing();
        } else {
            quote.claim_lines(snapshot, at);
        }
        if let Some(allowed) = call.max_charge
            && quote.charge_claim().hold > allowed.0
        {
            return Err(Refusal::AboveMaxCharge {
                estimate: Nanos(quote.charge_claim().hold).to_string(),
                allowed: allowed.to_string(),
            });
        }
        let facts = Facts {
            route: route.name.clone(),
            provider: route.provider.clone(),
            model: call.model.clone(),
            api_key_id: caller.identity.key,
            scopes: call.scopes.clone(),
            mode: snapshot.mode,
            at,
        };
        Ok(Meter::new(facts, quote, current.book.clone()))
    }

    fn tariff(
        &self,
        current: &prices::Current,
        route: &Route,
        model: &str,
        markup_percent: Decimal,
        at: UnixMs,
    ) -> Result<Tariff, Refusal> {
        match (
            current.book.find(&route.provider, model, at),
            route.config.unpriced,
        ) {
            (Some(price), _) => Ok(Tariff {
                price: Some(price.id),
                rates: price.rates.clone(),
                credit_usd: self.credit_usd,
                markup_percent,
            }),
            (None, _) if !current.is_known() => Err(prices::NOT_READ_YET),
            (None, Unpriced::Free) => Ok(Tariff::free(self.credit_usd)),
            (None, Unpriced::Refuse) => Err(Refusal::ModelNotPriced(model.to_owned())),
        }
    }

    fn claim(&self, id: ReservationId, meter: &Meter, snapshot: &Snapshot) -> Reserve {
        let credit = meter.quote().charge_claim();
        Reserve {
            id,
            account: snapshot.account.clone(),
            version: snapshot.version,
            charge: Nanos(credit.hold),
            floor: Nanos(credit.floor),
            lines: meter.quote().lines.clone(),
            deadline_ms: self.deadline_ms,
            max_age_ms: self.max_age_ms,
            admission: match snapshot.mode {
                Mode::Enforce => Admission::Strict,
                Mode::Monitor | Mode::Off => Admission::Forced,
            },
            detail: meter.detail_if_lapsed(),
        }
    }
}
