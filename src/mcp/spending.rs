//! The money that this process has spent at BondMCP since it started: each owner's by tool, and its limit for all of
//! them together. What one owner has spent is shown to that owner only.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use rmcp::schemars::{self, JsonSchema};
use serde::Serialize;

use super::tool_error::ToolError;
use crate::{
    account::{DailySpending, Reservation, Settlement, Usd},
    bondmcp::Sent,
    error::Kind,
};

/// Highest amount that one call is counted as.
const HIGHEST_COST: Usd = Usd::cents(100);

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

/// What this process has spent since it started. A hosted server counts anew for an account that was idle for ten minutes.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Spent {
    /// Total, including possibly billed calls.
    pub total_usd: f64,
    /// The operator's limit, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_usd: Option<f64>,
    /// The daily limit, which all servers of the account share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub today: Option<DailySpending>,
    pub by_tool: BTreeMap<String, ToolSpending>,
}

/// What all owners have spent, and the limit for all of them together.
#[derive(Debug)]
pub(super) struct Total {
    limit: Option<Usd>,
    /// Amount that is spent or reserved.
    taken: Mutex<Usd>,
}

/// The spending of one owner.
#[derive(Debug)]
pub(super) struct Spending {
    total: Arc<Total>,
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
    /// What is reserved of the owner's daily limit, if there is one.
    reservation: Option<Reservation>,
    /// What the call is counted as, once it was answered.
    cost: Option<Usd>,
}

impl Total {
    pub fn new(limit: Option<Usd>) -> Self {
        Self { limit, taken: Mutex::default() }
    }

    /// Reserves an amount, if the limit allows it.
    fn reserve(&self, usd: Usd) -> Result<(), Usd> {
        let mut taken = self.taken.lock();
        match self.limit {
            Some(limit) if taken.plus(usd) > limit => Err(limit),
            _ => {
                *taken = taken.plus(usd);
                Ok(())
            }
        }
    }

    /// Replaces what was reserved by what is counted.
    fn settle(&self, reserved: Usd, counted: Usd) {
        let mut taken = self.taken.lock();
        *taken = taken.minus(reserved).plus(counted);
    }
}

impl Spending {
    pub fn new(total: Arc<Total>) -> Self {
        Self { total, book: Mutex::default() }
    }

    /// Begins a call that costs `price`, if the limit of all owners allows it.
    pub fn begin<'a>(
        &'a self,
        tool: &'static str,
        price: Price,
        sent: &'a Sent,
    ) -> Result<Billed<'a>, ToolError> {
        let mut book = self.book.lock();
        if let Err(limit) = self.total.reserve(price.reserved) {
            // Not what the others have spent.
            let own = book.total().plus(book.reserved);
            return Err(ToolError::new(
                Kind::SpendLimit,
                format!(
                    "The call costs up to {} and would exceed this server's limit; your calls took {own} of its limit of {limit}.",
                    price.reserved
                ),
                "Tell the person. The operator sets the limit with --max-spend; it counts from the server's start.",
            ));
        }
        book.reserved = book.reserved.plus(price.reserved);
        Ok(Billed { spending: self, tool, price, sent, reservation: None, cost: None })
    }

    pub fn spent(&self) -> Spent {
        let book = self.book.lock();
        let by_tool = book.tools.iter().map(|(tool, line)| (tool.clone(), line.report()));
        Spent {
            total_usd: book.total().to_f64(),
            limit_usd: self.total.limit.map(Usd::to_f64),
            today: None,
            by_tool: by_tool.collect(),
        }
    }
}

impl Billed<'_> {
    /// Adds what is reserved of the owner's daily limit; it is settled with the call.
    pub fn with(mut self, reservation: Reservation) -> Self {
        self.reservation = Some(reservation);
        self
    }

    /// Records an answer with its `cost` in US dollars. Returns the counted amount: at least the documented price, so
    /// that an answer cannot evade the limit, and at most [`HIGHEST_COST`], so that it cannot exhaust the limit at
    /// once.
    pub fn cost(mut self, cost: Option<f64>) -> Usd {
        let named = cost.map_or(self.price.reserved, Usd::from_f64);
        let counted = named.min(HIGHEST_COST).max(self.price.least);
        self.cost = Some(counted);
        counted
    }

    fn settlement(&self) -> Settlement {
        match self.cost {
            Some(cost) => Settlement::Spent(cost),
            None if self.sent.get() => Settlement::PossiblySpent,
            None => Settlement::Released,
        }
    }
}

impl Drop for Billed<'_> {
    fn drop(&mut self) {
        let (reserved, settlement) = (self.price.reserved, self.settlement());
        if let Some(reservation) = self.reservation.take() {
            reservation.settle(settlement);
        }
        let counted = match settlement {
            Settlement::Spent(cost) => cost,
            Settlement::PossiblySpent => reserved,
            Settlement::Released => Usd::default(),
        };
        let mut book = self.spending.book.lock();
        book.reserved = book.reserved.minus(reserved);
        self.spending.total.settle(reserved, counted);
        if settlement == Settlement::Released {
            return;
        }
        let line = book.tools.entry(self.tool.to_owned()).or_default();
        let (calls, spent) = match settlement {
            Settlement::Spent(_) => (&mut line.calls, &mut line.spent),
            _ => (&mut line.possible_calls, &mut line.possible),
        };
        *calls += 1;
        *spent = spent.plus(counted);
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

    fn with_limit(limit: Option<Usd>) -> Spending {
        Spending::new(Arc::new(Total::new(limit)))
    }

    #[test]
    fn calls_are_counted_by_tool_with_what_they_cost() {
        let spending = with_limit(None);
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
            let (spending, sent) = (with_limit(None), Sent::default());
            assert_eq!(spending.begin("a", PRICE, &sent).unwrap().cost(Some(told)), counted, "{told}");
            assert_eq!(Usd::from_f64(spending.spent().total_usd), counted, "{told}");
        }
    }

    #[test]
    fn the_limit_holds_for_calls_at_once() {
        let (spending, sent) = (with_limit(Some(Usd::from_f64(0.07))), Sent::default());
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

    #[test]
    fn the_limit_is_for_all_owners_and_none_sees_what_the_others_spent() {
        let (total, sent) = (Arc::new(Total::new(Some(Usd::cents(10)))), Sent::default());
        let (one, other) = (Spending::new(total.clone()), Spending::new(total.clone()));
        one.begin("a", PRICE, &sent).unwrap().cost(Some(0.06));
        other.begin("b", PRICE, &sent).unwrap().cost(Some(0.03));
        assert_eq!((one.spent().total_usd, other.spent().total_usd), (0.06, 0.03));
        assert!(!other.spent().by_tool.contains_key("a"));
        let refusal = format!("{:?}", other.begin("b", PRICE, &sent).unwrap_err());
        assert!(refusal.contains("your calls took $0.03 of its limit of $0.10"), "{refusal}");
        assert!(!refusal.contains("0.06") && !refusal.contains("0.09"), "{refusal}");
        assert_eq!(*total.taken.lock(), Usd::cents(9));
    }
}
