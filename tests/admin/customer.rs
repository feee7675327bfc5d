//! An account of an installation with real servers, and what goes wrong with it.

use serde_json::Value;
use tollgate::clock::Clock;
use tollgate::ledger::{Checked, Ledger, PostgresLedger};
use tollgate::money::{Amount, Nanos};
use tollgate::quota::redis::RedisStore;
use tollgate::quota::{
    AccountId, Admission, Count, CounterKey, Line, Outcome, ReservationId, Reserve, Reserved,
    Settle, SettleAnswer, Store, Version,
};

use super::{Installation, some_account};
use crate::harness::redis::{server, settings};

const QUOTA: &str = "\
[[plan]]
key = \"project\"
name = \"Project\"
quotas = [{ resource = \"tokens\", window = \"month\", limit = 1_000_000 }]
";

/// An account with credit and a quota, and a sidecar's store that serves it.
pub struct Customer {
    pub place: Installation,
    pub id: AccountId,
    pub store: RedisStore,
}

impl Customer {
    pub async fn new() -> Self {
        let place = Installation::new().await;
        let id = some_account();
        place.file("catalog.toml", QUOTA);
        place.says(&["apply", "catalog.toml"]);
        place.says(&["account", "create", id.as_str(), "--plan", "project"]);
        place.says(&["grant", id.as_str(), "1"]);
        place.says(&["account", "show", id.as_str()]);

        let ledger = PostgresLedger::connect(&place.database).await.unwrap();
        let shards = ledger.installation().shards;
        let mut settings = settings(&server().url(), shards);
        settings.prefix.clone_from(&place.prefix);
        let store = RedisStore::connect(settings).await.unwrap();
        let shard = id.shard(shards);
        match ledger.check(shard, &store).await.unwrap() {
            Checked::Agreed(epoch) => store.adopt(shard, epoch),
            Checked::Refused(reason) => panic!("{reason}"),
        }
        Self { place, id, store }
    }

    /// Holds so much of the wallet and of the quota.
    pub async fn hold(&self, amount: i64) -> (ReservationId, Line) {
        let key: CounterKey = "account/tokens/month".parse().unwrap();
        let line = Line {
            span: key.window.span(Clock::System.now(), None),
            key,
            amount: Amount(amount),
            floor: Amount(0),
            limit: Amount(1_000_000),
        };
        let mut reserve = Reserve {
            id: ReservationId::new(),
            account: self.id.clone(),
            version: Version(0),
            charge: Nanos(amount),
            floor: Nanos(0),
            lines: vec![line.clone()],
            deadline_ms: 60_000,
            max_age_ms: 60_000,
            admission: Admission::Strict,
            detail: "{}".into(),
        };
        loop {
            match self.store.reserve(&reserve).await.unwrap() {
                Reserved::Held { .. } => return (reserve.id, line),
                Reserved::Stale(snapshot) => reserve.version = snapshot.version,
                other => panic!("{other:?}"),
            }
        }
    }

    pub async fn settle(&self, (id, line): &(ReservationId, Line), used: i64) {
        let settle = Settle {
            id: *id,
            account: self.id.clone(),
            outcome: Outcome::Settled,
            charge: Nanos(used),
            counts: vec![Count {
                key: line.key.clone(),
                start: line.span.start,
                amount: Amount(used),
            }],
            detail: "{}".into(),
        };
        let ended = self.store.settle(&settle).await.unwrap();
        assert!(matches!(ended, SettleAnswer::Ended(_)), "{ended:?}");
    }

    /// Changes the account's state in Redis behind everybody's back, by one line of Lua over `state`.
    pub fn tamper(&self, line: &str) {
        let shard = self.id.shard(self.store.shards());
        let key = format!("{{{}:{shard}}}:a:{}", self.place.prefix, self.id);
        let script = format!(
            "local state = {{ cmsgpack.unpack(redis.call('HGET', KEYS[1], 'state')) }} {line} \
             return redis.call('HSET', KEYS[1], 'state', cmsgpack.pack(unpack(state)))"
        );
        let new_fields: i64 = server().command(&["EVAL", &script, "1", &key]);
        assert_eq!(new_fields, 0, "the field was there");
    }

    /// Has so much charged, as one record each.
    pub async fn use_up(&self, charges: impl IntoIterator<Item = i64>) -> Vec<ReservationId> {
        let mut ids = Vec::new();
        for charge in charges {
            let hold = self.hold(charge).await;
            self.settle(&hold, charge).await;
            ids.push(hold.0);
        }
        ids
    }

    /// Changes the ledger in a way that its triggers refuse: `$1` is the account.
    pub async fn forge(&self, statement: &'static str) {
        let mut sql = self.place.sql().await;
        sqlx::query("SET session_replication_role = replica")
            .execute(&mut sql)
            .await
            .expect("the owner of the test's server may");
        let forged = sqlx::query(statement).bind(self.id.as_str());
        let forged = forged.execute(&mut sql).await.expect(statement);
        assert!(forged.rows_affected() > 0, "{statement}");
    }

    /// Verify fails, and names these.
    pub fn drifts(&self) -> Vec<Value> {
        let ran = self.place.run(&["verify", "--json"]);
        assert_eq!(ran.code, 1, "{ran:?}");
        let drifts = ran.values();
        assert!(
            drifts
                .iter()
                .all(|drift| drift["account"] == self.id.as_str()),
            "{drifts:?}"
        );
        drifts
    }
}
