//! Entries that the ledger cannot take in, as an operator finds, mends and retries them (rule 26).

use super::customer::Customer;

const ODD: &str = "\
    ALTER TABLE credit_grant ADD CONSTRAINT an_odd_balance CHECK (balance_nanos <> 999999960) NOT VALID";
const MEND: &str = "ALTER TABLE credit_grant DROP CONSTRAINT an_odd_balance";

async fn run(customer: &Customer, statement: &'static str) {
    let mut sql = customer.place.sql().await;
    sqlx::query(statement).execute(&mut sql).await.unwrap();
}

#[tokio::test]
async fn an_entry_in_quarantine_is_named_until_it_is_mended_and_taken_in() {
    let customer = Customer::new().await;
    let (place, id) = (&customer.place, customer.id.as_str());
    run(&customer, ODD).await;
    customer.use_up([40]).await;
    assert_eq!(place.value(&["flush"])["flushed"], 1);

    let found = customer.drifts();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["what"], "quarantined");
    assert!(
        found[0]["shard"].is_u64() && found[0]["seq"].is_i64(),
        "{found:?}"
    );
    let reason = found[0]["reason"].as_str().unwrap();
    assert!(reason.contains("an_odd_balance"), "{reason}");
    for words in [&["verify"][..], &["verify", "--account", id]] {
        let said = place.run(words);
        assert_eq!(said.code, 1, "{said:?}");
        let named = format!("of account {id} is in quarantine: ");
        assert!(said.stdout.contains(&named), "{said:?}");
        assert!(
            said.stderr.contains("tollgate flush --quarantined"),
            "{said:?}"
        );
    }
    let explained = place.value(&["explain", id]);
    assert_eq!(
        explained["pending"]["quarantined"][0]["seq"],
        found[0]["seq"]
    );
    assert_eq!(
        explained["available_nanos"],
        1_000_000_000 - 40,
        "it counts"
    );

    let refused = place.run(&["flush", "--quarantined", "--json"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    let tried = refused.values();
    assert_eq!(
        (&tried[0]["taken_in"], &tried[0]["account"]),
        (&false.into(), &id.into())
    );
    assert_eq!(tried[0]["seq"], found[0]["seq"]);

    run(&customer, MEND).await;
    let taken = place.values(&["flush", "--quarantined"]);
    assert_eq!(taken.len(), 1, "{taken:?}");
    assert_eq!(
        (&taken[0]["taken_in"], &taken[0]["account"]),
        (&true.into(), &id.into())
    );
    place.says(&["verify"]);
    let again = place.says(&["flush", "--quarantined"]);
    assert!(again.starts_with("0 entries left quarantine"), "{again}");
    assert_eq!(
        place.number("SELECT charged_nanos FROM usage_record").await,
        40
    );
    let shown = place.value(&["account", "show", id]);
    assert_eq!(shown["available_nanos"], 1_000_000_000 - 40);
}
