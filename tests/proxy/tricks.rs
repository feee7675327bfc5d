//! Callers and upstreams who do not play by the rules: what was served is charged, and no more than was held for nothing.

use http::Method;

use crate::harness::client::Call;
use crate::harness::installation::{installation, sidecar};
use crate::harness::upstream::{SCRIPT, answer, script};

#[tokio::test]
async fn a_trace_that_would_show_the_routes_credential_is_not_forwarded() {
    let account = installation().await.account("1");
    let script = script([answer(200, &[], b"an echo of the request")]);
    for path in ["/flat/x", "/none/x", "/open/v1/files"] {
        let url = format!("{}{path}", sidecar().await.proxy);
        let call = Call::new(Method::TRACE, url).key(&account.key);
        let refused = call.header(SCRIPT, &script.id).send().await;
        refused.refused(403, "path_not_allowed");
    }
    assert!(script.arrived().is_empty(), "{:?}", script.arrived());
    assert!(account.records().await.is_empty());
}
