//! Embeddings: input only, and all of it counted exactly.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::request::{self, Fields, InvalidRequest};
use super::{Call, Metered};
use crate::dialect::Estimate;
use crate::dialect::json::Value;
use crate::dialect::tokens::{Counter, Vocabulary};

/// What another maker's model puts around each input.
const INPUT_TOKENS: i64 = 4;

const KNOWN: [&str; 5] = ["model", "input", "encoding_format", "dimensions", "user"];

pub(super) fn call(fields: &Fields<'_>, body: &Bytes) -> Result<Call, InvalidRequest> {
    let model = fields.model()?;
    let mut input = Input {
        vocabulary: Vocabulary::of(&model),
        counter: Counter::new(Vocabulary::of(&model)),
    };
    input.read(fields)?;
    for (name, value) in fields.iter() {
        if !KNOWN.contains(&name) {
            input.counter.json(value.get());
        }
    }
    Ok(Call {
        endpoint: Metered::Embeddings,
        model,
        estimate: Estimate {
            input_tokens: input.counter.tokens(),
            output_tokens: Some(0),
            choices: 1,
            has_output: false,
        },
        stream: false,
        body: body.clone(),
        hide_usage_event: false,
    })
}

struct Input {
    vocabulary: Vocabulary,
    counter: Counter,
}

impl Input {
    /// A string, strings, tokens, or arrays of tokens.
    fn read(&mut self, fields: &Fields<'_>) -> Result<(), InvalidRequest> {
        let input = fields.get("input").ok_or_else(must)?;
        let elements = match request::value("input", input)? {
            Value::Text(text) => {
                self.text(&text);
                return Ok(());
            }
            Value::Array(elements) => elements,
            _ => return Err(must()),
        };
        match elements.first().map(|first| first.get().as_bytes()[0]) {
            Some(b'"') => {
                for element in elements {
                    match request::value("input", element)? {
                        Value::Text(text) => self.text(&text),
                        _ => return Err(must()),
                    }
                }
            }
            Some(b'[') => {
                for element in elements {
                    match request::value("input", element)? {
                        Value::Array(tokens) => self.tokens(&tokens)?,
                        _ => return Err(must()),
                    }
                }
            }
            Some(_) => self.tokens(&elements)?,
            None => return Err(must()),
        }
        Ok(())
    }

    fn text(&mut self, text: &str) {
        self.framing();
        self.counter.text(text);
    }

    fn tokens(&mut self, tokens: &[&RawValue]) -> Result<(), InvalidRequest> {
        if tokens.is_empty()
            || tokens
                .iter()
                .any(|token| token.get().parse::<u32>().is_err())
        {
            return Err(must());
        }
        self.framing();
        self.counter
            .add(i64::try_from(tokens.len()).unwrap_or(i64::MAX));
        Ok(())
    }

    fn framing(&mut self) {
        if self.vocabulary == Vocabulary::Unknown {
            self.counter.add(INPUT_TOKENS);
        }
    }
}

fn must() -> InvalidRequest {
    InvalidRequest::must("input", "a string, an array of strings, or one of tokens")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::openai::parse;

    fn estimate(input: &str) -> Result<i64, InvalidRequest> {
        let body = format!(r#"{{"model": "text-embedding-3-small", "input": {input}}}"#);
        let call = parse(Metered::Embeddings, &Bytes::from(body))?;
        assert_eq!(call.estimate.output_tokens, Some(0));
        assert!(!call.estimate.has_output && !call.stream);
        Ok(call.estimate.input_tokens)
    }

    #[test]
    fn every_form_of_input_is_counted_exactly() {
        assert_eq!(estimate(r#""Hello, world""#), Ok(3));
        assert_eq!(estimate(r#"["Hello, world", "Hello, world"]"#), Ok(6));
        assert_eq!(estimate("[9906, 11, 1917]"), Ok(3));
        assert_eq!(estimate("[[9906, 11], [1917]]"), Ok(3));
        assert_eq!(estimate(r#""""#), Ok(0));
    }

    #[test]
    fn other_input_is_refused_by_name() {
        for input in [
            "null",
            "7",
            "{}",
            "[]",
            "[[]]",
            r#"["a", 1]"#,
            r#"[1, "a"]"#,
            "[1.5]",
            "[-1]",
            "[[1], 2]",
            "[null]",
        ] {
            assert_eq!(
                estimate(input).unwrap_err().param.as_deref(),
                Some("input"),
                "{input}"
            );
        }
    }
}
