//! Waiting for a state: every wait of a test has a bound and a name, and none is a mere lapse of time.

use std::time::{Duration, Instant};

/// Between two looks at a state.
const PAUSE: Duration = Duration::from_millis(20);

/// How long anything may take that should not take long; generous, because the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Looks until there is something to return; panics, naming `what`, when that takes longer than [`PATIENCE`].
#[track_caller]
pub fn until<T, F>(what: &str, look: F) -> impl Future<Output = T>
where
    F: AsyncFnMut() -> Option<T>,
{
    until_within(PATIENCE, what, look)
}

/// The same with a bound of its own.
#[track_caller]
pub fn until_within<T, F>(bound: Duration, what: &str, mut look: F) -> impl Future<Output = T>
where
    F: AsyncFnMut() -> Option<T>,
{
    let asked = std::panic::Location::caller();
    async move {
        let began = Instant::now();
        loop {
            if let Some(found) = look().await {
                return found;
            }
            assert!(
                began.elapsed() < bound,
                "{asked}: after {bound:?} still waiting until {what}"
            );
            tokio::time::sleep(PAUSE).await;
        }
    }
}
