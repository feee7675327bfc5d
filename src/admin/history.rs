//! `explain` of a reservation that has ended: its record, the price, what it took from where, and what was posted for it.
//!
//! One that has not is among what its account has open or on its way, and is explained there.

use super::arguments;
use super::failure::Failure;
use super::output::Output;
use super::place::Place;
use crate::ledger::usage::HistoryLine;
use crate::money::Nanos;
use crate::quota::ReservationId;

/// Says what is recorded of it, and whether anything is.
pub(super) async fn tell(
    place: &Place,
    id: ReservationId,
    output: &Output,
) -> Result<bool, Failure> {
    let lines = place.ledger().await?.history(id).await?;
    for line in &lines {
        output.answer(line, &text(line))?;
    }
    Ok(!lines.is_empty())
}

fn text(line: &HistoryLine) -> String {
    let record = &line.record;
    let overrun = if record.overrun { ", an overrun" } else { "" };
    let mut lines = vec![
        format!("record {} of account {}", record.id, line.account),
        format!(
            "  {}{overrun} at {}: reserved {}, charged {}, at a cost of {}",
            record.outcome,
            arguments::shown(record.occurred_at),
            record.reserved_nanos,
            record.charged_nanos,
            record.cost_nanos
        ),
        format!(
            "  {} {} on {}: {} tokens of input, {} of output",
            record.provider, record.model, record.route, record.input_tokens, record.output_tokens
        ),
    ];
    if let Some(corrected) = record.corrects {
        lines.push(format!("  it corrects record {corrected}"));
    }
    lines.push(price(line));
    lines.extend(taken(line));
    match &line.posting {
        None => lines.push("  nothing was posted for it".into()),
        Some(posting) => {
            let at = arguments::shown(posting.occurred_at);
            lines.push(format!(
                "  posted in {} posting {} at {at}:",
                posting.kind, posting.id
            ));
            lines.extend(posting.entries.iter().map(|entry| {
                let lot = entry.lot.map(|lot| format!(" {lot}"));
                format!(
                    "    {}{} {}",
                    entry.book,
                    lot.unwrap_or_default(),
                    entry.amount_nanos
                )
            }));
        }
    }
    lines.join("\n")
}

fn price(line: &HistoryLine) -> String {
    match (&line.price, line.record.price_id) {
        (Some(price), Some(id)) => {
            let rates = serde_json::to_string(&price.rates).unwrap_or_default();
            format!(
                "  price {id}: {} {}, USD a million tokens {rates}",
                price.provider, price.model
            )
        }
        (_, Some(id)) => format!("  price {id}, which the ledger does not have any more"),
        (_, None) => "  no price of a model".into(),
    }
}

/// What it took, in words: nothing where it took nothing.
fn taken(line: &HistoryLine) -> Vec<String> {
    let taken = &line.taken;
    let lots = taken
        .lots
        .iter()
        .map(|(lot, nanos)| format!("  took {nanos} from lot {lot}"));
    let mut lines: Vec<String> = lots.collect();
    if taken.debt != Nanos::ZERO {
        lines.push(format!("  took {} as debt", taken.debt));
    }
    lines.extend(taken.counts.iter().map(|count| {
        let amount = arguments::amount(&count.key.resource, count.amount);
        format!(
            "  counted {amount} on {} of {}",
            count.key,
            arguments::shown(count.start)
        )
    }));
    lines
}
