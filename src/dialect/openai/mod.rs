//! OpenAI's dialect: chat completions and embeddings, and the free list of models.

use bytes::Bytes;
use http::Method;
use serde_json::value::RawValue;

use super::object::Object;
use super::{Estimate, Usage};
use crate::money::MAX_AMOUNT;

mod answer;
mod input;
mod request;
mod stream;

pub use answer::AnswerReader;
pub use request::read_request;
pub use stream::{Chunk, StreamReader};

/// A path that is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `POST …/chat/completions`.
    ChatCompletions,
    /// `POST …/embeddings`.
    Embeddings,
    /// `GET …/models` and one of them: free of charge.
    Models,
}

/// What a path behind the route's prefix is; `None` where it is not understood to the letter.
pub fn endpoint(method: &Method, path: &str) -> Option<Endpoint> {
    let path = path.strip_prefix("/v1").unwrap_or(path);
    match path {
        "/chat/completions" if method == Method::POST => Some(Endpoint::ChatCompletions),
        "/embeddings" if method == Method::POST => Some(Endpoint::Embeddings),
        "/models" if method == Method::GET => Some(Endpoint::Models),
        _ if method == Method::GET => {
            let model = path.strip_prefix("/models/")?;
            (!model.is_empty() && !model.contains('/')).then_some(Endpoint::Models)
        }
        _ => None,
    }
}

/// Whether an upstream that is lenient with paths might serve a metered call for this one. Such a path is never passed
/// free of charge.
pub fn might_be_metered(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    // Encoded letters could spell anything.
    path.contains('%') || path.contains("completions") || path.contains("embeddings")
}

/// A request that is understood.
#[derive(Debug)]
pub struct ReadRequest {
    /// The model that is asked for.
    pub model: String,
    /// What it may use at the most.
    pub estimate: Estimate,
    /// Whether the answer is to come in events.
    pub stream: bool,
    /// Whether the event with the usage was not asked for by the caller, and so is kept back.
    pub hide_usage_event: bool,
    /// What is forwarded: as it came, but for the usage of a stream being asked for.
    pub body: Bytes,
}

/// Why a request cannot be estimated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidRequest {
    /// What is wrong and what to do. It never shows a value: that may be a prompt.
    pub message: String,
    /// Where.
    pub param: Option<String>,
}

impl InvalidRequest {
    fn new(param: &str, message: impl Into<String>) -> Self {
        Self {
            message: format!("{param}: {}", message.into()),
            param: Some(param.to_owned()),
        }
    }
}

/// Reads a usage as chat completions and embeddings report it; `None` where it is none.
///
/// Large numbers count as that many: what a provider claims is charged, up to the bound of an amount. What is no count,
/// a negative number or a fraction, makes it no usage at all: what cannot be read must not be free.
fn read_usage(raw: &RawValue) -> Option<Usage> {
    let usage: Object = serde_json::from_str(raw.get()).ok()?;
    let parts = |name| -> Object {
        usage
            .get(name)
            .and_then(|raw| serde_json::from_str(raw.get()).ok())
            .unwrap_or_default()
    };
    let (input, output) = (
        parts("prompt_tokens_details"),
        parts("completion_tokens_details"),
    );
    usage.get("prompt_tokens")?;
    Some(Usage {
        input_tokens: tokens(&usage, "prompt_tokens")?,
        // Embeddings have none.
        output_tokens: tokens(&usage, "completion_tokens")?,
        cache_read_tokens: tokens(&input, "cached_tokens").unwrap_or(0),
        cache_write_tokens: tokens(&input, "cache_write_tokens").unwrap_or(0),
        input_audio_tokens: tokens(&input, "audio_tokens").unwrap_or(0),
        output_audio_tokens: tokens(&output, "audio_tokens").unwrap_or(0),
        cache_audio_read_tokens: 0,
    })
}

/// A count, zero where it is missing; `None` where what stands there is none.
fn tokens(object: &Object, name: &str) -> Option<i64> {
    let count = object.read::<i64>(name).ok()?.unwrap_or(0);
    (count >= 0).then(|| count.min(MAX_AMOUNT))
}
