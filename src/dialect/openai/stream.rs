//! The answer as a stream: passed on, read, and counted.
//!
//! A stream may break at any byte, so what has passed is counted as it passes, and the usage that the provider reports
//! at the end replaces the count.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Call, Metered, usage};
use crate::dialect::json::{self, Value};
use crate::dialect::tokens::{Counter, Vocabulary};
use crate::dialect::{Answered, Fate, SseScanner};

/// Spoken output: base64 of 16-bit samples at 24 kHz, and 20 tokens a second.
const AUDIO_TEXT_BYTES_PER_TOKEN: usize = 3_200;

/// Passes the stream of a chat completion on and reads it.
#[derive(Debug)]
pub struct StreamReader {
    scanner: SseScanner,
    chunks: Chunks,
}

#[derive(Debug)]
struct Chunks {
    counter: Counter,
    answered: Answered,
    hide_usage_event: bool,
    is_complete: bool,
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default)]
    model: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
}

impl StreamReader {
    /// A reader at the start of the answer to this call.
    pub fn new(call: &Call) -> Self {
        Self {
            scanner: SseScanner::new(call.hide_usage_event),
            chunks: Chunks {
                counter: Counter::new(Vocabulary::nearest(&call.model)),
                answered: Answered::default(),
                hide_usage_event: call.hide_usage_event,
                is_complete: false,
            },
        }
    }

    /// Takes the next bytes, and adds to `out` those that go on to the caller.
    pub fn push(&mut self, bytes: &Bytes, out: &mut Vec<Bytes>) {
        self.scanner
            .push(bytes, &mut |data| self.chunks.read(data), out);
        self.chunks.answered.oversized_events = self.scanner.oversized_events();
    }

    /// Takes the end of the stream, and adds to `out` what was still waiting.
    pub fn finish(&mut self, out: &mut Vec<Bytes>) {
        self.scanner.finish(&mut |data| self.chunks.read(data), out);
        self.chunks.answered.oversized_events = self.scanner.oversized_events();
    }

    /// What has been read so far.
    pub fn answered(&self) -> &Answered {
        &self.chunks.answered
    }

    /// Whether the provider said that the stream is at its end: one that was not is broken.
    pub fn is_complete(&self) -> bool {
        self.chunks.is_complete
    }
}

impl Chunks {
    fn read(&mut self, data: &[u8]) -> Fate {
        if data.trim_ascii() == b"[DONE]" {
            self.is_complete = true;
            return Fate::Pass;
        }
        let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(data) else {
            self.answered.unread_events += 1;
            return Fate::Pass;
        };
        if self.answered.model.is_none() {
            self.answered.model = chunk.model.as_deref().and_then(usage::model_name);
        }
        let has_no_choices = chunk.choices.as_ref().is_some_and(Vec::is_empty);
        for choice in chunk.choices.into_iter().flatten() {
            if let Some(delta) = choice.delta {
                self.delta(delta);
            }
        }
        self.answered.usage_is_behind |= self.counter.tokens() > self.answered.output_seen;
        self.answered.output_seen = self.counter.tokens();
        let Some(reported) = chunk.usage.filter(|usage| usage.get() != "null") else {
            return Fate::Pass;
        };
        // Some providers report a running total with every chunk: the last one counts.
        if let Some(usage) = usage::read(Metered::Chat, reported.get()) {
            self.answered.usage = Some(usage);
            self.answered.usage_json = Some(reported.get().to_owned());
            self.answered.usage_is_behind = false;
        }
        if self.hide_usage_event && has_no_choices {
            return Fate::Withhold;
        }
        Fate::Pass
    }

    /// Counts what a delta adds to the output.
    fn delta(&mut self, delta: &RawValue) {
        let Ok(Value::Object(members)) = json::value(delta.get()) else {
            return;
        };
        let mut reasoning: Option<&RawValue> = None;
        for (name, value) in members {
            match name.as_ref() {
                "content" | "refusal" => self.text(value),
                // The same thoughts under two names, where a provider gives both.
                "reasoning" | "reasoning_content" => {
                    let longer =
                        reasoning.is_none_or(|other| other.get().len() < value.get().len());
                    reasoning = if longer { Some(value) } else { reasoning };
                }
                "tool_calls" => {
                    if let Ok(Value::Array(calls)) = json::value(value.get()) {
                        for call in calls {
                            self.tool_call(call);
                        }
                    }
                }
                "function_call" => self.function(value),
                "audio" => self.audio(value),
                _ => {}
            }
        }
        if let Some(reasoning) = reasoning {
            self.text(reasoning);
        }
    }

    fn text(&mut self, value: &RawValue) {
        match json::value(value.get()) {
            Ok(Value::Text(text)) => self.counter.text(&text),
            // Other makers' content in parts.
            _ => self.counter.json(value.get()),
        }
    }

    fn tool_call(&mut self, call: &RawValue) {
        if let Ok(Value::Object(members)) = json::value(call.get()) {
            let function = members
                .iter()
                .find(|(name, _)| matches!(name.as_ref(), "function" | "custom"));
            if let Some((_, function)) = function {
                self.function(function);
            }
        }
    }

    fn function(&mut self, function: &RawValue) {
        if let Ok(Value::Object(members)) = json::value(function.get()) {
            for (name, value) in members {
                if matches!(name.as_ref(), "name" | "arguments" | "input") {
                    self.text(value);
                }
            }
        }
    }

    fn audio(&mut self, audio: &RawValue) {
        if let Ok(Value::Object(members)) = json::value(audio.get()) {
            for (name, value) in members {
                match name.as_ref() {
                    "transcript" => self.text(value),
                    "data" => {
                        let tokens = value.get().len().div_ceil(AUDIO_TEXT_BYTES_PER_TOKEN);
                        self.counter.add(i64::try_from(tokens).unwrap_or(i64::MAX));
                    }
                    _ => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::MAX_EVENT_BYTES;
    use crate::dialect::openai::parse;
    use proptest::prelude::*;

    const STREAM: &str = concat!(
        "data: {\"model\":\"gpt-4o-mini-2024-07-18\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}],\"usage\":null}\n\n",
        "data: {\"model\":\"x\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"}},{\"index\":1,\"delta\":{\"content\":\"Hi\"}}],\"usage\":null}\n\n",
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"name\":\"add\",\"arguments\":\"\"}}]}}]}\n\n",
        ": keep-alive\n\n",
        "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"so\",\"reasoning\":\"so\",\"refusal\":\"no\"},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":12,\"total_tokens\":21}}\n\n",
        "data: [DONE]\n\n",
    );
    const USAGE_EVENT: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":12,\"total_tokens\":21}}\n\n";

    fn reader(hide: bool) -> StreamReader {
        let options = if hide {
            ""
        } else {
            r#","stream_options":{"include_usage":true}"#
        };
        let body = format!(r#"{{"model":"gpt-4o-mini","messages":[],"stream":true{options}}}"#);
        let call = parse(Metered::Chat, &Bytes::from(body)).unwrap();
        assert_eq!(call.hide_usage_event, hide);
        StreamReader::new(&call)
    }

    fn read(mut reader: StreamReader, chunks: &[&[u8]]) -> (Answered, Vec<u8>, bool) {
        let mut out = Vec::new();
        for chunk in chunks {
            reader.push(&Bytes::copy_from_slice(chunk), &mut out);
        }
        reader.finish(&mut out);
        (
            reader.answered().clone(),
            out.concat(),
            reader.is_complete(),
        )
    }

    #[test]
    fn a_stream_is_read_and_only_the_usage_event_is_kept_from_the_caller() {
        let (answered, out, is_complete) = read(reader(true), &[STREAM.as_bytes()]);
        assert_eq!(answered.model.as_deref(), Some("gpt-4o-mini-2024-07-18"));
        assert_eq!(answered.usage.unwrap().output_tokens, 12);
        assert_eq!(answered.output_seen, 5, "Hello, Hi, add, no, so");
        assert_eq!(answered.unread_events, 0);
        assert!(is_complete);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            STREAM.replace(USAGE_EVENT, "")
        );
        let (answered, out, _) = read(reader(false), &[STREAM.as_bytes()]);
        assert_eq!(answered.usage.unwrap().input_tokens, 9);
        assert_eq!(out, STREAM.as_bytes());
    }

    #[test]
    fn usage_that_comes_with_choices_is_read_and_passed() {
        let event = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":0}}\n\n";
        let (answered, out, is_complete) = read(reader(true), &[event.as_bytes()]);
        assert_eq!(answered.usage.unwrap().output_tokens, 0);
        assert_eq!(out, event.as_bytes());
        assert!(!is_complete, "a stream without its end is broken");
        assert!(!answered.usage_is_behind);
        let (answered, ..) = read(
            reader(true),
            &[
                event.as_bytes(),
                event.as_bytes(),
                STREAM.split_inclusive("\n\n").nth(1).unwrap().as_bytes(),
            ],
        );
        assert!(answered.usage_is_behind, "output came after it");
    }

    #[test]
    fn an_event_that_cannot_be_read_passes_and_is_counted() {
        let (answered, out, _) = read(reader(true), &[b"data: {\"choices\":[\n\ndata: 7\n\n"]);
        assert_eq!(answered.unread_events, 2);
        assert_eq!(out, b"data: {\"choices\":[\n\ndata: 7\n\n");
    }

    #[test]
    fn an_event_too_long_to_be_read_is_told_of_before_it_ends() {
        let mut reader = reader(true);
        let mut out = Vec::new();
        reader.push(&Bytes::from_static(b"data: {\"choices\":["), &mut out);
        reader.push(&Bytes::from(vec![b' '; MAX_EVENT_BYTES]), &mut out);
        assert_eq!(reader.answered().oversized_events, 1);
        let (answered, _, is_complete) = read(reader, &[b"]}\n\n", STREAM.as_bytes()]);
        assert_eq!((answered.oversized_events, answered.unread_events), (1, 0));
        assert!(is_complete && answered.usage.is_some());
    }

    #[test]
    fn what_is_charged_is_counted_once_whoever_made_the_model() {
        let body = r#"{"model":"house-chat","messages":[],"stream":true}"#;
        let call = parse(Metered::Chat, &Bytes::from(body)).unwrap();
        let (answered, ..) = read(StreamReader::new(&call), &[STREAM.as_bytes()]);
        assert_eq!(answered.output_seen, 5, "Hello, Hi, add, no, so");
    }

    proptest! {
        #[test]
        fn every_cut_gives_the_same(cuts in prop::collection::vec(0..STREAM.len(), 0..12), hide in any::<bool>()) {
            let mut cuts = cuts;
            cuts.extend([0, STREAM.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|cut| &STREAM.as_bytes()[cut[0]..cut[1]]).collect();
            prop_assert_eq!(read(reader(hide), &chunks), read(reader(hide), &[STREAM.as_bytes()]));
        }
    }
}
