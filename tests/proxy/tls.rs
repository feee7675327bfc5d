//! TLS to upstreams: verified against the machine's roots, or not used at all.

use std::io::Write;
use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::harness::account::chat;
use crate::harness::client::post;
use crate::harness::configuration::Settings;
use crate::harness::installation::{MODEL, installation_with_room};
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::completion;

/// An upstream that answers every call over TLS with a usage of 9 and 3 tokens; its address, and its certificate as PEM.
async fn upstream() -> (String, String) {
    let made = generate_simple_self_signed(["localhost".to_owned()]);
    let CertifiedKey { cert, signing_key } = made.expect("a certificate");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the defaults")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("a key that fits");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let body = completion(MODEL, 9, 3).to_string();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut seen = [0; 4096];
            let _ = stream.read(&mut seen).await;
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (format!("https://localhost:{port}"), cert.pem())
}

#[tokio::test]
async fn an_upstream_is_trusted_exactly_if_the_machine_trusts_its_certificate() {
    let installation = installation_with_room().await;
    let account = installation.account("1");
    let (upstream, pem) = upstream().await;
    let config = installation.config(&Settings::default());
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .open(&config)
        .expect("the file");
    write!(
        file,
        "[[route]]\nprefix = \"/tls\"\nupstream = \"{upstream}\"\nmeter = \"openai\"\n"
    )
    .expect("room");
    let roots = config.with_extension("pem");
    std::fs::write(&roots, pem).expect("a file");
    let call = |sidecar: &Sidecar| {
        post(
            format!("{}/tls/v1/chat/completions", sidecar.proxy),
            &chat(5),
        )
        .key(&account.key)
    };

    let stranger = Sidecar::start(&config);
    call(&stranger)
        .send()
        .await
        .refused(502, "upstream_unreachable");
    let record = account.until_record().await;
    assert_eq!((record.outcome.as_str(), record.charged), ("released", 0));

    // An embedded installation has one sidecar at a time.
    drop(stranger);
    let roots = roots.to_str().expect("a UTF-8 path");
    let friend = Sidecar::start_with(&config, &[("SSL_CERT_FILE", roots)]);
    call(&friend).send().await.is(200);
    assert_eq!(account.until_records(2).await[1].output_tokens, 3);
}
