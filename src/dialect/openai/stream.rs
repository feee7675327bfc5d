//! A streamed answer: what its events say of the model, the output and the usage.

use std::borrow::Cow;
use std::collections::VecDeque;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::read_usage;
use crate::dialect::Usage;
use crate::dialect::sse::{Scanner, Verdict};
use crate::dialect::tokens::Encoding;

/// What one event said.
#[derive(Debug, Default)]
pub struct Chunk {
    /// Which model answers.
    pub model: Option<String>,
    /// How many tokens of output it has, counted.
    pub output_tokens: i64,
    /// What has been used, as read and as it came.
    pub usage: Option<(Usage, Box<RawValue>)>,
}

/// Reads a stream as it goes by.
pub struct StreamReader {
    scanner: Scanner,
    hide_usage_event: bool,
    encoding: Encoding,
}

impl StreamReader {
    /// A reader of a stream of `model`; the event that only says the usage is kept back if the caller did not ask for it.
    pub fn new(model: &str, hide_usage_event: bool) -> Self {
        Self {
            scanner: Scanner::new(hide_usage_event),
            hide_usage_event,
            encoding: Encoding::of(model),
        }
    }

    /// Reads a piece; what may go on to the caller is put behind `out`, what the events said goes to `note`.
    pub fn push(&mut self, piece: &Bytes, out: &mut VecDeque<Bytes>, mut note: impl FnMut(Chunk)) {
        let judge = judge(self.encoding, self.hide_usage_event, &mut note);
        self.scanner.push(piece, out, judge);
    }

    /// The stream is over.
    pub fn finish(&mut self, out: &mut VecDeque<Bytes>, mut note: impl FnMut(Chunk)) {
        let judge = judge(self.encoding, self.hide_usage_event, &mut note);
        self.scanner.finish(out, judge);
    }
}

fn judge(
    encoding: Encoding,
    hide: bool,
    note: &mut impl FnMut(Chunk),
) -> impl FnMut(&[u8]) -> Verdict {
    move |data| {
        let Ok(event) = serde_json::from_slice::<Event>(data) else {
            // `[DONE]`, a comment, or what another dialect says: not ours to read.
            return Verdict::Pass;
        };
        let usage = event
            .usage
            .and_then(|raw| Some((read_usage(raw)?, raw.to_owned())));
        let only_usage = usage.is_some() && event.choices.is_empty();
        note(Chunk {
            model: event.model.map(Cow::into_owned),
            output_tokens: event
                .choices
                .iter()
                .map(|choice| choice.count(encoding))
                .sum(),
            usage,
        });
        if hide && only_usage {
            Verdict::Hide
        } else {
            Verdict::Pass
        }
    }
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default)]
    model: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    choices: Vec<Choice<'a>>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default)]
    delta: Option<Delta<'a>>,
}

/// Everything in a delta that is output, under each name that servers of this dialect use.
#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    content: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    refusal: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    reasoning_content: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    reasoning: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    function_call: Option<Function<'a>>,
    #[serde(borrow, default)]
    tool_calls: Option<Vec<ToolCall<'a>>>,
}

#[derive(Deserialize)]
struct ToolCall<'a> {
    #[serde(borrow, default)]
    function: Option<Function<'a>>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    arguments: Option<Cow<'a, str>>,
}

impl Choice<'_> {
    fn count(&self, encoding: Encoding) -> i64 {
        let Some(delta) = &self.delta else { return 0 };
        let texts = [
            &delta.content,
            &delta.refusal,
            &delta.reasoning_content,
            &delta.reasoning,
        ];
        let calls = delta
            .tool_calls
            .iter()
            .flatten()
            .filter_map(|call| call.function.as_ref());
        let calls = calls.chain(&delta.function_call);
        let calls = calls.flat_map(|function| [&function.name, &function.arguments]);
        let texts = texts.into_iter().chain(calls).flatten();
        texts.map(|text| encoding.count(text)).sum()
    }
}
