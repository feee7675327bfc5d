//! The log: one line an event, to stderr, for people or for machines. A call that goes as it should writes none.
// holds: 9, blind

use std::io::IsTerminal;
use std::panic::Location;

use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogConfig, LogFormat};

/// Starts the log to stderr. A second start is ignored: the first one stays.
///
/// Other crates speak from `warn` on only, because at their lower levels they may show requests and queries.
pub fn start_log(log: LogConfig) {
    let filter = Targets::new()
        .with_default(tracing::Level::WARN)
        .with_target("tollgate", log.level);
    let line = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let line = match log.format {
        LogFormat::Text => line.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => line.json().flatten_event(true).boxed(),
    };
    let started = tracing_subscriber::registry()
        .with(line.with_filter(filter))
        .try_init();
    if started.is_err() {
        tracing::debug!("the log was started before");
        return;
    }
    std::panic::set_hook(Box::new(|panic| log_panic(panic.location())));
}

/// Says where, and not what: the message of a panic may quote the text that it stumbled over, a prompt for one.
fn log_panic(at: Option<&Location<'_>>) {
    let at = at.map(ToString::to_string).unwrap_or_default();
    tracing::error!(
        at,
        "a task panicked: that is a fault in Tollgate, please report where"
    );
}
