//! Which API keys are old enough to be rotated. BondMCP's guide asks for regular rotation and names no interval.

use chrono::{DateTime, NaiveDateTime, TimeDelta};
use serde::Serialize;

use super::{Account, Error};
use crate::clock::Timestamp;

/// Age at which an API key should be rotated.
pub const ROTATION_AGE: TimeDelta = TimeDelta::days(90);

/// An API key that is older than 90 days.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AgedKey {
    pub id: String,
    pub name: String,
    pub age_days: i64,
}

impl Account {
    /// Returns the stored keys whose values are older than 90 days, without a request.
    pub async fn keys_to_rotate(&self) -> Result<Vec<AgedKey>, Error> {
        let memory = self.record().await?;
        let now = self.now();
        let aged = memory.record.keys.iter().filter_map(|key| {
            let age = now - parsed_time(key.created_at.as_deref()?)?;
            (age >= ROTATION_AGE).then(|| AgedKey {
                id: key.id.clone(),
                name: key.name.clone(),
                age_days: age.num_days(),
            })
        });
        Ok(aged.collect())
    }
}

/// Parses a point in time as BondMCP writes it: RFC 3339, or without an offset, which means UTC.
#[must_use]
pub fn parsed_time(time: &str) -> Option<Timestamp> {
    let with_offset = DateTime::parse_from_rfc3339(time).ok().map(|time| time.to_utc());
    with_offset.or_else(|| {
        NaiveDateTime::parse_from_str(time, "%Y-%m-%dT%H:%M:%S%.f").ok().map(|time| time.and_utc())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_with_or_without_an_offset_is_understood() {
        for time in [
            "2025-10-01T12:00:00Z",
            "2025-10-01T14:00:00.000+02:00",
            "2025-10-01T12:00:00",
            "2025-10-01T12:00:00.0",
        ] {
            assert_eq!(parsed_time(time).unwrap().timestamp(), 1_759_320_000, "{time}");
        }
        assert_eq!(parsed_time("yesterday"), None);
    }
}
