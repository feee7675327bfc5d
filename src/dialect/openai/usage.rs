//! What an answer says it used.
//!
//! A report that lacks a part it must have, or holds what cannot be a count, is no report: nothing is guessed into it.

use serde::Deserialize;

use super::Metered;
use crate::dialect::json::Named;
use crate::dialect::{AnswerScanner, Answered, MAX_TOKENS, Usage};

const MAX_MODEL_BYTES: usize = 256;

#[derive(Deserialize)]
struct Report {
    prompt_tokens: i64,
    completion_tokens: Option<i64>,
    total_tokens: Option<i64>,
    #[serde(default)]
    prompt_tokens_details: Option<Named<PromptDetails>>,
    #[serde(default)]
    completion_tokens_details: Option<Named<CompletionDetails>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
#[expect(clippy::struct_field_names, reason = "the names are OpenAI's")]
struct PromptDetails {
    cached_tokens: Option<i64>,
    cache_write_tokens: Option<i64>,
    audio_tokens: Option<i64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct CompletionDetails {
    audio_tokens: Option<i64>,
    reasoning_tokens: Option<i64>,
}

/// Reads the `usage` of an answer; `None` where it is no report of this kind of call.
pub(super) fn read(endpoint: Metered, json: &str) -> Option<Usage> {
    let Named(report): Named<Report> = serde_json::from_str(json).ok()?;
    if endpoint == Metered::Embeddings {
        let input_tokens = report.prompt_tokens;
        let usage = Usage {
            input_tokens,
            ..Usage::default()
        };
        return is_count(input_tokens).then_some(usage);
    }
    let Named(prompt) = report.prompt_tokens_details.unwrap_or_default();
    let Named(completion) = report.completion_tokens_details.unwrap_or_default();
    let completion_tokens = report.completion_tokens?;
    let beside = match (report.total_tokens, completion.reasoning_tokens) {
        (Some(total), Some(1..)) => {
            reasoning_beside(report.prompt_tokens, completion_tokens, total)
        }
        _ => 0,
    };
    let usage = Usage {
        input_tokens: report.prompt_tokens,
        output_tokens: completion_tokens.saturating_add(beside),
        cache_read_tokens: prompt.cached_tokens.unwrap_or(0),
        cache_write_tokens: prompt.cache_write_tokens.unwrap_or(0),
        input_audio_tokens: prompt.audio_tokens.unwrap_or(0),
        output_audio_tokens: completion.audio_tokens.unwrap_or(0),
        cache_audio_read_tokens: 0,
    };
    let counts = [
        usage.input_tokens,
        completion_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.input_audio_tokens,
        usage.output_audio_tokens,
    ];
    counts.into_iter().all(is_count).then_some(usage)
}

/// The reasoning that stands beside `completion_tokens` and not in them, as with xAI: only the total has it.
///
/// A total that is too large and comes without `reasoning_tokens` is not believed, since nothing says that the rest was
/// output; genai-prices' recorded extractions, which prices are made for, do not believe it either.
fn reasoning_beside(prompt_tokens: i64, completion_tokens: i64, total_tokens: i64) -> i64 {
    let known = prompt_tokens.saturating_add(completion_tokens);
    total_tokens.saturating_sub(known).max(0)
}

fn is_count(tokens: i64) -> bool {
    (0..=MAX_TOKENS).contains(&tokens)
}

/// The name of the model that answered, from its JSON; `None` where it is no name.
pub(super) fn model_name(name: &str) -> Option<String> {
    let fits = (1..=MAX_MODEL_BYTES).contains(&name.len()) && !name.chars().any(char::is_control);
    fits.then(|| name.to_owned())
}

/// Reads an answer that is one JSON object, while its bytes pass.
#[derive(Debug)]
pub struct AnswerReader {
    endpoint: Metered,
    scanner: AnswerScanner<2>,
}

impl AnswerReader {
    /// A reader at the start of the answer to such a call.
    pub fn new(endpoint: Metered) -> Self {
        Self {
            endpoint,
            scanner: AnswerScanner::new(["model", "usage"]),
        }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.scanner.push(bytes);
    }

    /// What has been found.
    pub fn answered(&self) -> Answered {
        let [model, usage] = self.scanner.found();
        let model = model
            .as_ref()
            .and_then(|json| serde_json::from_str::<String>(json).ok());
        let read = usage.as_ref().and_then(|json| read(self.endpoint, json));
        Answered {
            model: model.as_deref().and_then(model_name),
            usage: read,
            usage_json: usage.clone().filter(|_| read.is_some()),
            ..Answered::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(endpoint: Metered, answer: &str) -> Answered {
        let mut reader = AnswerReader::new(endpoint);
        answer
            .as_bytes()
            .chunks(3)
            .for_each(|chunk| reader.push(chunk));
        reader.answered()
    }

    #[test]
    fn reported_zeros_are_zeros_and_a_missing_report_is_missing() {
        let zero = answered(
            Metered::Chat,
            r#"{"model": "m", "usage": {"prompt_tokens": 0, "completion_tokens": 0}}"#,
        );
        assert_eq!(zero.usage, Some(Usage::default()));
        assert_eq!(zero.model.as_deref(), Some("m"));
        for usage in [
            "null",
            "{}",
            r#"{"prompt_tokens": 3}"#,
            r#"{"prompt_tokens": -3, "completion_tokens": 1}"#,
            r#"{"prompt_tokens": 1.5, "completion_tokens": 1}"#,
            r#"{"prompt_tokens": 9e18, "completion_tokens": 1}"#,
            "[3, 1, 4]",
            r#"{"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": [2]}"#,
            r#"{"prompt_tokens": 3, "completion_tokens": 1, "completion_tokens_details": [0, 2]}"#,
        ] {
            let missing = answered(
                Metered::Chat,
                &format!(r#"{{"model": "m", "usage": {usage}}}"#),
            );
            assert_eq!((missing.usage, missing.usage_json), (None, None), "{usage}");
        }
        assert_eq!(
            answered(Metered::Chat, r#"{"choices": []}"#),
            Answered::default()
        );
    }

    #[test]
    fn reasoning_that_only_the_total_has_is_output() {
        let output = |usage: &str| {
            let answer = format!(
                r#"{{"usage": {{"prompt_tokens": 35, "completion_tokens": 12, {usage}}}}}"#
            );
            answered(Metered::Chat, &answer)
                .usage
                .map(|usage| usage.output_tokens)
        };
        let reasoned = |total: &str| {
            output(&format!(
                r#""total_tokens": {total}, "completion_tokens_details": {{"reasoning_tokens": 8}}"#
            ))
        };
        assert_eq!(reasoned("109"), Some(74), "beside, as xAI counts");
        assert_eq!(reasoned("47"), Some(12), "within, as OpenAI counts");
        assert_eq!(
            reasoned("0"),
            Some(12),
            "a total is never a reason to charge less"
        );
        assert_eq!(reasoned("null"), Some(12));
        assert_eq!(reasoned("9000000000000000000"), None, "no such count");
        // What Gemini's compatible API reports, and how genai-prices reads it.
        assert_eq!(output(r#""total_tokens": 109"#), Some(12));
    }

    #[test]
    fn embeddings_have_input_only() {
        let answer = r#"{"data": [{"usage": {}}], "usage": {"prompt_tokens": 4, "total_tokens": 4}, "model": "e"}"#;
        let answered = answered(Metered::Embeddings, answer);
        assert_eq!(answered.usage.unwrap().input_tokens, 4);
        assert_eq!(
            answered.usage_json.unwrap(),
            r#"{"prompt_tokens": 4, "total_tokens": 4}"#
        );
    }
}
