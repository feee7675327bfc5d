//! Asking for the usage of a stream where the caller did not.
//!
//! The body is edited as text: every byte beside what is added or replaced stays as it was, whatever notation it is in.

use std::ops::Range;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::request::{self, Fields, InvalidRequest};
use crate::dialect::json::Value;

const OPTIONS: &str = "stream_options";
const FLAG: &str = "stream_options.include_usage";

/// The body with the usage asked for, or `None` where the caller asks for it.
pub(super) fn ask(fields: &Fields<'_>, body: &Bytes) -> Result<Option<Bytes>, InvalidRequest> {
    let Some(options) = fields.present(OPTIONS) else {
        let open = body.iter().position(|byte| *byte == b'{').unwrap_or(0);
        // The body has a model, so another field always follows.
        let addition = r#""stream_options":{"include_usage":true},"#;
        return Ok(Some(edit(body, open + 1..open + 1, addition)));
    };
    let at = place(options, body);
    let members = match request::value(OPTIONS, options)? {
        Value::Null => return Ok(Some(edit(body, at, r#"{"include_usage":true}"#))),
        Value::Object(members) => members,
        _ => return Err(InvalidRequest::must(OPTIONS, "an object")),
    };
    let Some((_, flag)) = members.iter().find(|(name, _)| name == "include_usage") else {
        let comma = if members.is_empty() { "" } else { "," };
        let addition = format!(r#""include_usage":true{comma}"#);
        return Ok(Some(edit(body, at.start + 1..at.start + 1, &addition)));
    };
    if request::flag(FLAG, Some(flag))? {
        return Ok(None);
    }
    Ok(Some(edit(body, place(flag, body), "true")))
}

/// Where in the body a value stands that was borrowed from it.
fn place(value: &RawValue, body: &Bytes) -> Range<usize> {
    let start = value.get().as_ptr().addr() - body.as_ptr().addr();
    start..start + value.get().len()
}

fn edit(body: &Bytes, at: Range<usize>, with: &str) -> Bytes {
    [&body[..at.start], with.as_bytes(), &body[at.end..]]
        .concat()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(body: &'static str) -> Option<String> {
        let body = Bytes::from_static(body.as_bytes());
        let fields = Fields::read(&body).unwrap();
        let asked = ask(&fields, &body).unwrap();
        asked.map(|body| String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn every_other_byte_stays_as_it_was() {
        assert_eq!(
            asked(" {\n \"mod\\u0065l\": \"m\" }\n").unwrap(),
            " {\"stream_options\":{\"include_usage\":true},\n \"mod\\u0065l\": \"m\" }\n"
        );
        assert_eq!(
            asked(r#"{"stream_options": null, "model": "m"}"#).unwrap(),
            r#"{"stream_options": {"include_usage":true}, "model": "m"}"#
        );
        assert_eq!(
            asked(r#"{"a": 1e2, "stream_options" : { "x": 1 }}"#).unwrap(),
            r#"{"a": 1e2, "stream_options" : {"include_usage":true, "x": 1 }}"#
        );
        assert_eq!(
            asked(r#"{"stream_options":{ },"a":1}"#).unwrap(),
            r#"{"stream_options":{"include_usage":true },"a":1}"#
        );
        for no in ["false", "null"] {
            let body = format!(r#"{{"stream_options":{{"include_usage": {no} }},"a":1}}"#);
            assert_eq!(
                asked(Box::leak(body.into_boxed_str())).unwrap(),
                r#"{"stream_options":{"include_usage": true },"a":1}"#
            );
        }
        assert_eq!(
            asked(r#"{"stream_options":{"include_usage": true }}"#),
            None
        );
    }

    #[test]
    fn options_of_another_type_are_refused_by_name() {
        for (body, param) in [
            (r#"{"stream_options": 1}"#, OPTIONS),
            (r#"{"stream_options": {"include_usage": "yes"}}"#, FLAG),
            (
                r#"{"stream_options": {"include_usage": false, "include_usage": true}}"#,
                OPTIONS,
            ),
        ] {
            let body = Bytes::from_static(body.as_bytes());
            let error = ask(&Fields::read(&body).unwrap(), &body).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param));
        }
    }
}
