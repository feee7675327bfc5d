//! Many calls at the same moment: what the other properties say holds for them too (invariants 1, 2 and 4).

use std::sync::Arc;

use tokio::task::JoinSet;
use tollgate::money::Nanos;
use tollgate::quota::{LapseAnswer, Outcome, Reserve, Reserved, SettleAnswer, Store};

use super::stage::{SHORT_MS, Stage, drawn, ended, line};

const RACERS: usize = 64;

pub async fn racing_calls_never_oversell<S: Store + 'static>(stage: Stage<S>) {
    let stage = Arc::new(stage.with_lots(&[70, 30]).await);
    let claims: Vec<_> = (0..RACERS).map(|_| stage.claim(9)).collect();
    let answers = race(&stage, &claims).await;
    let held: Vec<_> = admitted(&claims, &answers);
    assert_eq!(held.len(), 11, "99 of 100 are held, whoever came first");
    let refused = |answer: &&Reserved| matches!(answer, Reserved::Short(_));
    assert_eq!(answers.iter().filter(refused).count(), RACERS - 11);
    assert_eq!(stage.short(&stage.claim(2)).await.balance, Nanos(1));

    let mut endings = JoinSet::new();
    for (paid, claim) in (0..).zip(held) {
        let (stage, claim) = (stage.clone(), claim.clone());
        endings.spawn(async move { stage.end(&stage.settled(&claim, paid, &[])).await });
    }
    let entries = endings.join_all().await;
    let moved: Nanos = entries.iter().map(|entry| entry.moved.wallet()).sum();
    assert_eq!(
        moved,
        Nanos(-55),
        "the records sum up to the change of the balance (6)"
    );
    let (left, held) = stage
        .lots()
        .await
        .iter()
        .fold((0, 0), |sum, lot| (sum.0 + lot.1, sum.1 + lot.2));
    assert_eq!((left, held), (45, 0));
}

pub async fn racing_calls_of_one_id_hold_once<S: Store + 'static>(stage: Stage<S>) {
    let stage = Arc::new(stage.with_lots(&[100]).await);
    let claim = Reserve {
        lines: vec![line("requests", 1, 1)],
        ..stage.claim(60)
    };
    let claims = vec![claim.clone(); RACERS];
    let answers = race(&stage, &claims).await;
    let deadline = |answer: &Reserved| match answer {
        Reserved::Held {
            deadline,
            fits: true,
            ..
        } => *deadline,
        other => panic!("the same answer for all: {other:?}"),
    };
    assert!(
        answers
            .iter()
            .all(|answer| deadline(answer) == deadline(&answers[0]))
    );
    assert_eq!(stage.lots().await, [(1, 40, 60)]);
    assert_eq!(stage.counter(&claim.lines[0]).await, (0, 1));
}

pub async fn racing_endings_end_once<S: Store + 'static>(stage: Stage<S>) {
    let stage = Arc::new(stage.with_lots(&[100]).await);
    let claim = Reserve {
        deadline_ms: SHORT_MS,
        floor: Nanos(10),
        ..stage.claim(60)
    };
    stage.reach(stage.hold(&claim).await).await;
    let mut endings = JoinSet::new();
    for racer in 0..RACERS {
        let (stage, claim) = (stage.clone(), claim.clone());
        endings.spawn(async move {
            match racer % 3 {
                0 => matches!(stage.lapse(claim.id).await, LapseAnswer::Lapsed(_)),
                1 => {
                    let settle = stage.settled(&claim, 42, &[]);
                    matches!(stage.settle(&settle).await, SettleAnswer::Ended(_))
                }
                _ => {
                    let release = stage.released(&claim);
                    matches!(stage.settle(&release).await, SettleAnswer::Ended(_))
                }
            }
        });
    }
    let endings = endings
        .join_all()
        .await
        .into_iter()
        .filter(|ended| *ended)
        .count();
    let outbox = stage.outbox().await;
    assert_eq!(outbox.len(), endings, "each ending has its entry");
    let outcomes: Vec<_> = outbox.iter().map(|entry| ended(entry).outcome).collect();
    match outcomes[..] {
        [Outcome::Settled | Outcome::Released]
        | [Outcome::Lapsed, Outcome::Settled | Outcome::Released] => {}
        _ => panic!("it ends once, and a lapse is corrected once: {outcomes:?}"),
    }
    let moved: i64 = outbox
        .iter()
        .flat_map(|entry| drawn(&entry.moved))
        .map(|(_, by)| by)
        .sum();
    let charge = ended(outbox.last().unwrap()).charge;
    assert_eq!(moved, -charge.0);
    assert_eq!(stage.lots().await, [(1, 100 - charge.0, 0)]);
}

pub async fn racing_lines_and_wallet_stay_together<S: Store + 'static>(stage: Stage<S>) {
    let stage = Arc::new(stage.with_lots(&[1_000]).await);
    let mixed = |racer| match racer % 4 {
        0 => vec![line("tokens", 3, 20)],
        1 => vec![line("tokens", 2, 20), line("requests", 1, 5)],
        2 => vec![line("requests", 1, 5), line("messages", 1, 50)],
        _ => vec![
            line("messages", 1, 50),
            line("tokens", 1, 20),
            line("requests", 1, 5),
        ],
    };
    let claims: Vec<_> = (0..RACERS)
        .map(|racer| Reserve {
            lines: mixed(racer),
            ..stage.claim(25)
        })
        .collect();
    let answers = race(&stage, &claims).await;
    let held = admitted(&claims, &answers);
    let sum = |key: &str| {
        let lines = held.iter().flat_map(|claim| &claim.lines);
        let of_key = lines.filter(|line| line.key.to_string() == format!("account/{key}/overall"));
        of_key.map(|line| line.amount.0).sum::<i64>()
    };
    for (key, limit) in [("tokens", 20), ("requests", 5), ("messages", 50)] {
        assert!(sum(key) <= limit, "{key} is not oversold");
        assert_eq!(stage.counter(&line(key, 0, 0)).await, (0, sum(key)));
    }
    let charged = 25 * i64::try_from(held.len()).unwrap();
    assert_eq!(stage.lots().await, [(1, 1_000 - charged, charged)]);
}

/// All of them at once; the answers in the order of the claims.
async fn race<S: Store + 'static>(stage: &Arc<Stage<S>>, claims: &[Reserve]) -> Vec<Reserved> {
    let mut racing = JoinSet::new();
    for (at, claim) in claims.iter().cloned().enumerate() {
        let stage = stage.clone();
        racing.spawn(async move { (at, stage.reserve(&claim).await) });
    }
    let mut answers = racing.join_all().await;
    answers.sort_by_key(|(at, _)| *at);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

fn admitted<'a>(claims: &'a [Reserve], answers: &[Reserved]) -> Vec<&'a Reserve> {
    let held = |(claim, answer)| matches!(answer, &Reserved::Held { .. }).then_some(claim);
    claims.iter().zip(answers).filter_map(held).collect()
}
