//! What an owner may spend in a day (UTC), and has: a record in the vault that all processes change by
//! compare-and-swap.
//!
//! A clock that is off gives no second budget: when the ledger has a day that begins within a day from now, another
//! process has begun it, and it is today for all. Days further ahead are those of a clock that is badly off; they are
//! left to it.

use std::{collections::BTreeMap, time::Duration};

use chrono::{NaiveDate, NaiveTime, TimeDelta};
use serde::{Deserialize, Serialize};

use super::Usd;
use crate::clock::Timestamp;

/// Age from which a reservation is one of a process that has died: calls last a minute, and the clocks of two processes
/// may differ by an hour.
const ABANDONED_AFTER: TimeDelta = TimeDelta::hours(2);

/// Number of days that are kept: calls may end after midnight, and clocks may differ.
const MAX_DAYS: usize = 8;

/// How long the record is kept after its last change: longer than any of its days lasts, and than an app is connected
/// without being used.
pub const KEPT: Duration = Duration::from_hours(400 * 24);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    days: BTreeMap<NaiveDate, Day>,
    #[serde(default)]
    totals: Totals,
}

/// What was used since the ledger was begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Tool calls; counted for grants only.
    pub calls: u64,
    /// What was spent, including what was possibly billed.
    pub spent: Usd,
    pub last_used: Option<Timestamp>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Day {
    /// Tells which of the days was begun first, since their dates may be those of a clock that is off.
    #[serde(default)]
    begun: u64,
    /// The limit of the process that reserved last.
    limit: Usd,
    spent: Usd,
    /// Amount of calls whose answers were lost.
    possibly_spent: Usd,
    reserved: BTreeMap<String, Reserved>,
}

/// An amount that a call in progress may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Reserved {
    usd: Usd,
    at: Timestamp,
}

/// The end of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The call cost this much.
    Spent(Usd),
    /// The answer was lost: the reserved amount counts.
    PossiblySpent,
    /// The call was certainly not processed.
    Released,
}

/// A limit that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitReached {
    /// Amount that is spent or reserved.
    pub taken: Usd,
    pub limit: Usd,
    pub resets_at: Timestamp,
}

/// The state of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    pub today: Today,
    pub totals: Totals,
}

/// The state of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Today {
    /// The limit that a server had last; `None` if nothing was reserved.
    pub limit: Option<Usd>,
    /// Amount that is spent or reserved.
    pub taken: Usd,
    /// When the next day begins.
    pub resets_at: Timestamp,
}

impl Ledger {
    /// Reserves `usd` of what is left of `limit` today. Does nothing if there is a reservation with this `id`: an
    /// earlier attempt whose outcome was unknown has made it.
    pub fn reserve(&mut self, id: &str, usd: Usd, limit: Usd, now: Timestamp) -> Result<(), LimitReached> {
        let date = self.today(now);
        let taken = self.days.get(&date).map(Day::taken).unwrap_or_default();
        if self.days.values().any(|day| day.reserved.contains_key(id)) {
            return Ok(());
        }
        if taken.plus(usd) > limit {
            return Err(LimitReached { taken, limit, resets_at: end_of(date) });
        }
        let begun = self.days.values().map(|day| day.begun).max().unwrap_or(0).saturating_add(1);
        let day = self.days.entry(date).or_insert_with(|| Day { begun, ..Day::default() });
        day.limit = limit;
        day.reserved.insert(id.to_owned(), Reserved { usd, at: now });
        self.forget_old_days();
        Ok(())
    }

    /// Removes the days that were begun first, not those with the earliest dates: where a clock is days ahead, the
    /// earliest date is today for all others. A day with calls in progress stays.
    fn forget_old_days(&mut self) {
        while self.days.len() > MAX_DAYS {
            let settled = self.days.iter().filter(|(_, day)| day.reserved.is_empty());
            let Some((&first, _)) = settled.min_by_key(|(_, day)| day.begun) else { return };
            self.days.remove(&first);
        }
    }

    /// Ends a reservation, in the day in which it was made. Has no effect if that is done already.
    pub fn settle(&mut self, id: &str, settlement: Settlement) {
        let days = &mut self.days;
        if let Some((day, reserved)) =
            days.values_mut().find_map(|day| day.reserved.remove(id).map(|r| (day, r)))
        {
            let spent = match settlement {
                Settlement::Spent(usd) => {
                    day.spent = day.spent.plus(usd);
                    usd
                }
                Settlement::PossiblySpent => {
                    day.possibly_spent = day.possibly_spent.plus(reserved.usd);
                    reserved.usd
                }
                Settlement::Released => Usd::default(),
            };
            self.totals.spent = self.totals.spent.plus(spent);
        }
    }

    /// Counts calls, of which `last` was the last one.
    pub fn count(&mut self, calls: u64, last: Timestamp) {
        self.totals.calls = self.totals.calls.saturating_add(calls);
        self.totals.last_used = self.totals.last_used.max(Some(last));
    }

    /// Settles the reservations of processes that have died: their calls may have been billed. Returns how many there
    /// were.
    pub fn settle_abandoned(&mut self, now: Timestamp) -> usize {
        let is_abandoned = |reserved: &Reserved| now - reserved.at > ABANDONED_AFTER;
        let all = self.days.values().flat_map(|day| &day.reserved);
        let abandoned: Vec<String> =
            all.filter(|(_, reserved)| is_abandoned(reserved)).map(|(id, _)| id.clone()).collect();
        for id in &abandoned {
            self.settle(id, Settlement::PossiblySpent);
        }
        abandoned.len()
    }

    pub fn state(&self, now: Timestamp) -> State {
        let date = self.today(now);
        let day = self.days.get(&date);
        let today = Today {
            limit: day.map(|day| day.limit),
            taken: day.map(Day::taken).unwrap_or_default(),
            resets_at: end_of(date),
        };
        State { today, totals: self.totals }
    }

    fn today(&self, now: Timestamp) -> NaiveDate {
        let date = now.date_naive();
        date.succ_opt().filter(|next| self.days.contains_key(next)).unwrap_or(date)
    }
}

impl Day {
    fn taken(&self) -> Usd {
        let reserved = self.reserved.values().fold(Usd::default(), |sum, reserved| sum.plus(reserved.usd));
        self.spent.plus(self.possibly_spent).plus(reserved)
    }
}

fn end_of(date: NaiveDate) -> Timestamp {
    date.succ_opt().unwrap_or(date).and_time(NaiveTime::MIN).and_utc()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICE: Usd = Usd::cents(3);
    const LIMIT: Usd = Usd::cents(10);

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn noon() -> Timestamp {
        at("2026-11-24T12:00:00Z")
    }

    fn taken(ledger: &Ledger, now: Timestamp) -> Usd {
        ledger.state(now).today.taken
    }

    /// Reserves and spends all of the day's limit.
    fn use_up(ledger: &mut Ledger, now: Timestamp) {
        let id = format!("all of {now}");
        ledger.reserve(&id, LIMIT, LIMIT, now).unwrap();
        ledger.settle(&id, Settlement::Spent(LIMIT));
    }

    #[test]
    fn what_is_reserved_counts_until_it_is_settled() {
        let mut ledger = Ledger::default();
        for id in ["a", "b", "c"] {
            ledger.reserve(id, PRICE, LIMIT, noon()).unwrap();
        }
        let refusal = ledger.reserve("d", PRICE, LIMIT, noon()).unwrap_err();
        let resets_at = at("2026-11-25T00:00:00Z");
        assert_eq!(refusal, LimitReached { taken: Usd::cents(9), limit: LIMIT, resets_at });
        ledger.settle("a", Settlement::Released);
        ledger.settle("b", Settlement::Spent(Usd::cents(1)));
        ledger.settle("c", Settlement::PossiblySpent);
        assert_eq!(taken(&ledger, noon()), Usd::cents(4));
        for id in ["a", "b", "c"] {
            ledger.settle(id, Settlement::Spent(LIMIT));
        }
        assert_eq!(ledger.state(noon()).today, Today { limit: Some(LIMIT), taken: Usd::cents(4), resets_at });
    }

    #[test]
    fn a_reservation_whose_write_was_lost_and_found_again_counts_once() {
        let mut ledger = Ledger::default();
        for _ in 0..3 {
            ledger.reserve("a", PRICE, LIMIT, noon()).unwrap();
        }
        assert_eq!(taken(&ledger, noon()), PRICE);
    }

    #[test]
    fn a_limit_of_zero_allows_what_is_free() {
        let mut ledger = Ledger::default();
        ledger.reserve("a", PRICE, Usd::default(), noon()).unwrap_err();
        assert_eq!(ledger, Ledger::default());
        ledger.reserve("a", Usd::default(), Usd::default(), noon()).unwrap();
    }

    #[test]
    fn a_day_starts_anew_and_what_is_in_flight_belongs_to_the_day_before() {
        let mut ledger = Ledger::default();
        let (before, after) = (at("2026-11-24T23:59:59Z"), at("2026-11-25T00:00:00Z"));
        ledger.reserve("a", PRICE, LIMIT, before).unwrap();
        assert_eq!(taken(&ledger, after), Usd::default());
        use_up(&mut ledger, after);
        ledger.settle("a", Settlement::Spent(PRICE));
        assert_eq!(taken(&ledger, after), LIMIT);
        assert_eq!(ledger.days[&before.date_naive()].spent, PRICE);
    }

    #[test]
    fn the_reservations_of_a_process_that_died_count_as_possibly_spent() {
        let mut ledger = Ledger::default();
        ledger.reserve("a", PRICE, LIMIT, noon()).unwrap();
        let hour_ahead = noon() + TimeDelta::hours(1);
        assert_eq!(ledger.settle_abandoned(hour_ahead), 0);
        ledger.reserve("b", PRICE, LIMIT, hour_ahead).unwrap();
        assert_eq!(ledger.settle_abandoned(noon() + TimeDelta::minutes(121)), 1);
        assert_eq!(ledger.days[&noon().date_naive()].possibly_spent, PRICE);
        assert_eq!(taken(&ledger, noon()), Usd::cents(6));
    }

    #[test]
    fn a_clock_that_is_an_hour_off_has_no_second_budget() {
        let hour = TimeDelta::hours(1);
        // Around midnight, the clock that is ahead begins the day.
        for offset in [hour, -hour] {
            let mut ledger = Ledger::default();
            let mut budgets = 0;
            let mut now = at("2026-11-24T00:00:00Z") + hour;
            while now < at("2026-11-27T00:00:00Z") - hour {
                for clock in [now, now + offset] {
                    if taken(&ledger, clock) < LIMIT {
                        use_up(&mut ledger, clock);
                        budgets += 1;
                    }
                }
                now += TimeDelta::minutes(10);
            }
            assert_eq!(budgets, 3, "{offset}");
        }
    }

    #[test]
    fn a_clock_that_is_days_ahead_leaves_the_others_their_day_and_has_one_itself() {
        let mut ledger = Ledger::default();
        for _ in 0..3 {
            for now in [noon(), noon() + TimeDelta::days(400)] {
                if taken(&ledger, now) == Usd::default() {
                    use_up(&mut ledger, now);
                }
                assert_eq!(taken(&ledger, now), LIMIT);
            }
        }
        assert_eq!(ledger.days.len(), 2);
    }

    #[test]
    fn a_clock_that_is_days_ahead_gives_the_others_no_second_budget_however_many_days_it_begins() {
        let mut ledger = Ledger::default();
        let mut budgets = 0;
        for day in 0..20 {
            let right = noon() + TimeDelta::days(day);
            for now in [right, right + TimeDelta::days(400), right] {
                if taken(&ledger, now) < LIMIT {
                    use_up(&mut ledger, now);
                    budgets += u32::from(now == right);
                }
            }
        }
        assert_eq!(budgets, 20);
        assert_eq!(ledger.days.len(), MAX_DAYS);
    }

    #[test]
    fn a_day_with_a_call_in_progress_is_not_forgotten() {
        let mut ledger = Ledger::default();
        ledger.reserve("a", PRICE, LIMIT, noon()).unwrap();
        for day in 0..20 {
            use_up(&mut ledger, noon() + TimeDelta::days(400 + day));
        }
        ledger.settle("a", Settlement::Spent(PRICE));
        assert_eq!(taken(&ledger, noon()), PRICE);
    }

    #[test]
    fn of_days_that_do_not_tell_when_they_were_begun_the_earliest_is_forgotten_first() {
        let mut ledger = Ledger::default();
        for day in 0..8 {
            use_up(&mut ledger, noon() + TimeDelta::days(day));
        }
        let mut record = serde_json::to_value(&ledger).unwrap();
        for (_, day) in record["days"].as_object_mut().unwrap() {
            day.as_object_mut().unwrap().remove("begun");
        }
        let mut ledger: Ledger = serde_json::from_value(record).unwrap();
        use_up(&mut ledger, noon() + TimeDelta::days(8));
        let dates = (1..=8).map(|day| (noon() + TimeDelta::days(day)).date_naive());
        assert!(ledger.days.keys().copied().eq(dates), "{ledger:?}");
    }

    #[test]
    fn old_days_are_forgotten_and_today_never() {
        let mut ledger = Ledger::default();
        for day in 0..30 {
            use_up(&mut ledger, noon() + TimeDelta::days(100 + day));
        }
        use_up(&mut ledger, noon());
        assert_eq!(ledger.days.len(), MAX_DAYS);
        assert_eq!(taken(&ledger, noon()), LIMIT);
    }

    #[test]
    fn what_was_used_in_all_outlives_its_days_and_counts_each_call_once() {
        let mut ledger = Ledger::default();
        for day in 0..30 {
            use_up(&mut ledger, noon() + TimeDelta::days(day));
        }
        ledger.reserve("lost", PRICE, LIMIT, noon()).unwrap();
        ledger.settle_abandoned(noon() + TimeDelta::days(1));
        ledger.settle("lost", Settlement::Spent(LIMIT));
        ledger.reserve("unsent", PRICE, LIMIT, noon() + TimeDelta::days(40)).unwrap();
        ledger.settle("unsent", Settlement::Released);
        ledger.count(2, noon());
        ledger.count(1, noon() - TimeDelta::days(1));
        let totals = ledger.state(noon()).totals;
        let spent = Usd::cents(300).plus(PRICE);
        assert_eq!(totals, Totals { calls: 3, spent, last_used: Some(noon()) });
    }

    #[test]
    fn a_ledger_without_totals_is_read() {
        let ledger: Ledger = serde_json::from_str(r#"{"days":{}}"#).unwrap();
        assert_eq!(ledger, Ledger::default());
    }

    #[test]
    fn it_is_stored_whole() {
        let mut ledger = Ledger::default();
        use_up(&mut ledger, noon());
        ledger.reserve("a", Usd::default(), LIMIT, noon()).unwrap();
        let bytes = serde_json::to_vec(&ledger).unwrap();
        assert_eq!(serde_json::from_slice::<Ledger>(&bytes).unwrap(), ledger);
    }
}
