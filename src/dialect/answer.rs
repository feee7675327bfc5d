//! One field among many megabytes: the top-level members of a JSON answer, found while its bytes pass.
//!
//! An embeddings answer may be 40 MB with its usage at the end, so nothing is kept but what is asked for.

use memchr::memchr2;

/// The longest value that is kept.
const MAX_VALUE_BYTES: usize = 64 * 1024;
/// A longer name is none that is asked for.
const MAX_NAME_BYTES: usize = 64;

/// Finds top-level members of a JSON object, in chunks, in bounded memory.
///
/// It is no validator: of an answer that is not JSON it finds nothing, or what looked like a member.
#[derive(Debug)]
pub struct AnswerScanner<const N: usize> {
    names: [&'static str; N],
    /// The text of each value; the last one where a name comes twice.
    found: [Option<String>; N],
    state: State,
    name: Vec<u8>,
    /// Which value is being kept, and what of it has come.
    keeping: Option<usize>,
    value: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    BeforeName,
    Name {
        escaped: bool,
    },
    BeforeColon,
    BeforeValue,
    Text {
        escaped: bool,
    },
    Nested {
        depth: usize,
        text: bool,
        escaped: bool,
    },
    Scalar,
    AfterValue,
    /// The object has ended, or was none.
    Done,
}

impl<const N: usize> AnswerScanner<N> {
    /// A scanner for the members of these names.
    pub fn new(names: [&'static str; N]) -> Self {
        Self {
            names,
            found: [const { None }; N],
            state: State::Start,
            name: Vec::new(),
            keeping: None,
            value: Vec::new(),
        }
    }

    /// The values found so far, as JSON text, in the order of the names.
    pub fn found(&self) -> &[Option<String>; N] {
        &self.found
    }

    /// Takes the next bytes of the answer.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.state != State::Done {
            let taken = self.step(bytes);
            bytes = &bytes[taken..];
        }
    }

    /// Takes at least one byte, unless the state changes.
    fn step(&mut self, bytes: &[u8]) -> usize {
        let first = bytes[0];
        match self.state {
            State::Name { escaped } => return self.in_name(bytes, escaped),
            State::Text { escaped } => return self.in_text(bytes, escaped),
            State::Nested { .. } => return self.in_nested(bytes),
            State::Scalar => return self.in_scalar(bytes),
            _ if first.is_ascii_whitespace() => return 1,
            // A byte order mark before the object.
            State::Start if matches!(first, 0xEF | 0xBB | 0xBF) => return 1,
            State::BeforeValue => {
                self.begin_value(first);
                return usize::from(first == b'"' || matches!(self.state, State::Nested { .. }));
            }
            _ => {}
        }
        self.state = match (self.state, first) {
            (State::Start, b'{') | (State::AfterValue, b',') => State::BeforeName,
            (State::BeforeName, b'"') => {
                self.name.clear();
                State::Name { escaped: false }
            }
            (State::BeforeColon, b':') => State::BeforeValue,
            _ => State::Done,
        };
        1
    }

    fn in_name(&mut self, bytes: &[u8], escaped: bool) -> usize {
        let (taken, state) = match end_of_text(bytes, escaped) {
            (taken, Some(true)) => (taken, State::BeforeColon),
            (taken, ended) => (
                taken,
                State::Name {
                    escaped: ended.is_some(),
                },
            ),
        };
        if self.name.len() <= MAX_NAME_BYTES {
            let room = MAX_NAME_BYTES + 1;
            self.name.extend_from_slice(&bytes[..taken.min(room)]);
        }
        if state == State::BeforeColon {
            self.keeping = self.asked_for();
            self.value.clear();
        }
        self.state = state;
        taken
    }

    /// Which name this is, escapes and all.
    fn asked_for(&self) -> Option<usize> {
        let name = self.name.strip_suffix(b"\"")?;
        let is = |wanted: &&str| {
            if name.contains(&b'\\') {
                let quoted = [b"\"", name, b"\""].concat();
                serde_json::from_slice::<String>(&quoted).is_ok_and(|name| name == **wanted)
            } else {
                name == wanted.as_bytes()
            }
        };
        self.names.iter().position(is)
    }

    fn begin_value(&mut self, first: u8) {
        self.state = match first {
            b'"' => State::Text { escaped: false },
            b'{' | b'[' => State::Nested {
                depth: 1,
                text: false,
                escaped: false,
            },
            _ => State::Scalar,
        };
        if self.state != State::Scalar {
            self.keep(&[first]);
        }
    }

    fn in_text(&mut self, bytes: &[u8], escaped: bool) -> usize {
        let (taken, ended) = end_of_text(bytes, escaped);
        self.keep(&bytes[..taken]);
        if ended == Some(true) {
            self.end_value();
        } else {
            self.state = State::Text {
                escaped: ended.is_some(),
            };
        }
        taken
    }

    fn in_nested(&mut self, bytes: &[u8]) -> usize {
        let State::Nested {
            mut depth,
            mut text,
            mut escaped,
        } = self.state
        else {
            return 0;
        };
        let mut at = 0;
        while at < bytes.len() && depth > 0 {
            if text {
                let (taken, ended) = end_of_text(&bytes[at..], escaped);
                text = ended != Some(true);
                escaped = ended == Some(false);
                at += taken;
                continue;
            }
            match bytes[at] {
                b'"' => text = true,
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            at += 1;
        }
        self.keep(&bytes[..at]);
        if depth == 0 {
            self.end_value();
        } else {
            self.state = State::Nested {
                depth,
                text,
                escaped,
            };
        }
        at
    }

    fn in_scalar(&mut self, bytes: &[u8]) -> usize {
        let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace();
        let end = bytes.iter().position(ends);
        self.keep(&bytes[..end.unwrap_or(bytes.len())]);
        if end.is_some() {
            self.end_value();
        }
        end.unwrap_or(bytes.len())
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.keeping.is_none() {
            return;
        }
        if self.value.len() + bytes.len() > MAX_VALUE_BYTES {
            self.keeping = None;
            return;
        }
        self.value.extend_from_slice(bytes);
    }

    fn end_value(&mut self) {
        self.state = State::AfterValue;
        if let Some(index) = self.keeping.take() {
            self.found[index] = String::from_utf8(std::mem::take(&mut self.value)).ok();
        }
    }
}

/// How much of `bytes` belongs to a string that is being read, and how that ends: `Some(true)` with its closing quote,
/// `Some(false)` in the middle of an escape, `None` in plain text.
fn end_of_text(bytes: &[u8], escaped: bool) -> (usize, Option<bool>) {
    let mut at = usize::from(escaped);
    while let Some(offset) = memchr2(b'"', b'\\', &bytes[at..]) {
        at += offset;
        if bytes[at] == b'"' {
            return (at + 1, Some(true));
        }
        at += 2;
        if at > bytes.len() {
            return (bytes.len(), Some(false));
        }
    }
    (bytes.len(), None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan(chunks: &[&[u8]]) -> [Option<String>; 2] {
        let mut scanner = AnswerScanner::new(["usage", "model"]);
        for chunk in chunks {
            scanner.push(chunk);
        }
        scanner.found().clone()
    }

    fn found(text: &str) -> (Option<String>, Option<String>) {
        let bytewise: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        let [usage, model] = scan(&[text.as_bytes()]);
        assert_eq!(scan(&bytewise), [usage.clone(), model.clone()], "{text}");
        (usage, model)
    }

    #[test]
    fn only_members_of_the_answer_itself_count() {
        let text = r#" {"choices": [{"usage": 1, "s": "\"usage\": {\"a\": 1}, }]"}], "n": -1.5e3 ,
            "mod\u0065l" : "gpt\"x", "usage":{"a":[1,{"b":"}"}]} , "usage2": null}"#;
        let (usage, model) = found(text);
        assert_eq!(usage.unwrap(), r#"{"a":[1,{"b":"}"}]}"#);
        assert_eq!(model.unwrap(), r#""gpt\"x""#);
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        for text in [
            "",
            "[]",
            "null",
            "{}",
            r#"{"usage"}"#,
            r#"{"usage": {"a": 1"#,
            r#"[{"usage": 1}]"#,
            r#"{"a": 1} {"usage": 2}"#,
        ] {
            assert_eq!(found(text).0, None, "{text}");
        }
        assert_eq!(found(r#"{"usage": null}"#).0.as_deref(), Some("null"));
        assert_eq!(found(r#"{"usage": 7, "usage": 8}"#).0.as_deref(), Some("8"));
    }

    #[test]
    fn memory_is_bounded_at_any_size() {
        let mut scanner = AnswerScanner::new(["usage"]);
        scanner.push(br#"{"data": ["#);
        for _ in 0..400 {
            scanner.push(&b"[0.0123456,-0.25],".repeat(100));
        }
        scanner.push(br#"[]], "usage": {"prompt_tokens": 3}}"#);
        assert_eq!(
            scanner.found()[0].as_deref(),
            Some(r#"{"prompt_tokens": 3}"#)
        );
        assert!(
            scanner.value.capacity() <= MAX_VALUE_BYTES
                && scanner.name.capacity() <= 4 * MAX_NAME_BYTES
        );
        let mut scanner = AnswerScanner::new(["usage"]);
        scanner.push(br#"{"usage": ""#);
        scanner.push(&vec![b'x'; 2 * MAX_VALUE_BYTES]);
        scanner.push(br#"", "b": 1}"#);
        assert_eq!(scanner.found()[0], None);
        assert_eq!(scanner.state, State::Done);
    }

    proptest! {
        #[test]
        fn every_cut_of_an_answer_gives_the_same(text in r#"\{("usage"|"model"|"\\\\"|[\[\]{}:, a1"\\é]){0,30}"#, cut in 0..90_usize) {
            let bytes = text.as_bytes();
            let cut = cut.min(bytes.len());
            let whole = scan(&[bytes]);
            prop_assert_eq!(&scan(&[&bytes[..cut], &bytes[cut..]]), &whole);
            prop_assert_eq!(&scan(&bytes.chunks(1).collect::<Vec<_>>()), &whole);
        }

        #[test]
        fn a_valid_answer_is_read_as_serde_reads_it(texts in prop::collection::vec(".{0,12}", 4)) {
            let answer = serde_json::json!({ &texts[0]: [&texts[1]], "usage": { &texts[2]: [&texts[3], 1] }, "model": &texts[1] });
            let [usage, model] = scan(&[answer.to_string().as_bytes()]);
            let read = |text: Option<String>| serde_json::from_str::<serde_json::Value>(&text.unwrap()).unwrap();
            prop_assert_eq!(&read(usage), &answer["usage"]);
            prop_assert_eq!(&read(model), &answer["model"]);
        }
    }
}
