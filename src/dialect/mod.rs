//! Dialects: what a provider's requests and answers mean, in the terms that quotas and prices need.

use serde::{Deserialize, Serialize};

mod object;
pub mod openai;
mod sse;
mod tokens;

pub use tokens::{Encoding, warm};

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

impl Estimate {
    /// The most output of all choices together.
    pub fn most_output(&self) -> i64 {
        match self.output_tokens {
            Some(tokens) if self.has_output => tokens.saturating_mul(self.choices),
            _ => 0,
        }
    }
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
