//! The threads that calls run on. Each has a runtime of its own, so that a connection and all that is done for its calls
//! stay on one thread: to hand work to another one costs more than most of the work.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;

/// A runtime for calls, of one thread.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Threads; those that it started end when it is dropped.
pub struct Threads {
    runtimes: Vec<Handle>,
    next: AtomicUsize,
    /// Nothing is ever sent.
    end: watch::Sender<()>,
}

impl Threads {
    /// No other than the caller's own.
    pub fn here() -> Self {
        Self {
            runtimes: vec![Handle::current()],
            next: AtomicUsize::new(0),
            end: watch::Sender::new(()),
        }
    }

    /// So many, of which the caller's is the first.
    pub fn start(count: usize) -> io::Result<Self> {
        let mut threads = Self::here();
        for _ in 1..count {
            let another = threads.another()?;
            threads.runtimes.push(another);
        }
        Ok(threads)
    }

    fn another(&self) -> io::Result<Handle> {
        let mut end = self.end.subscribe();
        let (started, starting) = mpsc::sync_channel(1);
        let work = move || {
            // Made and dropped where it runs: nowhere else may one that has tasks be dropped.
            let runtime = runtime();
            let handle = runtime.as_ref().map(|runtime| runtime.handle().clone());
            let _ = started.send(handle.map_err(|error| io::Error::from(error.kind())));
            if let Ok(runtime) = runtime {
                let _ = runtime.block_on(end.changed());
            }
        };
        thread::Builder::new()
            .name("calls".to_owned())
            .spawn(work)?;
        starting.recv().map_err(io::Error::other)?
    }

    /// Where the next connection goes: to each in turn.
    pub(super) fn next(&self) -> &Handle {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        &self.runtimes[next % self.runtimes.len()]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[tokio::test]
    async fn each_thread_gets_as_many_connections_as_the_others() {
        let threads = Threads::start(3).unwrap();
        let mut served = HashMap::new();
        for _ in 0..6 {
            let on = threads.next().spawn(async { thread::current().id() });
            *served.entry(on.await.unwrap()).or_insert(0) += 1;
        }
        assert_eq!(served.into_values().collect::<Vec<_>>(), [2, 2, 2]);
    }
}
