//! The keys that sign access tokens: in the vault, rotated, and kept as long as a token that they signed lives.

use super::{Records, Settings};
use crate::{clock::Clock, vault};

#[derive(Debug)]
pub struct SigningKeys {}

impl SigningKeys {
    pub async fn open(records: Records, settings: &Settings, clock: Clock) -> Result<Self, vault::Error> {
        todo!("{records:?} {settings:?} {clock:?}")
    }
}
