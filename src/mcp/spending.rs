//! The money that this process has spent at BondMCP since it started, by tool, and its limit.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rmcp::schemars::{self, JsonSchema};
use serde::Serialize;

use super::tool_error::ToolError;
use crate::{bondmcp::Sent, error::Kind};

/// Highest amount that one call is counted as.
const HIGHEST_COST: Usd = Usd::cents(100);

/// An amount in millionths of a US dollar, so that sums are exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
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

    fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

/// The price of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Price {
    /// Lower limit of what the call is counted as.
    pub least: Usd,
    /// Amount that is reserved until the answer states the cost.
    pub reserved: Usd,
}

impl Price {
    /// Returns a documented price.
    pub const fn cents(cents: u64) -> Self {
        Self { least: Usd::cents(cents), reserved: Usd::cents(cents) }
    }

    /// Returns an undocumented price, which may be as low or as high as the documented ones.
    pub const fn between_cents(least: u64, most: u64) -> Self {
        Self { least: Usd::cents(least), reserved: Usd::cents(most) }
    }
}

/// The spending of one tool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct ToolSpending {
    /// Billed calls that were answered.
    pub calls: u64,
    pub usd: f64,
    /// Calls whose answers were lost.
    pub possibly_billed_calls: u64,
    /// What they may have cost at most.
    pub possibly_usd: f64,
}

/// What this process has spent since it started.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Spent {
    /// Total, including possibly billed calls.
    pub total_usd: f64,
    /// The operator's limit, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_usd: Option<f64>,
    pub by_tool: BTreeMap<String, ToolSpending>,
}

#[derive(Debug)]
pub(super) struct Spending {
    limit: Option<Usd>,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    tools: BTreeMap<String, Line>,
    /// Amount reserved for calls in progress.
    reserved: Usd,
}

#[derive(Clone, Copy, Debug, Default)]
struct Line {
    calls: u64,
    spent: Usd,
    possible_calls: u64,
    possible: Usd,
}

/// A billed call in progress. One that is dropped without an answer, as when it is cancelled, counts as possibly billed
/// if it may have reached BondMCP.
#[derive(Debug)]
pub(super) struct Billed<'a> {
    spending: &'a Spending,
    tool: &'static str,
    price: Price,
    sent: &'a Sent,
    /// What the call is counted as, once it was answered.
    cost: Option<Usd>,
}

impl Spending {
    pub fn new(limit: Option<Usd>) -> Self {
        Self { limit, book: Mutex::default() }
    }

    /// Begins a call that costs `price`, if the limit allows it.
    pub fn begin<'a>(
        &'a self,
        tool: &'static str,
        price: Price,
        sent: &'a Sent,
    ) -> Result<Billed<'a>, ToolError> {
        let mut book = self.book();
        let taken = book.total().plus(book.reserved);
        if let Some(limit) = self.limit
            && taken.plus(price.reserved) > limit
        {
            return Err(ToolError::new(
                Kind::SpendLimit,
                format!(
                    "The call costs up to ${:.2}; this server has spent ${:.2} of its limit of ${:.2}.",
                    price.reserved.to_f64(),
                    taken.to_f64(),
                    limit.to_f64()
                ),
                "Tell the person. The operator sets the limit with --max-spend; it counts from the server's start.",
            ));
        }
        book.reserved = book.reserved.plus(price.reserved);
        Ok(Billed { spending: self, tool, price, sent, cost: None })
    }

    pub fn spent(&self) -> Spent {
        let book = self.book();
        let by_tool = book.tools.iter().map(|(tool, line)| (tool.clone(), line.report()));
        Spent {
            total_usd: book.total().to_f64(),
            limit_usd: self.limit.map(Usd::to_f64),
            by_tool: by_tool.collect(),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Billed<'_> {
    /// Records an answer with its `cost` in US dollars. Returns the counted amount: at least the documented price, so
    /// that an answer cannot evade the limit, and at most [`HIGHEST_COST`], so that it cannot exhaust the limit at
    /// once.
    pub fn cost(mut self, cost: Option<f64>) -> Usd {
        let named = cost.map_or(self.price.reserved, Usd::from_f64);
        let counted = named.min(HIGHEST_COST).max(self.price.least);
        self.cost = Some(counted);
        counted
    }
}

impl Drop for Billed<'_> {
    fn drop(&mut self) {
        let mut book = self.spending.book();
        book.reserved.0 -= self.price.reserved.0;
        let (calls, cost) = match self.cost {
            Some(cost) => ((1, 0), (cost, Usd::default())),
            None if self.sent.get() => ((0, 1), (Usd::default(), self.price.reserved)),
            None => return,
        };
        let line = book.tools.entry(self.tool.to_owned()).or_default();
        line.calls += calls.0;
        line.possible_calls += calls.1;
        line.spent = line.spent.plus(cost.0);
        line.possible = line.possible.plus(cost.1);
    }
}

impl Book {
    fn total(&self) -> Usd {
        self.tools.values().fold(Usd::default(), |sum, line| sum.plus(line.spent).plus(line.possible))
    }
}

impl Line {
    fn report(self) -> ToolSpending {
        ToolSpending {
            calls: self.calls,
            usd: self.spent.to_f64(),
            possibly_billed_calls: self.possible_calls,
            possibly_usd: self.possible.to_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICE: Price = Price::cents(3);

    #[test]
    fn calls_are_counted_by_tool_with_what_they_cost() {
        let spending = Spending::new(None);
        let (sent, unsent) = (Sent::default(), Sent::default());
        sent.set(true);
        spending.begin("a", PRICE, &sent).unwrap().cost(Some(0.05));
        spending.begin("a", PRICE, &sent).unwrap().cost(None);
        drop(spending.begin("b", PRICE, &unsent).unwrap());
        drop(spending.begin("c", PRICE, &sent).unwrap());
        let report = spending.spent();
        assert_eq!(report.total_usd.to_string(), "0.11");
        assert_eq!((report.by_tool["a"].calls, report.by_tool["a"].usd.to_string().as_str()), (2, "0.08"));
        assert!(!report.by_tool.contains_key("b"));
        assert_eq!((report.by_tool["c"].calls, report.by_tool["c"].possibly_billed_calls), (0, 1));
    }

    #[test]
    fn a_cost_below_the_price_or_beyond_all_bounds_does_not_evade_the_limit() {
        for (told, counted) in [
            (0.0, PRICE.least),
            (-5.0, PRICE.least),
            (f64::NAN, PRICE.least),
            (0.05, Usd::cents(5)),
            (1e300, HIGHEST_COST),
            (f64::INFINITY, HIGHEST_COST),
        ] {
            let (spending, sent) = (Spending::new(None), Sent::default());
            assert_eq!(spending.begin("a", PRICE, &sent).unwrap().cost(Some(told)), counted, "{told}");
            assert_eq!(Usd::from_f64(spending.spent().total_usd), counted, "{told}");
        }
    }

    #[test]
    fn the_limit_holds_for_calls_at_once() {
        let (spending, sent) = (Spending::new(Some(Usd::from_f64(0.07))), Sent::default());
        let one = spending.begin("a", PRICE, &sent).unwrap();
        let two = spending.begin("a", PRICE, &sent).unwrap();
        spending.begin("a", PRICE, &sent).unwrap_err();
        drop(one);
        spending.begin("a", Price::cents(1), &sent).unwrap().cost(Some(0.01));
        two.cost(Some(0.03));
        spending.begin("a", PRICE, &sent).unwrap().cost(Some(0.03));
        spending.begin("a", PRICE, &sent).unwrap_err();
        spending.begin("a", Price::cents(0), &sent).unwrap().cost(Some(0.0));
    }
}
