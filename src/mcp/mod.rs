//! MCP: the server handler, the tools and the egress guard. Requests to BondMCP and the vault go through
//! [`crate::account`].

mod arguments;
mod call;
mod call_record;
mod confirmation;
mod door;
mod elicitation;
mod guard;
mod host;
mod input_required;
mod progress;
mod prompts;
mod resources;
mod selection;
mod spending;
mod tool_error;
mod tools;

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock, atomic::AtomicU64},
    time::Duration,
};

use rmcp::model::{
    Implementation, JsonObject, MetaObject, PromptsCapability, ResourcesCapability, ServerCapabilities,
    ServerConfig, Tool,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::{
    call::NOT_ANNOUNCED, guard::Guard, input_required::RequestStates, spending::Spending, tools::ToolSpec,
};
pub use self::{
    selection::{Selection, SelectionError},
    spending::Usd,
    tools::Toolset,
};
use crate::{
    account::Account,
    redact::Redactor,
    sign_in::{LIFETIME, SignIn},
};

/// Instructions for agents, each with the toolset that it requires.
const INSTRUCTIONS: [(&str, Option<Toolset>); 6] = [
    (
        "Tools for BondMCP, a health-AI API. You never see or handle credentials: this server holds them. Sessions are renewed by the server; you need not sign in before other calls.",
        None,
    ),
    (
        "If a call says `sign_in_required`, tell the person what to do: it is in `next` or `solution`, with a link or a command that they need exactly as it is. Signing in happens outside the chat. Afterwards, simply call again.",
        None,
    ),
    (
        "Never ask the person for a password, a token or an API key, never accept one in the chat and never put one into a tool call. If they offer one, tell them not to share it and to sign in as described.",
        None,
    ),
    (
        "API keys are named by their ids; their values never appear here. A person can use one in a terminal with `bondmcp-server keys run ID -- COMMAND`.",
        Some(Toolset::Keys),
    ),
    (
        "The health tools are billed to the account, and their answers state the `cost`. Ask the person before repeating a call that may have been processed. Their answers are not a diagnosis: tell the person so when you pass them on.",
        Some(Toolset::Health),
    ),
    (
        "The last line of a failed call is JSON `{\"error\": {kind, message, solution, retry_after_seconds?}}`: follow `solution`.",
        None,
    ),
];

/// Limits on callers.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum number of concurrent calls.
    pub concurrent: usize,
    /// Maximum number of queued calls; another one is refused as `rate_limited`.
    pub waiting: usize,
    /// Deadline of one call from its start to its answer, including the waits in the queue and for the person. Hosts
    /// usually give up after 60 s.
    pub deadline: Duration,
    /// Time that a billed request may need: none is started if less is left until the deadline.
    pub billed: Duration,
    /// Spending limit at BondMCP until the server ends.
    pub spend: Option<Usd>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            concurrent: 64,
            waiting: 1024,
            deadline: Duration::from_secs(55),
            billed: Duration::from_secs(45),
            spend: None,
        }
    }
}

/// A tool with its description for hosts.
#[derive(Debug)]
struct ServedTool {
    spec: &'static ToolSpec,
    definition: Tool,
}

/// The MCP server of one account. Clones are cheap and share everything: one is made for each HTTP request.
#[derive(Clone, Debug)]
pub struct BondMcp {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    account: Account,
    /// The server's description for hosts, built once because every request needs it.
    info: OnceLock<ServerConfig>,
    /// The served tools, by name.
    tools: BTreeMap<&'static str, ServedTool>,
    guard: Guard,
    /// The sign-in page; `None` if the person cannot reach a page of this process.
    sign_in: Option<SignIn>,
    request_states: RequestStates,
    limits: Limits,
    spending: Spending,
    /// Permits for running calls.
    running: Semaphore,
    /// Permits for running and queued calls.
    admitted: Semaphore,
    /// Permits for open questions to the person.
    questions: Semaphore,
    /// Number of the sign-in that an answer named last.
    announced: AtomicU64,
    /// Cancels calls in flight when the process stops.
    stopping: CancellationToken,
}

impl BondMcp {
    pub fn new(
        account: Account,
        sign_in: Option<SignIn>,
        redactor: Redactor,
        selection: &Selection,
        limits: Limits,
        stopping: CancellationToken,
    ) -> Result<Self, SelectionError> {
        let served = selection.of(tools::all())?;
        let tools =
            served.into_iter().map(|(name, spec)| (name, ServedTool { spec, definition: spec.definition() }));
        Ok(Self {
            inner: Arc::new(Inner {
                account,
                info: OnceLock::new(),
                tools: tools.collect(),
                guard: Guard::new(redactor),
                sign_in,
                request_states: RequestStates::new(LIFETIME),
                limits,
                spending: Spending::new(limits.spend),
                running: Semaphore::new(limits.concurrent),
                admitted: Semaphore::new(limits.concurrent + limits.waiting),
                questions: Semaphore::new(limits.concurrent),
                announced: AtomicU64::new(NOT_ANNOUNCED),
                stopping,
            }),
        })
    }

    fn account(&self) -> &Account {
        &self.inner.account
    }

    fn has_tool(&self, name: &str) -> bool {
        self.inner.tools.contains_key(name)
    }

    fn instructions(&self) -> String {
        let served = |toolset| self.inner.tools.values().any(|tool| tool.spec.toolset == toolset);
        let said = INSTRUCTIONS.iter().filter(|(_, about)| about.is_none_or(served));
        said.map(|(text, _)| format!("- {text}")).collect::<Vec<_>>().join("\n")
    }

    fn capabilities(&self) -> ServerCapabilities {
        let mut capabilities = ServerCapabilities::builder().enable_tools().build();
        if !self.resources().is_empty() || !self.resource_templates().is_empty() {
            capabilities.resources = Some(ResourcesCapability::default());
        }
        if !self.resource_templates().is_empty() {
            capabilities.completions = Some(JsonObject::new());
        }
        if !self.prompts().is_empty() {
            capabilities.prompts = Some(PromptsCapability::default());
        }
        capabilities
    }

    fn identity() -> Implementation {
        Implementation::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
            .with_title("BondMCP")
            .with_description(env!("CARGO_PKG_DESCRIPTION"))
            .with_website_url("https://bondmcp.com")
    }

    /// Adds the server's identity to the result's `_meta` (MCP 2026-07-28, "Discovery"), since there is no handshake.
    fn meta() -> MetaObject {
        let mut meta = MetaObject::default();
        if let Ok(identity) = serde_json::to_value(Self::identity()) {
            meta.insert("io.modelcontextprotocol/serverInfo".to_owned(), identity);
        }
        meta
    }
}
