//! MCP: the server handler, the tools and the egress guard. It knows no SQL and no HTTP client; it asks the account.

mod arguments;
mod audited;
mod call;
mod confirmation;
mod elicitation;
mod failure;
mod guard;
mod input_required;
mod progress;
mod prompts;
mod resources;
mod selection;
mod spending;
mod tools;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    handler::server::router::tool::ToolRouter,
    model::{
        CacheScope, CallToolRequestParams, CallToolResponse, CompleteRequestParams, CompleteResult,
        CustomRequest, CustomResult, DiscoverResult, ErrorCode, GetPromptRequestParams, GetPromptResponse,
        Implementation, JsonObject, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult,
        ListToolsResult, MetaObject, PaginatedRequestParams, PromptsCapability, ReadResourceRequestParams,
        ReadResourceResponse, ResourcesCapability, ServerCapabilities, ServerConfig, Tool,
    },
    service::RequestContext,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::{failure::Failure, guard::Guard, input_required::RequestStates, spending::Spending};
pub use self::{
    selection::{Selection, SelectionError, Toolset},
    spending::Usd,
};
use crate::{
    account::Account,
    redact::Redactor,
    sign_in::{LIFETIME, SignIn},
};

/// How long a host may keep what never changes while we run, in milliseconds.
const STATIC_TTL_MS: u64 = 5 * 60 * 1000;

/// What an agent must know that no single tool tells, each with the toolset that it is about.
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
        "Never ask the person for a password, a token or an API key, never accept one in the chat and never put one into a tool call. If they offer one, tell them to keep it and to sign in as described.",
        None,
    ),
    (
        "API keys are named by their ids; their values never appear here. A person can use one in a terminal with `bondmcp-server keys run ID -- COMMAND`.",
        Some(Toolset::Keys),
    ),
    (
        "The health tools are billed to the account, and their answers say the `cost`. Ask the person before repeating one that may have been processed. Their answers are no diagnosis: say so when you pass them on.",
        Some(Toolset::Health),
    ),
    (
        "Failed calls carry JSON `{\"error\": {kind, message, solution, retry_after_seconds?}}`: follow `solution`.",
        None,
    ),
];

/// Bounds on what callers may ask of us.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Calls that run at the same time.
    pub concurrent: usize,
    /// Calls that wait for that; one more is refused as `rate_limited`.
    pub waiting: usize,
    /// For one call, its wait included. Hosts usually give up after 60 s.
    pub deadline: Duration,
    /// What may be spent at BondMCP until the server ends.
    pub spend: Option<Usd>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { concurrent: 64, waiting: 1024, deadline: Duration::from_secs(55), spend: None }
    }
}

/// The MCP server of one account. Clones are cheap and share everything: one is made for each HTTP request.
#[derive(Clone, Debug)]
pub struct BondMcp {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    account: Account,
    /// What every host is told of us; asked for with every request.
    info: OnceLock<ServerConfig>,
    tools: ToolRouter<BondMcp>,
    guard: Guard,
    /// `None` where no page of ours can be reached by the person.
    sign_in: Option<SignIn>,
    request_states: RequestStates,
    limits: Limits,
    spending: Spending,
    running: Semaphore,
    admitted: Semaphore,
    /// Ends calls in flight when the process stops.
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
        let mut tools = Self::tools();
        let all = tools.list_all();
        let names = selection.names(&all)?;
        for tool in all.iter().filter(|tool| !names.contains(&*tool.name)) {
            tools.remove_route(&tool.name);
        }
        Ok(Self {
            inner: Arc::new(Inner {
                account,
                info: OnceLock::new(),
                tools,
                guard: Guard::new(redactor),
                sign_in,
                request_states: RequestStates::new(LIFETIME),
                limits,
                spending: Spending::new(limits.spend),
                running: Semaphore::new(limits.concurrent),
                admitted: Semaphore::new(limits.concurrent + limits.waiting),
                stopping,
            }),
        })
    }

    fn account(&self) -> &Account {
        &self.inner.account
    }

    fn has_tool(&self, name: &str) -> bool {
        self.inner.tools.has_route(name)
    }

    /// What the host calls itself: a claim, not a fact.
    fn host_name(&self, context: &RequestContext<RoleServer>) -> Option<String> {
        context.client_info().map(|host| self.inner.guard.name(&host.name))
    }

    fn instructions(&self) -> String {
        let tools = self.inner.tools.list_all();
        let there = |toolset| tools.iter().any(|tool| tools::toolset(&tool.name) == toolset);
        let said = INSTRUCTIONS.iter().filter(|(_, about)| about.is_none_or(there));
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

    /// Who answers, in the result's `_meta` (MCP 2026-07-28, "Discovery"): there is no handshake to tell it in.
    fn meta() -> MetaObject {
        let mut meta = MetaObject::default();
        if let Ok(identity) = serde_json::to_value(Self::identity()) {
            meta.insert("io.modelcontextprotocol/serverInfo".to_owned(), identity);
        }
        meta
    }
}

impl ServerHandler for BondMcp {
    fn get_info(&self) -> ServerConfig {
        let info = || {
            ServerConfig::new(self.capabilities())
                .with_server_info(Self::identity())
                .with_instructions(self.instructions())
        };
        self.inner.info.get_or_init(info).clone()
    }

    async fn discover(&self, _: RequestContext<RoleServer>) -> Result<DiscoverResult, ErrorData> {
        let versions = self.supported_protocol_versions().into_owned();
        Ok(DiscoverResult::from_server_info(versions, self.get_info())
            .with_ttl_ms(STATIC_TTL_MS)
            .with_cache_scope(CacheScope::Public))
    }

    async fn list_tools(
        &self,
        page: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        only_page(page.as_ref())?;
        let mut list = ListToolsResult::with_all_items(self.inner.tools.list_all())
            .with_ttl_ms(STATIC_TTL_MS)
            .with_cache_scope(CacheScope::Public);
        list.meta = Some(Self::meta());
        Ok(list)
    }

    async fn list_prompts(
        &self,
        page: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        only_page(page.as_ref())?;
        let list = ListPromptsResult::with_all_items(self.prompts());
        Ok(list.with_ttl_ms(STATIC_TTL_MS).with_cache_scope(CacheScope::Public))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        self.prompt(&request).map(Into::into)
    }

    async fn list_resources(
        &self,
        page: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        only_page(page.as_ref())?;
        let list = ListResourcesResult::with_all_items(self.resources());
        Ok(list.with_ttl_ms(STATIC_TTL_MS).with_cache_scope(CacheScope::Private))
    }

    async fn list_resource_templates(
        &self,
        page: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        only_page(page.as_ref())?;
        let list = ListResourceTemplatesResult::with_all_items(self.resource_templates());
        Ok(list.with_ttl_ms(STATIC_TTL_MS).with_cache_scope(CacheScope::Private))
    }

    // Boxed here and below, or the future of every request would have their size.
    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let read = self
            .bounded(false, Box::pin(self.resource(&request.uri)))
            .await
            .map_err(Failure::into_protocol_error)
            .flatten();
        self.inner.guard.pass_resource(read).map(Into::into)
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let completed = self
            .bounded(false, Box::pin(self.completed(&request)))
            .await
            .map_err(Failure::into_protocol_error)
            .flatten();
        self.inner.guard.pass_completion(completed)
    }

    /// rmcp reads a request whose parameters do not fit its method as one of a method unknown to it.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        _: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        Err(match request.method.as_str() {
            "initialize"
            | "server/discover"
            | "tools/list"
            | "tools/call"
            | "ping"
            | "prompts/list"
            | "prompts/get"
            | "resources/list"
            | "resources/templates/list"
            | "resources/read"
            | "completion/complete" => {
                ErrorData::invalid_params("the parameters do not fit the method", None)
            }
            _ => ErrorData::new(ErrorCode::METHOD_NOT_FOUND, "there is no such method", None),
        })
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.inner.tools.get(name).cloned()
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        self.guarded_call(request, context).await
    }
}

fn only_page(page: Option<&PaginatedRequestParams>) -> Result<(), ErrorData> {
    match page {
        Some(page) if page.cursor.is_some() => {
            Err(ErrorData::invalid_params("there is one page only; leave the cursor out", None))
        }
        _ => Ok(()),
    }
}
