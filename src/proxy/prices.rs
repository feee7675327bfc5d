//! The prices this sidecar charges by: read at start, looked after each second, replaced as a whole.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rust_decimal::Decimal;
use tokio::time::{MissedTickBehavior, interval};

use super::refusal::Refusal;
use crate::ledger::{Ledger, LedgerError};
use crate::price::PriceBook;

/// The prices of one version of the catalogue.
pub struct Current {
    version: i64,
    /// By provider and model.
    pub book: Arc<PriceBook>,
    /// The catalogue's markup.
    pub markup_percent: Decimal,
}

impl Current {
    /// Before the ledger has been reached: nothing has a price, and so nothing is admitted.
    pub fn none() -> Self {
        Self {
            version: i64::MIN,
            book: Arc::new(PriceBook::default()),
            markup_percent: Decimal::ZERO,
        }
    }

    /// Whether the ledger has been read.
    pub fn is_known(&self) -> bool {
        self.version != i64::MIN
    }
}

/// Why there may be no price for a model that has one.
pub const NOT_READ_YET: Refusal = Refusal::QuotaUnavailable("the prices have not been read yet");

const LOOK_EACH: Duration = Duration::from_secs(1);

/// Follows the catalogue for ever.
pub async fn follow<L: Ledger>(ledger: &L, current: &ArcSwap<Current>) {
    let mut ticks = interval(LOOK_EACH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // A ledger that is away is told of by whoever watches it; the prices that are known go on.
        if let Err(LedgerError::Nonsense(reason)) = refresh(ledger, current).await {
            tracing::error!(
                reason,
                "the prices cannot be used; the ones known before stay"
            );
        }
    }
}

/// Reads the prices again where there is a newer version of the catalogue.
pub async fn refresh<L: Ledger>(ledger: &L, current: &ArcSwap<Current>) -> Result<(), LedgerError> {
    if ledger.prices_version().await? == current.load().version {
        return Ok(());
    }
    let prices = ledger.prices().await?;
    let book = PriceBook::new(prices.entries);
    let book = book.map_err(|error| LedgerError::Nonsense(error.to_string()))?;
    current.store(Arc::new(Current {
        version: prices.version,
        book: Arc::new(book),
        markup_percent: prices.markup_percent,
    }));
    Ok(())
}
