//! Throttle: how fast the calls of an account, and of each of its keys, may come; decided before store or ledger are
//! asked for anything.
//!
//! It is counted in this process alone: with N sidecars, N times as much may come. What must be exact over all of them is
//! a quota.

use std::hash::Hash;
use std::time::Duration;

use dashmap::DashMap;
use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use super::Sidecar;
use super::identify::Caller;
use super::refusal::{Refusal, TooMany};
use super::shortage::{Kind, Violation};
use crate::clock::UnixMs;
use crate::ledger::Identity;
use crate::quota::{AccountId, Burst, Mode, Snapshot, Store, Throttle};

/// The window of a violation that is a throttle's.
const WINDOW: &str = "burst";
/// How often those are forgotten who have their whole burst again.
const UPKEEP_EACH: Duration = Duration::from_secs(10);
/// The most accounts, and the most keys, that are remembered under one burst. Beyond it all of them begin anew.
const MOST_REMEMBERED: usize = 200_000;

/// Knows who has called how much of late.
pub struct Throttles<C: Clock = MonotonicClock> {
    configured: Throttle,
    accounts: Buckets<AccountId, C>,
    keys: Buckets<Uuid, C>,
}

/// A bucket for each `K`, by the burst that fills it: plans differ, and a plan may be edited.
struct Buckets<K: Hash + Eq + Clone, C: Clock> {
    by_burst: DashMap<Burst, Limiter<K, C>>,
    clock: C,
}

type Limiter<K, C> = RateLimiter<K, DashMapStateStore<K>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// What a call came too early for.
#[derive(Debug, PartialEq, Eq)]
struct TooFast {
    scope: &'static str,
    burst: Burst,
    wait: Duration,
}

impl Throttles {
    /// Throttles where a plan says nothing of it as configured.
    pub fn new(configured: Throttle) -> Self {
        Self::with_clock(configured, &MonotonicClock)
    }

    /// Forgets who has been idle, for ever.
    pub async fn upkeep(&self) {
        let mut ticks = interval(UPKEEP_EACH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.forget_idle();
        }
    }
}

impl<C: Clock + Clone> Throttles<C> {
    fn with_clock(configured: Throttle, clock: &C) -> Self {
        Self {
            configured,
            accounts: Buckets::new(clock.clone()),
            keys: Buckets::new(clock.clone()),
        }
    }

    /// Counts a call, unless it comes too early. The key is asked first, so that one that floods takes nothing of the
    /// burst that its account's other keys share.
    fn check(&self, plan: Option<Throttle>, caller: &Identity) -> Result<(), TooFast> {
        let throttle = plan.unwrap_or(self.configured);
        let too_fast = |scope, burst| move |wait| TooFast { scope, burst, wait };
        if let Some(burst) = throttle.key {
            let counted = self.keys.count(burst, &caller.key);
            counted.map_err(too_fast("key", burst))?;
        }
        if let Some(burst) = throttle.account {
            let counted = self.accounts.count(burst, &caller.account);
            counted.map_err(too_fast("account", burst))?;
        }
        Ok(())
    }

    fn forget_idle(&self) {
        self.accounts.forget_idle();
        self.keys.forget_idle();
    }
}

impl<K: Hash + Eq + Clone, C: Clock + Clone> Buckets<K, C> {
    fn new(clock: C) -> Self {
        Self {
            by_burst: DashMap::new(),
            clock,
        }
    }

    /// Takes one call out of the bucket, or says how long until there is one in it.
    fn count(&self, burst: Burst, whose: &K) -> Result<(), Duration> {
        let there = self.by_burst.get(&burst);
        let counted = there.map_or_else(
            || self.limiter(burst).check_key(whose),
            |there| there.check_key(whose),
        );
        counted.map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }

    #[cold]
    fn limiter(&self, burst: Burst) -> dashmap::mapref::one::RefMut<'_, Burst, Limiter<K, C>> {
        let quota = Quota::per_second(burst.per_second).allow_burst(burst.burst);
        let new = || RateLimiter::dashmap_with_clock(quota, self.clock.clone());
        self.by_burst.entry(burst).or_insert_with(new)
    }

    /// A full bucket says the same as none.
    fn forget_idle(&self) {
        for limiter in &self.by_burst {
            limiter.retain_recent();
        }
        self.by_burst
            .retain(|_, limiter| !limiter.is_empty() && limiter.len() <= MOST_REMEMBERED);
    }
}

impl<S: Store + 'static, L> Sidecar<S, L> {
    /// Refuses what comes too fast for the account's plan, as far as this sidecar knows it. Where the reserve then knows
    /// of a newer one, this is asked again with it.
    pub(super) fn throttle(&self, caller: &mut Caller, snapshot: &Snapshot) -> Result<(), Refusal> {
        (caller.throttle, caller.would_refuse) = (snapshot.throttle, None);
        if snapshot.mode == Mode::Off {
            return Ok(());
        }
        let counted = self.throttles.check(snapshot.throttle, &caller.identity);
        let Err(too_fast) = counted else {
            return Ok(());
        };
        let account = caller.identity.account.clone();
        let refusal = Refusal::from(too_fast.explain(account, self.clock.now()));
        if snapshot.mode == Mode::Monitor {
            caller.would_refuse = Some(refusal.code());
            return Ok(());
        }
        Err(refusal)
    }
}

impl TooFast {
    fn explain(&self, account: AccountId, now: UnixMs) -> TooMany {
        let Burst { per_second, burst } = self.burst;
        // Rounded up, so that whoever waits as long is let through.
        let wait_ms = self.wait.as_nanos().div_ceil(1_000_000);
        let wait_ms = i64::try_from(wait_ms).unwrap_or(i64::MAX);
        let resets_at = now.plus_ms(wait_ms);
        let who = match self.scope {
            "key" => format!("this key of account `{account}`"),
            _ => format!("account `{account}`"),
        };
        let message = format!(
            "{who} calls too fast: it may make {burst} calls at once, and then {per_second} a second; the next one may come \
             at {}. What to do: spread the calls, or have the throttle raised",
            resets_at.to_rfc3339()
        );
        let burst = i64::from(burst.get());
        TooMany {
            message,
            violation: Violation {
                account,
                scope: self.scope,
                resource: "requests".to_owned(),
                window: Some(WINDOW),
                limit: burst,
                used: burst,
                held: 0,
                requested: 1,
                resets_at: Some(resets_at),
                kind: Kind::WindowExhausted,
            },
            retry_after: Duration::from_millis(wait_ms.unsigned_abs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn throttle(account: (i64, i64), key: (i64, i64)) -> Throttle {
        Throttle {
            account: Burst::new(account.0, account.1),
            key: Burst::new(key.0, key.1),
        }
    }

    fn caller(account: &str, key: u128) -> Identity {
        Identity {
            account: account.parse().unwrap(),
            key: Uuid::from_u128(key),
            keys_version: 1,
        }
    }

    /// How many of many calls at one moment go through.
    fn through(
        throttles: &Throttles<FakeRelativeClock>,
        plan: Option<Throttle>,
        who: &Identity,
    ) -> usize {
        (0..100)
            .filter(|_| throttles.check(plan, who).is_ok())
            .count()
    }

    #[test]
    fn a_burst_goes_through_and_then_so_many_a_second() {
        let clock = FakeRelativeClock::default();
        let throttles = Throttles::with_clock(throttle((0, 0), (4, 9)), &clock);
        let (one, other) = (caller("a", 1), caller("a", 2));
        assert_eq!(through(&throttles, None, &one), 9);
        let refused = throttles.check(None, &one).unwrap_err();
        assert_eq!(refused.wait, SECOND / 4);
        assert_eq!(through(&throttles, None, &other), 9, "each key has its own");
        clock.advance(Duration::from_nanos(249_999_999));
        assert_eq!(through(&throttles, None, &one), 0);
        clock.advance(Duration::from_nanos(1));
        assert_eq!(through(&throttles, None, &one), 1);
        clock.advance(SECOND * 100);
        assert_eq!(
            through(&throttles, None, &one),
            9,
            "never more than the burst"
        );
    }

    #[test]
    fn a_key_that_floods_leaves_the_accounts_burst_to_the_others() {
        let clock = FakeRelativeClock::default();
        let throttles = Throttles::with_clock(throttle((1, 10), (1, 4)), &clock);
        assert_eq!(through(&throttles, None, &caller("a", 1)), 4);
        assert_eq!(through(&throttles, None, &caller("a", 2)), 4);
        assert_eq!(through(&throttles, None, &caller("a", 3)), 2);
        let refused = throttles.check(None, &caller("a", 4)).unwrap_err();
        assert_eq!(refused.scope, "account");
        assert_eq!(through(&throttles, None, &caller("b", 5)), 4);
    }

    #[test]
    fn a_plan_takes_the_place_of_the_configuration_whole() {
        let clock = FakeRelativeClock::default();
        let throttles = Throttles::with_clock(throttle((1, 2), (1, 2)), &clock);
        let plan = Throttle {
            account: Burst::new(1, 5),
            key: None,
        };
        assert_eq!(through(&throttles, Some(plan), &caller("a", 1)), 5);
        let none = Some(Throttle::default());
        assert_eq!(through(&throttles, none, &caller("a", 1)), 100);
        assert_eq!(through(&throttles, None, &caller("a", 1)), 2);
    }

    #[test]
    fn who_has_been_idle_is_forgotten_and_who_has_not_is_not() {
        let clock = FakeRelativeClock::default();
        let throttles = Throttles::with_clock(throttle((1, 3), (0, 0)), &clock);
        for account in 0..1000 {
            throttles
                .check(None, &caller(&format!("a{account}"), 1))
                .unwrap();
        }
        let remembered = || {
            let limiters = throttles.accounts.by_burst.iter();
            limiters.map(|limiter| limiter.len()).sum::<usize>()
        };
        assert_eq!(remembered(), 1000);
        clock.advance(SECOND * 60);
        assert_eq!(through(&throttles, None, &caller("busy", 1)), 3);
        throttles.forget_idle();
        assert_eq!(remembered(), 1);
        assert_eq!(through(&throttles, None, &caller("busy", 1)), 0);
        clock.advance(SECOND * 60);
        throttles.forget_idle();
        assert!(throttles.accounts.by_burst.is_empty());
    }

    #[test]
    fn a_refusal_says_when_the_next_call_may_come() {
        let too_fast = TooFast {
            scope: "key",
            burst: Burst::new(3, 8).unwrap(),
            wait: Duration::from_nanos(333_333_333),
        };
        let refused = too_fast.explain("acme".parse().unwrap(), UnixMs(1_000));
        assert_eq!(refused.retry_after, Duration::from_millis(334));
        assert_eq!(refused.violation.resets_at, Some(UnixMs(1_334)));
        let said = [
            "acme",
            "8 calls at once",
            "3 a second",
            "1970-01-01T00:00:01.334Z",
        ];
        for said in said {
            assert!(refused.message.contains(said), "{}", refused.message);
        }
    }
}
