//! What messages come to at the most: texts, images, audio, files.
//!
//! Texts are counted. The others are bounded from what OpenAI documents, without looking into them: an image's size or a
//! file's pages are only known where they are decoded, and decoding is not for a proxy.

use serde_json::value::RawValue;

use super::request::{self, InvalidRequest};
use crate::dialect::json::{Members, Value};
use crate::dialect::tokens::{Counter, Vocabulary, base_name};

/// What stands around a message in the prompt. OpenAI's cookbook counts three.
const MESSAGE_TOKENS: i64 = 4;
/// Where two parts meet, a text may come to more tokens than its parts.
const PART_TOKENS: i64 = 2;
/// The most tokens of an earlier spoken answer that is referred to by its id: the most that such an answer can have.
const SPOKEN_ANSWER_TOKENS: i64 = 16_384;
/// Audio has 10 tokens a second, and an MP3 at least 8 kbit/s: a token for each 100 bytes at the most.
const AUDIO_BYTES_PER_TOKEN: usize = 100;
/// The pages of a file that are read at the most.
const FILE_PAGES: i64 = 100;
/// The text of a dense page.
const PAGE_TOKENS: i64 = 2_000;
/// The names in messages and their parts that decide what these come to.
const DECIDING: [&str; 10] = [
    "content",
    "audio",
    "type",
    "text",
    "image_url",
    "detail",
    "input_audio",
    "data",
    "file",
    "file_data",
];

/// The tokens of an image at the most, by the detail it is seen in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ImageTokens {
    low: i64,
    high: i64,
    original: i64,
}

/// OpenAI's guide to images and vision: tiles of 512 pixels, at most eight of them after scaling to 768 × 2048, or
/// patches of 32 pixels, at most 1,536, with a factor by model.
impl ImageTokens {
    pub(super) fn of(model: &str) -> Self {
        let name = base_name(model);
        let tiles = ["gpt-4o", "gpt-4.", "gpt-4-", "chatgpt-4o", "o1", "o3"];
        if Vocabulary::of(model) == Vocabulary::Unknown {
            // The largest that a maker is known to document: Qwen's, at full resolution.
            return Self {
                low: 16_384,
                high: 16_384,
                original: 16_384,
            };
        }
        if name.starts_with("gpt-4o-mini") {
            // 2,833 and 5,667 a tile: its tokens are cheap, its images are not.
            let high = 2_833 + 8 * 5_667;
            return Self {
                low: 2_833,
                high,
                original: high,
            };
        }
        if name.contains("-mini") || name.contains("-nano") {
            // 1,536 patches times 2.46; a low detail changes nothing.
            return Self {
                low: 3_779,
                high: 3_779,
                original: 24_600,
            };
        }
        if tiles.iter().any(|start| name.starts_with(start)) {
            return Self {
                low: 85,
                high: 1_536,
                original: 1_536,
            };
        }
        // The GPT-5 family: 2,500 patches, 10,000 in the original size, times 1.2.
        Self {
            low: 3_000,
            high: 3_000,
            original: 12_000,
        }
    }
}

/// Counts the messages of one request.
pub(super) struct Messages<'c> {
    pub(super) counter: &'c mut Counter,
    pub(super) image: ImageTokens,
}

impl Messages<'_> {
    pub(super) fn message(&mut self, raw: &RawValue, at: &str) -> Result<(), InvalidRequest> {
        let members = object(at, raw)?;
        self.counter.add(MESSAGE_TOKENS);
        for (name, value) in members {
            match name.as_ref() {
                "content" => self.content(value, &format!("{at}.content"))?,
                "audio" if value.get() != "null" => self.counter.add(SPOKEN_ANSWER_TOKENS),
                _ => self.counter.json(value.get()),
            }
        }
        Ok(())
    }

    pub(super) fn content(&mut self, raw: &RawValue, at: &str) -> Result<(), InvalidRequest> {
        match request::value(at, raw)? {
            Value::Null => {}
            Value::Text(text) => self.counter.text(&text),
            Value::Array(parts) => {
                for (index, part) in parts.into_iter().enumerate() {
                    self.part(part, &format!("{at}[{index}]"))?;
                }
            }
            _ => return Err(InvalidRequest::must(at, "a string or an array of parts")),
        }
        Ok(())
    }

    fn part(&mut self, raw: &RawValue, at: &str) -> Result<(), InvalidRequest> {
        let members = object(at, raw)?;
        self.counter.add(PART_TOKENS);
        let kind = members.iter().find(|(name, _)| name == "type");
        let kind = kind.map(|(_, raw)| request::value(at, raw)).transpose()?;
        let Some(Value::Text(kind)) = kind else {
            return Err(InvalidRequest::must(&format!("{at}.type"), "a string"));
        };
        for (name, value) in &members {
            match (kind.as_ref(), name.as_ref()) {
                (_, "type") => {}
                ("text", "text") => self.text(value, at)?,
                ("image_url", "image_url") => self.image(value, at)?,
                ("input_audio", "input_audio") => self.audio(value, at)?,
                ("file", "file") => self.file(value, at)?,
                _ => self.counter.json(value.get()),
            }
        }
        if !["text", "refusal", "image_url", "input_audio", "file"].contains(&kind.as_ref()) {
            // Another maker's part: whatever it shows is taken for an image.
            self.counter.add(self.image.original);
        }
        Ok(())
    }

    fn text(&mut self, raw: &RawValue, at: &str) -> Result<(), InvalidRequest> {
        match request::value(at, raw)? {
            Value::Text(text) => self.counter.text(&text),
            _ => return Err(InvalidRequest::must(&format!("{at}.text"), "a string")),
        }
        Ok(())
    }

    fn image(&mut self, raw: &RawValue, at: &str) -> Result<(), InvalidRequest> {
        let mut tokens = self.image.high;
        // Some makers take the address itself in place of the object.
        if let Value::Object(members) = request::value(at, raw)? {
            request::refuse_disguised(&members, &DECIDING)?;
            for (name, value) in members {
                match (name.as_ref(), value.get()) {
                    ("detail", "\"low\"") => tokens = self.image.low,
                    ("detail", "\"high\"" | "\"auto\"" | "null") | ("url", _) => {}
                    ("detail", _) => tokens = self.image.original,
                    _ => self.counter.json(value.get()),
                }
            }
        }
        self.counter.add(tokens);
        Ok(())
    }

    fn audio(&mut self, raw: &RawValue, at: &str) -> Result<(), InvalidRequest> {
        for (name, value) in object(at, raw)? {
            if name == "data" {
                let tokens = value.get().len() / AUDIO_BYTES_PER_TOKEN + 64;
                self.counter.add(i64::try_from(tokens).unwrap_or(i64::MAX));
            } else {
                self.counter.json(value.get());
            }
        }
        Ok(())
    }

    fn file(&mut self, raw: &RawValue, at: &str) -> Result<(), InvalidRequest> {
        self.counter
            .add(FILE_PAGES * (self.image.high + PAGE_TOKENS));
        for (name, value) in object(at, raw)? {
            if name == "file_data" {
                self.counter.bytes(value.get());
            } else {
                self.counter.json(value.get());
            }
        }
        Ok(())
    }
}

fn object<'a>(at: &str, raw: &'a RawValue) -> Result<Members<'a>, InvalidRequest> {
    match request::value(at, raw)? {
        Value::Object(members) => {
            request::refuse_disguised(&members, &DECIDING)?;
            Ok(members)
        }
        _ => Err(InvalidRequest::must(at, "an object")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(model: &str, content: &str) -> Result<i64, InvalidRequest> {
        let raw = RawValue::from_string(content.to_owned()).unwrap();
        let mut counter = Counter::new(Vocabulary::of(model));
        let mut messages = Messages {
            counter: &mut counter,
            image: ImageTokens::of(model),
        };
        messages.content(&raw, "content")?;
        Ok(counter.tokens())
    }

    #[test]
    fn an_image_counts_the_most_its_model_makes_of_one() {
        let image = |model: &str, detail: &str| {
            let image = format!(
                r#"[{{"type": "image_url", "image_url": {{"url": "data:{}", "detail": "{detail}"}}}}]"#,
                "x".repeat(9999)
            );
            counted(model, &image).unwrap() - PART_TOKENS
        };
        assert_eq!(image("gpt-4o", "low"), 85);
        assert_eq!(image("gpt-4o", "auto"), 1_536);
        assert_eq!(image("gpt-4o-mini", "high"), 48_169);
        assert_eq!(image("gpt-4o-mini", "low"), 2_833);
        assert_eq!(image("gpt-4.1-nano", "low"), 3_779);
        assert_eq!(image("gpt-5.4", "original"), 12_000);
        assert_eq!(image("qwen-vl", "low"), 16_384);
        let bare = counted(
            "gpt-4o",
            r#"[{"type": "image_url", "image_url": "https://a"}]"#,
        )
        .unwrap();
        assert_eq!(bare, 1_536 + PART_TOKENS);
    }

    #[test]
    fn nothing_hides_in_a_part_that_is_not_understood() {
        let long = "word ".repeat(1000);
        for part in [
            format!(r#"{{"type": "image_url", "image_url": {{"url": "a", "caption": "{long}"}}}}"#),
            format!(r#"{{"type": "image_url", "text": "{long}"}}"#),
            format!(r#"{{"type": "novel", "content": [{{"text": "{long}"}}]}}"#),
            format!(r#"{{"type": "text", "text": "", "file": "{long}"}}"#),
        ] {
            assert!(
                counted("gpt-4o", &format!("[{part}]")).unwrap() >= 1000,
                "{part:.40}"
            );
        }
        assert!(counted("gpt-4o", r#"[{"type": "video_url", "video_url": "a"}]"#).unwrap() > 1_536);
    }

    #[test]
    fn what_decides_the_cost_is_read_strictly() {
        for (content, param) in [
            ("1", "content"),
            (r#"["text"]"#, "content[0]"),
            (r#"[{"text": "x"}]"#, "content[0].type"),
            (r#"[{"type": "text", "text": 1}]"#, "content[0].text"),
            (
                r#"[{"type": "text", "text": "x", "text": "y"}]"#,
                "content[0]",
            ),
            (r#"[{"type": "file", "file": []}]"#, "content[0]"),
        ] {
            assert_eq!(
                counted("gpt-4o", content).unwrap_err().param.as_deref(),
                Some(param)
            );
        }
    }
}
