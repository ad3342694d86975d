//! Amounts of money.

use serde::{Deserialize, Serialize};

/// An amount in millionths of a US dollar, so that sums are exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Usd(u64);

impl Usd {
    /// Converts to the nearest amount; zero for a negative number and for NaN.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an amount that fits is wanted"
    )]
    pub fn from_f64(usd: f64) -> Self {
        Self((usd.max(0.0) * 1e6).round() as u64)
    }

    #[must_use]
    pub const fn cents(cents: u64) -> Self {
        Self(cents * 10_000)
    }

    #[expect(clippy::cast_precision_loss, reason = "amounts are far below 2^53 millionths")]
    #[must_use]
    pub fn to_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// Adds an amount; the largest one is never exceeded.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// Subtracts an amount, as far as there is one.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// As `$0.05`; with more digits where the amount has them.
impl std::fmt::Display for Usd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (dollars, millionths) = (self.0 / 1_000_000, self.0 % 1_000_000);
        let digits = format!("{millionths:06}");
        let digits = format!("{:0<2}", digits.trim_end_matches('0'));
        write!(f, "${dollars}.{digits}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_shown_exactly() {
        for (usd, shown) in [(0.0, "$0.00"), (0.05, "$0.05"), (12.5, "$12.50"), (0.000_001, "$0.000001")] {
            assert_eq!(Usd::from_f64(usd).to_string(), shown);
        }
    }
}
