//! MCP: the server handler, the tools and the egress guard. Requests to BondMCP and the vault go through
//! [`crate::account`].

mod access;
mod answer;
mod arguments;
mod call;
mod call_record;
mod confirmation;
mod door;
mod elicitation;
mod guard;
mod host;
mod input_required;
mod owner_server;
mod permits;
mod progress;
mod prompts;
mod resources;
mod selection;
mod spending;
mod tool_error;
mod tools;

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use futures_util::future::join_all;
use rmcp::model::{
    Implementation, JsonObject, MetaObject, PromptsCapability, ResourcesCapability, ServerCapabilities,
    ServerConfig, Tool,
};
use tokio_util::sync::CancellationToken;

pub use self::{
    access::{required_scopes, scopes_required_by_headers},
    permits::Limits,
    selection::{Selection, SelectionError},
    tools::Toolset,
};
use self::{
    guard::Guard, input_required::RequestStates, owner_server::OwnerServer, permits::Permits,
    spending::Total, tools::ToolSpec,
};
use crate::{
    account::{Accounts, Owner, PerOwner},
    oauth::Scopes,
    sign_in::{self, LIFETIME},
};

/// The servers that give an instruction. Whoever uses a hosted one has no terminal with this program.
#[derive(Clone, Copy, PartialEq, Eq)]
enum GivenBy {
    All,
    Local,
    Hosted,
}

/// Instructions for agents, each with the toolset that it requires and the servers that give it.
const INSTRUCTIONS: [(&str, Option<Toolset>, GivenBy); 7] = [
    (
        "Tools for BondMCP, a health-AI API. You never see or handle credentials: this server holds them. Sessions are renewed by the server; you need not sign in before other calls.",
        None,
        GivenBy::All,
    ),
    (
        "If a call says `sign_in_required`, tell the person what to do: `next` or `solution` says so. Pass on its link or command exactly as it is. Signing in happens outside the chat. Afterwards, simply call again.",
        None,
        GivenBy::All,
    ),
    (
        "Never ask the person for a password, a token or an API key, never accept one in the chat and never put one into a tool call. If they offer one, tell them not to share it and to sign in as described.",
        None,
        GivenBy::All,
    ),
    (
        "API keys are named by their ids; their values never appear here. A person can use one in a terminal with `bondmcp-server keys run ID -- COMMAND`.",
        Some(Toolset::Keys),
        GivenBy::Local,
    ),
    (
        "API keys are named by their ids; their values never appear here.",
        Some(Toolset::Keys),
        GivenBy::Hosted,
    ),
    (
        "The health tools are billed to the account, and their answers state the `cost`. Ask the person before repeating a call that may have been processed. Their answers are not a diagnosis: tell the person so when you pass them on.",
        Some(Toolset::Health),
        GivenBy::All,
    ),
    (
        "The last line of a failed call is JSON `{\"error\": {kind, message, solution, retry_after_seconds?}}`: follow `solution`.",
        None,
        GivenBy::All,
    ),
];

/// A tool with its description for hosts.
#[derive(Debug)]
struct ServedTool {
    spec: &'static ToolSpec,
    definition: Tool,
}

/// The MCP server of all owners. Clones are cheap and share everything: one is made for each HTTP request.
#[derive(Clone, Debug)]
pub struct BondMcp {
    shared: Arc<Shared>,
    /// Not in `shared`, to which each of them refers: neither would ever be dropped.
    owners: Arc<PerOwner<OwnerServer>>,
}

/// What all owners share.
#[derive(Debug)]
struct Shared {
    accounts: Accounts,
    /// The server's description for hosts, built once because every request needs it.
    info: OnceLock<ServerConfig>,
    /// The served tools, by name.
    tools: BTreeMap<&'static str, ServedTool>,
    /// For what is the same for everybody.
    guard: Guard,
    /// The options of sign-in pages; `None` if the person cannot reach a page of this process.
    sign_in: Option<sign_in::Options>,
    request_states: RequestStates,
    limits: Limits,
    total_spending: Arc<Total>,
    permits: Permits,
    /// The permits of each person.
    persons: PerOwner<Permits>,
    /// Cancels calls in flight when the process stops.
    stopping: CancellationToken,
}

impl BondMcp {
    /// Creates the server. With options for sign-in pages, owners who are not signed in are sent to one.
    pub fn new(
        accounts: Accounts,
        sign_in: Option<sign_in::Options>,
        selection: &Selection,
        limits: Limits,
        stopping: CancellationToken,
    ) -> Result<Self, SelectionError> {
        let served = selection.of(tools::all())?;
        let tools =
            served.into_iter().map(|(name, spec)| (name, ServedTool { spec, definition: spec.definition() }));
        let shared = Shared {
            info: OnceLock::new(),
            tools: tools.collect(),
            // An owner could test a guess at a secret of another by whether it is redacted.
            guard: Guard::new(accounts.redactor().scope()),
            sign_in,
            request_states: RequestStates::new(LIFETIME),
            limits,
            total_spending: Arc::new(Total::new(limits.spend)),
            permits: limits.of_the_process(),
            persons: PerOwner::default(),
            stopping,
            accounts,
        };
        Ok(Self { shared: Arc::new(shared), owners: Arc::default() })
    }

    /// Returns the owner of what is requested on the operator's own behalf.
    #[must_use]
    pub fn local_owner(&self) -> Owner {
        self.shared.accounts.local_owner()
    }

    /// Ends what is pending for every owner, and releases what the server uses.
    pub async fn close(&self) {
        self.shared.stopping.cancel();
        join_all(self.owners.opened().iter().map(|owner| owner.close())).await;
        self.shared.accounts.close().await;
    }
}

/// Returns the names that calls have in the audit log.
pub fn audited_tools() -> impl Iterator<Item = &'static str> {
    tools::all().into_keys().chain([call_record::UNKNOWN])
}

impl Shared {
    /// Whether the tool is served to a request with these scopes.
    fn serves(&self, name: &str, scopes: Scopes) -> bool {
        self.tools.get(name).is_some_and(|tool| tool.spec.scopes().are_within(scopes))
    }

    fn instructions(&self) -> String {
        let served = |toolset| self.tools.values().any(|tool| tool.spec.toolset == toolset);
        let is_hosted = self.sign_in.as_ref().is_some_and(|options| options.public.is_some());
        let here = if is_hosted { GivenBy::Hosted } else { GivenBy::Local };
        let said = INSTRUCTIONS
            .iter()
            .filter(|(_, about, by)| about.is_none_or(served) && [GivenBy::All, here].contains(by));
        said.map(|(text, ..)| format!("- {text}")).collect::<Vec<_>>().join("\n")
    }

    fn capabilities(&self) -> ServerCapabilities {
        let mut capabilities = ServerCapabilities::builder().enable_tools().build();
        let (resources, templates) = (self.resources(Scopes::all()), self.resource_templates(Scopes::all()));
        if !resources.is_empty() || !templates.is_empty() {
            capabilities.resources = Some(ResourcesCapability::default());
        }
        if !templates.is_empty() {
            capabilities.completions = Some(JsonObject::new());
        }
        if !self.prompts(Scopes::all()).is_empty() {
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

    /// Returns the server's identity for a result's `_meta` (MCP 2026-07-28, "Discovery"), since there is no handshake.
    fn meta() -> MetaObject {
        let mut meta = MetaObject::default();
        if let Ok(identity) = serde_json::to_value(Self::identity()) {
            meta.insert("io.modelcontextprotocol/serverInfo".to_owned(), identity);
        }
        meta
    }
}
