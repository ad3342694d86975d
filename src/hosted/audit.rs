//! What the audit log has besides calls: who signed in, what was allowed to which app, and how it ended.

use super::Hosted;
use crate::{
    account::{AuditEntry, Owner},
    oauth::{EndReason, Grant, Subject},
};

/// Name of the tool in the entries of signing in and of consent; no MCP tool has it.
const AUTHORIZE: &str = "authorize";

/// Name of the tool in the entries of grants that end.
const GRANT: &str = "grant";

/// Something for the audit log.
#[derive(Clone, Copy, Debug)]
pub(super) enum AuditedEvent<'a> {
    SignedIn { subject: &'a Subject },
    Allowed { grant: &'a Grant },
    Denied { subject: &'a Subject, client_name: Option<&'a str> },
    Ended { grant: &'a Grant, reason: EndReason },
}

impl Hosted {
    pub(super) fn audit(&self, event: AuditedEvent<'_>) {
        let person = |subject: &Subject| Owner::Subject(subject.as_str().to_owned());
        let (owner, host, tool, action, outcome) = match event {
            AuditedEvent::SignedIn { subject } => (person(subject), None, AUTHORIZE, "sign_in", "ok"),
            AuditedEvent::Allowed { grant } => {
                (grant.owner(), grant.client_name.as_deref(), AUTHORIZE, "allow", "ok")
            }
            AuditedEvent::Denied { subject, client_name } => {
                (person(subject), client_name, AUTHORIZE, "deny", "ok")
            }
            AuditedEvent::Ended { grant, reason } => {
                let (action, outcome) = ended(reason);
                (grant.owner(), grant.client_name.as_deref(), GRANT, action, outcome)
            }
        };
        self.inner.accounts.audit(&AuditEntry {
            time: self.inner.server.clock().now(),
            owner: owner.audit_name(),
            host: host.map(ToOwned::to_owned),
            tool: tool.to_owned(),
            action: Some(action.to_owned()),
            outcome: outcome.to_owned(),
            duration_ms: 0,
            cost: None,
            possibly_billed: false,
            key_id: None,
        });
    }
}

/// Returns the action and the outcome of an end. A replay is a failure, since it may be an attack.
fn ended(reason: EndReason) -> (&'static str, &'static str) {
    match reason {
        EndReason::Person => ("ended_by_owner", "ok"),
        EndReason::Operator => ("ended_by_operator", "ok"),
        EndReason::Client => ("ended_by_app", "ok"),
        EndReason::Replay => ("ended_by_replay", "replay"),
        EndReason::Expired => ("expired", "ok"),
        EndReason::Refused => ("ended_by_bondmcp", "refused"),
    }
}
