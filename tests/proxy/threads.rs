//! The threads that calls run on: as many as the configuration says, and connections are shared out among them.

use std::fs;

use crate::harness::account::{chat, streamed_chat};
use crate::harness::client::Client;
use crate::harness::configuration::Settings;
use crate::harness::installation::{MODEL, installation_with_room};
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{DONE, Gate, completion, json_answer, script, stream_that_waits};

const THREADS: usize = 3;

/// One is the process's own.
fn threads_of_calls(sidecar: &Sidecar) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", sidecar.pid())).expect("it runs");
    let names = tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    1 + names.filter(|name| name.trim() == "calls").count()
}

/// With one thread, too, a call that waits keeps nobody else waiting; and whichever thread it is on, it is finished at the end.
#[tokio::test]
async fn connections_are_shared_out_and_calls_in_flight_on_every_thread_finish() {
    for threads in [1, THREADS] {
        let installation = installation_with_room().await;
        let account = installation.account("1");
        let config = installation.config(&Settings::default());
        let count = threads.to_string();
        let mut sidecar =
            Sidecar::start_with(&config, &[("TOLLGATE__LISTEN__THREADS", count.as_str())]);
        sidecar.until_ready_is(200).await;
        assert_eq!(threads_of_calls(&sidecar), threads);

        let gate = Gate::new();
        let stream = stream_that_waits(&gate, MODEL, 9, 4);
        let whole = script([json_answer(200, &completion(MODEL, 9, 3))]);
        let mut waiting = Vec::new();
        for _ in 0..2 * THREADS {
            let call = account.scripted_chat(&sidecar, &stream, &streamed_chat(5));
            let mut streamed = call.open().await;
            assert!(streamed.piece().await.is_some());
            waiting.push(streamed);
            let call = account.scripted_chat(&sidecar, &whole, &chat(5));
            Client::new().send(call).await.is(200);
        }
        sidecar.ask_to_stop();
        sidecar.until_ready_is(503).await;
        gate.open();
        for streamed in waiting {
            assert!(streamed.read().await.text().ends_with(DONE));
        }
        let status = sidecar.exited().await;
        assert_eq!(status.code(), Some(0), "{}", sidecar.said());
        assert_eq!(account.records().await.len(), 4 * THREADS);
        assert_eq!(account.held(), 0);
        installation.verify();
    }
}
