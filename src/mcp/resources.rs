//! The resources: the models, the account, the spending and the API keys by id, with completion of those ids. They
//! belong to the account, so they are marked private.

use rmcp::{
    ErrorData,
    model::{CompleteRequestParams, CompleteResult, CompletionInfo, Reference, Resource, ResourceTemplate},
    schemars,
    schemars::JsonSchema,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    OwnerServer, Shared,
    guard::JSON,
    spending::Spent,
    tool_error::ToolError,
    tools::{AUTH_STATUS, LIST_MODELS, MANAGE_API_KEYS},
};
use crate::{
    account::{Key, KeyList},
    bondmcp::Allowance,
    error::Kind,
    oauth::Scopes,
};

const MODELS: &str = "bondmcp://models";
const ACCOUNT: &str = "bondmcp://account";
const USAGE: &str = "bondmcp://usage";
const KEYS: &str = "bondmcp://keys/";
const KEY_TEMPLATE: &str = "bondmcp://keys/{key_id}";

/// The content of `bondmcp://usage`.
#[derive(Debug, Serialize, JsonSchema)]
struct Usage {
    /// Spending since this server started.
    spent: Spent,
    /// Requests per minute, as last reported by BondMCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limit: Option<Allowance>,
}

/// Returns the name of the tool on which a resource depends.
pub(super) fn tool_of(uri: &str) -> Option<&'static str> {
    match uri {
        MODELS => Some(LIST_MODELS),
        ACCOUNT | USAGE => Some(AUTH_STATUS),
        _ => uri.starts_with(KEYS).then_some(MANAGE_API_KEYS),
    }
}

impl Shared {
    /// Returns the resources whose tool is served: a hidden tool hides its resource.
    pub(super) fn resources(&self, scopes: Scopes) -> Vec<Resource> {
        let of = |uri: &str, name: &str, title: &str, description: &str| {
            tool_of(uri).is_some_and(|tool| self.serves(tool, scopes)).then(|| {
                Resource::new(uri, name).with_title(title).with_description(description).with_mime_type(JSON)
            })
        };
        let all = [
            of(MODELS, "models", "BondMCP models", "The health-AI models of the account."),
            of(ACCOUNT, "account", "BondMCP account", "Who is signed in, how and on which plan."),
            of(
                USAGE,
                "usage",
                "BondMCP usage",
                "The spending since this server started, by tool, and what is left for today.",
            ),
        ];
        all.into_iter().flatten().collect()
    }

    pub(super) fn resource_templates(&self, scopes: Scopes) -> Vec<ResourceTemplate> {
        let key = ResourceTemplate::new(KEY_TEMPLATE, "key")
            .with_title("BondMCP API key")
            .with_description("An API key by its id: name, preview and dates, never the key itself.")
            .with_mime_type(JSON);
        self.serves(MANAGE_API_KEYS, scopes).then_some(key).into_iter().collect()
    }
}

impl OwnerServer {
    pub(super) async fn resource(&self, uri: &str, scopes: Scopes) -> Result<Value, ErrorData> {
        if !tool_of(uri).is_some_and(|tool| self.shared.serves(tool, scopes)) {
            return Err(unknown());
        }
        let mut content = match (uri, uri.strip_prefix(KEYS)) {
            (_, Some(id)) => json!(self.key(id).await?),
            (MODELS, _) => {
                self.models(false).await.map_err(ToolError::into_protocol_error)?.result.into_object().into()
            }
            (ACCOUNT, _) => json!(self.auth_status().await.map_err(ToolError::into_protocol_error)?),
            _ => {
                let spent = self.spent().await.map_err(ToolError::into_protocol_error)?;
                json!(Usage { spent, rate_limit: self.account.allowance() })
            }
        };
        // A host may read it without showing it, so a tool result names the account all the same.
        if let Some(identity) = self.account.identity()
            && self.is_to_be_announced(identity.number)
        {
            content["signed_in_as"] = identity.name.into();
        }
        Ok(content)
    }

    async fn keys(&self) -> Result<KeyList, ErrorData> {
        self.account.list_keys().await.map_err(|error| ToolError::from(error).into_protocol_error())
    }

    async fn key(&self, id: &str) -> Result<Key, ErrorData> {
        let list = self.keys().await?;
        let key = list.keys.into_iter().find(|key| key.id == id).ok_or_else(unknown)?;
        Ok(key.shortened(self.account.redactor()))
    }

    /// Completes the `key_id` of the template from the account's keys, by the beginning of their ids or names. For the
    /// arguments of prompts there are no suggestions.
    pub(super) async fn completed(
        &self,
        request: &CompleteRequestParams,
        scopes: Scopes,
    ) -> Result<CompleteResult, ErrorData> {
        if let Reference::Prompt(prompt) = &request.r#ref
            && self.shared.has_argument(&prompt.name, &request.argument.name, scopes)
        {
            return Ok(CompleteResult::default());
        }
        let of_key = matches!(&request.r#ref, Reference::Resource(template) if template.uri == KEY_TEMPLATE);
        if !of_key || request.argument.name != "key_id" || !self.shared.serves(MANAGE_API_KEYS, scopes) {
            return Err(ErrorData::invalid_params(
                "there is nothing to complete; see resources/templates/list and prompts/list",
                None,
            ));
        }
        let list = self.keys().await?;
        let begun = request.argument.value.as_str();
        // As they are shown: by their beginnings a secret in a name could be guessed letter by letter.
        let begins = |name: &str| self.guard.text(name).starts_with(begun);
        let ids: Vec<String> = list
            .keys
            .into_iter()
            .filter(|key| begins(&key.id) || begins(&key.name))
            .map(|key| key.id)
            .collect();
        let total = u32::try_from(ids.len()).ok();
        let more = ids.len() > CompletionInfo::MAX_VALUES;
        let first = ids.into_iter().take(CompletionInfo::MAX_VALUES).collect();
        let info = CompletionInfo::with_pagination(first, total, more).map_err(|_| {
            ToolError::new(Kind::Internal, "There are too many keys.", "Use `manage_api_keys`.")
                .into_protocol_error()
        })?;
        Ok(CompleteResult::new(info))
    }
}

/// Does not name the URI as MCP suggests: if it were redacted, that would confirm a guess at a secret.
fn unknown() -> ErrorData {
    ErrorData::resource_not_found("there is no such resource; see resources/list", None)
}
