//! The body of a call: its top-level fields, and the errors that name them.
//!
//! Errors are for the caller and may be logged, so they name fields and never quote values.

use std::ops::RangeInclusive;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::dialect::json::{self, JsonError, Members, Value};

const MAX_MODEL_BYTES: usize = 256;
/// The fields that decide what a call may cost. Some upstreams take `N` for `n`: nobody else may write them so.
const DECIDING: [&str; 12] = [
    "model",
    "messages",
    "input",
    "n",
    "max_tokens",
    "max_completion_tokens",
    "stream",
    "stream_options",
    "prediction",
    "service_tier",
    "web_search_options",
    "search_parameters",
];

/// A body that is malformed, or asks for what cannot be metered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidRequest {
    /// The field at fault, as OpenAI's errors name it: `messages[1].content`.
    pub param: Option<String>,
    /// What is wrong with it, for the caller.
    pub message: String,
}

impl InvalidRequest {
    /// The field must be something else than it is.
    pub(super) fn must(param: &str, be: &str) -> Self {
        Self {
            param: Some(param.to_owned()),
            message: format!("`{param}` must be {be}"),
        }
    }

    /// The field asks for what no price covers.
    pub(super) fn unmetered(param: &str, why: &str) -> Self {
        Self {
            param: Some(param.to_owned()),
            message: format!("`{param}` cannot be used here: {why}"),
        }
    }

    fn json(param: Option<&str>, error: &JsonError) -> Self {
        let subject = param.map_or_else(|| "the body".to_owned(), |param| format!("`{param}`"));
        Self {
            param: param.map(str::to_owned),
            message: format!("{subject} {error}"),
        }
    }
}

/// Reads one level of the value of a field.
pub(super) fn value<'a>(param: &str, raw: &'a RawValue) -> Result<Value<'a>, InvalidRequest> {
    json::value(raw.get()).map_err(|error| InvalidRequest::json(Some(param), &error))
}

/// Refuses names that an upstream may take for one of these, and that were not read as it.
pub(super) fn refuse_disguised(
    members: &Members<'_>,
    known: &[&str],
) -> Result<(), InvalidRequest> {
    let mut names = members.iter().map(|(name, _)| name);
    match names.find(|name| json::is_disguised(name, known)) {
        Some(name) => Err(InvalidRequest::must(name, "written in lower case")),
        None => Ok(()),
    }
}

/// The top-level fields of a body, none twice.
#[derive(Debug)]
pub(super) struct Fields<'a>(Members<'a>);

impl<'a> Fields<'a> {
    pub(super) fn read(body: &'a Bytes) -> Result<Self, InvalidRequest> {
        let error = |message: &str| InvalidRequest {
            param: None,
            message: message.to_owned(),
        };
        let text = str::from_utf8(body).map_err(|_| error("the body is not UTF-8"))?;
        match json::value(text).map_err(|error| InvalidRequest::json(None, &error))? {
            Value::Object(members) => {
                refuse_disguised(&members, &DECIDING)?;
                Ok(Self(members))
            }
            _ => Err(error("the body must be a JSON object")),
        }
    }

    /// All fields.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), *value))
    }

    /// A field; `None` where it is absent or null.
    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.present(name).filter(|value| value.get() != "null")
    }

    /// A field, null or not.
    pub(super) fn present(&self, name: &str) -> Option<&'a RawValue> {
        self.iter()
            .find(|(field, _)| *field == name)
            .map(|(_, value)| value)
    }

    /// The model that is asked for.
    pub(super) fn model(&self) -> Result<String, InvalidRequest> {
        let model = self.get("model").map(|raw| value("model", raw));
        let Some(Value::Text(name)) = model.transpose()? else {
            return Err(InvalidRequest::must("model", "the name of a model"));
        };
        let fits =
            (1..=MAX_MODEL_BYTES).contains(&name.len()) && !name.chars().any(char::is_control);
        if !fits {
            return Err(InvalidRequest::must("model", "a name of 1 to 256 bytes"));
        }
        Ok(name.into_owned())
    }

    /// A whole number within bounds.
    pub(super) fn whole(
        &self,
        name: &str,
        bounds: RangeInclusive<i64>,
    ) -> Result<Option<i64>, InvalidRequest> {
        let Some(raw) = self.get(name) else {
            return Ok(None);
        };
        let number = raw
            .get()
            .parse()
            .ok()
            .filter(|number| bounds.contains(number));
        number.map(Some).ok_or_else(|| {
            let (least, most) = bounds.into_inner();
            InvalidRequest::must(name, &format!("a whole number from {least} to {most}"))
        })
    }

    /// A boolean; false where it is absent or null.
    pub(super) fn flag(&self, name: &str) -> Result<bool, InvalidRequest> {
        flag(name, self.get(name))
    }
}

/// A boolean; false where it is absent or null.
pub(super) fn flag(param: &str, raw: Option<&RawValue>) -> Result<bool, InvalidRequest> {
    match raw.map(RawValue::get) {
        None | Some("null" | "false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(InvalidRequest::must(param, "true or false")),
    }
}
