//! JSON taken apart one level at a time, borrowed from the body.
//!
//! What stands in a body twice is an error: which of the two an upstream believes is not for us to guess.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The most members or elements of one value.
pub(super) const MAX_ITEMS: usize = 1 << 20;

/// The members of an object, in their order; no name twice.
pub(super) type Members<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

/// One JSON value, one level deep.
#[derive(Debug)]
pub(super) enum Value<'a> {
    Null,
    Text(Cow<'a, str>),
    Array(Vec<&'a RawValue>),
    Object(Members<'a>),
    /// A number or a boolean.
    Scalar,
}

/// Why a text is not a value that can be read. It never quotes the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum JsonError {
    #[error("is not valid JSON (line {line}, column {column})")]
    Malformed { line: usize, column: usize },
    #[error("names a member twice")]
    Duplicate,
    #[error("has more than {MAX_ITEMS} elements")]
    TooMany,
}

const DUPLICATE: &str = "duplicate member";
const TOO_MANY: &str = "too many items";

/// A name as readers see it that do not tell cases apart, as Go's does not: long s and the Kelvin sign included.
fn folded(name: &str) -> Cow<'_, str> {
    if name
        .bytes()
        .all(|b| b.is_ascii() && !b.is_ascii_uppercase())
    {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(name.to_uppercase().to_lowercase())
    }
}

/// Whether a name is another than one of these here, and the same to such a reader.
pub(super) fn is_disguised(name: &str, known: &[&str]) -> bool {
    let folded = folded(name);
    folded != name && known.contains(&folded.as_ref())
}

/// Reads one level of a value.
pub(super) fn value(text: &str) -> Result<Value<'_>, JsonError> {
    let read = match text.trim_start().as_bytes().first() {
        Some(b'"') => serde_json::from_str(text).map(|Text(text)| Value::Text(text)),
        Some(b'[') => serde_json::from_str(text).map(|Elements(elements)| Value::Array(elements)),
        Some(b'{') => serde_json::from_str(text).map(|Object(members)| Value::Object(members)),
        Some(b'n') => serde_json::from_str(text).map(|()| Value::Null),
        _ => serde_json::from_str(text).map(|_: &RawValue| Value::Scalar),
    };
    read.map_err(|error| {
        let message = error.to_string();
        if message.starts_with(DUPLICATE) {
            JsonError::Duplicate
        } else if message.starts_with(TOO_MANY) {
            JsonError::TooMany
        } else {
            JsonError::Malformed {
                line: error.line(),
                column: error.column(),
            }
        }
    })
}

/// A string, borrowed where it has no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

struct Elements<'a>(Vec<&'a RawValue>);

struct Object<'a>(Members<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for Elements<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Vec<&'de RawValue>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = array.next_element()? {
                    if elements.len() == MAX_ITEMS {
                        return Err(de::Error::custom(TOO_MANY));
                    }
                    elements.push(element);
                }
                Ok(elements)
            }
        }

        deserializer.deserialize_seq(Reader).map(Elements)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
                let mut members = Members::new();
                while let Some((Text(name), value)) = object.next_entry()? {
                    if members.len() == MAX_ITEMS {
                        return Err(de::Error::custom(TOO_MANY));
                    }
                    members.push((name, value));
                }
                let mut names: Vec<_> = members.iter().map(|(name, _)| folded(name)).collect();
                names.sort_unstable();
                if names.windows(2).any(|pair| pair[0] == pair[1]) {
                    return Err(de::Error::custom(DUPLICATE));
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(Reader).map(Object)
    }
}

/// What must be an object: serde takes a list for a struct as well, its elements for the fields in their order.
#[derive(Debug, Default)]
pub(super) struct Named<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(object))
            }
        }

        deserializer.deserialize_map(Reader(PhantomData)).map(Named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_named_twice_is_an_error_however_it_is_spelt() {
        for twice in [
            r#"{"model": 1, "mod\u0065l": 2}"#,
            r#"{"model": 1, "Model": 2}"#,
            "{\"max_tokens\": 1, \"max_to\u{212A}en\u{17F}\": 2}",
        ] {
            assert!(matches!(value(twice), Err(JsonError::Duplicate)), "{twice}");
        }
        assert!(
            matches!(value(r#"{"a": {"b": 1}, "b": 2}"#), Ok(Value::Object(members)) if members.len() == 2)
        );
    }

    #[test]
    fn an_error_says_where_and_never_quotes() {
        let error = value("{\n\"a\": secret}").unwrap_err();
        assert_eq!(error, JsonError::Malformed { line: 2, column: 6 });
        assert!(value(r#"{"a": 1} x"#).is_err());
        assert!(value("").is_err());
    }
}
