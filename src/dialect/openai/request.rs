//! Requests: read as far as an upper bound of their use needs, and changed in nothing but what the meter must know.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::input::{self, Budget};
use super::{Endpoint, InvalidRequest, ReadRequest};
use crate::dialect::Estimate;
use crate::dialect::object::Object;
use crate::dialect::tokens::Encoding;

/// The longest name of a model.
const MAX_MODEL_BYTES: usize = 256;
/// The most choices; OpenAI's own bound.
const MAX_CHOICES: i64 = 128;
/// The most output that can be asked for: far beyond any model's.
const MAX_OUTPUT_TOKENS: i64 = 10_000_000;

/// Reads a call's body.
pub fn read_request(endpoint: Endpoint, body: &Bytes) -> Result<ReadRequest, InvalidRequest> {
    let object = members(body)?;
    let model = object.text("model").ok().flatten();
    let model = model.filter(|model| !model.is_empty() && model.len() <= MAX_MODEL_BYTES);
    let model =
        model.ok_or_else(|| InvalidRequest::new("model", "expected the name of a model"))?;
    let mut budget = Budget::new(Encoding::of(&model), &model);
    let model = model.into_owned();
    if endpoint == Endpoint::Embeddings {
        let estimate = Estimate {
            input_tokens: input::embeddings(&object, &mut budget)?,
            output_tokens: None,
            choices: 1,
            has_output: false,
        };
        return Ok(ReadRequest {
            model,
            estimate,
            stream: false,
            hide_usage_event: false,
            body: body.clone(),
        });
    }
    let estimate = Estimate {
        input_tokens: input::chat(&object, &mut budget)?,
        output_tokens: max_output(&object)?,
        choices: number(&object, "n", 1..=MAX_CHOICES)?.unwrap_or(1),
        has_output: true,
    };
    let stream = read(&object, "stream", "expected true or false")?.unwrap_or(false);
    let asked = if stream {
        ask_for_usage(body, &object)?
    } else {
        None
    };
    Ok(ReadRequest {
        model,
        estimate,
        stream,
        hide_usage_event: asked.is_some(),
        body: asked.unwrap_or_else(|| body.clone()),
    })
}

fn members(body: &Bytes) -> Result<Object<'_>, InvalidRequest> {
    serde_json::from_slice(body).map_err(|error| InvalidRequest {
        // The position helps; the parser's words could quote the body.
        message: format!(
            "the body is not a JSON object with each member once (line {}, column {})",
            error.line(),
            error.column()
        ),
        param: None,
    })
}

/// The larger of the two names for the same: an upstream may look at either.
fn max_output(object: &Object) -> Result<Option<i64>, InvalidRequest> {
    let bounds = 1..=MAX_OUTPUT_TOKENS;
    let old = number(object, "max_tokens", bounds.clone())?;
    let new = number(object, "max_completion_tokens", bounds)?;
    Ok(old.max(new))
}

fn number(
    object: &Object,
    name: &str,
    bounds: std::ops::RangeInclusive<i64>,
) -> Result<Option<i64>, InvalidRequest> {
    let (least, most) = (bounds.start(), bounds.end());
    let expected = format!("expected a whole number from {least} to {most}");
    match read::<i64>(object, name, &expected)? {
        Some(number) if !bounds.contains(&number) => Err(InvalidRequest::new(name, expected)),
        number => Ok(number),
    }
}

fn read<T: DeserializeOwned>(
    object: &Object,
    name: &str,
    expected: &str,
) -> Result<Option<T>, InvalidRequest> {
    object
        .read(name)
        .map_err(|_| InvalidRequest::new(name, expected))
}

/// Asks for the usage of a stream where the caller did not; every other byte of the body stays as it was.
fn ask_for_usage(body: &Bytes, object: &Object) -> Result<Option<Bytes>, InvalidRequest> {
    const NAME: &str = "stream_options";
    let expected = || InvalidRequest::new(NAME, "expected an object with include_usage");
    let Some(options) = object.get(NAME) else {
        // It may stand there as null.
        let null = object.iter().find(|(name, _)| *name == NAME);
        return Ok(Some(match null {
            Some((_, null)) => replaced(body, null, r#"{"include_usage":true}"#),
            None => after_brace(body, r#""stream_options":{"include_usage":true},"#),
        }));
    };
    let inner: Object = serde_json::from_str(options.get()).map_err(|_| expected())?;
    if inner
        .read::<bool>("include_usage")
        .map_err(|_| expected())?
        == Some(true)
    {
        return Ok(None);
    }
    let others = inner.iter().filter(|(name, _)| *name != "include_usage");
    let mut asked = r#"{"include_usage":true"#.to_owned();
    for (name, value) in others {
        asked.extend([",", &quoted(name), ":", value.get()]);
    }
    asked.push('}');
    Ok(Some(replaced(body, options, &asked)))
}

fn quoted(name: &str) -> String {
    serde_json::Value::from(name).to_string()
}

/// The body with one of its values in another wording.
fn replaced(body: &Bytes, value: &RawValue, by: &str) -> Bytes {
    // The value borrows from the body, so their distance is its place.
    let at = value.get().as_ptr().addr() - body.as_ptr().addr();
    [&body[..at], by.as_bytes(), &body[at + value.get().len()..]]
        .concat()
        .into()
}

/// The body with one more member, the first. It has others, or it would not have been read.
fn after_brace(body: &Bytes, member: &str) -> Bytes {
    let brace = memchr::memchr(b'{', body).expect("an object was read from it");
    [&body[..=brace], member.as_bytes(), &body[brace + 1..]]
        .concat()
        .into()
}
