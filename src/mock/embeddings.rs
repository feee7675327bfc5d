//! Embeddings: vectors that mean nothing but are the same each time, as floats or in base64 as the SDKs ask for them.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::chat::tokenizer;
use super::steering::Steering;
use super::{Mock, MockBody, answer, refusal};

const MAX_DIMENSIONS: usize = 3072;
/// Every part of a vector is one of these.
const STEPS: [f32; 8] = [-0.035, -0.025, -0.015, -0.005, 0.005, 0.015, 0.025, 0.035];

#[derive(Deserialize)]
struct EmbeddingRequest {
    model: String,
    input: Input,
    #[serde(default)]
    dimensions: Option<usize>,
    #[serde(default)]
    encoding_format: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Input {
    Text(String),
    Tokens(Vec<u32>),
    Texts(Vec<String>),
    TokenLists(Vec<Vec<u32>>),
}

pub(super) fn embed(mock: &Arc<Mock>, body: &Bytes, mut steering: Steering) -> Response<MockBody> {
    let request: EmbeddingRequest = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let large = request.model.contains("3-large");
    let dimensions = request
        .dimensions
        .unwrap_or(if large { MAX_DIMENSIONS } else { 1536 });
    if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
        return refusal(StatusCode::BAD_REQUEST, "dimensions is out of bounds");
    }
    let count = |text: &String| tokenizer(&request.model).count(text.as_str());
    let (seeds, tokens) = match &request.input {
        Input::Text(text) => (vec![seed(text.bytes())], count(text)),
        Input::Texts(texts) => {
            let seeds = texts.iter().map(|text| seed(text.bytes()));
            (seeds.collect(), texts.iter().map(count).sum())
        }
        Input::Tokens(list) => (vec![seed(list_bytes(list))], list.len()),
        Input::TokenLists(lists) => {
            let seeds = lists.iter().map(|list| seed(list_bytes(list)));
            (seeds.collect::<Vec<_>>(), lists.iter().map(Vec::len).sum())
        }
    };
    let in_base64 = request.encoding_format.as_deref() == Some("base64");
    let vector = |(index, seed): (usize, &u64)| {
        let embedding = embedding(*seed, dimensions, in_base64);
        json!({"object": "embedding", "index": index, "embedding": embedding})
    };
    let mut body = json!({
        "object": "list",
        "data": seeds.iter().enumerate().map(vector).collect::<Vec<_>>(),
        "model": steering.model.take().unwrap_or(request.model),
    });
    if !steering.no_usage {
        body["usage"] = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    }
    answer::whole(mock, &body, steering)
}

fn list_bytes(list: &[u32]) -> impl Iterator<Item = u8> {
    list.iter().flat_map(|token| token.to_le_bytes())
}

/// FNV-1a: the same input has the same vector.
fn seed(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn embedding(seed: u64, dimensions: usize, in_base64: bool) -> Value {
    let mut state = seed | 1;
    let parts = std::iter::repeat_with(|| {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        STEPS[usize::try_from(state % STEPS.len() as u64).expect("a remainder of a usize is one")]
    });
    let parts = parts.take(dimensions);
    if in_base64 {
        let bytes: Vec<u8> = parts.flat_map(f32::to_le_bytes).collect();
        return BASE64_STANDARD.encode(bytes).into();
    }
    parts.collect::<Vec<f32>>().into()
}
