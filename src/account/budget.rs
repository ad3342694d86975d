//! Limits on what an owner spends in a day, and what was used in all: the operator sets a limit for every owner, and a
//! person one for each app. The smaller one holds.

use super::{
    Account, Error, Usd,
    record::Record,
    spending::{DailySpending, Reservation},
};
use crate::clock::Timestamp;

/// A limit on what an owner spends in a day (UTC).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DailyLimit {
    pub usd: Usd,
    pub set_by: LimitSetBy,
}

/// Who has set a limit, and can change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitSetBy {
    /// With `--daily-spend`.
    Operator,
    /// When connecting the app, or on the page of connections.
    Person,
}

/// What was used in all, as far as the ledger goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageTotals {
    /// Tool calls.
    pub calls: u64,
    /// What was spent, including what was possibly billed.
    pub spent: Usd,
    /// What was spent or is reserved today.
    pub spent_today: Usd,
    pub last_used: Option<Timestamp>,
}

impl Account {
    /// Returns the limit that holds: the smaller one of the operator's and the person's; `None` without any.
    pub async fn daily_limit(&self, operators: Option<Usd>) -> Result<Option<DailyLimit>, Error> {
        let own = self.own_daily_limit().await?.map(|usd| DailyLimit { usd, set_by: LimitSetBy::Person });
        let operators = operators.map(|usd| DailyLimit { usd, set_by: LimitSetBy::Operator });
        Ok(operators.into_iter().chain(own).min_by_key(|limit| limit.usd))
    }

    /// Returns the limit that the person has set; `None` where the account is not a grant's.
    pub async fn own_daily_limit(&self) -> Result<Option<Usd>, Error> {
        if !self.belongs_to_a_subject() {
            return Ok(None);
        }
        Ok(self.record().await?.record.grant.as_ref().map(|grant| grant.daily_limit))
    }

    /// Changes the limit of a grant. It holds from the next call on, in all processes.
    pub async fn set_daily_limit(&self, usd: Usd) -> Result<(), Error> {
        let change = |record: &mut Record| {
            record.check_open()?;
            record.grant.as_mut().ok_or(Error::GrantEnded)?.daily_limit = usd;
            Ok(())
        };
        self.update(change).await.map(|_| ())
    }

    /// Reserves `usd` of what the owner may spend today. The limit holds for all processes and replicas together.
    pub async fn reserve(&self, usd: Usd, limit: DailyLimit) -> Result<Reservation, Error> {
        self.inner.spending.reserve(usd, limit).await.map_err(|error| match error {
            limit @ Error::DailyLimit { .. } => limit,
            cause => Error::LimitUnknown { cause: Box::new(cause) },
        })
    }

    /// Returns what the owner may still spend today: of `limit`, or of the limit that a server had last today; `None` if
    /// there is neither.
    pub async fn daily_spending(&self, limit: Option<Usd>) -> Result<Option<DailySpending>, Error> {
        let today = self.inner.spending.state().await?.today;
        let spending = |limit: Usd| DailySpending {
            limit_usd: limit.to_f64(),
            left_usd: limit.minus(today.taken).to_f64(),
            resets_at: today.resets_at,
        };
        Ok(limit.or(today.limit).map(spending))
    }

    /// Counts a call of a tool, where the account is a grant's. Nobody waits for it to be stored.
    pub fn count_call(&self) {
        if self.remembered().is_some_and(|memory| memory.record.grant.is_some()) {
            self.inner.spending.count_call();
        }
    }

    /// Returns what was used in all. Calls of the last seconds in other processes may be missing.
    pub async fn usage_totals(&self) -> Result<UsageTotals, Error> {
        let state = self.inner.spending.state().await?;
        Ok(UsageTotals {
            calls: state.totals.calls,
            spent: state.totals.spent,
            spent_today: state.today.taken,
            last_used: state.totals.last_used,
        })
    }
}
