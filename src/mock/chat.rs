//! Chat completions, plain and streamed, with the usage that the real upstream would report.

use std::sync::Arc;

use bpe_openai::Tokenizer;
use bytes::Bytes;
use http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{self, CREATED};
use super::steering::Steering;
use super::{Mock, MockBody, refusal};

const DEFAULT_OUTPUT_TOKENS: u64 = 16;
const MAX_CHOICES: u64 = 128;
/// Each is one token of every encoding, alone and after any of the others.
const WORDS: [&str; 8] = [
    " one", " two", " three", " four", " five", " six", " seven", " eight",
];
/// What each message costs beside its text, and what the answer's beginning costs.
const TOKENS_PER_MESSAGE: usize = 3;
const TOKENS_OF_PRIMING: usize = 3;
const TOKENS_PER_IMAGE: usize = 85;

#[derive(Deserialize)]
struct ChatRequest {
    model: String,
    messages: Vec<Message>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    #[serde(default)]
    max_tokens: Option<u64>,
    #[serde(default)]
    max_completion_tokens: Option<u64>,
    #[serde(default)]
    n: Option<u64>,
    #[serde(default)]
    tools: Option<Value>,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    #[serde(default)]
    content: Value,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    tool_calls: Option<Value>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// The encoding of a model's tokens.
pub(super) fn tokenizer(model: &str) -> &'static Tokenizer {
    let old = ["gpt-3.5", "gpt-4-", "text-embedding"];
    if model == "gpt-4" || old.iter().any(|start| model.starts_with(start)) {
        bpe_openai::cl100k_base()
    } else {
        bpe_openai::o200k_base()
    }
}

pub(super) fn complete(
    mock: &Arc<Mock>,
    body: &Bytes,
    mut steering: Steering,
) -> Response<MockBody> {
    let request: ChatRequest = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let choices = request.n.unwrap_or(1);
    if !(1..=MAX_CHOICES).contains(&choices) {
        return refusal(StatusCode::BAD_REQUEST, "n is out of bounds");
    }
    let most = request.max_completion_tokens.or(request.max_tokens);
    let wanted = most.map_or(DEFAULT_OUTPUT_TOKENS, |most| {
        most.min(DEFAULT_OUTPUT_TOKENS)
    });
    let tokens = steering.output_tokens.unwrap_or(wanted);
    let streamed = request.stream.unwrap_or(false);
    let include_usage = request
        .stream_options
        .as_ref()
        .is_some_and(|options| options.include_usage);
    let completion = Completion {
        usage: usage(&request, tokens * choices, steering.cached_tokens),
        model: steering.model.take().unwrap_or(request.model),
        choices,
        tokens,
        finish_reason: if most.is_some_and(|most| tokens >= most) {
            "length"
        } else {
            "stop"
        },
        include_usage: include_usage && !steering.no_usage,
    };
    if streamed {
        return answer::events(mock, steering, move |number| completion.event(number));
    }
    let body = completion.whole(!steering.no_usage);
    answer::whole(mock, &body, steering)
}

struct Completion {
    model: String,
    usage: Value,
    choices: u64,
    tokens: u64,
    finish_reason: &'static str,
    include_usage: bool,
}

impl Completion {
    fn whole(&self, with_usage: bool) -> Value {
        let content: String = (0..self.tokens).map(word).collect();
        let choice = |index| {
            json!({
                "index": index,
                "message": {"role": "assistant", "content": content, "refusal": null},
                "logprobs": null,
                "finish_reason": self.finish_reason,
            })
        };
        let mut body = json!({
            "id": "chatcmpl-mock",
            "object": "chat.completion",
            "created": CREATED,
            "model": self.model,
            "choices": (0..self.choices).map(choice).collect::<Vec<_>>(),
            "system_fingerprint": "fp_mock",
        });
        if with_usage {
            body["usage"] = self.usage.clone();
        }
        body
    }

    /// The event of a number: first each choice's role, then its words in turn, its end, the usage, the last word.
    fn event(&self, number: u64) -> Option<Bytes> {
        let (round, index) = (number / self.choices, number % self.choices);
        let after_choices = (self.tokens + 2) * self.choices;
        let usage_event = u64::from(self.include_usage);
        if number >= after_choices {
            return match number - after_choices {
                0 if self.include_usage => Some(self.chunk(&json!([]), &self.usage)),
                place if place == usage_event => Some(Bytes::from_static(b"data: [DONE]\n\n")),
                _ => None,
            };
        }
        let (delta, finish_reason) = if round == 0 {
            let role = json!({"role": "assistant", "content": "", "refusal": null});
            (role, None)
        } else if round <= self.tokens {
            (json!({"content": word(round - 1)}), None)
        } else {
            (json!({}), Some(self.finish_reason))
        };
        let choice = json!([{
            "index": index,
            "delta": delta,
            "logprobs": null,
            "finish_reason": finish_reason,
        }]);
        Some(self.chunk(&choice, &Value::Null))
    }

    fn chunk(&self, choices: &Value, usage: &Value) -> Bytes {
        let mut chunk = json!({
            "id": "chatcmpl-mock",
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": self.model,
            "system_fingerprint": "fp_mock",
            "choices": choices,
        });
        // Where usage was asked for, every other chunk says null.
        if self.include_usage {
            chunk["usage"] = usage.clone();
        }
        format!("data: {chunk}\n\n").into()
    }
}

fn word(number: u64) -> &'static str {
    let turn = number % WORDS.len() as u64;
    WORDS[usize::try_from(turn).expect("a remainder of a usize is one")]
}

fn usage(request: &ChatRequest, output: u64, cached: u64) -> Value {
    let tokenizer = tokenizer(&request.model);
    let messages = request.messages.iter();
    let messages: usize = messages.map(|m| message_tokens(tokenizer, m)).sum();
    let tools = request.tools.as_ref();
    let tools = tools.map_or(0, |tools| tokenizer.count(tools.to_string().as_str()));
    let input = (messages + tools + TOKENS_OF_PRIMING) as u64;
    json!({
        "prompt_tokens": input,
        "completion_tokens": output,
        "total_tokens": input + output,
        "prompt_tokens_details": {"cached_tokens": cached.min(input), "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    })
}

fn message_tokens(tokenizer: &Tokenizer, message: &Message) -> usize {
    let text = |text: &str| tokenizer.count(text);
    let part = |part: &Value| match part["text"].as_str() {
        Some(words) => text(words),
        None => TOKENS_PER_IMAGE,
    };
    let content = match &message.content {
        Value::String(words) => text(words),
        Value::Array(parts) => parts.iter().map(part).sum(),
        _ => 0,
    };
    let name = message.name.as_deref().map_or(0, |name| 1 + text(name));
    let calls = message.tool_calls.as_ref();
    let calls = calls.map_or(0, |calls| text(&calls.to_string()));
    TOKENS_PER_MESSAGE + text(&message.role) + content + name + calls
}
