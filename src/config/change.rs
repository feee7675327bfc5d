//! What differs between two configurations: what a running sidecar takes, setting by setting, and what takes a restart.
//!
//! Every setting of a route is named here, so that none is changed unseen. What is secret is named and not shown.

use std::fmt::Debug;

use super::{Config, RefusalConfig, Route};

/// The difference, in words.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What a reload takes: a line a change.
    pub taken: Vec<String>,
    /// The sections that a running sidecar does not take.
    pub restart: Vec<&'static str>,
}

impl Config {
    /// What is different in `new`.
    pub fn changes(&self, new: &Self) -> Changes {
        let mut taken = routes(&self.routes, &new.routes);
        taken.extend(differences(
            "refusal",
            refusals(&self.refusal).zip(refusals(&new.refusal)),
        ));
        let sections = [
            ("[listen]", self.listen != new.listen),
            ("[store]", self.store != new.store),
            ("[ledger]", self.ledger != new.ledger),
            ("[credit]", self.credit_usd != new.credit_usd),
            ("[throttle]", self.throttle != new.throttle),
            ("[shed]", self.shed != new.shed),
            ("[log]", self.log != new.log),
            ("[trace]", self.trace != new.trace),
        ];
        let restart = sections.iter().filter(|(_, differs)| *differs);
        Changes {
            taken,
            restart: restart.map(|(name, _)| *name).collect(),
        }
    }
}

fn routes(old: &[Route], new: &[Route]) -> Vec<String> {
    fn find<'r>(routes: &'r [Route], route: &Route) -> Option<&'r Route> {
        routes.iter().find(|other| other.prefix == route.prefix)
    }
    let mut lines = Vec::new();
    let gone = old.iter().filter(|route| find(new, route).is_none());
    lines.extend(gone.map(|route| format!("route {}: removed", route.prefix)));
    for route in new {
        let name = format!("route {}", route.prefix);
        match find(old, route) {
            None => lines.push(format!("{name}: added, to {}", route.upstream)),
            Some(before) => {
                lines.extend(differences(&name, settings(before).zip(settings(route))));
                if before.credential != route.credential {
                    lines.push(format!("{name}: credential: another one"));
                }
            }
        }
    }
    lines
}

type Setting = (&'static str, String);

fn differences(of: &str, pairs: impl Iterator<Item = (Setting, Setting)>) -> Vec<String> {
    let changed = pairs.filter(|(before, after)| before.1 != after.1);
    changed
        .map(|((name, before), (_, after))| format!("{of}: {name}: {before} -> {after}"))
        .collect()
}

/// Everything that a route says, but for its credential. Taken apart whole: a new setting does not compile without a line.
fn settings(route: &Route) -> impl Iterator<Item = Setting> {
    let Route {
        prefix: _,
        upstream,
        meter,
        provider,
        credential: _,
        unpriced,
        on_store_down,
        unknown_paths,
        assume_output_tokens,
        max_body_bytes,
        markup_percent,
        connect_timeout,
        first_byte_timeout,
        idle_timeout,
        body_timeout,
    } = route;
    let markup = markup_percent.map_or("none".into(), |percent| percent.to_string());
    [
        ("upstream", upstream.to_string()),
        ("meter", word(meter)),
        ("provider", provider.clone()),
        ("unpriced", word(unpriced)),
        ("on_store_down", word(on_store_down)),
        ("unknown_paths", word(unknown_paths)),
        ("assume_output_tokens", assume_output_tokens.to_string()),
        ("max_body_bytes", max_body_bytes.to_string()),
        ("markup_percent", markup),
        (
            "connect_timeout_ms",
            connect_timeout.as_millis().to_string(),
        ),
        (
            "first_byte_timeout_ms",
            first_byte_timeout.as_millis().to_string(),
        ),
        ("idle_timeout_ms", idle_timeout.as_millis().to_string()),
        ("body_timeout_ms", body_timeout.as_millis().to_string()),
    ]
    .into_iter()
}

fn refusals(refusal: &RefusalConfig) -> impl Iterator<Item = Setting> {
    let RefusalConfig {
        exhausted_status,
        upgrade_url,
    } = refusal;
    let url = upgrade_url.as_deref().unwrap_or("none");
    [
        ("exhausted_status", exhausted_status.as_str().to_owned()),
        ("upgrade_url", url.to_owned()),
    ]
    .into_iter()
}

/// A choice as its type names it.
fn word(choice: &impl Debug) -> String {
    format!("{choice:?}").to_lowercase()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Environment;

    fn config(text: &str) -> Config {
        let nothing = Environment::default();
        Config::parse(Path::new("tollgate.toml"), text, &nothing).expect("a configuration")
    }

    const BEFORE: &str = r#"
        [[route]]
        prefix = "/openai"
        upstream = "https://api.openai.com"
        meter = "openai"
        credential = { header = "authorization", value = "Bearer sk-one" }
        [[route]]
        prefix = "/old"
        upstream = "http://old.internal"
        meter = "none"
    "#;

    #[test]
    fn every_change_of_a_route_is_a_line_and_no_secret_is_in_one() {
        let after = r#"
            [[route]]
            prefix = "/openai"
            upstream = "https://api.openai.com/eu"
            meter = "openai"
            credential = { header = "authorization", value = "Bearer sk-two" }
            first_byte_timeout_ms = 60000
            [[route]]
            prefix = "/new"
            upstream = "http://new.internal:9000"
            meter = "none"
            [refusal]
            exhausted_status = 429
        "#;
        let changes = config(BEFORE).changes(&config(after));
        let lines = [
            "route /old: removed",
            "route /openai: upstream: https://api.openai.com -> https://api.openai.com/eu",
            "route /openai: first_byte_timeout_ms: 120000 -> 60000",
            "route /openai: credential: another one",
            "route /new: added, to http://new.internal:9000",
            "refusal: exhausted_status: 402 -> 429",
        ];
        assert_eq!(changes.taken, lines);
        assert_eq!(changes.restart, [""; 0]);
    }

    #[test]
    fn nothing_differs_from_itself_and_what_takes_a_restart_is_named() {
        assert_eq!(config(BEFORE).changes(&config(BEFORE)), Changes::default());
        let moved =
            format!("{BEFORE}\n[store]\ndeadline_s = 30\n[listen]\nproxy = \"127.0.0.1:1\"");
        let changes = config(BEFORE).changes(&config(&moved));
        assert_eq!(changes.restart, ["[listen]", "[store]"]);
        // A route inherits it, and says so by itself.
        assert_eq!(changes.taken, [""; 0]);
    }
}
