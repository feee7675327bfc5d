//! Whoever changes the books behind everybody's back is found by `verify`, which names what was changed.

use serde_json::Value;
use tollgate::quota::ReservationId;

use super::customer::Customer;

/// A change of the ledger that its triggers refuse, and what must be said of it: each drift's kind, with one clue or name
/// that its line must have. `{record}` stands for the first record, `{posting}` for its posting, `{lot}` for the lot.
struct Forgery {
    statement: &'static str,
    said: &'static [(&'static str, &'static str)],
}

const FORGERIES: [Forgery; 9] = [
    Forgery {
        statement: "UPDATE usage_record SET charged_nanos = charged_nanos + 1 WHERE account_id = $1 AND charged_nanos = 40",
        said: &[
            ("records", "record {record}"),
            ("charge", "record {record}"),
        ],
    },
    Forgery {
        statement: "DELETE FROM usage_record WHERE account_id = $1 AND charged_nanos = 40",
        said: &[
            ("records", "posting {posting}"),
            ("records_of_counter", "account/tokens/month"),
        ],
    },
    Forgery {
        statement: "INSERT INTO usage_record \
            SELECT (jsonb_populate_record(usage_record, jsonb_build_object('id', left(id::text, 24) || 'feedfeedfeed'))).* \
            FROM usage_record WHERE account_id = $1 AND charged_nanos = 40",
        said: &[
            ("records", "feedfeedfeed"),
            ("records_of_counter", "feedfeedfeed"),
        ],
    },
    Forgery {
        statement: "UPDATE ledger_entry SET amount_nanos = amount_nanos - 5 WHERE account_id = $1 AND book = 'lot' AND amount_nanos < 0",
        said: &[
            ("posting", "its entry on lot {lot}"),
            ("entries_of_lot", "posting {posting}"),
        ],
    },
    Forgery {
        statement: "UPDATE ledger_entry SET amount_nanos = amount_nanos + 5 WHERE account_id = $1 AND book = 'used'",
        said: &[
            ("posting", "its entry on used"),
            ("records", "posting {posting}"),
        ],
    },
    Forgery {
        statement: "DELETE FROM ledger_entry WHERE account_id = $1 AND posting_id IN (SELECT id FROM posting WHERE kind = 'usage')",
        said: &[
            ("records", "record {record}"),
            ("entries_of_lot", "lot {lot}"),
        ],
    },
    Forgery {
        statement: "UPDATE credit_grant SET balance_nanos = balance_nanos + 40 WHERE account_id = $1",
        said: &[("entries_of_lot", "record {record}"), ("lot", "lot {lot}")],
    },
    Forgery {
        statement: "UPDATE account SET debt_nanos = 3 WHERE id = $1",
        said: &[
            ("entries_of_debt", "expected 0, found 3"),
            ("debt", "expected 3, found 0"),
        ],
    },
    Forgery {
        statement: "UPDATE usage_counter SET used = used + 40 WHERE account_id = $1",
        said: &[
            ("records_of_counter", "record {record}"),
            ("counter", "account/tokens/month"),
        ],
    },
];

/// With two records, of 40 and of 17, in one posting.
async fn flushed() -> (Customer, ReservationId) {
    let customer = Customer::new().await;
    let used = customer.use_up([40, 17]).await;
    customer.place.says(&["flush"]);
    customer.place.says(&["verify"]);
    (customer, used[0])
}

async fn number(customer: &Customer, query: &'static str) -> String {
    let mut sql = customer.place.sql().await;
    let name = sqlx::query_scalar(query).bind(customer.id.as_str());
    name.fetch_one(&mut sql).await.unwrap()
}

#[tokio::test]
async fn whatever_is_changed_in_the_ledger_is_found_and_named() {
    for Forgery { statement, said } in FORGERIES {
        let (customer, record) = flushed().await;
        let posting = "SELECT posting_id::text FROM usage_record WHERE account_id = $1 LIMIT 1";
        let posting = number(&customer, posting).await;
        let lot = "SELECT id::text FROM credit_grant WHERE account_id = $1";
        let lot = number(&customer, lot).await;
        customer.forge(statement).await;

        let drifts = customer.drifts();
        let kinds: Vec<&str> = drifts.iter().filter_map(|d| d["what"].as_str()).collect();
        let expected: Vec<&str> = said.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, expected, "{statement}: {drifts:#?}");
        let people = customer
            .place
            .run(&["verify", "--account", customer.id.as_str()]);
        assert_eq!(people.code, 1, "{statement}: {people:?}");
        let lines: Vec<&str> = people.stdout.lines().collect();
        assert_eq!(lines.len(), said.len(), "{statement}: {people:?}");
        for (line, (_, named)) in lines.iter().zip(said) {
            let named = named
                .replace("{record}", &record.to_string())
                .replace("{posting}", &posting)
                .replace("{lot}", &lot);
            assert!(line.contains(customer.id.as_str()), "{statement}: {line}");
            assert!(line.contains(&named), "{statement}: {named}: {line}");
        }
        let summary = match said.len() {
            1 => "1 drift in 1 account".to_owned(),
            more => format!("{more} drifts in 1 account"),
        };
        assert!(people.stderr.contains(&summary), "{people:?}");
    }
}

#[tokio::test]
async fn a_store_that_was_changed_is_found_and_rebuilt_from_the_ledger() {
    let (customer, _) = flushed().await;
    let (place, id) = (&customer.place, customer.id.as_str());
    customer
        .tamper("state[9] = state[9] + 40 for at = state[7], #state, 4 do state[at + 2] = 9 end");
    let kinds: Vec<Value> = customer
        .drifts()
        .iter()
        .map(|d| d["what"].clone())
        .collect();
    assert_eq!(kinds, ["lot", "counter"]);
    let said = place.run(&["verify"]).stdout;
    assert!(said.contains("look at record"), "{said}");

    let rebuilt = place.value(&["rebuild", "--account", id, "--yes"]);
    assert_eq!(
        (&rebuilt["shards"], &rebuilt["loaded"]),
        (&1.into(), &1.into())
    );
    let said = place.says(&["verify"]);
    assert_eq!(said, "1 account, no drift; 1 live in the store.\n");
    let shown = place.value(&["account", "show", id]);
    assert_eq!(shown["available_nanos"], 1_000_000_000 - 57);
    assert_eq!(shown["limits"][0]["used"], 57);
}

#[tokio::test]
async fn what_is_held_and_on_its_way_outlives_a_rebuild() {
    let (customer, _) = flushed().await;
    let (place, id) = (&customer.place, customer.id.as_str());
    customer.hold(100).await;
    customer.use_up([30]).await;
    let rebuilt = place.value(&["rebuild"]);
    assert_eq!(
        (&rebuilt["flushed"], &rebuilt["loaded"]),
        (&1.into(), &1.into())
    );
    place.says(&["verify"]);
    let shown = place.value(&["account", "show", id]);
    assert_eq!(shown["available_nanos"], 1_000_000_000 - 57 - 30 - 100);
    assert_eq!(shown["held_nanos"], 100);
    let nobody = place.run(&["rebuild", "--account", "nobody"]);
    assert_eq!(nobody.code, 2, "{nobody:?}");
}

#[tokio::test]
async fn a_hold_that_is_gone_is_named_by_the_lot_that_still_has_it() {
    let customer = Customer::new().await;
    let (id, _) = customer.hold(100).await;
    customer.tamper("state[10] = state[10] - 100");
    let people = customer.place.run(&["verify"]);
    assert_eq!(people.code, 1, "{people:?}");
    assert!(people.stdout.contains(&format!("hold {id}")), "{people:?}");
}
