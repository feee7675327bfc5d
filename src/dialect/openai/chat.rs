//! A chat completion: what it may use at the most.

use bytes::Bytes;

use super::content::{ImageTokens, Messages};
use super::include_usage;
use super::request::{self, Fields, InvalidRequest};
use super::{Call, Metered};
use crate::dialect::Estimate;
use crate::dialect::json::Value;
use crate::dialect::tokens::{Counter, Vocabulary};

/// More output than any model gives; a larger maximum is a mistake.
const MAX_OUTPUT_TOKENS: i64 = 10_000_000;
/// The most choices that OpenAI gives.
const MAX_CHOICES: i64 = 128;
/// What begins the prompt and the answer; OpenAI's cookbook counts three.
const REQUEST_TOKENS: i64 = 8;
/// The instructions that come with tools, or with a schema for the answer.
const INSTRUCTION_TOKENS: i64 = 32;

/// Fields that steer an answer without becoming part of the prompt. All others are counted.
const NOT_IN_THE_PROMPT: [&str; 30] = [
    "model",
    "n",
    "max_tokens",
    "max_completion_tokens",
    "stream",
    "stream_options",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "stop",
    "seed",
    "user",
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "store",
    "metadata",
    "service_tier",
    "parallel_tool_calls",
    "modalities",
    "audio",
    "reasoning_effort",
    "verbosity",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
];

pub(super) fn call(fields: &Fields<'_>, body: &Bytes) -> Result<Call, InvalidRequest> {
    refuse_unpriced(fields)?;
    let model = fields.model()?;
    let vocabulary = Vocabulary::of(&model);
    let stream = fields.flag("stream")?;
    let choices = fields.whole("n", 1..=MAX_CHOICES)?.unwrap_or(1);
    let rewritten = if stream {
        include_usage::ask(fields, body)?
    } else {
        None
    };
    let estimate = Estimate {
        input_tokens: input_tokens(fields, &model, vocabulary)?,
        output_tokens: output_tokens(fields, vocabulary)?,
        choices,
        has_output: true,
    };
    Ok(Call {
        endpoint: Metered::Chat,
        model,
        estimate,
        stream,
        hide_usage_event: rewritten.is_some(),
        body: rewritten.unwrap_or_else(|| body.clone()),
    })
}

/// What is billed beyond tokens, or dearer than the price says, is refused: it would be charged too little.
fn refuse_unpriced(fields: &Fields<'_>) -> Result<(), InvalidRequest> {
    for search in ["web_search_options", "search_parameters"] {
        if fields.get(search).is_some() {
            return Err(InvalidRequest::unmetered(search, "searches are not priced"));
        }
    }
    let tier = fields
        .get("service_tier")
        .map(|raw| request::value("service_tier", raw));
    if matches!(tier.transpose()?, Some(Value::Text(tier)) if tier.eq_ignore_ascii_case("priority"))
    {
        return Err(InvalidRequest::unmetered(
            "service_tier",
            "priority processing is not priced",
        ));
    }
    Ok(())
}

fn input_tokens(
    fields: &Fields<'_>,
    model: &str,
    vocabulary: Vocabulary,
) -> Result<i64, InvalidRequest> {
    let must = || InvalidRequest::must("messages", "an array of messages");
    let messages = fields.get("messages").ok_or_else(must)?;
    let Value::Array(messages) = request::value("messages", messages)? else {
        return Err(must());
    };
    let mut counter = Counter::new(vocabulary);
    counter.add(REQUEST_TOKENS);
    let mut prompt = Messages {
        counter: &mut counter,
        image: ImageTokens::of(model),
    };
    for (index, message) in messages.into_iter().enumerate() {
        prompt.message(message, &format!("messages[{index}]"))?;
    }
    for (name, value) in fields.iter() {
        if name == "messages" || NOT_IN_THE_PROMPT.contains(&name) {
            continue;
        }
        counter.add(INSTRUCTION_TOKENS);
        counter.json(value.get());
    }
    Ok(counter.tokens())
}

/// The most output of each choice. Where both fields are given the larger one bounds what either may mean. A predicted
/// output is charged as output where the answer does not follow it.
fn output_tokens(
    fields: &Fields<'_>,
    vocabulary: Vocabulary,
) -> Result<Option<i64>, InvalidRequest> {
    let bounds = 1..=MAX_OUTPUT_TOKENS;
    let older = fields.whole("max_tokens", bounds.clone())?;
    let newer = fields.whole("max_completion_tokens", bounds)?;
    let predicted = fields.get("prediction").map(|prediction| {
        let mut counter = Counter::new(vocabulary);
        counter.json(prediction.get());
        counter.tokens()
    });
    let most = older.max(newer);
    Ok(most.map(|most| most + predicted.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::openai::parse;
    use proptest::prelude::*;

    fn chat(body: &str) -> Result<Call, InvalidRequest> {
        parse(Metered::Chat, &Bytes::copy_from_slice(body.as_bytes()))
    }

    fn with(fields: &str) -> Result<Call, InvalidRequest> {
        chat(&format!(
            r#"{{"model": "gpt-4o-mini", "messages": [{{"role": "user", "content": "hi"}}]{fields}}}"#
        ))
    }

    #[test]
    fn a_call_is_understood_and_its_body_untouched() {
        let body = r#"{ "model": "gpt-4o-mini","messages":[{"role":"user","content":"Hello, world"}],"max_tokens":7,"n":2 }"#;
        let call = chat(body).unwrap();
        assert_eq!(call.model, "gpt-4o-mini");
        assert_eq!(call.body, body);
        assert!(!call.stream && !call.hide_usage_event);
        assert_eq!(call.estimate.output_tokens, Some(7));
        assert_eq!((call.estimate.choices, call.estimate.has_output), (2, true));
        // OpenAI counts ten: three around the message, one for its role, three for its text, three for the answer.
        assert!(
            (10..30).contains(&call.estimate.input_tokens),
            "{:?}",
            call.estimate
        );
    }

    #[test]
    fn the_usage_of_a_stream_is_asked_for_and_hidden_unless_the_caller_asks() {
        let asked = with(r#", "stream": true, "stream_options": {"include_usage": true}"#).unwrap();
        assert!(asked.stream && !asked.hide_usage_event);
        let not_asked = with(r#", "stream": true"#).unwrap();
        assert!(not_asked.stream && not_asked.hide_usage_event);
        let body: serde_json::Value = serde_json::from_slice(&not_asked.body).unwrap();
        assert_eq!(body["stream_options"]["include_usage"], true);
        assert!(!with(r#", "stream": false"#).unwrap().hide_usage_event);
    }

    #[test]
    fn both_maximums_count_and_a_prediction_on_top() {
        let most = |fields: &str| with(fields).unwrap().estimate.output_tokens;
        assert_eq!(most(""), None);
        assert_eq!(most(r#", "max_tokens": null"#), None);
        assert_eq!(most(r#", "max_completion_tokens": 5"#), Some(5));
        assert_eq!(
            most(r#", "max_tokens": 9, "max_completion_tokens": 5"#),
            Some(9)
        );
        let predicted =
            r#", "max_tokens": 9, "prediction": {"type": "content", "content": "one two three"}"#;
        assert!(most(predicted).unwrap() >= 12);
    }

    #[test]
    fn a_bad_field_is_refused_by_name_and_never_quoted() {
        for (fields, param) in [
            (r#", "max_tokens": -1"#, "max_tokens"),
            (r#", "max_tokens": 0"#, "max_tokens"),
            (r#", "max_tokens": 1.0"#, "max_tokens"),
            (r#", "max_tokens": "9""#, "max_tokens"),
            (r#", "max_tokens": 99999999999999999999"#, "max_tokens"),
            (
                r#", "max_completion_tokens": 10000001"#,
                "max_completion_tokens",
            ),
            (r#", "n": 0"#, "n"),
            (r#", "N": 128"#, "N"),
            (r#", "MAX_Tokens": 9"#, "MAX_Tokens"),
            (r#", "n": 129"#, "n"),
            (r#", "stream": "yes""#, "stream"),
            (r#", "web_search_options": {}"#, "web_search_options"),
            (r#", "service_tier": "priority""#, "service_tier"),
        ] {
            let error = with(fields).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{error}");
        }
        for (body, param) in [
            (r#"{"messages": []}"#, Some("model")),
            (r#"{"model": 7, "messages": []}"#, Some("model")),
            (r#"{"model": "", "messages": []}"#, Some("model")),
            (r#"{"model": "m"}"#, Some("messages")),
            (r#"{"model": "m", "messages": "secret"}"#, Some("messages")),
            (
                r#"{"model": "m", "messages": [{"role": "user", "content": {"secret": 1}}]}"#,
                Some("messages[0].content"),
            ),
            (
                r#"{"model": "m", "messages": [{"role": "user", "Content": [{"type": "image_url"}]}]}"#,
                Some("Content"),
            ),
            (
                r#"{"model": "m", "messages": ["secret"]}"#,
                Some("messages[0]"),
            ),
            (r#"{"model": "m", "model": "secret", "messages": []}"#, None),
            (r#"{"model": "m", "messages": [], "n": secret}"#, None),
            (r#"["secret"]"#, None),
            ("", None),
        ] {
            let error = chat(body).unwrap_err();
            assert_eq!(error.param.as_deref(), param, "{error}");
            assert!(!error.message.contains("secret"), "{error}");
        }
    }

    /// OpenAI's cookbook: three around each message, one for a name, three before the answer.
    fn cookbook(messages: &[(String, String)], name: &str) -> i64 {
        let count = |text: &str| {
            let mut counter = Counter::new(Vocabulary::O200k);
            counter.text(text);
            counter.tokens()
        };
        let message =
            |(role, text): &(String, String)| 3 + count(role) + count(text) + 1 + count(name);
        messages.iter().map(message).sum::<i64>() + 3
    }

    proptest! {
        #[test]
        fn the_estimate_is_never_below_the_count(
            messages in prop::collection::vec(("(user|system|assistant)", "\\PC{0,80}"), 0..5),
            name in "[a-z]{1,9}", arguments in "\\PC{0,40}",
        ) {
            let list: Vec<_> = messages.iter().map(|(role, text)| serde_json::json!({
                "role": role, "content": text, "name": name,
                "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}],
            })).collect();
            let parts: Vec<_> = messages.iter().map(|(role, text)| {
                let half = text.char_indices().nth(text.chars().count() / 2).map_or(0, |(at, _)| at);
                serde_json::json!({"role": role, "name": name, "content": [
                    {"type": "text", "text": &text[..half]}, {"type": "text", "text": &text[half..]}]})
            }).collect();
            for list in [list, parts] {
                let body = serde_json::json!({"model": "gpt-4o", "messages": list}).to_string();
                prop_assert!(chat(&body).unwrap().estimate.input_tokens >= cookbook(&messages, &name));
            }
        }

        #[test]
        fn hostile_bodies_never_panic(noise in r#"(\{"|"\}|\[|\]|\{|\}|"(model|messages|content|type|text|stream|stream_options|n|include_usage)"|[:,]|"m"|true|null|-1|1e9|\\u0065){0,30}"#) {
            let _ = chat(&noise);
            let _ = chat(&format!(r#"{{"model": "m", "messages": [{noise}]}}"#));
            let _ = chat(&format!(r#"{{"model": "m", "messages": [], "stream": true, "stream_options": {noise}}}"#));
            let _ = parse(Metered::Embeddings, &Bytes::from(format!(r#"{{"model": "m", "input": {noise}}}"#)));
        }
    }
}
