//! The input of a call: an upper bound of its tokens, from the text itself and from what each kind of part can be at most.

use serde_json::value::RawValue;

use super::InvalidRequest;
use crate::dialect::object::{Object, text};
use crate::dialect::tokens::Encoding;

/// More input than any model takes; what is beyond is not counted but refused.
const MAX_INPUT_TOKENS: i64 = 4_000_000;
/// Around each message: its beginning, its role and its end. OpenAI's cookbook counts three, four with a name.
const MESSAGE_FRAMING: i64 = 8;
/// In front of the answer.
const ANSWER_FRAMING: i64 = 3;
/// Around a list of tools or a schema, which the model sees in a wording that is shorter than their JSON.
const SCHEMA_FRAMING: i64 = 64;
/// Members of a chat call, beside the messages, that the model sees.
const SCHEMAS: [&str; 4] = ["tools", "functions", "response_format", "prediction"];
/// Audio is ten tokens a second; the thinnest encoding that anybody sends has 800 bytes a second.
const AUDIO_BYTES_A_TOKEN: i64 = 64;

/// Counts what is still allowed.
pub struct Budget {
    encoding: Encoding,
    image_tokens: ImageTokens,
    counted: i64,
}

/// What an image is at the most, by its `detail`.
struct ImageTokens {
    low: i64,
    high: i64,
    original: i64,
}

impl ImageTokens {
    /// From OpenAI's guide to vision: 8 tiles at most, or 1,536 patches with the largest factor, and 10,000 patches in
    /// the original size.
    fn of(model: &str) -> Self {
        if model.starts_with("gpt-4o-mini") {
            return Self {
                low: 2_833,
                high: 2_833 + 8 * 5_667,
                original: 2_833 + 8 * 5_667,
            };
        }
        Self {
            low: 3_779,
            high: 3_779,
            original: 24_600,
        }
    }
}

impl Budget {
    /// Nothing is counted yet.
    pub fn new(encoding: Encoding, model: &str) -> Self {
        Self {
            encoding,
            image_tokens: ImageTokens::of(model),
            counted: 0,
        }
    }

    fn add(&mut self, param: &str, tokens: i64) -> Result<(), InvalidRequest> {
        self.counted = self.counted.saturating_add(tokens);
        if self.counted > MAX_INPUT_TOKENS {
            return Err(too_long(param));
        }
        Ok(())
    }

    fn add_text(&mut self, param: &str, text: &str) -> Result<(), InvalidRequest> {
        let left = MAX_INPUT_TOKENS - self.counted;
        let count = self
            .encoding
            .count_up_to(text, left)
            .ok_or_else(|| too_long(param))?;
        self.add(param, count)
    }

    fn add_bytes(&mut self, param: &str, value: &RawValue) -> Result<(), InvalidRequest> {
        self.add(param, length(value.get()))
    }
}

fn too_long(param: &str) -> InvalidRequest {
    InvalidRequest::new(
        param,
        format!("the input is more than {MAX_INPUT_TOKENS} tokens"),
    )
}

fn length(text: &str) -> i64 {
    i64::try_from(text.len()).unwrap_or(i64::MAX)
}

/// The input of a chat call.
pub fn chat(object: &Object, budget: &mut Budget) -> Result<i64, InvalidRequest> {
    let expected =
        |_| InvalidRequest::new("messages", "expected a list of messages, each an object");
    let messages = object.get("messages");
    let messages = messages.ok_or_else(|| InvalidRequest::new("messages", "it is missing"))?;
    let messages: Vec<Object> = serde_json::from_str(messages.get()).map_err(expected)?;
    budget.add("messages", ANSWER_FRAMING)?;
    for (at, each) in messages.iter().enumerate() {
        message(&format!("messages[{at}]"), each, budget)?;
    }
    for name in SCHEMAS {
        if let Some(schema) = object.get(name) {
            budget.add(name, SCHEMA_FRAMING)?;
            budget.add_text(name, schema.get())?;
        }
    }
    Ok(budget.counted)
}

fn message(param: &str, message: &Object, budget: &mut Budget) -> Result<(), InvalidRequest> {
    budget.add(param, MESSAGE_FRAMING)?;
    for (name, value) in message.iter() {
        match name {
            "role" => {}
            "content" => content(&format!("{param}.content"), value, budget)?,
            // As JSON they are longer than in the wording the model sees.
            "tool_calls" | "function_call" => {
                budget.add(param, SCHEMA_FRAMING)?;
                budget.add_text(param, value.get())?;
            }
            _ if value.get() == "null" => {}
            _ => match text(value) {
                Ok(text) => budget.add_text(param, &text)?,
                Err(_) => budget.add_bytes(param, value)?,
            },
        }
    }
    Ok(())
}

fn content(param: &str, value: &RawValue, budget: &mut Budget) -> Result<(), InvalidRequest> {
    if value.get() == "null" {
        return Ok(());
    }
    if let Ok(text) = text(value) {
        return budget.add_text(param, &text);
    }
    let expected = |_| InvalidRequest::new(param, "expected a text, or a list of parts");
    let parts: Vec<Object> = serde_json::from_str(value.get()).map_err(expected)?;
    for (at, each) in parts.iter().enumerate() {
        part(&format!("{param}[{at}]"), each, budget)?;
    }
    Ok(())
}

fn part(param: &str, part: &Object, budget: &mut Budget) -> Result<(), InvalidRequest> {
    let expected = |name: &str| InvalidRequest::new(param, format!("expected `{name}`"));
    let inner = |name: &str| -> Result<Object, InvalidRequest> {
        let value = part.get(name).ok_or_else(|| expected(name))?;
        serde_json::from_str(value.get()).map_err(|_| expected(name))
    };
    let kind = part
        .text("type")
        .ok()
        .flatten()
        .ok_or_else(|| expected("type"))?;
    match kind.as_ref() {
        "text" => {
            let text = part
                .text("text")
                .ok()
                .flatten()
                .ok_or_else(|| expected("text"))?;
            budget.add_text(param, &text)
        }
        "image_url" => {
            let detail = inner("image_url")?.text("detail").ok().flatten();
            let images = &budget.image_tokens;
            let tokens = match detail.as_deref() {
                Some("low") => images.low,
                None | Some("high" | "auto") => images.high,
                Some(_) => images.original,
            };
            budget.add(param, tokens)
        }
        "input_audio" => {
            let audio = inner("input_audio")?;
            let data = audio
                .get("data")
                .ok_or_else(|| expected("input_audio.data"))?;
            budget.add(param, length(data.get()) / AUDIO_BYTES_A_TOKEN + 1)
        }
        "file" if inner("file")?.get("file_id").is_some() => Err(InvalidRequest::new(
            param,
            "how much a file is that only the upstream has cannot be estimated: send `file_data`",
        )),
        // A token is at least a byte, whatever the part is.
        _ => part
            .iter()
            .try_for_each(|(_, value)| budget.add_bytes(param, value)),
    }
}

/// The input of an embeddings call: a text, a list of them, tokens, or a list of those.
pub fn embeddings(object: &Object, budget: &mut Budget) -> Result<i64, InvalidRequest> {
    const NAME: &str = "input";
    let missing = || InvalidRequest::new(NAME, "it is missing");
    let input = object.get(NAME).ok_or_else(missing)?;
    if let Ok(text) = text(input) {
        budget.add_text(NAME, &text)?;
        return Ok(budget.counted);
    }
    let expected = || InvalidRequest::new(NAME, "expected texts or tokens");
    let items: Vec<&RawValue> = serde_json::from_str(input.get()).map_err(|_| expected())?;
    for item in items {
        if let Ok(text) = text(item) {
            budget.add_text(NAME, &text)?;
        } else if let Ok(tokens) = serde_json::from_str::<Vec<u32>>(item.get()) {
            budget.add(NAME, i64::try_from(tokens.len()).unwrap_or(i64::MAX))?;
        } else if serde_json::from_str::<u32>(item.get()).is_ok() {
            budget.add(NAME, 1)?;
        } else {
            return Err(expected());
        }
    }
    Ok(budget.counted)
}
