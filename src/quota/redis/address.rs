//! Where the store is, and the settings of every connection to it.
//!
//! The library's defaults are not ours: no TCP_NODELAY, a short queue, and in a Cluster sixteen retries.

use std::time::Duration;

use redis::aio::{AsyncPushSender, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisResult,
};

/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);
/// How long all of it may take where several nodes are connected to one after the other.
const CLUSTER_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How many commands may wait for one socket.
const PIPELINE_QUEUE: usize = 1024;
/// After how long without an acknowledgement the kernel gives a silent peer up.
#[cfg(target_os = "linux")]
const SILENT_PEER: Duration = Duration::from_secs(3);

/// A store's address, read once at start.
#[derive(Debug)]
pub(super) enum Address {
    /// `redis://` or `rediss://`: one server.
    Single(Box<Single>),
    /// `redis+cluster://` or `rediss+cluster://`: some nodes of a Cluster, which name the others.
    Cluster(Cluster),
}

#[derive(Debug)]
pub(super) struct Single(ConnectionInfo);

#[derive(Debug)]
pub(super) struct Cluster(Vec<ConnectionInfo>);

impl Address {
    /// `None` where it is none. The text may hold a password: it is in no error.
    pub fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        match scheme {
            "redis" | "rediss" => Some(Self::Single(Box::new(Single(node(url)?)))),
            "redis+cluster" => seeds("redis", rest).map(|seeds| Self::Cluster(Cluster(seeds))),
            "rediss+cluster" => seeds("rediss", rest).map(|seeds| Self::Cluster(Cluster(seeds))),
            _ => None,
        }
    }

    /// When an attempt to connect is given up.
    pub fn connect_timeout(&self) -> Duration {
        match self {
            Self::Single(_) => CONNECT_TIMEOUT,
            Self::Cluster(_) => CLUSTER_CONNECT_TIMEOUT,
        }
    }

    pub fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }
}

impl Single {
    pub async fn connect(
        &self,
        response_timeout: Duration,
        on_push: impl AsyncPushSender,
    ) -> RedisResult<MultiplexedConnection> {
        let client = Client::open(self.0.clone())?;
        let config = Self::config(response_timeout).set_push_sender(on_push);
        client
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }

    fn config(response_timeout: Duration) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(response_timeout))
            .set_pipeline_buffer_size(PIPELINE_QUEUE)
    }
}

impl Cluster {
    pub async fn connect(
        &self,
        response_timeout: Duration,
        on_push: impl AsyncPushSender,
    ) -> RedisResult<ClusterConnection> {
        let client = self
            .builder(response_timeout)
            .push_sender(on_push)
            .build()?;
        client.get_async_connection().await
    }

    /// No retries of the library's own: what a node turned away is sent again by us, and nothing else is.
    fn builder(&self, response_timeout: Duration) -> ClusterClientBuilder {
        ClusterClientBuilder::new(self.0.clone())
            .tcp_settings(tcp_settings())
            .use_protocol(ProtocolVersion::RESP3)
            .connection_timeout(CONNECT_TIMEOUT)
            .response_timeout(response_timeout)
            .overall_response_timeout(Some(response_timeout))
            .retries(0)
    }
}

fn seeds(scheme: &str, rest: &str) -> Option<Vec<ConnectionInfo>> {
    let (login, hosts) = match rest.rsplit_once('@') {
        Some((login, hosts)) => (format!("{login}@"), hosts),
        None => (String::new(), rest),
    };
    let hosts = hosts.trim_end_matches('/').split(',');
    hosts
        .map(|host| node(&format!("{scheme}://{login}{host}")))
        .collect()
}

/// RESP3, because there the library says at once that a connection broke, and not only to the next command.
fn node(url: &str) -> Option<ConnectionInfo> {
    let info = url.into_connection_info().ok()?;
    let redis = info.redis_settings().clone();
    let redis = redis.set_protocol(ProtocolVersion::RESP3);
    Some(
        info.set_redis_settings(redis)
            .set_tcp_settings(tcp_settings()),
    )
}

fn tcp_settings() -> TcpSettings {
    let settings = TcpSettings::default().set_nodelay(true);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(SILENT_PEER);
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(50);

    #[test]
    fn a_single_connection_is_set_up_as_decided() {
        let Some(Address::Single(single)) = Address::parse("redis://:secret@localhost:6379/2")
        else {
            panic!("it is one server");
        };
        assert!(single.0.tcp_settings().nodelay());
        assert_eq!(single.0.redis_settings().protocol(), ProtocolVersion::RESP3);
        let config = format!("{:?}", Single::config(TIMEOUT));
        for setting in [
            "response_timeout: Some(50ms)",
            "connection_timeout: Some(200ms)",
            "pipeline_buffer_size: Some(1024)",
        ] {
            assert!(config.contains(setting), "{setting} in {config}");
        }
    }

    #[test]
    fn a_cluster_connection_is_set_up_as_decided() {
        let Some(Address::Cluster(cluster)) =
            Address::parse("redis+cluster://me:secret@one:7000,two:7001")
        else {
            panic!("it is a cluster");
        };
        assert_eq!(cluster.0.len(), 2);
        let client = cluster.builder(TIMEOUT).build().unwrap();
        let settings = format!("{client:?}");
        for setting in [
            "nodelay: true",
            "number_of_retries: 0",
            "connection_timeout: 200ms",
            "response_timeout: Some(50ms)",
            "overall_response_timeout: Some(50ms)",
        ] {
            assert!(settings.contains(setting), "{setting} in {settings}");
        }
        assert!(!settings.contains("secret"));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for url in [
            "embedded",
            "http://localhost",
            "redis+cluster://",
            "redis://[",
            "",
        ] {
            assert!(Address::parse(url).is_none(), "{url}");
        }
    }
}
