//! Reload: what a running sidecar takes of another configuration, which is its routes and how refusals are worded.
//!
//! A call goes to its end under the route it began with. What is not taken is said, so that nobody believes in it.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::Sidecar;
use super::serve::is_bounded;
use crate::config::Config;
use crate::ledger::Ledger;
use crate::quota::Store;

impl<S: Store, L: Ledger> Sidecar<S, L> {
    /// Takes one configuration after the other, for as long as some may come.
    pub(super) async fn follow(
        self: Arc<Self>,
        started: Config,
        mut reloads: mpsc::Receiver<Config>,
    ) {
        let mut present = started;
        while let Some(new) = reloads.recv().await {
            match self.take(&present, &new) {
                Ok(()) => (present.routes, present.refusal) = (new.routes, new.refusal),
                Err(reason) => tracing::error!(
                    reason,
                    "the configuration is not taken, and the one before goes on"
                ),
            }
        }
    }

    fn take(&self, present: &Config, new: &Config) -> Result<(), String> {
        let changes = present.changes(new);
        if self.bounded.is_none()
            && let Some(route) = new.routes.iter().find(|route| is_bounded(route))
        {
            // Its journal is opened at start, where it can still be refused.
            return Err(format!(
                "route {}: `on_store_down = \"bounded\"` on the first route takes a restart",
                route.prefix
            ));
        }
        if let Some(route) = new.routes.iter().find(|route| !present.shed.takes(route)) {
            // The room for bodies is made at start: such a body would be refused for ever.
            return Err(format!(
                "route {}: a `max_body_bytes` beyond the present `max_buffered_bytes` takes a restart",
                route.prefix
            ));
        }
        let routes = self.routes.load().replaced(new, &self.metrics);
        self.routes
            .store(Arc::new(routes.map_err(|error| error.to_string())?));
        for change in &changes.taken {
            tracing::info!(change, "reloaded");
        }
        if changes.taken.is_empty() {
            tracing::info!("reloaded: no route and no refusal has changed");
        }
        if !changes.restart.is_empty() {
            let sections = changes.restart.join(", ");
            tracing::warn!(
                sections,
                "changed too, and takes a restart: it is as it was"
            );
        }
        Ok(())
    }
}
