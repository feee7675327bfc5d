//! Money and units: the two integers everything else counts in.
//!
//! Credits are held as [`Nanos`], billionths of a credit, because one cheap embedding costs less than a millionth.
//! Everything that a quota counts is an [`Amount`]. Neither is ever a float.

use std::fmt;
use std::str::FromStr;

use rust_decimal::{Decimal, RoundingStrategy};
use serde::{Deserialize, Serialize};

/// The largest single amount that is accepted from outside: nine million credits, or 9·10^15 units.
///
/// It lies below 2^53, so one amount, and one lot, is exact even as the double that Lua sees.
pub const MAX_AMOUNT: i64 = 9_000_000_000_000_000;

/// The largest balance or counter: sums of many amounts, with room left in an `i64` for an overrun.
pub const MAX_BALANCE: i64 = 4_000_000_000_000_000_000;

/// The most that endings may make an account owe beyond what was held for them, and that an adjustment may. Both at once
/// stay within [`MAX_BALANCE`].
pub const MAX_DEBT: i64 = MAX_BALANCE / 2;

const NANOS_PER_CREDIT: i64 = 1_000_000_000;
const NANO_DIGITS: u32 = 9;

/// Billionths of a credit; negative where a balance or a change of one is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Nanos(pub i64);

/// So many units of a quota's resource: tokens, requests, bytes; nanos where the resource is `spend`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Amount(pub i64);

/// Why a number from outside is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// The text is not a decimal number.
    #[error("`{0}` is not a decimal number")]
    NotANumber(String),
    /// The number has more than nine decimals, so storing it would round it away.
    #[error("`{0}` has more than nine decimals")]
    TooFine(String),
    /// The number is beyond [`MAX_AMOUNT`].
    #[error("`{0}` is beyond the largest amount, 9000000 credits")]
    TooLarge(String),
}

impl Nanos {
    /// No credit at all.
    pub const ZERO: Self = Self(0);

    /// Reads credits written as a decimal, exactly: `0.005` is five million nanos.
    pub fn from_credits(text: &str) -> Result<Self, AmountError> {
        let credits =
            Decimal::from_str(text.trim()).map_err(|_| AmountError::NotANumber(text.to_owned()))?;
        if credits.normalize().scale() > NANO_DIGITS {
            return Err(AmountError::TooFine(text.to_owned()));
        }
        Self::round(credits).ok_or_else(|| AmountError::TooLarge(text.to_owned()))
    }

    /// Rounds credits to nanos, half away from zero: the one rounding of a usage record.
    ///
    /// `None` beyond [`MAX_AMOUNT`].
    pub fn round(credits: Decimal) -> Option<Self> {
        let nanos = credits
            .checked_mul(Decimal::from(NANOS_PER_CREDIT))?
            .round_dp_with_strategy(0, RoundingStrategy::MidpointAwayFromZero);
        let nanos = i64::try_from(nanos).ok()?;
        (nanos.unsigned_abs() <= MAX_AMOUNT.unsigned_abs()).then_some(Self(nanos))
    }

    /// The same value in credits.
    pub fn credits(self) -> Decimal {
        Decimal::from_i128_with_scale(i128::from(self.0), NANO_DIGITS).normalize()
    }
}

impl From<Nanos> for Amount {
    fn from(nanos: Nanos) -> Self {
        Self(nanos.0)
    }
}

/// Writes credits as a plain decimal: `0.005`.
impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.credits().fmt(f)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! arithmetic {
    ($unit:ident) => {
        /// Overflow is a defect, never a wrapped balance: operands are bounded by [`MAX_BALANCE`], so it cannot happen.
        impl std::ops::Add for $unit {
            type Output = Self;
            fn add(self, other: Self) -> Self {
                Self(
                    self.0
                        .checked_add(other.0)
                        .expect("amounts are bounded far below i64"),
                )
            }
        }
        impl std::ops::Sub for $unit {
            type Output = Self;
            fn sub(self, other: Self) -> Self {
                Self(
                    self.0
                        .checked_sub(other.0)
                        .expect("amounts are bounded far below i64"),
                )
            }
        }
        impl std::ops::Neg for $unit {
            type Output = Self;
            fn neg(self) -> Self {
                Self(
                    self.0
                        .checked_neg()
                        .expect("amounts are bounded far below i64"),
                )
            }
        }
        impl std::ops::AddAssign for $unit {
            fn add_assign(&mut self, other: Self) {
                *self = *self + other;
            }
        }
        impl std::ops::SubAssign for $unit {
            fn sub_assign(&mut self, other: Self) {
                *self = *self - other;
            }
        }
        impl std::iter::Sum for $unit {
            fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
                items.fold(Self(0), |sum, item| sum + item)
            }
        }
    };
}

arithmetic!(Nanos);
arithmetic!(Amount);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credits_are_read_exactly_or_refused() {
        assert_eq!(Nanos::from_credits("0.005"), Ok(Nanos(5_000_000)));
        assert_eq!(Nanos::from_credits("9000000"), Ok(Nanos(MAX_AMOUNT)));
        assert!(matches!(
            Nanos::from_credits("9000000.000000001"),
            Err(AmountError::TooLarge(_))
        ));
        assert!(matches!(
            Nanos::from_credits("0.0000000001"),
            Err(AmountError::TooFine(_))
        ));
        assert!(matches!(
            Nanos::from_credits("1e3x"),
            Err(AmountError::NotANumber(_))
        ));
    }

    #[test]
    fn rounding_is_half_away_from_zero() {
        let half = Decimal::from_str("0.0000000005").unwrap();
        assert_eq!(Nanos::round(half), Some(Nanos(1)));
        assert_eq!(Nanos::round(-half), Some(Nanos(-1)));
        assert_eq!(
            Nanos::round(Decimal::from_str("0.00000000049").unwrap()),
            Some(Nanos(0))
        );
    }

    #[test]
    fn shown_as_a_plain_decimal() {
        assert_eq!(Nanos(5_000_000).to_string(), "0.005");
        assert_eq!(Nanos(-1).to_string(), "-0.000000001");
    }
}
