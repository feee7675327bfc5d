//! What is asked of a store directly: accounts made up on the spot, and calls as a chat with five limits makes them.

use tollgate::clock::UnixMs;
use tollgate::money::{Amount, Nanos};
use tollgate::quota::{
    AccountId, AccountImage, Admission, ChangeSeq, Count, Line, Lot, LotId, Mode, Outcome,
    ReservationId, Reserve, Reserved, Settle, SettleAnswer, Snapshot, Span, Status, Store, Version,
};

/// About as long as a real one.
const DETAIL: &str = r#"{"route":"/openai","provider":"openai","model":"gpt-4o-mini","price_id":17,"api_key_id":"0193f6a0-0000-7000-8000-000000000000","usage":{"input_tokens":412,"output_tokens":188,"cache_read_tokens":0,"cache_write_tokens":0},"cost_nanos":174600}"#;
const RESOURCES: [&str; 5] = ["requests", "tokens", "messages", "tool_calls", "spend"];
const HOLD_MS: i64 = 600_000;
/// More than any benchmark spends, and below 2^53.
pub const PLENTY: i64 = 8_000_000_000_000_000;

pub fn account(number: usize) -> AccountId {
    format!("account-{number}")
        .parse()
        .expect("it is an account's name")
}

/// An account with two lots that are live for ever, and so much in the first.
pub fn image(account: &AccountId, left: i64) -> AccountImage {
    let lot = |id| Lot {
        id: LotId(id),
        effective_at: UnixMs(0),
        expires_at: None,
    };
    AccountImage {
        withdrawals: Vec::new(),
        snapshot: Snapshot {
            account: account.clone(),
            version: Version(1),
            keys_version: 0,
            plan: Some("project".into()),
            mode: Mode::Enforce,
            status: Status::Active,
            anchor_at: None,
            limits: Vec::new(),
            overage: Nanos(0),
            markup_percent: None,
            throttle: None,
        },
        lots: vec![(lot(1), Nanos(left)), (lot(2), Nanos(0))],
        debt: Nanos(0),
        counters: Vec::new(),
        as_of: ChangeSeq(0),
    }
}

/// A claim with five lines.
pub fn claim(account: &AccountId) -> Reserve {
    let line = |resource: &str| Line {
        key: format!("account/{resource}/overall")
            .parse()
            .expect("a counter's name"),
        span: Span::EVER,
        amount: Amount(1_000),
        floor: Amount(0),
        limit: Amount(PLENTY),
    };
    Reserve {
        floor: Nanos(200),
        lines: RESOURCES.map(line).to_vec(),
        ..bare_claim(account, 1_000)
    }
}

/// A claim on the wallet alone.
pub fn bare_claim(account: &AccountId, charge: i64) -> Reserve {
    Reserve {
        id: ReservationId::new(),
        account: account.clone(),
        version: Version(1),
        charge: Nanos(charge),
        floor: Nanos(0),
        lines: Vec::new(),
        deadline_ms: HOLD_MS,
        max_age_ms: 2 * HOLD_MS,
        admission: Admission::Strict,
        detail: DETAIL.into(),
    }
}

/// Its end, with less used than was held.
pub fn settle(of: &Reserve) -> Settle {
    let count = |line: &Line| Count {
        key: line.key.clone(),
        start: line.span.start,
        amount: Amount(600),
    };
    Settle {
        id: of.id,
        account: of.account.clone(),
        outcome: Outcome::Settled,
        charge: Nanos(700),
        counts: of.lines.iter().map(count).collect(),
        detail: DETAIL.into(),
    }
}

/// Calls made up beforehand, so that making them up is not measured.
pub fn calls(account: &AccountId, count: usize) -> Vec<(Reserve, Settle)> {
    let call = |_| {
        let claim = claim(account);
        let settle = settle(&claim);
        (claim, settle)
    };
    (0..count).map(call).collect()
}

/// A whole call.
pub async fn call(store: &impl Store, (claim, settle): &(Reserve, Settle)) {
    hold(store, claim).await;
    let ended = store.settle(settle).await;
    assert!(matches!(ended, Ok(SettleAnswer::Ended(_))), "{ended:?}");
}

pub async fn hold(store: &impl Store, claim: &Reserve) {
    let held = store.reserve(claim).await;
    assert!(matches!(held, Ok(Reserved::Held { .. })), "{held:?}");
}

/// Drops what is in the outboxes, as if the ledger had it.
pub async fn forget_all(store: &impl Store) {
    for shard in (0..store.shards()).map(tollgate::quota::ShardId) {
        loop {
            let outbox = store.outbox(shard, 4096).await.expect("the store is there");
            if outbox.entries.is_empty() {
                break;
            }
            let seqs: Vec<_> = outbox.entries.iter().map(|entry| entry.seq).collect();
            store
                .forget(shard, &seqs)
                .await
                .expect("the store is there");
        }
    }
}
