//! The end of grants, and what follows it: an entry in the audit log, a step in the trace, and the release of what they
//! have at BondMCP.

use super::{Hosted, audit::AuditedEvent};
use crate::{
    oauth::{EndReason, Grant, GrantId},
    vault,
};

impl Hosted {
    /// Ends grants, and does what follows. All are ended before the first key is revoked, since BondMCP may be slow.
    pub(super) async fn end(&self, grants: &[GrantId], reason: EndReason) -> Result<(), vault::Error> {
        let mut ended = Vec::new();
        let mut outcome = Ok(());
        for id in grants {
            match self.inner.server.end_grant(id, reason).await {
                Ok(grant) => ended.extend(grant),
                Err(error) => outcome = Err(error),
            }
        }
        for grant in &ended {
            self.ended(grant).await;
        }
        outcome
    }

    /// Does what follows the end of a grant.
    pub async fn ended(&self, grant: &Grant) {
        self.note_end(grant).await;
        self.release(grant).await;
    }

    /// Notes the end of a grant in the audit log and in its trace.
    pub async fn note_end(&self, grant: &Grant) {
        if let Some((_, reason)) = grant.ended {
            self.audit(AuditedEvent::Ended { grant, reason });
            self.traces().step(&grant.reference, reason.described()).await;
        }
    }
}
