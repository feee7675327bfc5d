//! Connections: how they are made, when they count as broken, and what is sent again.
//!
//! A connection has a number, and a shard is checked on a connection of a certain number (rule 21): once it breaks, every
//! shard that it carried is to be checked again before its next command. On a single server nothing is ever sent twice but
//! a script the server does not know; in a Cluster also what a node turned away unseen.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::SingleNodeRoutingInfo;
use redis::{Cmd, ErrorKind, PushInfo, PushKind, RedisError, ServerErrorKind, Value};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use super::address::Address;
use super::arguments::Argument;
use super::scripts::Script;
use crate::quota::StoreError;

/// How long to wait before a connection is tried again: doubled each time, with chance mixed in.
const FIRST_BACK_OFF: Duration = Duration::from_millis(50);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(2);
/// How long to wait before a node is asked again that turned a command away.
const REDIRECT_WAIT: Duration = Duration::from_millis(5);

/// The digits of a number of keys.
const NUMBER_BYTES: usize = 20;

/// The number of a connection; a later one is higher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation(u64);

/// One call of a script.
pub(super) struct Call<'a> {
    pub script: &'a Script,
    pub keys: &'a [String],
    pub arguments: Vec<Argument<'a>>,
}

/// What came back.
pub(super) struct Answered {
    pub value: Value,
    /// On which connection it came.
    pub generation: Generation,
    /// Whether another node than the one first asked gave the answer.
    pub moved: bool,
}

/// One connection, made again in the background whenever it breaks.
#[derive(Debug)]
pub(super) struct Link {
    state: Arc<State>,
    response_timeout: Duration,
    dialer: AbortHandle,
    first_attempt: watch::Receiver<bool>,
}

#[derive(Debug)]
struct State {
    /// This is a lock and not a channel because nothing awaits while holding it, and every command reads it.
    live: RwLock<Live>,
    broken: Notify,
    /// Whether nodes come and go below the connection, which then looks after them itself.
    is_cluster: bool,
}

#[derive(Debug)]
struct Live {
    generation: Generation,
    connection: Option<Connection>,
    why_not: String,
}

#[derive(Clone)]
enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Single(_) => "Single",
            Self::Cluster(_) => "Cluster",
        })
    }
}

impl Link {
    /// Begins to connect. Must be called within a Tokio runtime.
    pub fn new(address: Arc<Address>, response_timeout: Duration) -> Self {
        let state = Arc::new(State {
            live: RwLock::new(Live {
                generation: Generation(0),
                connection: None,
                why_not: "not connected yet".into(),
            }),
            broken: Notify::new(),
            is_cluster: address.is_cluster(),
        });
        let (attempted, first_attempt) = watch::channel(false);
        let dialing = dial(address, response_timeout, Arc::clone(&state), attempted);
        Self {
            state,
            response_timeout,
            dialer: tokio::spawn(dialing).abort_handle(),
            first_attempt,
        }
    }

    /// Waits until the first attempt to connect came to an end, good or bad.
    pub async fn first_attempt(&self) {
        let mut attempt = self.first_attempt.clone();
        // An error means that the dialer is gone, and its attempt with it.
        let _ = attempt.wait_for(|made| *made).await;
    }

    /// The number of the present connection, or of the one that is to come.
    pub fn generation(&self) -> Generation {
        self.state.live.read().generation
    }

    /// Runs a script on the present connection.
    pub async fn run(&self, call: &Call<'_>) -> Result<Answered, StoreError> {
        let (connection, generation) = {
            let live = self.state.live.read();
            let away = || StoreError::Away(live.why_not.clone());
            (live.connection.clone().ok_or_else(away)?, live.generation)
        };
        let answered = self.run_on(connection, call).await;
        if let Err(error) = &answered
            && was_cut(error)
        {
            self.state.broke(generation, &error.to_string());
        }
        let (value, moved) =
            answered.map_err(|error| store_error(&error, self.response_timeout))?;
        Ok(Answered {
            value,
            generation,
            moved,
        })
    }

    /// What a node of a Cluster turned away is sent again, as long as there is time (rule 15).
    async fn run_on(
        &self,
        mut connection: Connection,
        call: &Call<'_>,
    ) -> Result<(Value, bool), RedisError> {
        let deadline = Instant::now() + self.response_timeout;
        let mut moved = false;
        loop {
            let error = match connection.call(call, self.response_timeout).await {
                Ok(value) => return Ok((value, moved)),
                Err(error) => error,
            };
            if !was_turned_away(&error) || Instant::now() + REDIRECT_WAIT >= deadline {
                return Err(error);
            }
            moved |= error.kind() != ErrorKind::Server(ServerErrorKind::TryAgain);
            sleep(REDIRECT_WAIT).await;
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.dialer.abort();
    }
}

impl Connection {
    /// By its hash; where the server does not know it, the same call with the script's text (rule 15).
    async fn call(&mut self, call: &Call<'_>, within: Duration) -> Result<Value, RedisError> {
        match self
            .send(call.command("EVALSHA", &call.script.hash), within)
            .await
        {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                // Rare, and large: in a box, so that no command is made larger by it.
                Box::pin(self.send(call.command("EVAL", &call.script.text), within)).await
            }
            answered => answered,
        }
    }

    async fn send(&mut self, command: Cmd, within: Duration) -> Result<Value, RedisError> {
        match self {
            Self::Single(connection) => connection.req_packed_command(&command).await,
            Self::Cluster(cluster) => {
                let answered = cluster.req_packed_command(&command).await;
                let answered = answered.and_then(Value::extract_error);
                match answered {
                    Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::Ask) => {
                        let asked = Box::pin(ask(cluster, command, &error));
                        timeout(within, asked).await.unwrap_or(Err(error))
                    }
                    answered => answered,
                }
            }
        }
        .and_then(Value::extract_error)
    }
}

/// While a slot is on its way, the node it goes to answers for what has arrived there, but only if asked so.
async fn ask(
    cluster: &mut ClusterConnection,
    command: Cmd,
    error: &RedisError,
) -> Result<Value, RedisError> {
    let node = error
        .redirect_node()
        .and_then(|(node, _)| node.rsplit_once(':'));
    let Some((host, port)) = node.and_then(|(host, port)| Some((host, port.parse().ok()?))) else {
        return Err(error.clone());
    };
    let node = SingleNodeRoutingInfo::ByAddress {
        host: host.to_owned(),
        port,
    };
    let mut asking = redis::pipe();
    asking
        .add_command(redis::cmd("ASKING"))
        .add_command(command);
    let mut answers = cluster.route_pipeline(asking, 0, 2, node).await?;
    answers.pop().ok_or_else(|| error.clone())
}

impl Call<'_> {
    fn command(&self, verb: &str, script: &str) -> Cmd {
        let keys = self.keys.iter().map(String::len);
        let arguments = self.arguments.iter().map(|argument| argument.len());
        let bytes: usize = keys.chain(arguments).sum();
        // The verb, the script and the number of keys come before them.
        let parts = 3 + self.keys.len() + self.arguments.len();
        let mut command =
            Cmd::with_capacity(parts, verb.len() + script.len() + bytes + NUMBER_BYTES);
        command.arg(verb).arg(script);
        command.arg(self.keys.len()).arg(self.keys);
        for argument in &self.arguments {
            command.arg(argument.as_ref());
        }
        command
    }
}

impl State {
    /// Takes note that the server closed a connection. A Cluster's client goes on with the nodes it has left, so whichever
    /// it loses, it is the present connection that broke.
    fn closed(&self, made_as: Generation) {
        let present = self.live.read().generation;
        let generation = if self.is_cluster { present } else { made_as };
        self.broke(generation, "the connection was closed");
    }

    /// Takes note that a connection broke. Of a single server a new one is made at once; a Cluster's own client looks
    /// after its nodes, but all shards are to be checked again.
    fn broke(&self, generation: Generation, why: &str) {
        let mut live = self.live.write();
        if live.generation != generation {
            return;
        }
        live.generation = Generation(generation.0 + 1);
        if !self.is_cluster {
            live.connection = None;
            why.clone_into(&mut live.why_not);
            self.broken.notify_one();
        }
    }
}

/// Connects, waits until that breaks, and begins again; ends with the link.
async fn dial(
    address: Arc<Address>,
    response_timeout: Duration,
    state: Arc<State>,
    attempted: watch::Sender<bool>,
) {
    let mut back_off = FIRST_BACK_OFF;
    loop {
        match connect(&address, response_timeout, &state).await {
            Ok(connection) => {
                state.live.write().connection = Some(connection);
                attempted.send_replace(true);
                state.broken.notified().await;
                back_off = FIRST_BACK_OFF;
            }
            Err(why) => {
                state.live.write().why_not = why;
                attempted.send_replace(true);
                sleep(rand::random_range(back_off / 2..back_off)).await;
                back_off = (back_off * 2).min(LONGEST_BACK_OFF);
            }
        }
    }
}

/// One attempt, wrapped in a time-out of our own: the library's connects can hang (redis-rs#1953).
async fn connect(
    address: &Address,
    response_timeout: Duration,
    state: &Arc<State>,
) -> Result<Connection, String> {
    let generation = state.live.read().generation;
    let weak = Arc::downgrade(state);
    let on_push = move |push: PushInfo| {
        if push.kind == PushKind::Disconnection
            && let Some(state) = weak.upgrade()
        {
            state.closed(generation);
        }
        Ok::<(), Infallible>(())
    };
    let attempt = async {
        match address {
            Address::Single(single) => single
                .connect(response_timeout, on_push)
                .await
                .map(Connection::Single),
            Address::Cluster(cluster) => cluster
                .connect(response_timeout, on_push)
                .await
                .map(Connection::Cluster),
        }
    };
    let within = address.connect_timeout();
    match timeout(within, attempt).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(format!("cannot connect: {error}")),
        Err(_) => Err(format!("no connection within {within:?}")),
    }
}

/// Whether the command has not run: the node said so, or there was none to ask.
fn was_turned_away(error: &RedisError) -> bool {
    use ServerErrorKind::{Ask, ClusterDown, Moved, TryAgain};
    matches!(
        error.kind(),
        ErrorKind::Server(Moved | Ask | TryAgain | ClusterDown)
            | ErrorKind::ClusterConnectionNotFound
    )
}

/// Whether the connection is gone that the command was sent on.
fn was_cut(error: &RedisError) -> bool {
    error.is_unrecoverable_error()
        && !error.is_connection_refusal()
        && error.kind() != ErrorKind::ClusterConnectionNotFound
}

fn store_error(error: &RedisError, within: Duration) -> StoreError {
    if error.is_timeout() {
        return StoreError::Away(format!("no answer within {within:?}"));
    }
    match error.kind() {
        // A script stopped at what it found: no version of the protocol does that.
        ErrorKind::Server(ServerErrorKind::ResponseError | ServerErrorKind::CrossSlot)
        | ErrorKind::Parse
        | ErrorKind::UnexpectedReturnType => StoreError::Nonsense(error.to_string()),
        _ => StoreError::Away(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of the connection after a server has closed one twice that was made as the first.
    fn closed_twice(is_cluster: bool) -> Generation {
        let state = State {
            live: RwLock::new(Live {
                generation: Generation(0),
                connection: None,
                why_not: String::new(),
            }),
            broken: Notify::new(),
            is_cluster,
        };
        state.closed(Generation(0));
        state.closed(Generation(0));
        state.live.into_inner().generation
    }

    #[test]
    fn each_node_that_a_cluster_loses_makes_all_shards_be_checked_again() {
        assert_eq!(closed_twice(true), Generation(2));
        assert_eq!(closed_twice(false), Generation(1), "it is one connection");
    }
}
