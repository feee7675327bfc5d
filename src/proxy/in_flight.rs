//! In flight: how many calls this sidecar takes upon itself at once, and how many bytes of their bodies, so that a flood is
//! refused at once and no account's flood takes the place of the others.
//!
//! The rule of both is one: what an account has, this call included, is never more than was free for it. One account
//! alone so gets half of everything, two that want all get a third each, and whoever comes next finds as much free as any
//! of them has. A call counts until its answer's last byte, or longer: until whatever still works for it has ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::refusal::{Refusal, TooMany};
use super::shortage::{Kind, Violation};
use crate::config::Shed;
use crate::quota::AccountId;

/// The window of a violation that is about what is in flight.
const WINDOW: &str = "in_flight";
/// How soon another call may have ended.
const RETRY_AFTER: Duration = Duration::from_millis(250);

const NO_CALL_FREE: Refusal = Refusal::Overloaded(
    "as many calls are in flight on this sidecar as its `max_in_flight` allows",
);
const NO_BYTE_FREE: Refusal = Refusal::Overloaded(
    "the bodies of calls in flight on this sidecar fill its `max_buffered_bytes`",
);

/// What this sidecar has taken upon itself.
pub struct InFlight(Arc<Inner>);

struct Inner {
    bounds: Shed,
    /// A plain mutex: it is held for a few instructions, never across an await.
    taken: Mutex<Taken>,
    /// Turns at the processor: large bodies are counted on threads beside those that calls run on.
    turns: Arc<Semaphore>,
    turns_at_once: usize,
}

#[derive(Default)]
struct Taken {
    all: Share,
    /// Those that have a call in flight; no more than there are calls.
    accounts: HashMap<AccountId, Share>,
}

#[derive(Default)]
struct Share {
    calls: usize,
    bytes: usize,
    /// Made for an account when it first needs one.
    turns: Option<Arc<Semaphore>>,
}

/// One call's place. It is given back when the last clone is dropped, however that comes about.
#[derive(Clone)]
pub struct Place(Arc<Placed>);

struct Placed {
    account: AccountId,
    of: Arc<Inner>,
}

/// The room of one body, given back when dropped. It keeps its call's place.
pub struct Room {
    place: Place,
    bytes: usize,
}

/// A turn at the processor, given back when dropped.
pub struct Turn {
    _of_account: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

/// Why there is no more.
enum Beyond {
    /// Nobody would get it.
    All,
    /// This account has its share.
    Share {
        /// What it might have now.
        limit: usize,
        held: usize,
    },
}

/// Whether an account that has `held` may have `more`, where so much is free.
fn fits(held: usize, more: usize, free: usize) -> Result<(), Beyond> {
    if more > free {
        return Err(Beyond::All);
    }
    if held + more > free {
        let limit = (held + free).div_ceil(2);
        return Err(Beyond::Share { limit, held });
    }
    Ok(())
}

impl InFlight {
    /// Nothing is in flight yet.
    pub fn new(bounds: Shed) -> Self {
        // One processor is left to everything else.
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let turns_at_once = processors.saturating_sub(1).max(1);
        Self(Arc::new(Inner {
            bounds,
            taken: Mutex::default(),
            turns: Arc::new(Semaphore::new(turns_at_once)),
            turns_at_once,
        }))
    }

    /// A place for a call of this account, or at once the refusal.
    pub fn enter(&self, account: &AccountId) -> Result<Place, Refusal> {
        let mut taken = self.0.taken.lock();
        let free = self.0.bounds.max_in_flight - taken.all.calls;
        let held = taken.accounts.get(account).map_or(0, |share| share.calls);
        fits(held, 1, free).map_err(|beyond| match beyond {
            Beyond::All => NO_CALL_FREE,
            Beyond::Share { limit, held } => too_many_calls(account, limit, held).into(),
        })?;
        taken.all.calls += 1;
        if let Some(share) = taken.accounts.get_mut(account) {
            share.calls += 1;
        } else {
            let share = Share {
                calls: 1,
                ..Share::default()
            };
            taken.accounts.insert(account.clone(), share);
        }
        Ok(Place(Arc::new(Placed {
            account: account.clone(),
            of: self.0.clone(),
        })))
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        let mut taken = self.of.taken.lock();
        taken.all.calls -= 1;
        if let Some(share) = taken.accounts.get_mut(&self.account) {
            share.calls -= 1;
            if share.calls == 0 {
                taken.accounts.remove(&self.account);
            }
        }
    }
}

impl Place {
    /// Room for a body of so many bytes.
    pub fn room(&self, bytes: usize) -> Result<Room, Refusal> {
        let mut room = Room {
            place: self.clone(),
            bytes: 0,
        };
        room.grow_to(bytes)?;
        Ok(room)
    }

    /// Waits for a turn. Accounts take turns: whoever has none under way waits for one of each other account, and not for
    /// all that they have waiting.
    pub async fn turn(&self) -> Turn {
        let Placed { account, of } = &*self.0;
        let of_account = {
            let mut taken = of.taken.lock();
            let share = taken.accounts.entry(account.clone()).or_default();
            let turns = share
                .turns
                .get_or_insert_with(|| Arc::new(Semaphore::new(of.turns_at_once)));
            turns.clone()
        };
        let never_closed = "these semaphores are never closed";
        Turn {
            _of_account: of_account.acquire_owned().await.expect(never_closed),
            _of_all: of.turns.clone().acquire_owned().await.expect(never_closed),
        }
    }
}

impl Room {
    /// For how many bytes there is room.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes room for a body that has turned out to be longer.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), Refusal> {
        let Some(more) = bytes.checked_sub(self.bytes).filter(|more| *more > 0) else {
            return Ok(());
        };
        let Placed { account, of } = &*self.place.0;
        let mut taken = of.taken.lock();
        let free = of.bounds.max_buffered_bytes - taken.all.bytes;
        let share = taken.accounts.entry(account.clone()).or_default();
        fits(share.bytes, more, free).map_err(|beyond| match beyond {
            Beyond::All => NO_BYTE_FREE,
            Beyond::Share { limit, held } => too_many_bytes(account, limit, held, more).into(),
        })?;
        share.bytes += more;
        taken.all.bytes += more;
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let Placed { account, of } = &*self.place.0;
        let mut taken = of.taken.lock();
        taken.all.bytes -= self.bytes;
        if let Some(share) = taken.accounts.get_mut(account) {
            share.bytes -= self.bytes;
        }
    }
}

fn too_many_calls(account: &AccountId, limit: usize, held: usize) -> TooMany {
    let message = format!(
        "account `{account}` has {held} calls in flight on this sidecar, its share of those that are not others'. What to \
         do: call again when some of them have ended, or have `max_in_flight` raised"
    );
    let violation = violation(account, "requests", limit, held, 1);
    TooMany {
        message,
        violation,
        retry_after: RETRY_AFTER,
    }
}

fn too_many_bytes(account: &AccountId, limit: usize, held: usize, more: usize) -> TooMany {
    let message = format!(
        "the calls of account `{account}` in flight on this sidecar have bodies of {held} bytes, and this one of {more} more \
         is beyond its share. What to do: call again when some of them have been forwarded, or have `max_buffered_bytes` \
         raised"
    );
    let violation = violation(account, "body_bytes", limit, held, more);
    TooMany {
        message,
        violation,
        retry_after: RETRY_AFTER,
    }
}

fn violation(
    account: &AccountId,
    resource: &str,
    limit: usize,
    held: usize,
    requested: usize,
) -> Violation {
    let shown = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    Violation {
        account: account.clone(),
        scope: "account",
        resource: resource.to_owned(),
        window: Some(WINDOW),
        limit: shown(limit),
        used: 0,
        held: shown(held),
        requested: shown(requested),
        resets_at: None,
        kind: Kind::WindowExhausted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;

    fn in_flight(calls: usize, bytes: usize) -> InFlight {
        InFlight::new(Shed {
            max_in_flight: calls,
            max_buffered_bytes: bytes,
        })
    }

    fn account(name: &str) -> AccountId {
        name.parse().unwrap()
    }

    /// As many places as this account gets.
    fn flood(in_flight: &InFlight, name: &str) -> Vec<Place> {
        std::iter::from_fn(|| in_flight.enter(&account(name)).ok()).collect()
    }

    fn is_empty(in_flight: &InFlight) -> bool {
        let taken = in_flight.0.taken.lock();
        (taken.all.calls, taken.all.bytes, taken.accounts.len()) == (0, 0, 0)
    }

    #[test]
    fn whoever_floods_leaves_as_much_free_as_it_has() {
        let in_flight = in_flight(64, KIB);
        let floods = ["a", "b", "c", "d", "e"].map(|name| flood(&in_flight, name));
        assert_eq!(floods.map(|places| places.len()), [32, 16, 8, 4, 2]);
        assert!(is_empty(&in_flight));
    }

    #[test]
    fn accounts_that_all_want_more_come_to_equal_shares() {
        let in_flight = in_flight(60, KIB);
        let names = ["a", "b"];
        let mut places: HashMap<&str, Vec<Place>> = HashMap::new();
        for name in names {
            places.insert(name, flood(&in_flight, name));
        }
        // Each time a call ends, all of them want its place.
        for _ in 0..100 {
            for name in names {
                places.get_mut(name).unwrap().pop();
                for other in names {
                    let more = flood(&in_flight, other);
                    places.get_mut(other).unwrap().extend(more);
                }
            }
        }
        let counts: Vec<usize> = names.iter().map(|name| places[name].len()).collect();
        assert!(
            counts.iter().all(|count| (19..=21).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn a_refusal_says_whether_it_is_this_account_or_all() {
        let in_flight = in_flight(4, KIB);
        let mut places = flood(&in_flight, "a");
        let Err(Refusal::TooMany(many)) = in_flight.enter(&account("a")) else {
            panic!("a has its share");
        };
        let Violation {
            limit,
            held,
            requested,
            ..
        } = many.violation;
        assert_eq!((limit, held, requested), (2, 2, 1));
        places.extend(flood(&in_flight, "b"));
        places.extend(flood(&in_flight, "c"));
        assert_eq!(places.len(), 4);
        let refused = in_flight.enter(&account("d")).err();
        assert_eq!(refused, Some(NO_CALL_FREE));
        drop(places);
        assert!(is_empty(&in_flight));
    }

    #[test]
    fn bodies_share_their_bytes_in_the_same_way_and_may_grow() {
        let in_flight = in_flight(10, 100 * KIB);
        let place = in_flight.enter(&account("a")).unwrap();
        let mut room = place.room(0).unwrap();
        room.grow_to(30 * KIB).unwrap();
        room.grow_to(50 * KIB).unwrap();
        assert!(matches!(room.grow_to(51 * KIB), Err(Refusal::TooMany(_))));
        assert!(matches!(place.room(KIB), Err(Refusal::TooMany(_))));
        let other = in_flight.enter(&account("b")).unwrap();
        let others = other.room(50 * KIB).unwrap();
        let last = in_flight.enter(&account("c")).unwrap();
        assert_eq!(last.room(1).err(), Some(NO_BYTE_FREE));
        drop(others);
        // The place goes with the room, which may outlive the call.
        drop((place, other, last));
        assert!(!is_empty(&in_flight));
        drop(room);
        assert!(is_empty(&in_flight));
    }

    #[tokio::test]
    async fn a_call_that_panics_or_is_given_up_gives_its_place_back() {
        let in_flight = Arc::new(in_flight(2, KIB));
        let call = |panics: bool| {
            let in_flight = in_flight.clone();
            async move {
                let place = in_flight.enter(&account("a")).unwrap();
                let _room = place.room(10).unwrap();
                let _turn = place.turn().await;
                assert!(!panics, "this one panics");
                std::future::pending::<()>().await;
            }
        };
        let panicked = tokio::spawn(call(true)).await;
        assert!(panicked.unwrap_err().is_panic());
        assert!(is_empty(&in_flight));

        let given_up = tokio::spawn(call(false));
        while is_empty(&in_flight) {
            tokio::task::yield_now().await;
        }
        given_up.abort();
        assert!(given_up.await.unwrap_err().is_cancelled());
        assert!(is_empty(&in_flight));
        assert_eq!(
            in_flight.0.turns.available_permits(),
            in_flight.0.turns_at_once
        );
    }

    #[tokio::test]
    async fn nobody_waits_for_all_the_turns_that_another_account_waits_for() {
        let in_flight = in_flight(100, KIB);
        let (sender, mut order) = tokio::sync::mpsc::unbounded_channel();
        let mut tasks = tokio::task::JoinSet::new();
        let wait = |name: &'static str| {
            let (place, sender) = (in_flight.enter(&account(name)).unwrap(), sender.clone());
            async move {
                let turn = place.turn().await;
                sender.send(name).unwrap();
                tokio::task::yield_now().await;
                drop(turn);
            }
        };
        for _ in 0..50 {
            tasks.spawn(wait("flood"));
        }
        // All of them have got in line.
        while in_flight.0.turns.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        tasks.spawn(wait("other"));
        tasks.join_all().await;
        drop(sender);
        let mut names = Vec::new();
        while let Some(name) = order.recv().await {
            names.push(name);
        }
        let before = names.iter().position(|name| *name == "other").unwrap();
        assert!(
            before <= 4 * in_flight.0.turns_at_once,
            "{before} came before: {names:?}"
        );
    }
}
