//! The record of a call for the log and the audit log: its tool, its host, its outcome; never its arguments or its
//! result.

use std::time::Instant;

use rmcp::model::JsonObject;

use super::{OwnerServer, host::Host, tools::ToolSpec};
use crate::{
    account::{AuditEntry, Usd},
    bondmcp::Sent,
    clock::whole_milliseconds,
    error::Kind,
    metrics,
};

/// Stands for the name of a tool that there is not.
pub(super) const UNKNOWN: &str = "unknown";

/// A call in progress. It is logged and audited when it is dropped, so that none leaves without a trace.
pub(super) struct CallRecord<'a> {
    server: &'a OwnerServer,
    /// Name of the tool, or [`UNKNOWN`].
    tool: &'static str,
    host: Option<String>,
    action: Option<&'static str>,
    began: Instant,
    sent: &'a Sent,
    /// The outcome, unless a panic or an abort came before it.
    outcome: Option<CallOutcome>,
}

/// The outcome of a call.
#[derive(Debug, Default)]
pub(super) struct CallOutcome {
    pub name: &'static str,
    pub cost: Option<Usd>,
    /// Whether BondMCP may have billed the call although there is no answer.
    pub possibly_billed: bool,
    pub key_id: Option<String>,
}

impl<'a> CallRecord<'a> {
    pub fn begin(
        server: &'a OwnerServer,
        tool: Option<&ToolSpec>,
        arguments: &JsonObject,
        host: &Host,
        sent: &'a Sent,
    ) -> Self {
        let mut record = Self {
            server,
            tool: tool.map_or(UNKNOWN, |tool| tool.name),
            host: host.name(),
            action: None,
            began: Instant::now(),
            sent,
            outcome: None,
        };
        record.action = tool.and_then(|tool| (tool.action)(arguments));
        record
    }

    pub fn end(mut self, outcome: CallOutcome) {
        self.outcome = Some(outcome);
    }
}

impl Drop for CallRecord<'_> {
    fn drop(&mut self) {
        let outcome = self.outcome.take().unwrap_or_else(|| {
            let name = if std::thread::panicking() { Kind::Internal.name() } else { "cancelled" };
            CallOutcome::named(name).with_possibly_billed(self.sent.get())
        });
        let duration = self.began.elapsed();
        metrics::tool_call(self.tool, outcome.name, duration);
        let duration_ms = whole_milliseconds(duration);
        tracing::info!(
            tool = self.tool,
            outcome = outcome.name,
            possibly_billed = outcome.possibly_billed.then_some(true),
            duration_ms,
            "tool call ended"
        );
        let account = &self.server.account;
        account.audit(AuditEntry {
            host: self.host.take(),
            action: self.action.map(ToOwned::to_owned),
            duration_ms,
            cost: outcome.cost.map(Usd::to_f64),
            possibly_billed: outcome.possibly_billed,
            key_id: outcome.key_id,
            ..AuditEntry::new(account.now(), account.name(), self.tool, outcome.name)
        });
    }
}

impl CallOutcome {
    pub fn named(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }

    pub fn failed(kind: Kind) -> Self {
        Self::named(kind.name())
    }

    pub fn with_possibly_billed(self, possibly_billed: bool) -> Self {
        Self { possibly_billed, ..self }
    }
}
