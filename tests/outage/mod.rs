//! Nothing is lost, charged twice or left held, whatever stops, falls silent, dies or forgets under steady load.
//!
//! Everything here is really done to real servers and processes. The order of the last part is random, from a seed that is
//! printed: `TOLLGATE_TEST_SEED` repeats it, `TOLLGATE_OUTAGE_SECONDS` makes it longer.

mod embedded;
mod fault;
mod flusher;
mod load;
mod reckoning;
mod redis;
