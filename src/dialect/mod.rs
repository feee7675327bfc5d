//! Dialects: what a provider's requests and answers mean, in the terms that quotas and prices need.
//!
//! Everything here is fed with bytes and does no I/O. Requests are hostile: whatever decides what a call may cost is
//! read strictly, and what is not understood is counted by its length.

use serde::{Deserialize, Serialize};

mod answer;
mod json;
pub mod openai;
mod sse;
mod tokens;

pub use answer::AnswerScanner;
pub use sse::{Fate, MAX_EVENT_BYTES, SseScanner};
pub use tokens::{count_output, warm};

/// The most tokens that are believed of one call; a provider that reports more reports nonsense.
pub const MAX_TOKENS: i64 = 1_000_000_000_000;

/// What a provider reported of one call, or what was counted in its place.
///
/// `input_tokens` includes cache reads, cache writes and audio, `output_tokens` includes reasoning and audio:
/// the others are parts of them, never added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// All input.
    pub input_tokens: i64,
    /// All output.
    pub output_tokens: i64,
    /// Input read from a cache.
    pub cache_read_tokens: i64,
    /// Input written to a cache.
    pub cache_write_tokens: i64,
    /// Audio in the input.
    pub input_audio_tokens: i64,
    /// Audio in the output.
    pub output_audio_tokens: i64,
    /// Audio in what was read from a cache.
    pub cache_audio_read_tokens: i64,
}

/// What a call may use at the most, before it is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// An upper bound of its input.
    pub input_tokens: i64,
    /// The most output the caller allows of each choice; `None` where it names no maximum.
    pub output_tokens: Option<i64>,
    /// How many choices it asks for.
    pub choices: i64,
    /// Whether there is output at all: not for embeddings.
    pub has_output: bool,
}

/// What has been read of an answer, so far or at its end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answered {
    /// The model that answered, as the provider names it: the charge follows it.
    pub model: Option<String>,
    /// What the provider reported; `None` until it does. Reported zeros are zeros.
    pub usage: Option<Usage>,
    /// The same, as the JSON text that the provider wrote.
    pub usage_json: Option<String>,
    /// Output has passed in a stream since the usage was reported, so the usage does not know of it.
    pub usage_is_behind: bool,
    /// The tokens of the output that has passed in a stream, by our own count: what a broken stream is charged for.
    pub output_seen: i64,
    /// How many events of a stream were not what they should be, so nothing was read from them.
    pub unread_events: u64,
    /// How many were too long to be read: what they held is not in `output_seen`.
    pub oversized_events: u64,
}

impl Usage {
    /// Input that is nothing more special, and no output.
    pub fn of_input(input_tokens: i64) -> Self {
        Self {
            input_tokens,
            ..Self::default()
        }
    }
}

impl Estimate {
    /// The most output of all choices together; none where no maximum is known.
    pub fn most_output(&self) -> i64 {
        match self.output_tokens {
            Some(tokens) if self.has_output => tokens.saturating_mul(self.choices),
            _ => 0,
        }
    }
}
