//! A build without the feature `otlp`: no call has a span.

use std::io;
use std::sync::Arc;

use http::{HeaderMap, StatusCode};

use crate::config::TraceConfig;
use crate::quota::{AccountId, Metered, ReservationId};

/// Makes no spans.
pub struct Tracer;

/// No span.
pub struct CallSpan;

#[expect(clippy::unused_async, reason = "with the feature it waits")]
impl Tracer {
    /// The configuration asks for none, or it would have been refused.
    pub fn new(_config: &TraceConfig) -> io::Result<Self> {
        Ok(Self)
    }

    /// Leaves the headers as they are.
    pub fn begin(&self, _route: &str, _headers: &mut HeaderMap) -> CallSpan {
        CallSpan
    }

    /// Has nothing to send.
    pub async fn end(&self) {}
}

impl CallSpan {
    /// Whose call it is.
    pub fn account(&mut self, _account: &AccountId) {}
    /// It was admitted.
    pub fn admitted(&mut self, _id: ReservationId, _metered: Arc<dyn Metered>) {}
    /// It passed free of charge.
    pub fn passed_free(&mut self) {}
    /// It was refused.
    pub fn refused(&mut self, _code: &'static str) {}
    /// The caller is answered.
    pub fn answered(&mut self, _status: StatusCode) {}
}
