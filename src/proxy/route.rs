//! Routes: which prefix goes to which upstream, and how its calls are metered.

use std::sync::Arc;

use rust_decimal::Decimal;

use super::refusal::{Refusal, Shape};
use super::upstream::Upstream;
use crate::config::{self, Meter, Unpriced};
use crate::money::Nanos;
use crate::quota::Resource;

/// One route, ready to be used.
pub struct Route {
    /// What paths begin with; it is stripped.
    pub prefix: Arc<str>,
    /// Whose prices.
    pub provider: Arc<str>,
    /// How its calls are metered.
    pub meter: Meter,
    /// What to do with a model without a price.
    pub unpriced: Unpriced,
    /// What to do with paths that are not metered.
    pub unknown_paths_free: bool,
    /// Held where the caller names no maximum.
    pub assume_output_tokens: i64,
    /// The largest body.
    pub max_body_bytes: usize,
    /// Its markup, where it has one.
    pub markup_percent: Option<Decimal>,
    /// Where its calls go.
    pub upstream: Arc<Upstream>,
}

impl Route {
    /// The shape of its refusals.
    pub fn shape(&self) -> Shape {
        match self.meter {
            Meter::OpenAi => Shape::OpenAi,
            Meter::Flat { .. } | Meter::None => Shape::Problem,
        }
    }
}

/// All routes, the longest prefix first.
pub struct Routes {
    routes: Vec<Arc<Route>>,
}

impl Routes {
    /// Makes the configured routes ready.
    pub fn new(routes: &[config::Route]) -> std::io::Result<Self> {
        let mut ready = routes.iter().map(ready).collect::<std::io::Result<Vec<_>>>()?;
        ready.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
        Ok(Self { routes: ready })
    }

    /// The route of a path, and the rest of the path behind its prefix.
    pub fn find<'p>(&self, path: &'p str) -> Result<(Arc<Route>, &'p str), Refusal> {
        for route in &self.routes {
            if let Some(rest) = path.strip_prefix(route.prefix.trim_end_matches('/'))
                && (rest.is_empty() || rest.starts_with('/'))
            {
                return Ok((route.clone(), rest));
            }
        }
        Err(Refusal::UnknownRoute)
    }
}

/// Refuses paths that an upstream may read as another than the one that was metered.
pub fn refuse_ambiguous(path: &str) -> Result<(), Refusal> {
    let lower = path.to_ascii_lowercase();
    let encoded = ["%2f", "%5c", "%2e", "%25", "%00", "\\", ";"];
    let dotted = |segment: &str| segment == "." || segment == "..";
    if path.contains("//") || path.split('/').any(dotted) || encoded.iter().any(|e| lower.contains(e)) {
        return Err(Refusal::PathNotAllowed(path.chars().take(200).collect()));
    }
    Ok(())
}
