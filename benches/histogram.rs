//! A histogram of latencies: a bounded amount of memory however long it counts, and three percent of error.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Parts of each power of two; those below it are counted microsecond by microsecond.
const PARTS: u64 = 32;
/// Enough for hours; what is longer counts as the last.
const BUCKETS: usize = 1024;

/// Written by many threads at once.
pub struct Histogram {
    buckets: Vec<AtomicU64>,
}

/// What was in one at a moment.
#[derive(Clone)]
pub struct Counts {
    buckets: Vec<u64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::default()).collect(),
        }
    }
}

impl Histogram {
    pub fn note(&self, taken: Duration) {
        let us = u64::try_from(taken.as_micros()).unwrap_or(u64::MAX);
        let place = place(us).min(BUCKETS - 1);
        self.buckets[place].fetch_add(1, Ordering::Relaxed);
    }

    /// What has been noted since this was asked last.
    pub fn take(&self) -> Counts {
        let taken = self
            .buckets
            .iter()
            .map(|bucket| bucket.swap(0, Ordering::Relaxed));
        Counts {
            buckets: taken.collect(),
        }
    }
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            buckets: vec![0; BUCKETS],
        }
    }
}

impl Counts {
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    pub fn add(&mut self, other: &Self) {
        for (own, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *own += more;
        }
    }

    /// In milliseconds; nothing where nothing was noted.
    pub fn percentile_ms(&self, percent: f64) -> f64 {
        let wanted = (self.count() as f64 * percent / 100.0).ceil() as u64;
        let mut seen = 0;
        let reached = self.buckets.iter().position(|bucket| {
            seen += bucket;
            seen >= wanted.max(1)
        });
        reached.map_or(0.0, |place| end_us(place) as f64 / 1e3)
    }
}

/// The bucket of so many microseconds.
fn place(us: u64) -> usize {
    let power = us.max(1).ilog2().saturating_sub(PARTS.ilog2());
    usize::try_from(u64::from(power) * PARTS + (us >> power)).unwrap_or(usize::MAX)
}

/// Where a bucket ends, in microseconds.
fn end_us(place: usize) -> u64 {
    let place = place as u64;
    let power = (place / PARTS).saturating_sub(1);
    (place - power * PARTS + 1) << power
}
