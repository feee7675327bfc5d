//! An account as a test sees it: what it calls, what it has left, and what the ledger says it used.

use serde_json::{Value, json};
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{ColumnIndex, Decode, Row, Type};
use tollgate::clock::UnixMs;
use tollgate::money::Nanos;
use uuid::Uuid;

use super::client::{Call, get, post};
use super::installation::{INPUT_NANOS, Installation, MODEL, OUTPUT_NANOS, installation, sidecar};
use super::sidecar::Sidecar;
use super::upstream::{SCRIPT, Script, completion, json_answer, script};
use super::wait::until;

const RECORDS: &str = "\
    SELECT id, outcome, overrun, route, model, input_tokens, output_tokens, reserved_nanos, charged_nanos, occurred_at, \
           properties \
    FROM usage_record WHERE account_id = $1 ORDER BY id";

/// An account with one key.
pub struct Account<'a> {
    pub installation: &'a Installation,
    pub id: String,
    pub key_id: String,
    /// The key's secret.
    pub key: String,
}

/// What a usage record says.
#[derive(Debug, Clone)]
pub struct Record {
    pub id: Uuid,
    pub outcome: String,
    pub overrun: bool,
    pub route: String,
    pub model: String,
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub reserved: i64,
    pub charged: i64,
    pub occurred_at: time::OffsetDateTime,
    pub properties: Value,
}

impl Account<'_> {
    #[track_caller]
    pub fn grant(&self, credits: &str) {
        self.installation.run(&["grant", &self.id, credits]);
    }

    /// What `account show` says, after loading the account as a call would.
    #[track_caller]
    pub fn show(&self) -> Value {
        let shown = self
            .installation
            .run(&["account", "show", &self.id, "--json"]);
        serde_json::from_str(&shown).unwrap_or_else(|error| panic!("{error}: {shown}"))
    }

    /// What is left of the wallet, in nanos, what is held not counted.
    #[track_caller]
    pub fn available(&self) -> i64 {
        self.show()["available_nanos"]
            .as_i64()
            .expect("available_nanos")
    }

    /// What calls in flight hold of the wallet, in nanos.
    #[track_caller]
    pub fn held(&self) -> i64 {
        self.show()["held_nanos"].as_i64().expect("held_nanos")
    }

    /// Its usage records, oldest first.
    pub async fn records(&self) -> Vec<Record> {
        if self.installation.is_embedded() {
            let rows = sqlx::query(RECORDS).bind(&self.id);
            let rows = rows.fetch_all(&mut self.installation.file().await).await;
            return rows.expect("usage_record").iter().map(of_sqlite).collect();
        }
        let rows = sqlx::query(RECORDS).bind(&self.id);
        let rows = rows.fetch_all(&mut self.installation.ledger().await).await;
        rows.expect("usage_record")
            .iter()
            .map(of_postgres)
            .collect()
    }

    /// Waits until there are so many usage records, and returns them.
    pub async fn until_records(&self, count: usize) -> Vec<Record> {
        let what = format!("account {} has {count} usage records", self.id);
        let records = until(&what, async || {
            let records = self.records().await;
            (records.len() >= count).then_some(records)
        })
        .await;
        assert_eq!(records.len(), count, "{records:#?}");
        records
    }

    /// Waits for the one record there should be.
    pub async fn until_record(&self) -> Record {
        self.until_records(1).await.remove(0)
    }

    /// Waits until nothing is held.
    pub async fn until_nothing_held(&self) {
        until("nothing is held", async || (self.held() == 0).then_some(())).await;
    }

    /// A call of this account, through a sidecar.
    pub fn post(&self, sidecar: &Sidecar, path: &str, body: &Value) -> Call {
        post(format!("{}{path}", sidecar.proxy), body).key(&self.key)
    }

    /// A call without a body.
    pub fn get(&self, sidecar: &Sidecar, path: &str) -> Call {
        get(format!("{}{path}", sidecar.proxy)).key(&self.key)
    }

    /// A chat call that the mock answers.
    pub fn chat(&self, sidecar: &Sidecar, body: &Value) -> Call {
        self.post(sidecar, "/openai/v1/chat/completions", body)
    }

    /// A chat call that a script answers.
    pub fn scripted_chat(&self, sidecar: &Sidecar, script: &Script, body: &Value) -> Call {
        self.post(sidecar, "/scripted/v1/chat/completions", body)
            .header(SCRIPT, &script.id)
    }
}

fn of_postgres(row: &PgRow) -> Record {
    Record {
        occurred_at: row.get("occurred_at"),
        properties: row.get("properties"),
        ..record(row)
    }
}

fn of_sqlite(row: &SqliteRow) -> Record {
    let properties: String = row.get("properties");
    let ms: i64 = row.get("occurred_at");
    Record {
        occurred_at: UnixMs(ms).to_utc(),
        properties: serde_json::from_str(&properties).expect("it is JSON"),
        ..record(row)
    }
}

/// What both ledgers write in the same way.
fn record<'r, R: Row>(row: &'r R) -> Record
where
    &'static str: ColumnIndex<R>,
    Uuid: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    bool: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    Record {
        id: row.get("id"),
        outcome: row.get("outcome"),
        overrun: row.get("overrun"),
        route: row.get("route"),
        model: row.get("model"),
        input_tokens: row.get("input_tokens"),
        output_tokens: row.get("output_tokens"),
        reserved: row.get("reserved_nanos"),
        charged: row.get("charged_nanos"),
        occurred_at: time::OffsetDateTime::UNIX_EPOCH,
        properties: Value::Null,
    }
}

/// Nanos as the credits that commands take.
pub fn credits(nanos: i64) -> String {
    Nanos(nanos).to_string()
}

/// A chat of one short message.
pub fn chat(max_tokens: i64) -> Value {
    json!({
        "model": MODEL,
        "max_tokens": max_tokens,
        "messages": [{"role": "user", "content": "Count to three."}],
    })
}

/// The same, streamed.
pub fn streamed_chat(max_tokens: i64) -> Value {
    let mut body = chat(max_tokens);
    body["stream"] = json!(true);
    body
}

/// The estimate of the input of [`chat`], in tokens, as the shared sidecar makes it: the same whatever the maximum of
/// output is.
pub async fn input_estimate() -> i64 {
    let probe = installation().await.account("1");
    let script = script([json_answer(200, &completion(MODEL, 1, 1))]);
    let call = probe.scripted_chat(sidecar().await, &script, &chat(1));
    call.send().await.is(200);
    let reserved = probe.until_record().await.reserved;
    assert_eq!((reserved - OUTPUT_NANOS) % INPUT_NANOS, 0);
    (reserved - OUTPUT_NANOS) / INPUT_NANOS
}
