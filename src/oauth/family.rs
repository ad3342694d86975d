//! The refresh tokens of a grant: rotation that forgives (RFC 9700, section 4.14.2).
//!
//! Hosts refresh in several processes at once, retry after a lost answer, or never store the new token, so a strict
//! detection of reuse would sign everybody out. Here
//! - the current token is rotated;
//! - the one before it gets the current one again, as long as that has not been used;
//! - an older one gets the current one too, until ten minutes after its successor was used: Codex sends one token five times
//!   within a second, and once more after 7 min 45 s, when another process has used the successor
//!   (<https://github.com/openai/codex/issues/46028>);
//! - any other old token ends the family, since somebody has copied it.
//!
//! So a copy is noticed when the app or whoever has copied the token presents one whose successor was used ten minutes ago or
//! earlier. Whoever refreshes a copy as often as the app does is not noticed, and shares the grant until its absolute end.

#[cfg(test)]
mod tests;

use std::time::Duration;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::{refresh_token::RefreshToken, server_keys::ServerKeys};
use crate::{clock::Timestamp, secret};

/// For how long a token is still answered after its successor was used.
const REUSE_GRACE_PERIOD: TimeDelta = TimeDelta::minutes(10);

/// Largest number of rotations within [`REUSE_GRACE_PERIOD`]. A client that refreshes still more often keeps its token
/// meanwhile, so that no rotation of that time is forgotten.
const MAX_ROTATIONS: usize = 16;

/// A use that rotates nothing is noted at most this often.
const NOTED_EVERY: TimeDelta = TimeDelta::hours(1);

/// How long refresh tokens live.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Since the last use.
    pub idle: Duration,
    /// Since the first token.
    pub absolute: Duration,
}

/// The record of a family.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Family {
    /// Generation of the current token.
    generation: u64,
    /// Hash of the current token.
    current: String,
    created_at: Timestamp,
    used_at: Timestamp,
    /// The latest rotations, the newest last.
    rotations: Vec<Rotation>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
struct Rotation {
    /// Generation of the token that was used.
    generation: u64,
    at: Timestamp,
}

/// What becomes of a refresh token that is presented.
#[derive(Debug)]
pub enum Refresh {
    /// The client gets this token. The family is to be written if it has changed.
    Answered { token: RefreshToken, has_changed: bool },
    /// Somebody has copied the token: the family ends.
    Replayed,
    /// The family was not used for too long, or is too old.
    Expired,
    /// Not a token of this family as the vault knows it, such as after the vault was restored from a backup.
    Unknown,
}

impl Family {
    pub fn new(first: &RefreshToken, now: Timestamp) -> Self {
        Self {
            generation: first.generation,
            current: first.hash(),
            created_at: now,
            used_at: now,
            rotations: Vec::new(),
        }
    }

    /// Presents a token of this family.
    pub fn refresh(
        &mut self,
        keys: &ServerKeys,
        token: &RefreshToken,
        limits: Limits,
        now: Timestamp,
    ) -> Refresh {
        if self.has_expired(limits, now) {
            return Refresh::Expired;
        }
        if token.generation > self.generation {
            return Refresh::Unknown;
        }
        if token.generation < self.generation && !self.is_forgiven(token.generation, now) {
            return Refresh::Replayed;
        }
        let is_current = token.generation == self.generation;
        let mut current = token.clone();
        while current.generation < self.generation {
            current = current.successor(keys);
        }
        if !secret::same_text(&current.hash(), &self.current) {
            return Refresh::Unknown;
        }
        self.rotations.retain(|rotation| now - rotation.at < REUSE_GRACE_PERIOD);
        if is_current && self.rotations.len() < MAX_ROTATIONS {
            return Refresh::Answered { token: self.rotate(keys, &current, now), has_changed: true };
        }
        let has_changed = now - self.used_at >= NOTED_EVERY;
        if has_changed {
            self.used_at = now;
        }
        Refresh::Answered { token: current, has_changed }
    }

    /// Returns for how long the vault has to keep the family.
    pub fn lifetime(&self, limits: Limits, now: Timestamp) -> Duration {
        let age = (now - self.created_at).to_std().unwrap_or_default();
        let noted_later = NOTED_EVERY.to_std().unwrap_or_default();
        limits.absolute.saturating_sub(age).min(limits.idle + noted_later)
    }

    fn rotate(&mut self, keys: &ServerKeys, token: &RefreshToken, now: Timestamp) -> RefreshToken {
        let next = token.successor(keys);
        self.rotations.push(Rotation { generation: token.generation, at: now });
        (self.generation, self.current, self.used_at) = (next.generation, next.hash(), now);
        next
    }

    /// Whether an old token is still accepted.
    fn is_forgiven(&self, generation: u64, now: Timestamp) -> bool {
        let successor = generation + 1;
        let was_lately_used =
            |rotation: &Rotation| rotation.generation == successor && now - rotation.at < REUSE_GRACE_PERIOD;
        successor == self.generation || self.rotations.iter().any(was_lately_used)
    }

    pub fn has_expired(&self, limits: Limits, now: Timestamp) -> bool {
        let is_past = |since: Timestamp, limit: Duration| {
            TimeDelta::from_std(limit).is_ok_and(|limit| now - since >= limit)
        };
        is_past(self.used_at, limits.idle) || is_past(self.created_at, limits.absolute)
    }
}
