//! `withdraw` and `adjust`: once for each reason, within bounds, and in the store before the command exits.

use super::customer::Customer;

const CREDIT: i64 = 1_000_000_000;

#[tokio::test]
async fn a_refund_takes_what_is_left_of_a_lot_and_only_once() {
    let customer = Customer::new().await;
    let (place, id) = (&customer.place, customer.id.as_str());
    let lot = place.value(&["account", "show", id])["lots"][0]["lot"].to_string();
    customer.use_up([40]).await;
    customer.hold(100).await;
    let words = ["withdraw", id, &lot, "refund", "--source-ref", "refund-9"];
    let first = place.value(&words);
    assert_eq!(
        (&first["already"], &first["pending"]),
        (&false.into(), &false.into())
    );
    assert_eq!(
        (&first["reason"], &first["at_most_nanos"]),
        (&"refund".into(), &CREDIT.into())
    );
    place.says(&["verify"]);
    assert_eq!(place.value(&["flush"])["flushed"], 2);
    let second = place.value(&words);
    assert_eq!(
        (&second["already"], &second["withdrawal"]),
        (&true.into(), &first["withdrawal"])
    );

    let shown = place.value(&["account", "show", id]);
    assert_eq!(
        (&shown["available_nanos"], &shown["held_nanos"]),
        (&0.into(), &100.into())
    );
    let refunded = "SELECT amount_nanos FROM ledger_entry WHERE book = 'refunded'";
    assert_eq!(place.number(refunded).await, CREDIT - 40 - 100);
    let pending = place.value(&["explain", id])["pending"]["withdrawals"].clone();
    assert_eq!(pending, serde_json::json!([]));
    place.says(&["verify"]);

    let other = place.run(&["withdraw", id, &lot, "void", "--source-ref", "refund-9"]);
    assert_eq!(
        other.code, 2,
        "another reason for the same reference: {other:?}"
    );
    assert!(other.stderr.contains("refund-9"), "{other:?}");
}

#[tokio::test]
async fn a_part_of_a_lot_is_voided() {
    let customer = Customer::new().await;
    let (place, id) = (&customer.place, customer.id.as_str());
    let lot = place.value(&["account", "show", id])["lots"][0]["lot"].to_string();
    let said = place.says(&["withdraw", id, &lot, "void", "--credits", "0.25"]);
    assert!(
        said.contains(&format!("void of lot {lot}, at most 0.25 credits")),
        "{said}"
    );
    let shown = place.value(&["account", "show", id]);
    assert_eq!(shown["available_nanos"], CREDIT / 4 * 3);
    for (words, named) in [
        (
            ["withdraw", id, &lot, "void", "--credits", "0.9"],
            lot.as_str(),
        ),
        (
            ["withdraw", id, &lot, "void", "--credits", "0"],
            "more than zero",
        ),
        (
            ["withdraw", id, "999999", "void", "--credits", "1"],
            "no lot 999999",
        ),
        (
            ["withdraw", "nobody", &lot, "void", "--credits", "1"],
            "`nobody`",
        ),
    ] {
        let ran = place.run(&words);
        assert_eq!(ran.code, 2, "{words:?}: {ran:?}");
        assert!(ran.stderr.contains(named), "{words:?}: {ran:?}");
    }
    place.says(&["flush"]);
    place.says(&["verify"]);
}

#[tokio::test]
async fn an_adjustment_gives_or_takes_credit_once_for_each_reference() {
    let customer = Customer::new().await;
    let (place, id) = (&customer.place, customer.id.as_str());
    let words = [
        "adjust",
        id,
        "2.5",
        "--reason",
        "the outage of May",
        "--source-ref",
        "ticket-7",
    ];
    let first = place.value(&words);
    assert_eq!(
        (&first["already"], &first["pending"]),
        (&false.into(), &false.into())
    );
    let second = place.value(&words);
    assert_eq!(
        (&second["already"], &second["adjustment"]),
        (&true.into(), &first["adjustment"])
    );
    let available = || place.value(&["account", "show", id])["available_nanos"].clone();
    assert_eq!(available(), CREDIT / 2 * 7);
    place.says(&["adjust", id, "-3", "--reason", "charged too little"]);
    assert_eq!(available(), CREDIT / 2);
    place.says(&["verify"]);
    place.says(&["flush"]);
    place.says(&["verify"]);
    assert_eq!(available(), CREDIT / 2);
    let given = "SELECT -sum(amount_nanos)::bigint FROM ledger_entry WHERE book = 'adjusted'";
    assert_eq!(place.number(given).await, -CREDIT / 2);

    for (words, named) in [
        (
            [
                "adjust",
                id,
                "3",
                "--reason",
                "x",
                "--source-ref",
                "ticket-7",
            ],
            id,
        ),
        (
            [
                "adjust",
                id,
                "0",
                "--reason",
                "x",
                "--source-ref",
                "ticket-8",
            ],
            "not zero",
        ),
        (
            [
                "adjust",
                id,
                "1",
                "--reason",
                " ",
                "--source-ref",
                "ticket-8",
            ],
            "reason",
        ),
        (
            [
                "adjust",
                "nobody",
                "1",
                "--reason",
                "x",
                "--source-ref",
                "x",
            ],
            "`nobody`",
        ),
    ] {
        let ran = place.run(&words);
        assert_eq!(ran.code, 2, "{words:?}: {ran:?}");
        assert!(ran.stderr.contains(named), "{words:?}: {ran:?}");
    }
}
