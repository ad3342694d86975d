//! The door to the host: rmcp's handler. Every answer leaves through here, and only what the guard has made
//! [`Guarded`](super::guard::Guarded) does.
#![expect(clippy::disallowed_types, reason = "here and in `host` messages leave for the host")]

use std::sync::Arc;

use http::request::Parts;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CacheScope, CallToolRequestParams, CallToolResponse, CompleteRequestParams, CompleteResult,
        CustomRequest, CustomResult, DiscoverResult, ErrorCode, GetPromptRequestParams, GetPromptResponse,
        ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, MetaObject,
        PaginatedRequestParams, ProtocolVersion, ReadResourceRequestParams, ReadResourceResponse,
        ServerConfig, Tool,
    },
    service::RequestContext,
};
use serde::{Serialize, de::DeserializeOwned};
use tracing::{Instrument as _, Span};

use super::{
    BondMcp, OwnerServer, Shared, access,
    guard::{Guard, Guarded},
    host::Host,
};
use crate::{oauth::Scopes, telemetry::span_of_request};

/// How long a host may keep what never changes while we run, in milliseconds.
const STATIC_TTL_MS: u64 = 5 * 60 * 1000;

/// How long a host may keep a resource, in milliseconds. Most of them change with the next call.
const RESOURCE_TTL_MS: u64 = 5000;

/// Whether the host speaks 2026-07-28 or a later revision.
fn is_modern(context: &RequestContext<RoleServer>) -> bool {
    context.protocol_version().is_some_and(|version| version >= ProtocolVersion::V_2026_07_28)
}

/// How long a host may keep an answer, and for whom. Revisions before 2026-07-28 know no such hints.
fn cache_hints(
    context: &RequestContext<RoleServer>,
    ttl_ms: u64,
    scope: CacheScope,
) -> (Option<u64>, Option<CacheScope>) {
    let knows = is_modern(context);
    (knows.then_some(ttl_ms), knows.then_some(scope))
}

/// Who answers. Revisions before 2026-07-28 say so in their handshake. Results of tools are sent without it: there are
/// many of them, and most are not much larger.
fn meta(context: &RequestContext<RoleServer>) -> Option<MetaObject> {
    is_modern(context).then(Shared::meta)
}

/// Who may share a list. A subject's depends on the scopes of the request, so it is private.
fn list_scope(server: &OwnerServer) -> CacheScope {
    if server.account.belongs_to_a_subject() { CacheScope::Private } else { CacheScope::Public }
}

/// Lets out a list that is made of our own words.
fn out<T: Serialize + DeserializeOwned>(guard: &Guard, list: T) -> Result<T, ErrorData> {
    guard.listing(list).map(Guarded::into_inner).map_err(Guarded::into_inner)
}

impl BondMcp {
    /// Returns the server of the owner of a request, and the request's scopes. Without an owner, nobody is served.
    fn asked_by(
        &self,
        context: &RequestContext<RoleServer>,
    ) -> Result<(Arc<OwnerServer>, Scopes), ErrorData> {
        let Some((owner, scopes)) = access::of_request(&context.extensions) else {
            tracing::error!("a request has no owner");
            return Err(ErrorData::internal_error("the request has no owner", None));
        };
        Ok((self.owners.get_or_open(owner, || OwnerServer::new(&self.shared, owner)), scopes))
    }
}

impl ServerHandler for BondMcp {
    fn get_info(&self) -> ServerConfig {
        let info = || {
            let config = ServerConfig::new(self.shared.capabilities())
                .with_server_info(Shared::identity())
                .with_instructions(self.shared.instructions());
            out(&self.shared.guard, config).unwrap_or_default()
        };
        self.shared.info.get_or_init(info).clone()
    }

    async fn discover(&self, _: RequestContext<RoleServer>) -> Result<DiscoverResult, ErrorData> {
        let versions = self.supported_protocol_versions().into_owned();
        let server = DiscoverResult::from_server_info(versions, self.get_info());
        let server = server.with_ttl_ms(STATIC_TTL_MS).with_cache_scope(CacheScope::Public);
        out(&self.shared.guard, server)
    }

    async fn list_tools(
        &self,
        page: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let (server, scopes) = self.asked_by(&context)?;
        only_page(page.as_ref())?;
        let mut list = ListToolsResult::default();
        (list.ttl_ms, list.cache_scope) = cache_hints(&context, STATIC_TTL_MS, list_scope(&server));
        list.meta = meta(&context);
        let mut list = out(&server.guard, list)?;
        let allowed = self.shared.tools.values().filter(|tool| tool.spec.scopes().are_within(scopes));
        // One by one, since a scan needs several times the memory of what it looks at.
        list.tools =
            allowed.map(|tool| out(&server.guard, tool.definition.clone())).collect::<Result<_, _>>()?;
        Ok(list)
    }

    async fn list_prompts(
        &self,
        page: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let (server, scopes) = self.asked_by(&context)?;
        only_page(page.as_ref())?;
        let mut list = ListPromptsResult::with_all_items(self.shared.prompts(scopes));
        list.meta = meta(&context);
        (list.ttl_ms, list.cache_scope) = cache_hints(&context, STATIC_TTL_MS, list_scope(&server));
        out(&server.guard, list)
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let (server, scopes) = self.asked_by(&context)?;
        let prompt = server.guard.prompt(self.shared.prompt(&request, scopes));
        let mut prompt = prompt.map_err(Guarded::into_inner)?.into_inner();
        prompt.meta = meta(&context);
        Ok(prompt.into())
    }

    async fn list_resources(
        &self,
        page: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let (server, scopes) = self.asked_by(&context)?;
        only_page(page.as_ref())?;
        let mut list = ListResourcesResult::with_all_items(self.shared.resources(scopes));
        list.meta = meta(&context);
        (list.ttl_ms, list.cache_scope) = cache_hints(&context, STATIC_TTL_MS, CacheScope::Private);
        out(&server.guard, list)
    }

    async fn list_resource_templates(
        &self,
        page: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let (server, scopes) = self.asked_by(&context)?;
        only_page(page.as_ref())?;
        let templates = self.shared.resource_templates(scopes);
        let mut list = ListResourceTemplatesResult::with_all_items(templates);
        list.meta = meta(&context);
        (list.ttl_ms, list.cache_scope) = cache_hints(&context, STATIC_TTL_MS, CacheScope::Private);
        out(&server.guard, list)
    }

    // Boxed here and below, or the future of every request would have their size.
    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let (server, scopes) = self.asked_by(&context)?;
        let read = server.bounded(&context.ct, Box::pin(server.resource(&request.uri, scopes)));
        let found = read.instrument(span_of(&context)).await;
        let read = server.guard.resource(&request.uri, found).await.map_err(Guarded::into_inner)?;
        let mut read = read.into_inner();
        read.meta = meta(&context);
        (read.ttl_ms, read.cache_scope) = cache_hints(&context, RESOURCE_TTL_MS, CacheScope::Private);
        Ok(read.into())
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let (server, scopes) = self.asked_by(&context)?;
        let completed = server.bounded(&context.ct, Box::pin(server.completed(&request, scopes)));
        let completed = server.guard.result(completed.instrument(span_of(&context)).await);
        let mut completed = completed.map_err(Guarded::into_inner)?.into_inner();
        completed.meta = meta(&context);
        Ok(completed)
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
        self.shared.tools.get(name).map(|tool| tool.definition.clone())
    }

    // Boxed as a whole, or the future of every request would have its size.
    fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> impl Future<Output = Result<CallToolResponse, ErrorData>> + Send {
        Box::pin(async move {
            let (server, scopes) = self.asked_by(&context)?;
            let span = span_of(&context);
            let host = Host::new(context, scopes, server.guard.clone());
            let answer = server.call(request, &host).instrument(span).await;
            answer.map(Guarded::into_inner).map_err(Guarded::into_inner)
        })
    }
}

/// The span of the HTTP request, if it came over HTTP.
fn span_of(context: &RequestContext<RoleServer>) -> Span {
    context.extensions.get::<Parts>().map_or_else(Span::none, |parts| span_of_request(&parts.extensions))
}

fn only_page(page: Option<&PaginatedRequestParams>) -> Result<(), ErrorData> {
    match page {
        Some(page) if page.cursor.is_some() => {
            Err(ErrorData::invalid_params("there is one page only; leave the cursor out", None))
        }
        _ => Ok(()),
    }
}
