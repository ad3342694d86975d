//! What a grant has at BondMCP: an API key of its own, or a session where the plan allows no further key.

use super::Hosted;
use crate::oauth::{Acceptance, Grant};

impl Hosted {
    /// Whether BondMCP still accepts what the grant calls it with.
    pub async fn acceptance(&self, grant: &Grant) -> Acceptance {
        todo!("{grant:?}")
    }

    /// Revokes the API key of an ended grant, ends its session, and forgets its account. What cannot be done now is done
    /// by a later [`sweep`](Self::sweep), or when the person signs in again.
    pub async fn release(&self, grant: &Grant) {
        todo!("{grant:?}")
    }

    /// Ends what has expired and releases what has ended, of all persons. Replicas take turns.
    pub async fn sweep(&self) {
        todo!()
    }
}
