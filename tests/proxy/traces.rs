//! Traces: what callers and upstreams see of W3C trace context, and what a collector is sent.

use crate::harness::account::chat;
use crate::harness::installation::{MODEL, installation, sidecar};
use crate::harness::upstream::{completion, json_answer, script};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";
const STATE: &str = "vendor=one,other=two";

#[tokio::test]
async fn without_tracing_the_callers_context_passes_untouched() {
    let account = installation().await.account("1");
    let served = script([json_answer(200, &completion(MODEL, 9, 3))]);
    // Even what is no context at all is none of our business.
    for parent in [format!("00-{TRACE}-{CALLER}-01"), "cc-odd".to_owned()] {
        let call = account.scripted_chat(sidecar().await, &served, &chat(5));
        let call = call.header("traceparent", &parent);
        call.header("tracestate", STATE).send().await.is(200);
        let arrived = served.arrived().pop().expect("it was forwarded");
        assert_eq!(arrived.header("traceparent"), Some(&*parent));
        assert_eq!(arrived.header("tracestate"), Some(STATE));
    }
}

#[cfg(feature = "otlp")]
mod otlp {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::trace::v1::Span;
    use prost::Message;

    use super::*;
    use crate::harness::account::{Account, streamed_chat};
    use crate::harness::client::{Call, get};
    use crate::harness::configuration::Settings;
    use crate::harness::installation::{Installation, on_embedded};
    use crate::harness::redis;
    use crate::harness::sidecar::Sidecar;
    use crate::harness::upstream::{
        DONE, Script, answer, chunk, delta, events_head, last_chunk, scripted, usage_event,
    };
    use std::fmt::Write;

    /// An installation with a sidecar that sends spans to the scripted upstream, which is the collector too.
    struct Traced {
        installation: Installation,
        sidecar: Sidecar,
        collector: Script,
    }

    impl Traced {
        async fn start(more: &[(&str, &str)]) -> Self {
            let installation = if on_embedded() {
                Installation::embedded()
            } else {
                Installation::new(&redis::server().url()).await
            };
            let collector = script([answer(200, &[], b"")]);
            let header = format!("x-script={}", collector.id);
            let environment = [
                ("TOLLGATE__TRACE__OTLP_URL", scripted()),
                ("OTEL_EXPORTER_OTLP_HEADERS", &header),
            ];
            let config = installation.config(&Settings::default());
            let sidecar = Sidecar::start_with(&config, &[&environment, more].concat());
            Self {
                installation,
                sidecar,
                collector,
            }
        }

        /// Stops the sidecar, which sends what it has, and returns that with all its bytes.
        async fn spans(mut self) -> (Vec<Span>, Vec<u8>) {
            self.sidecar.ask_to_stop();
            let status = self.sidecar.exited().await;
            assert!(status.success(), "{}", self.sidecar.said());
            let arrived = self.collector.arrived();
            let mut spans = Vec::new();
            for batch in &arrived {
                assert_eq!(batch.line, "POST /v1/traces HTTP/1.1");
                let batch = ExportTraceServiceRequest::decode(&*batch.body).expect("OTLP");
                let resources = batch.resource_spans.into_iter();
                let scopes = resources.flat_map(|resource| resource.scope_spans);
                spans.extend(scopes.flat_map(|scope| scope.spans));
            }
            (
                spans,
                arrived.into_iter().flat_map(|batch| batch.body).collect(),
            )
        }
    }

    fn attribute<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
        let found = span
            .attributes
            .iter()
            .find(|attribute| attribute.key == key)?;
        match found.value.as_ref()?.value.as_ref()? {
            Value::StringValue(text) => Some(text),
            _ => None,
        }
    }

    fn hex(bytes: &[u8]) -> String {
        let mut text = String::new();
        for byte in bytes {
            write!(text, "{byte:02x}").expect("a text takes everything");
        }
        text
    }

    fn from_caller(call: Call, flags: &str) -> Call {
        let call = call.header("traceparent", &format!("00-{TRACE}-{CALLER}-{flags}"));
        call.header("tracestate", STATE)
    }

    fn served() -> Script {
        script([json_answer(200, &completion(MODEL, 9, 3))])
    }

    /// The span of a route.
    fn of<'a>(spans: &'a [Span], route: &str) -> &'a Span {
        let span = spans.iter().find(|span| span.name == route);
        span.unwrap_or_else(|| panic!("no span of {route} in {spans:?}"))
    }

    fn chat_of(account: &Account<'_>, traced: &Traced, served: &Script) -> Call {
        account.scripted_chat(&traced.sidecar, served, &chat(5))
    }

    #[tokio::test]
    async fn a_call_is_a_span_between_its_callers_and_its_upstreams() {
        let traced = Traced::start(&[]).await;
        let account = traced.installation.account("1");
        let served = served();
        let answer = from_caller(chat_of(&account, &traced, &served), "01")
            .send()
            .await;
        let reservation = answer
            .is(200)
            .header("x-tollgate-reservation")
            .map(str::to_owned);
        let arrived = served.arrived().pop().expect("it was forwarded");
        let forwarded = arrived.header("traceparent").expect("a parent").to_owned();
        assert_eq!(arrived.header("tracestate"), Some(STATE));
        let (id, key) = (account.id.clone(), account.key.clone());

        let (spans, bytes) = traced.spans().await;
        let span = of(&spans, "/scripted");
        assert_eq!(spans.len(), 1, "{spans:?}");
        assert_eq!(hex(&span.trace_id), TRACE);
        assert_eq!(hex(&span.parent_span_id), CALLER);
        assert_eq!(forwarded, format!("00-{TRACE}-{}-01", hex(&span.span_id)));
        assert_eq!(attribute(span, "tollgate.route"), Some("/scripted"));
        assert_eq!(attribute(span, "tollgate.outcome"), Some("settled"));
        assert_eq!(
            attribute(span, "tollgate.reservation"),
            reservation.as_deref()
        );
        // Nothing of what was said, and nobody's name (invariant 9).
        let text = String::from_utf8_lossy(&bytes);
        for private in [&*id, &*key, MODEL, "sk-the-routes-own"] {
            assert!(!text.contains(private), "{private} in {text}");
        }
    }

    #[tokio::test]
    async fn whether_a_call_is_sampled_its_caller_says() {
        let traced = Traced::start(&[]).await;
        let account = traced.installation.account("1");
        let served = served();
        from_caller(chat_of(&account, &traced, &served), "00")
            .send()
            .await
            .is(200);
        let arrived = served.arrived().pop().expect("it was forwarded");
        let forwarded = arrived.header("traceparent").expect("a parent");
        assert!(
            forwarded.starts_with(&format!("00-{TRACE}-")),
            "{forwarded}"
        );
        assert!(forwarded.ends_with("-00"), "{forwarded}");
        let (spans, _) = traced.spans().await;
        assert!(spans.is_empty(), "{spans:?}");
    }

    #[tokio::test]
    async fn a_span_says_how_its_call_ended() {
        let traced = Traced::start(&[("TOLLGATE__TRACE__ACCOUNT", "true")]).await;
        let account = traced.installation.account("1");
        let id = account.id.clone();
        let stream = script([
            events_head(),
            chunk(delta(MODEL, "word")),
            chunk(usage_event(MODEL, 9, 3)),
            chunk(DONE),
            last_chunk(),
        ]);
        let call = account.scripted_chat(&traced.sidecar, &stream, &streamed_chat(5));
        call.send().await.is(200);
        account
            .post(&traced.sidecar, "/gone/v1/chat/completions", &chat(5))
            .send()
            .await
            .is(502);
        let free = account.get(&traced.sidecar, "/none/x");
        free.header("x-script", &served().id).send().await;
        get(format!("{}/nowhere", traced.sidecar.proxy))
            .send()
            .await
            .is(404);
        let failing = script([json_answer(500, &serde_json::json!({}))]);
        let flat = account.post(&traced.sidecar, "/flat/x", &chat(5));
        flat.header("x-script", &failing.id).send().await.is(500);

        let (spans, _) = traced.spans().await;
        for (route, outcome, code) in [
            ("/scripted", "settled", None),
            ("/gone", "refused", Some("upstream_unreachable")),
            ("/none", "free", None),
            ("none", "refused", Some("unknown_route")),
            ("/flat", "released", None),
        ] {
            let span = of(&spans, route);
            assert_eq!(
                attribute(span, "tollgate.outcome"),
                Some(outcome),
                "{span:?}"
            );
            assert_eq!(attribute(span, "tollgate.code"), code, "{span:?}");
            // Without a caller's context, it begins a trace.
            assert!(span.parent_span_id.is_empty(), "{span:?}");
            let named = (route != "none").then_some(&*id);
            assert_eq!(attribute(span, "tollgate.account"), named, "{span:?}");
        }
    }
}
