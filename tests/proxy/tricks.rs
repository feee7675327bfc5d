//! Callers and upstreams who do not play by the rules: what was served is charged, and no more than was held for nothing.

use http::Method;

use crate::harness::client::{Call, Wire};
use crate::harness::installation::{FLAT_NANOS, installation, sidecar};
use crate::harness::upstream::{Act, Gate, HASTY, SCRIPT, answer, script};

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

#[tokio::test]
async fn a_flat_call_whose_caller_breaks_off_its_own_body_is_charged() {
    let account = installation().await.account("1");
    // It may have done all there is to do from the head alone.
    let script = script([Act::Wait(Gate::new())]);
    let head = format!(
        "POST /flat/mail?to=x HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{SCRIPT}: {}\r\n{HASTY}: 1\r\n\
         content-length: 5\r\n\r\n",
        account.key, script.id
    );
    let mut wire = Wire::connect(&sidecar().await.proxy).await;
    wire.write(head.as_bytes()).await;
    script.until_arrived(1).await;
    wire.hang_up();
    let record = account.until_record().await;
    assert_eq!(
        (record.outcome.as_str(), record.charged),
        ("settled", FLAT_NANOS)
    );
    account.until_nothing_held().await;
}
