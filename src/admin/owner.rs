//! Commands between two processes: asked by one that was typed, and run by the one that owns the file (rule 29).
//!
//! The owner runs them on its own live store and ledger, so that a command sees and changes what calls see. Whoever can
//! read the lease may ask, from this machine only.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use http::header::AUTHORIZATION;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::failure::Failure;
use super::lease::Listens;
use super::output::{Output, Said};
use super::place::Place;
use super::{Cli, Command, Typed, run_at};
use crate::proxy::{Answer, Commands};

const PATH: &str = "/admin/v1/command";
/// How long an owner may take: its longest command reads all records of an account.
const PATIENCE: Duration = Duration::from_mins(15);
/// A catalogue is the longest thing that is sent.
const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;

/// A command as it was typed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Asked {
    pub arguments: Vec<String>,
    /// The file that it names, read where it was typed.
    pub file: Option<String>,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
struct Done {
    #[serde(flatten)]
    said: Said,
    code: u8,
}

/// The owner's side. One command at a time: they are short, and a sidecar has calls to serve.
pub(super) fn answering(place: Arc<Place>, token: String) -> Commands {
    let one_at_a_time = Arc::new(Mutex::new(()));
    let token: Arc<str> = token.into();
    // The one that ends last, whoever asks.
    let runtime = Handle::current();
    Arc::new(move |peer, request| {
        let (place, turn, token) = (place.clone(), one_at_a_time.clone(), token.clone());
        let runtime = runtime.clone();
        Box::pin(async move {
            if let Err(status) = may_ask(peer, &request, &token) {
                return plain(status);
            }
            let asked = match read(request).await {
                Ok(asked) => asked,
                Err(status) => return plain(status),
            };
            // On a thread of its own, so that a command neither takes one from the calls, nor is cut short half-way when
            // its asker goes away.
            let turn = turn.lock_owned().await;
            let here = runtime.clone();
            let done = runtime.spawn_blocking(move || {
                let _turn = turn;
                here.block_on(run(&place, asked))
            });
            match done.await {
                Ok(done) => json(&done),
                Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR),
            }
        })
    })
}

// holds: 10, tenant-safe
fn may_ask(peer: SocketAddr, request: &Request<Incoming>, token: &str) -> Result<(), StatusCode> {
    if !peer.ip().to_canonical().is_loopback() {
        return Err(StatusCode::FORBIDDEN);
    }
    let header = request.headers().get(AUTHORIZATION);
    let presented = header.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    if !presented.is_some_and(|presented| is_same(presented, token.as_bytes())) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    match (request.uri().path(), request.method()) {
        (PATH, &Method::POST) => Ok(()),
        (PATH, _) => Err(StatusCode::METHOD_NOT_ALLOWED),
        _ => Err(StatusCode::NOT_FOUND),
    }
}

/// Takes as long wherever they differ, so that a token cannot be guessed piece by piece.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let differs = |differs, (a, b): (&u8, &u8)| differs | (a ^ b);
    one.len() == other.len() && one.iter().zip(other).fold(0, differs) == 0
}

async fn read(request: Request<Incoming>) -> Result<Asked, StatusCode> {
    let body = Limited::new(request.into_body(), MAX_BODY_BYTES);
    let body = body.collect().await;
    let body = body.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?.to_bytes();
    serde_json::from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)
}

async fn run(place: &Place, asked: Asked) -> Done {
    let (output, outcome) = match Cli::try_parse_from(&asked.arguments) {
        Ok(cli) => {
            let output = Output::kept(cli.options.json);
            let typed = Typed {
                command: cli.command,
                file: asked.file,
            };
            let outcome = match &typed.command {
                Command::Flush(arguments) if arguments.watch => Err(Failure::Usage(
                    "the sidecar that owns the file flushes by itself".into(),
                )),
                _ => run_at(place, typed, &output).await,
            };
            (output, outcome)
        }
        Err(error) => {
            let outcome = Err(Failure::Usage(error.to_string()));
            (Output::kept(false), outcome)
        }
    };
    let code = outcome.map_or_else(|failure| failure.report(&output), |()| 0);
    let said = output.said();
    Done { said, code }
}

fn plain(status: StatusCode) -> Answer {
    let mut response = Response::new(Full::from(status.as_str().to_owned()));
    *response.status_mut() = status;
    response
}

fn json(done: &Done) -> Answer {
    let body = serde_json::to_vec(done).expect("text and a number have a form in JSON");
    Response::new(Full::from(body))
}

/// Why an owner was not asked.
pub(super) enum NotAsked {
    /// It listens there no more: nothing was done.
    Gone,
    /// Whatever was done, nobody knows.
    Failed(Failure),
}

/// The asker's side: prints what the owner says, and returns its exit code.
pub(super) async fn ask(owner: &Listens, asked: &Asked) -> Result<u8, NotAsked> {
    let failed = |error: &dyn std::fmt::Display| {
        let owner = &owner.control;
        NotAsked::Failed(Failure::Away(format!(
            "the sidecar that owns the file did not answer at {owner}: {error}"
        )))
    };
    let body = serde_json::to_vec(asked).map_err(|error| failed(&error))?;
    let request = Request::post(format!("{}{PATH}", owner.control))
        .header(AUTHORIZATION, format!("Bearer {}", owner.token))
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| failed(&error))?;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let response = match timeout(PATIENCE, client.request(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) if error.is_connect() => return Err(NotAsked::Gone),
        Ok(Err(error)) => return Err(failed(&error)),
        Err(_) => {
            return Err(failed(
                &"it takes too long; whatever it was asked, it may do yet",
            ));
        }
    };
    let status = response.status();
    if status != StatusCode::OK {
        return Err(failed(&status));
    }
    let body = response.into_body().collect().await;
    let body = body.map_err(|error| failed(&error))?.to_bytes();
    let done: Done = serde_json::from_slice(&body).map_err(|error| failed(&error))?;
    done.said.pass_on().map_err(NotAsked::Failed)?;
    Ok(done.code)
}
