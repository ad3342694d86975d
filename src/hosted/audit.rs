//! What the audit log has besides calls: who signed in, what was allowed to which app, and how it ended.

use super::{Hosted, person::Person};
use crate::{
    account::{AuditEntry, Owner},
    oauth::{EndReason, Grant},
};

/// Name of the tool in the entries of signing in and of consent; no MCP tool has it.
const AUTHORIZE: &str = "authorize";

/// Name of the tool in the entries of grants that end.
const GRANT: &str = "grant";

/// What the audit log has in place of a tool's name.
pub const AUDITED_AS: [&str; 2] = [AUTHORIZE, GRANT];

/// Something for the audit log.
#[derive(Debug)]
pub(super) enum AuditedEvent<'a> {
    SignedIn { person: &'a Person },
    Allowed { grant: &'a Grant },
    Denied { person: &'a Person, client_name: Option<String> },
    Ended { grant: &'a Grant, reason: EndReason },
}

impl Hosted {
    pub(super) fn audit(&self, event: AuditedEvent<'_>) {
        let owner_of = |person: &Person| Owner::Subject(person.subject.as_str().to_owned());
        let (owner, host, tool, action, outcome) = match event {
            AuditedEvent::SignedIn { person } => (owner_of(person), None, AUTHORIZE, "sign_in", "ok"),
            AuditedEvent::Allowed { grant } => {
                (grant.owner(), grant.client_name.clone(), AUTHORIZE, "allow", "ok")
            }
            AuditedEvent::Denied { person, client_name } => {
                (owner_of(person), client_name, AUTHORIZE, "deny", "ok")
            }
            AuditedEvent::Ended { grant, reason } => {
                let (action, outcome) = ended(reason);
                (grant.owner(), grant.client_name.clone(), GRANT, action, outcome)
            }
        };
        self.inner.accounts.audit(&AuditEntry {
            host,
            action: Some(action.to_owned()),
            ..AuditEntry::new(self.inner.server.clock().now(), owner.audit_name(), tool, outcome)
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
