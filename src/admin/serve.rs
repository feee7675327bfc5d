//! `serve` and `check`: the configuration, and the sidecar that runs under it.

use std::path::Path;

use serde_json::json;

use super::connect;
use super::failure::Failure;
use super::output::Output;

/// Runs the sidecar until it is told to stop.
pub(super) async fn run(config: Option<&Path>, _output: &Output) -> Result<(), Failure> {
    let _config = connect::config(config)?;
    Err(Failure::not_built("serve"))
}

/// Looks over the configuration.
pub(super) fn check(file: Option<&Path>, output: &Output) -> Result<(), Failure> {
    let config = connect::config(file)?;
    let prefixes: Vec<&str> = config
        .routes
        .iter()
        .map(|route| route.prefix.as_str())
        .collect();
    let text = match prefixes[..] {
        [] => "The configuration is in order. It has no [[route]] yet.".to_owned(),
        _ => format!(
            "The configuration is in order. Its routes: {}",
            prefixes.join(", ")
        ),
    };
    output.answer(&json!({ "ok": true, "routes": prefixes }), &text)
}
