//! The host that made a request, as the tools see it: what it can show to the person, and the only ways to send it
//! something before the answer. Everything that is sent passes the guard. No other module gets hold of rmcp's
//! `RequestContext` or `Peer`: `clippy.toml` disallows them.
#![expect(clippy::disallowed_types, reason = "here and in `door` messages leave for the host")]

use std::time::Duration;

use rmcp::{
    RoleServer,
    model::{
        CustomNotification, ElicitationAction, ProgressNotificationParam, ProtocolVersion, ServerNotification,
    },
    service::{ElicitationError, RequestContext, ServiceError},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{confirmation::Confirmation, guard::Guard};

/// A host in the course of one request.
pub(super) struct Host {
    context: RequestContext<RoleServer>,
    guard: Guard,
}

impl Host {
    pub fn new(context: RequestContext<RoleServer>, guard: Guard) -> Self {
        Self { context, guard }
    }

    /// What it calls itself: a claim, not a fact.
    pub fn name(&self) -> Option<String> {
        self.context.client_info().map(|host| self.guard.name(&host.name))
    }

    /// Cancelled when the host no longer wants an answer.
    pub fn cancelled(&self) -> &CancellationToken {
        &self.context.ct
    }

    /// Whether the person is asked in rounds (MCP 2026-07-28), or while the call is open (earlier revisions).
    pub fn asks_in_rounds(&self) -> bool {
        self.speaks(&ProtocolVersion::V_2026_07_28)
    }

    /// Whether it speaks `revision` or a later one. They are dates, so they compare as text.
    pub fn speaks(&self, revision: &ProtocolVersion) -> bool {
        self.context.protocol_version().is_some_and(|version| version.as_str() >= revision.as_str())
    }

    /// Whether it can show the person a form. One that declares elicitation and no mode means forms (2025-06-18).
    pub fn has_forms(&self) -> bool {
        let elicitation =
            self.context.client_capabilities().and_then(|capabilities| capabilities.elicitation);
        elicitation.is_some_and(|elicitation| elicitation.form.is_some() || elicitation.url.is_none())
    }

    /// Whether it can ask the person to open a link.
    pub fn opens_links(&self) -> bool {
        let elicitation =
            self.context.client_capabilities().and_then(|capabilities| capabilities.elicitation);
        elicitation.is_some_and(|elicitation| elicitation.url.is_some())
    }

    /// Asks the person to confirm something, while the call is open; `true` for a yes.
    pub async fn confirms(&self, question: &str, timeout: Duration) -> Result<bool, ElicitationError> {
        let question = self.guard.text(question);
        let answer = self.context.peer.elicit_with_timeout::<Confirmation>(question, Some(timeout)).await?;
        Ok(answer.is_some_and(|answer| answer.confirm))
    }

    /// Asks the person to open a page of ours, while the call is open.
    pub async fn opens_page(
        &self,
        message: &str,
        url: Url,
        elicitation_id: &str,
        timeout: Duration,
    ) -> Result<ElicitationAction, ElicitationError> {
        let message = self.guard.text(message);
        self.context.peer.elicit_url_with_timeout(message, url, elicitation_id, Some(timeout)).await
    }

    /// Notifies it that the page it was asked to open is done (MCP 2025-11-25).
    pub async fn page_is_done(&self, elicitation_id: &str) -> Result<(), ServiceError> {
        let params = Some(json!({ "elicitationId": elicitation_id }));
        let complete = CustomNotification::new("notifications/elicitation/complete", params);
        self.context.peer.send_notification(ServerNotification::CustomNotification(complete)).await
    }

    /// Whether it asked for progress notifications.
    pub fn wants_progress(&self) -> bool {
        self.context.meta.get_progress_token().is_some()
    }

    /// Sends a progress notification with a fixed text. A host that has gone is noticed elsewhere.
    pub async fn progress(&self, count: f64, message: &'static str) {
        if let Some(token) = self.context.meta.get_progress_token() {
            let progress = ProgressNotificationParam::new(token, count).with_message(message);
            let _ = self.context.peer.notify_progress(progress).await;
        }
    }
}
