//! Beside the calls: a runtime of its own for all that no call waits for, so that a round of the flusher keeps no call from
//! a processor that is free.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

/// One may be busy for long, with a page of an audit or a batch of records.
const THREADS: usize = 2;

/// The runtime; what still runs on it when it is dropped is cut off.
pub(super) struct Beside(Option<Runtime>);

impl Beside {
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("beside")
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    /// Runs it there.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let done = self.handle().spawn(work).await;
        done.expect("it neither panics nor is it cut off")
    }

    pub fn handle(&self) -> &Handle {
        let runtime = self.0.as_ref().expect("it is there until it is dropped");
        runtime.handle()
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Waiting for its threads is not allowed where others' tasks run.
            runtime.shutdown_background();
        }
    }
}
