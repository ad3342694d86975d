//! Amounts of money.

use std::str::FromStr;

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

    /// Rounds down to an amount that a person can type.
    #[must_use]
    pub const fn whole_cents(self) -> Self {
        Self(self.0 - self.0 % 10_000)
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an amount is dollars with at most two decimals, up to 1000000, such as 5 or 0.50")]
pub struct UsdError;

/// Reads an amount that a person has typed: dollars, with a point before at most two decimals.
impl FromStr for Usd {
    type Err = UsdError;

    fn from_str(text: &str) -> Result<Self, UsdError> {
        let (dollars, cents) = match text.split_once('.') {
            Some((dollars, cents)) if matches!(cents.len(), 1 | 2) => (dollars, cents),
            Some(_) => return Err(UsdError),
            None => (text, "0"),
        };
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty();
        if !digits(dollars) || !digits(cents) || dollars.len() > 7 {
            return Err(UsdError);
        }
        let dollars: u64 = dollars.parse().map_err(|_| UsdError)?;
        let cents: u64 = format!("{cents:0<2}").parse().map_err(|_| UsdError)?;
        let amount = Self::cents(dollars * 100 + cents);
        if amount <= Self::cents(100_000_000) { Ok(amount) } else { Err(UsdError) }
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
    fn an_amount_that_a_person_types_is_read_strictly() {
        for (text, cents) in [("5", 500), ("0", 0), ("0.5", 50), ("05.05", 505), ("1000000", 100_000_000)] {
            assert_eq!(text.parse(), Ok(Usd::cents(cents)), "{text}");
        }
        for wrong in [
            "",
            ".",
            "5.",
            ".5",
            "0.001",
            "-1",
            "+1",
            "1e3",
            "1,50",
            "$5",
            " 5",
            "1000000.01",
            "NaN",
            "٣",
            "99999999",
        ] {
            assert_eq!(wrong.parse::<Usd>(), Err(UsdError), "{wrong}");
        }
    }

    #[test]
    fn an_amount_in_whole_cents_can_be_typed() {
        for (usd, cents) in [(0.02, 2), (0.029_999, 2), (0.005, 0), (7.0, 700)] {
            assert_eq!(Usd::from_f64(usd).whole_cents(), Usd::cents(cents));
        }
    }

    #[test]
    fn an_amount_is_shown_exactly() {
        for (usd, shown) in [(0.0, "$0.00"), (0.05, "$0.05"), (12.5, "$12.50"), (0.000_001, "$0.000001")] {
            assert_eq!(Usd::from_f64(usd).to_string(), shown);
        }
    }
}
