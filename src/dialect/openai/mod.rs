//! OpenAI's dialect, which most providers speak: chat completions, embeddings, models.
//!
//! A call is metered because its path is on the list. Whatever is not on the list is not a call we can charge for, and a
//! path that only looks different from one on the list is never let through.

use bytes::Bytes;

use super::Estimate;

mod chat;
mod content;
mod embeddings;
mod include_usage;
mod path;
mod request;
mod stream;
mod usage;

pub use path::{Endpoint, Metered, NotMetered, classify};
pub use request::InvalidRequest;
pub use stream::StreamReader;
pub use usage::AnswerReader;

/// A metered call, understood as far as its cost goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What kind of call.
    pub endpoint: Metered,
    /// The model that is asked for.
    pub model: String,
    /// What it may use at the most.
    pub estimate: Estimate,
    /// Whether the answer is a stream of events.
    pub stream: bool,
    /// What is forwarded: the caller's body, with the usage of a stream asked for where the caller did not.
    pub body: Bytes,
    /// The caller did not ask for the event that tells a stream's usage, so it is kept from it.
    pub hide_usage_event: bool,
}

/// Reads the body of a metered call.
///
/// It tokenises: for a body of megabytes this takes tens of milliseconds, and belongs off the threads that serve others.
pub fn parse(endpoint: Metered, body: &Bytes) -> Result<Call, InvalidRequest> {
    let fields = request::Fields::read(body)?;
    match endpoint {
        Metered::Chat => chat::call(&fields, body),
        Metered::Embeddings => embeddings::call(&fields, body),
    }
}
