//! From cost to charge: the one place where USD become credits and are rounded.

use rust_decimal::Decimal;

use crate::money::Nanos;

/// What a call costs and what it is charged, both in credits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Charge {
    /// Before markup.
    pub cost: Nanos,
    /// With markup.
    pub charge: Nanos,
}

/// Turns a cost in USD into credits worth `credit_usd` each, and adds the markup.
///
/// Each amount is rounded once, half away from zero, from unrounded values. Rounding never decreases when the cost
/// grows, so what is held for a bound covers what is charged within it. `None` where an amount is beyond
/// [`MAX_AMOUNT`](crate::money::MAX_AMOUNT), or a credit is worth nothing.
pub fn charge(cost_usd: Decimal, credit_usd: Decimal, markup_percent: Decimal) -> Option<Charge> {
    let hundred = Decimal::ONE_HUNDRED;
    let cost = cost_usd.checked_div(credit_usd)?;
    // Multiplied before it is divided: a division may need more digits than there are.
    let charge = cost_usd
        .checked_mul(hundred.checked_add(markup_percent)?)?
        .checked_div(credit_usd.checked_mul(hundred)?)?;
    Some(Charge {
        cost: Nanos::round(cost)?,
        charge: Nanos::round(charge)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::MAX_AMOUNT;

    fn of(cost: &str, credit: &str, markup: &str) -> Option<(i64, i64)> {
        let decimal = |text: &str| text.parse::<Decimal>().unwrap();
        charge(decimal(cost), decimal(credit), decimal(markup))
            .map(|charge| (charge.cost.0, charge.charge.0))
    }

    #[test]
    fn cost_and_charge_are_each_rounded_from_unrounded_values() {
        assert_eq!(of("0.0000000015", "1", "0"), Some((2, 2)));
        // Half a nano with 20 % on top is 0.6: rounding the cost first would have made it 1.2.
        assert_eq!(of("0.0000000005", "1", "20"), Some((1, 1)));
        assert_eq!(of("0.0000000012", "1", "25"), Some((1, 2)));
        assert_eq!(of("1", "3", "50"), Some((333_333_333, 500_000_000)));
        assert_eq!(of("0", "0.01", "20"), Some((0, 0)));
    }

    #[test]
    fn what_no_amount_can_hold_is_refused() {
        assert_eq!(of("9000000", "1", "0"), Some((MAX_AMOUNT, MAX_AMOUNT)));
        assert_eq!(of("9000000", "1", "1"), None);
        assert_eq!(of("79228162514264337593543950335", "0.01", "900"), None);
        assert_eq!(of("1", "0", "0"), None);
    }
}
