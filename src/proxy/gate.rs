//! Gate: what the request asks for, read from it as far as its estimate needs, and whether this route meters it.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, Request, header};
use http_body::Body;
use http_body_util::{BodyExt, Either, LengthLimitError};
use hyper::body::Incoming;

use super::body::{Arriving, Kept, TooSlow};
use super::in_flight::{Place, Room};
use super::meter::CallerScopes;
use super::quote::Demand;
use super::refusal::Refusal;
use super::route::{Route, refuse_ambiguous};
use super::upstream::UpstreamBody;
use crate::config::{self, Meter, UnknownPaths};
use crate::dialect::openai::{self, AnswerReader, Endpoint, Metered, NotMetered, StreamReader};
use crate::money::Nanos;

/// A request that may go on.
pub enum Gated {
    /// It costs nothing: it only needs a live key of an active account.
    Free(Box<Forwardable>),
    /// It must be admitted.
    Metered(Box<Call>),
}

/// What of a request is forwarded.
pub struct Forwardable {
    /// Its head.
    pub head: Parts,
    /// Its path behind the route's prefix.
    pub path: String,
    /// Its body.
    pub body: UpstreamBody,
}

/// A call that is metered.
pub struct Call {
    /// What is forwarded.
    pub request: Forwardable,
    /// What it asks for.
    pub demand: Demand,
    /// The model it asks for; empty where there is none.
    pub model: String,
    /// Reads its answer.
    pub reader: Reader,
    /// What the caller says of itself.
    pub scopes: CallerScopes,
    /// `X-Tollgate-Max-Charge`.
    pub max_charge: Option<Nanos>,
}

/// What reads an answer.
pub enum Reader {
    /// It comes in events.
    Stream(Box<StreamReader>),
    /// It comes as one object.
    Whole(AnswerReader),
    /// It says nothing of use.
    Nothing,
}

/// The most tags of a call, and the longest text a caller may say of itself.
const MAX_TAGS: usize = 16;
const MAX_SCOPE_BYTES: usize = 128;
/// Counting the tokens of more than this takes longer than other calls should wait.
pub const COUNTED_IN_PLACE_UP_TO_BYTES: usize = 16 * 1024;

/// Reads a request as far as its route needs.
pub async fn gate(
    route: &Route,
    request: Request<Incoming>,
    place: &Place,
) -> Result<Gated, Refusal> {
    let path = request.uri().path();
    refuse_ambiguous(path)?;
    if matches!(request.method().as_str(), "TRACE" | "TRACK" | "CONNECT") {
        // The answer to a trace is the request as it arrived: with the route's own credential in it.
        return Err(Refusal::path_not_allowed(path));
    }
    let path = route.config.rest(path).unwrap_or_default().to_owned();
    let (head, body) = request.into_parts();
    refuse_too_large(&head.headers, route.config.max_body_bytes)?;
    match &route.config.meter {
        Meter::None => Ok(Gated::Free(Box::new(passing(route, head, path, body)))),
        Meter::Flat(charge) => {
            let demand = Demand::Flat(charge.clone());
            let call = Call {
                scopes: scopes(&head.headers)?,
                max_charge: max_charge(&head.headers)?,
                request: passing(route, head, path, body),
                demand,
                model: String::new(),
                reader: Reader::Nothing,
            };
            Ok(Gated::Metered(Box::new(call)))
        }
        Meter::OpenAi => match openai::classify(&head.method, &path) {
            Ok(Endpoint::Metered(endpoint)) => {
                openai_call(route, endpoint, (head, path, body), place).await
            }
            Ok(Endpoint::Models) => Ok(Gated::Free(Box::new(passing(route, head, path, body)))),
            Err(NotMetered::Unknown) if route.config.unknown_paths == UnknownPaths::Free => {
                Ok(Gated::Free(Box::new(passing(route, head, path, body))))
            }
            Err(NotMetered::Unknown | NotMetered::Disguised) => {
                let call = format!("{} {path}", head.method);
                Err(Refusal::path_not_allowed(&call))
            }
        },
    }
}

fn passing(route: &Route, head: Parts, path: String, body: Incoming) -> Forwardable {
    let body = Either::Right(Arriving::new(body, &route.config));
    Forwardable { head, path, body }
}

async fn openai_call(
    route: &Route,
    endpoint: Metered,
    (head, path, body): (Parts, String, Incoming),
    place: &Place,
) -> Result<Gated, Refusal> {
    let (body, room) = buffered(body, &route.config, place).await?;
    let (mut asked, room) = parse(endpoint, body, room, place).await?;
    let reader = if asked.stream {
        Reader::Stream(Box::new(StreamReader::new(&asked)))
    } else {
        Reader::Whole(AnswerReader::new(endpoint))
    };
    let most_output = &mut asked.estimate.output_tokens;
    most_output.get_or_insert(route.config.assume_output_tokens);
    let call = Call {
        scopes: scopes(&head.headers)?,
        max_charge: max_charge(&head.headers)?,
        request: Forwardable {
            head,
            path,
            body: Either::Left(Kept::whole(asked.body, room)),
        },
        demand: Demand::Tokens {
            estimate: asked.estimate,
            is_message: endpoint == Metered::Chat,
        },
        model: asked.model,
        reader,
    };
    Ok(Gated::Metered(Box::new(call)))
}

/// Reads a body; a large one away from the tasks that others' calls run on, and in its account's turn. Room and turn go
/// with the work, which goes on if the caller does not.
async fn parse(
    endpoint: Metered,
    body: Bytes,
    room: Room,
    place: &Place,
) -> Result<(openai::Call, Room), Refusal> {
    if body.len() <= COUNTED_IN_PLACE_UP_TO_BYTES {
        return Ok((openai::parse(endpoint, &body)?, room));
    }
    let turn = place.turn().await;
    let parse = move || {
        let parsed = openai::parse(endpoint, &body);
        drop(turn);
        (parsed, room)
    };
    let (parsed, room) = tokio::task::spawn_blocking(parse)
        .await
        .map_err(|_| invalid("the body cannot be read", None))?;
    Ok((parsed?, room))
}

/// A length that is said beforehand is believed when it is too much.
fn refuse_too_large(headers: &HeaderMap, max_bytes: usize) -> Result<(), Refusal> {
    let said = headers.get(header::CONTENT_LENGTH);
    let said = said.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    match said {
        Some(length) if length > max_bytes => Err(Refusal::BodyTooLarge),
        _ => Ok(()),
    }
}

/// Reads a whole body into room that is made for it: beforehand where its length is said, else as it comes.
async fn buffered(
    body: Incoming,
    route: &config::Route,
    place: &Place,
) -> Result<(Bytes, Room), Refusal> {
    let said = body.size_hint().exact().unwrap_or(0);
    let mut room = place.room(usize::try_from(said).unwrap_or(usize::MAX))?;
    let mut body = Arriving::new(body, route);
    let mut whole = BytesMut::new();
    while let Some(piece) = next_piece(&mut body).await? {
        room.grow_to(whole.len() + piece.len())?;
        if whole.is_empty() && body.is_end_stream() {
            return Ok((piece, room));
        }
        if whole.is_empty() {
            whole.reserve(room.bytes());
        }
        whole.extend_from_slice(&piece);
    }
    Ok((whole.freeze(), room))
}

async fn next_piece(body: &mut Arriving) -> Result<Option<Bytes>, Refusal> {
    loop {
        let frame = body.frame().await;
        match frame.map(|frame| frame.map(http_body::Frame::into_data)) {
            None => return Ok(None),
            Some(Ok(Ok(piece))) => return Ok(Some(piece)),
            // Trailers ask for nothing.
            Some(Ok(Err(_))) => {}
            Some(Err(error)) if error.is::<LengthLimitError>() => {
                return Err(Refusal::BodyTooLarge);
            }
            Some(Err(error)) if error.is::<TooSlow>() => return Err(Refusal::BodyTooSlow),
            Some(Err(_)) => return Err(Refusal::BodyCutShort),
        }
    }
}

fn max_charge(headers: &HeaderMap) -> Result<Option<Nanos>, Refusal> {
    const NAME: &str = "X-Tollgate-Max-Charge";
    let Some(text) = scope(headers, NAME)? else {
        return Ok(None);
    };
    let charge = Nanos::from_credits(&text);
    charge
        .map(Some)
        .map_err(|error| invalid(&error.to_string(), Some(NAME)))
}

fn scopes(headers: &HeaderMap) -> Result<CallerScopes, Refusal> {
    Ok(CallerScopes {
        user: scope(headers, "X-Tollgate-User")?,
        project: scope(headers, "X-Tollgate-Project")?,
        tags: tags(headers)?,
    })
}

fn tags(headers: &HeaderMap) -> Result<BTreeMap<String, String>, Refusal> {
    const NAME: &str = "X-Tollgate-Tags";
    let mut tags = BTreeMap::new();
    for header in headers.get_all(NAME) {
        let text = header
            .to_str()
            .map_err(|_| invalid("is not ASCII text", Some(NAME)))?;
        for pair in text
            .split(',')
            .map(str::trim)
            .filter(|pair| !pair.is_empty())
        {
            let (name, value) = pair
                .split_once('=')
                .filter(|(name, value)| {
                    !name.is_empty() && name.len() + value.len() <= MAX_SCOPE_BYTES
                })
                .ok_or_else(|| invalid("write tags as a=b, each of up to 128 bytes", Some(NAME)))?;
            tags.insert(name.to_owned(), value.to_owned());
        }
    }
    if tags.len() > MAX_TAGS {
        return Err(invalid("more than 16 tags", Some(NAME)));
    }
    Ok(tags)
}

fn scope(headers: &HeaderMap, name: &'static str) -> Result<Option<String>, Refusal> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(text) if !text.is_empty() && text.len() <= MAX_SCOPE_BYTES => Ok(Some(text.to_owned())),
        _ => Err(invalid("write 1 to 128 bytes of ASCII text", Some(name))),
    }
}

fn invalid(message: &str, param: Option<&str>) -> Refusal {
    Refusal::InvalidRequest {
        message: param.map_or_else(|| message.to_owned(), |param| format!("{param}: {message}")),
        param: param.map(str::to_owned),
    }
}

impl From<openai::InvalidRequest> for Refusal {
    fn from(error: openai::InvalidRequest) -> Self {
        Self::InvalidRequest {
            message: error.to_string(),
            param: error.param,
        }
    }
}
