//! The host that made a request, as the tools see it: what it can show to the person, and the only ways to send it
//! something before the answer. Everything that is sent passes the guard. No other module gets hold of rmcp's
//! `RequestContext` or `Peer`: `clippy.toml` disallows them.
#![expect(clippy::disallowed_types, reason = "here and in `door` messages leave for the host")]

use std::sync::{
    LazyLock,
    atomic::{AtomicU32, Ordering},
};

use http::request::Parts;
use rmcp::{
    RoleServer,
    model::{
        ClientResult, CustomNotification, ElicitRequest, ElicitRequestParams, ElicitResult, Implementation,
        ProgressNotificationParam, ProtocolVersion, ServerNotification, ServerRequest,
    },
    service::{PeerRequestOptions, RequestContext, RequestHandle, ServiceError},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::guard::Guard;
use crate::{oauth::Scopes, telemetry::RequestId};

/// Hosts whose `accept` says that the person is done with the page, not only that they want to open it. Their dialog,
/// and with it the link, is gone then.
const ACCEPTS_WHEN_DONE: [&str; 1] = ["claude-code"];

/// Hosts that may end with their answer, and the sign-in page with them: their users are at a terminal or run them from
/// scripts, or they start a server for each call, as the adapters of `LangChain` do with the Python SDK (`mcp`).
const MAY_BE_ONE_SHOT: [&str; 5] =
    ["codex-mcp-client", "gemini-cli-mcp-client", "mcp", "opencode", "qwen-cli-mcp-client-bondmcp"];

/// What rmcp gives for a host without a session, whose `initialize` is forgotten.
static UNNAMED: LazyLock<Implementation> = LazyLock::new(Implementation::default);

/// A host in the course of one request.
pub(super) struct Host {
    context: RequestContext<RoleServer>,
    /// What the request may use.
    pub scopes: Scopes,
    guard: Guard,
    /// Number of progress notifications that were sent: MCP demands that it increases within a request.
    progress: AtomicU32,
}

impl Host {
    pub fn new(context: RequestContext<RoleServer>, scopes: Scopes, guard: Guard) -> Self {
        Self { context, scopes, guard, progress: AtomicU32::new(0) }
    }

    /// What it calls itself: a claim, not a fact.
    pub fn name(&self) -> Option<String> {
        let named = self.context.client_info().filter(|host| *host != *UNNAMED);
        named.map(|host| self.guard.name(&host.name))
    }

    /// The name of the HTTP request in the log, if it came over HTTP.
    pub fn request_id(&self) -> Option<&str> {
        self.context.extensions.get::<Parts>()?.extensions.get().map(RequestId::as_str)
    }

    /// Returns a field of the W3C trace context that the host has sent.
    #[cfg(feature = "otlp")]
    pub fn trace_field(&self, name: &str) -> Option<&str> {
        self.context.meta.get(name)?.as_str()
    }

    fn is_one_of(&self, names: &[&str]) -> bool {
        self.context.client_info().is_some_and(|host| names.contains(&host.name.as_str()))
    }

    /// Whether it answers `accept` only when the person says that they are done with the page.
    pub fn accepts_when_done(&self) -> bool {
        self.is_one_of(&ACCEPTS_WHEN_DONE)
    }

    /// Whether it may end with this answer.
    pub fn may_be_one_shot(&self) -> bool {
        self.is_one_of(&MAY_BE_ONE_SHOT)
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

    /// Asks the person something, while the call is open (revisions before 2026-07-28).
    pub async fn elicit(&self, question: ElicitRequestParams) -> Result<Elicitation, ServiceError> {
        let question = self.guard.elicitation(question).into_inner();
        let request = ServerRequest::ElicitRequest(ElicitRequest::new(question));
        let options = PeerRequestOptions::no_options();
        Ok(Elicitation(Some(self.context.peer.send_cancellable_request(request, options).await?)))
    }

    /// Notifies it that the page it was asked to open is done (revisions before 2026-07-28).
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
    pub async fn progress(&self, message: &'static str) {
        if let Some(token) = self.context.meta.get_progress_token() {
            let count = self.progress.fetch_add(1, Ordering::Relaxed) + 1;
            let progress = ProgressNotificationParam::new(token, count.into()).with_message(message);
            let _ = self.context.peer.notify_progress(progress).await;
        }
    }
}

/// A question that the host was asked. One that is dropped before it is answered is taken back.
pub(super) struct Elicitation(Option<RequestHandle<RoleServer>>);

/// Why a question is taken back.
const NO_LONGER_NEEDED: &str = "the call no longer waits for an answer";

impl Elicitation {
    /// The person's answer; `None` when the host could not ask them.
    pub async fn answered(&mut self) -> Option<ElicitResult> {
        let answer = (&mut self.0.as_mut()?.rx).await;
        self.0 = None;
        match answer {
            Ok(Ok(ClientResult::ElicitResult(answer))) => Some(answer),
            _ => None,
        }
    }

    pub async fn take_back(mut self) {
        if let Some(handle) = self.0.take() {
            let _ = handle.cancel(Some(NO_LONGER_NEEDED.to_owned())).await;
        }
    }
}

impl Drop for Elicitation {
    fn drop(&mut self) {
        // Without a runtime the process is ending, and the host with it.
        if let (Some(handle), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(handle.cancel(Some(NO_LONGER_NEEDED.to_owned())));
        }
    }
}
