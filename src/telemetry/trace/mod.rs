//! Traces: a span for each call, between the caller's and the upstream's, as W3C trace context links them.
//!
//! Whether there are any, the feature `otlp` and the configuration say. Without either, `traceparent` and `tracestate`
//! pass through like any other header. With both, the upstream is given our span for its parent. A span says the route,
//! the outcome and the reservation, and nothing of what was said.
// holds: 9, blind

#[cfg(not(feature = "otlp"))]
mod off;
#[cfg(feature = "otlp")]
mod otlp;

#[cfg(not(feature = "otlp"))]
pub use off::{CallSpan, Tracer};
#[cfg(feature = "otlp")]
pub use otlp::{CallSpan, Tracer};
