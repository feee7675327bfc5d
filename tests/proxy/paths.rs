//! Ways round the meter: a path that is not metered is not forwarded, however it is written.

use serde_json::json;

use crate::harness::account::chat;
use crate::harness::client::Wire;
use crate::harness::installation::{MODEL, installation, sidecar};
use crate::harness::upstream::{SCRIPT, completion, json_answer, script};

#[tokio::test]
async fn an_unknown_path_under_a_metered_prefix_is_403_path_not_allowed() {
    let account = installation().await.account("1");
    let script = script([json_answer(200, &json!({}))]);
    let sidecar = sidecar().await;
    let calls = [
        account.get(sidecar, "/scripted/v1/files"),
        account.get(sidecar, "/scripted"),
        account.get(sidecar, "/scripted/"),
        account.post(sidecar, "/scripted/v1/images/generations", &json!({})),
        account.post(sidecar, "/scripted/v1/chat/completions/", &chat(5)),
        account.post(
            sidecar,
            "/scripted/v1/chat/completions/chatcmpl-1",
            &chat(5),
        ),
        account.post(sidecar, "/scripted/v1/chat/Completions", &chat(5)),
        account.post(sidecar, "/scripted/x/v1/chat/completions", &chat(5)),
        // A known path with another method is another operation.
        account.get(sidecar, "/scripted/v1/chat/completions"),
        account.post(sidecar, "/scripted/v1/models", &json!({})),
    ];
    for call in calls {
        let refused = call.clone().header(SCRIPT, &script.id).send().await;
        assert_eq!(refused.status, 403, "{call:?}: {}", refused.text());
        let refused = refused.refused(403, "path_not_allowed");
        assert_eq!(refused.header("x-should-retry"), Some("false"));
        assert_eq!(refused.header("content-type"), Some("application/json"));
    }
    assert!(script.arrived().is_empty());
}

#[tokio::test]
async fn dots_encodings_and_double_slashes_lead_nowhere() {
    let account = installation().await.account("1");
    let script = script([json_answer(200, &json!({}))]);
    let paths = [
        "/scripted/v1/models/../files",
        "/scripted/v1/models/..",
        "/scripted/./v1/files",
        "/scripted/../none/x",
        "/none/../scripted/v1/files",
        "/flat/../none/x",
        "/none/../flat/x",
        "/none/./x",
        "/none/a/%2e%2e/b",
        "/none/%2E%2e/flat/x",
        "/none/..%2fflat/x",
        "/none/%2e/x",
        "/none/a%2fb",
        "/none/a%5cb",
        "/none/a\\b",
        "/none/%252e%252e/x",
        "/none//x",
        "//none/x",
        "/flat//x",
        "/scripted//v1/chat/completions",
        "/scripted/v1//chat/completions",
        "/scripted/v1/chat%2fcompletions",
        "/scripted/v1/%63hat/completions",
        "/scripted/v1/chat/completions%00",
        "/scripted/v1/chat/completions;x=y",
        "/scripted/v1/models;/../files",
        "/%73cripted/v1/files",
        // A letter that is encoded for nothing may lead past the prefix of a dearer route.
        "/flat/%67one/x",
        "/none/%7Ex",
    ];
    for path in paths {
        for method in ["GET", "POST"] {
            // Over a bare connection: a client library would tidy the path up.
            let mut wire = Wire::connect(&sidecar().await.proxy).await;
            let request = format!(
                "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{SCRIPT}: {}\r\n\
                 content-length: 2\r\nconnection: close\r\n\r\n{{}}",
                account.key, script.id
            );
            wire.write(request.as_bytes()).await;
            let came = wire.read_to_end().await;
            let said = String::from_utf8_lossy(&came);
            let status = said.get(9..12).unwrap_or_default();
            assert!(
                ["400", "403", "404"].contains(&status),
                "{method} {path}: {said}"
            );
        }
    }
    assert!(script.arrived().is_empty(), "{:?}", script.arrived());
    assert_eq!(account.available(), 1_000_000_000);
    assert!(account.records().await.is_empty());
}

#[tokio::test]
async fn a_route_may_let_unknown_paths_pass_free() {
    let account = installation().await.account("0");
    let script = script([json_answer(200, &json!({"files": []}))]);
    let call = account
        .get(sidecar().await, "/open/v1/files?limit=2")
        .header(SCRIPT, &script.id);
    call.send().await.is(200);
    assert_eq!(script.arrived()[0].line, "GET /v1/files?limit=2 HTTP/1.1");
    // The paths it knows are metered all the same.
    let call = account.post(sidecar().await, "/open/v1/chat/completions", &chat(5));
    call.header(SCRIPT, &script.id)
        .send()
        .await
        .refused(402, "insufficient_quota");
    // What an upstream might take for one of them is neither metered nor free.
    let sidecar = sidecar().await;
    let tricks = [
        account.get(sidecar, "/open/v1//chat/completions"),
        account.post(sidecar, "/open/v1/Chat/Completions", &chat(5)),
        account.post(sidecar, "/open/v1/chat/completions/", &chat(5)),
        account.post(sidecar, "/open/v1/%63hat/completions", &chat(5)),
        account.post(sidecar, "/open/v2/embeddings", &chat(5)),
        account.post(sidecar, "/open/chat/completions", &chat(5)),
    ];
    for trick in tricks {
        let refused = trick.header(SCRIPT, &script.id).send().await;
        refused.refused(403, "path_not_allowed");
    }
    assert_eq!(script.arrived().len(), 1);
    assert!(account.records().await.is_empty());
}

#[tokio::test]
async fn models_pass_free_of_charge_and_need_a_key() {
    let account = installation().await.account("0");
    let sidecar = sidecar().await;
    let listed = account
        .get(sidecar, "/openai/v1/models")
        .send()
        .await
        .is(200);
    assert!(!listed.json()["data"].as_array().expect("models").is_empty());
    assert_eq!(listed.header("x-tollgate-charge"), None);
    let keyless = crate::harness::client::get(format!("{}/openai/v1/models", sidecar.proxy));
    keyless.send().await.refused(401, "invalid_api_key");
    assert!(account.records().await.is_empty());
}

#[tokio::test]
async fn the_path_behind_the_prefix_and_the_query_go_upstream() {
    let account = installation().await.account("1");
    let script = script([json_answer(200, &completion(MODEL, 9, 3))]);
    let path = "/scripted/v1/chat/completions?api-version=1&x=%2F..";
    let call = account
        .post(sidecar().await, path, &chat(5))
        .header(SCRIPT, &script.id);
    call.send().await.is(200);
    let line = &script.arrived()[0].line;
    assert_eq!(
        line,
        "POST /v1/chat/completions?api-version=1&x=%2F.. HTTP/1.1"
    );
    account.until_record().await;
}
