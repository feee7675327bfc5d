//! The mock answers as the real upstream does, does what it is asked, and remembers what it heard.

use bpe_openai::{cl100k_base, o200k_base};
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::*;

struct Running {
    mock: Arc<Mock>,
    base: String,
    client: Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>,
    _server: tokio::task::JoinSet<()>,
}

async fn start() -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let mock = Mock::new();
    let mut server = tokio::task::JoinSet::new();
    server.spawn(serve(listener, Arc::clone(&mock), std::future::pending()));
    let client = Client::builder(TokioExecutor::new()).build_http();
    Running {
        mock,
        base,
        client,
        _server: server,
    }
}

impl Running {
    async fn send(&self, path: &str, steer: &[(&str, &str)], body: &Value) -> Response<Incoming> {
        let mut request = Request::post(format!("{}{path}", self.base));
        for (name, value) in steer {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body.to_string())).unwrap();
        self.client.request(request).await.unwrap()
    }

    async fn json(&self, path: &str, steer: &[(&str, &str)], body: &Value) -> Value {
        let response = self.send(path, steer, body).await;
        let body = response.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&body).unwrap()
    }

    /// The events of a stream, parsed; its last word left out.
    async fn events(&self, steer: &[(&str, &str)], body: &Value) -> Vec<Value> {
        let response = self.send("/v1/chat/completions", steer, body).await;
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(body.to_vec()).unwrap();
        let text = text.strip_suffix("data: [DONE]\n\n").expect("a last word");
        let events = text.split("\n\n").filter_map(|e| e.strip_prefix("data: "));
        events.map(|e| serde_json::from_str(e).unwrap()).collect()
    }
}

fn chat(more: &Value) -> Value {
    let mut body = json!({
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "How many tokens is this?"}],
    });
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

#[tokio::test]
async fn a_completion_reports_the_tokens_it_has() {
    let mock = start().await;
    let answer = mock
        .json("/v1/chat/completions", &[], &chat(&json!({"n": 2})))
        .await;
    let content = answer["choices"][1]["message"]["content"].as_str().unwrap();
    assert_eq!(o200k_base().count(content), 16);
    assert_eq!(cl100k_base().count(content), 16);
    assert_eq!(answer["usage"]["completion_tokens"], 32);
    let input = o200k_base().count("How many tokens is this?") + 7;
    assert_eq!(answer["usage"]["prompt_tokens"], input);
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");

    let short = chat(&json!({"max_completion_tokens": 3}));
    let answer = mock.json("/chat/completions", &[], &short).await;
    assert_eq!(answer["usage"]["completion_tokens"], 3);
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(mock.mock.requests(), 2);
}

#[tokio::test]
async fn a_stream_says_its_usage_only_when_asked() {
    let mock = start().await;
    let events = mock.events(&[], &chat(&json!({"stream": true}))).await;
    assert_eq!(events.len(), 18);
    assert!(events.iter().all(|event| event.get("usage").is_none()));
    let said: String = events
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(o200k_base().count(said.as_str()), 16);

    let asked = json!({"stream": true, "stream_options": {"include_usage": true}});
    let steer = [("x-mock-output-tokens", "2"), ("x-mock-cached-tokens", "4")];
    let events = mock.events(&steer, &chat(&asked)).await;
    let (last, others) = events.split_last().unwrap();
    assert!(others.iter().all(|event| event["usage"].is_null()));
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], 2);
    assert_eq!(last["usage"]["prompt_tokens_details"]["cached_tokens"], 4);

    let silent = mock
        .events(&[("x-mock-no-usage", "1")], &chat(&asked))
        .await;
    assert!(silent.iter().all(|event| event.get("usage").is_none()));
}

#[tokio::test]
async fn an_embedding_is_the_same_as_floats_and_in_base64() {
    let mock = start().await;
    let ask = |input: Value, format: &str| {
        json!({
            "model": "text-embedding-3-small",
            "input": input,
            "encoding_format": format,
            "dimensions": 5,
        })
    };
    let floats = mock
        .json("/v1/embeddings", &[], &ask(json!(["a b", "c"]), "float"))
        .await;
    assert_eq!(floats["usage"]["prompt_tokens"], 3);
    let packed = mock
        .json("/v1/embeddings", &[], &ask(json!("a b"), "base64"))
        .await;
    let packed = packed["data"][0]["embedding"].as_str().unwrap();
    let packed = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, packed).unwrap();
    let unpacked: Vec<f32> = packed
        .as_chunks()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect();
    let floats: Vec<f32> = serde_json::from_value(floats["data"][0]["embedding"].clone()).unwrap();
    assert_eq!(floats, unpacked);
    assert_eq!(floats.len(), 5);
    for input in [json!([1, 2, 3]), json!([[1, 2], [3]])] {
        let answer = mock.json("/v1/embeddings", &[], &ask(input, "float")).await;
        assert_eq!(answer["usage"]["total_tokens"], 3);
    }
}

#[tokio::test]
async fn it_refuses_breaks_and_stalls_as_asked() {
    let mock = start().await;
    let path = "/v1/chat/completions";
    let steer = [("x-mock-status", "429"), ("x-mock-retry-after", "7")];
    let refused = mock.send(path, &steer, &chat(&json!({}))).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "7");

    let unknown = [("x-mock-sattus", "429")];
    let unknown = mock.send(path, &unknown, &chat(&json!({}))).await;
    assert_eq!(unknown.status(), 400);

    for body in [chat(&json!({})), chat(&json!({"stream": true}))] {
        let steer = [("x-mock-break-after-events", "2")];
        let broken = mock.send(path, &steer, &body).await;
        assert_eq!(broken.status(), 200);
        assert!(broken.into_body().collect().await.is_err());
    }
    assert_eq!(mock.mock.abandoned(), 0);

    let steer = [("x-mock-stall-after-events", "1")];
    let stalled = mock
        .send(path, &steer, &chat(&json!({"stream": true})))
        .await;
    let mut body = stalled.into_body();
    assert!(body.frame().await.unwrap().is_ok());
    drop(body);
    while mock.mock.abandoned() == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn it_remembers_what_it_heard() {
    let mock = start().await;
    let steer = [("authorization", "Bearer theirs")];
    mock.send("/echo/x?y=z", &steer, &json!({})).await;
    let ask = async |about: &str| {
        let uri = format!("{}/_mock/{about}", mock.base).parse().unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let body = client.get(uri).await.unwrap().into_body();
        let body = body.collect().await.unwrap().to_bytes();
        serde_json::from_slice::<Value>(&body).unwrap()
    };
    assert_eq!(
        ask("last-headers").await["authorization"],
        json!(["Bearer theirs"])
    );
    assert_eq!(ask("last-body").await, json!({}));
    assert_eq!(ask("requests").await["requests"], 1);
    assert_eq!(mock.mock.last().unwrap().target, "/echo/x?y=z");
}
