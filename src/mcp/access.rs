//! What a request may use, by the scopes of its access token. The transport has put whose it is and its scopes into the
//! request's extensions; nothing in the request itself decides about either.

use std::borrow::Cow;

use http::HeaderMap;
use rmcp::model::Extensions;
use serde::Deserialize;

use super::{
    prompts, resources,
    tools::{self, ToolSpec, Toolset},
};
use crate::{
    account::Owner,
    oauth::{Scope, Scopes},
};

/// The method whose target is a URI.
const READ_RESOURCE: &str = "resources/read";

/// What a value of `Mcp-Name` begins with that is encoded.
const ENCODED: &str = "=?";

impl Toolset {
    /// The scope that its tools need. Signing in and out needs none: it is about the person's own access.
    const fn scope(self) -> Option<Scope> {
        match self {
            Self::Session => None,
            Self::Models => Some(Scope::Models),
            Self::Keys => Some(Scope::Keys),
            Self::Health => Some(Scope::Health),
        }
    }
}

impl ToolSpec {
    /// All scopes that a call needs.
    pub(super) fn scopes(&self) -> Scopes {
        self.toolset.scope().into_iter().collect()
    }
}

/// Returns the owner of a request and its scopes; `None` if it is nobody's. Over HTTP they are in the extensions of the
/// HTTP request. A subject whose scopes are not known has none; a local account has all.
pub(super) fn of_request(extensions: &Extensions) -> Option<(&Owner, Scopes)> {
    let http = extensions.get::<http::request::Parts>().map(|parts| &parts.extensions);
    let owner = extensions.get().or_else(|| http?.get())?;
    let scopes = match owner {
        Owner::Profile(_) => Scopes::all(),
        Owner::Subject(_) => extensions.get().or_else(|| http?.get()).copied().unwrap_or_default(),
    };
    Some((owner, scopes))
}

/// A JSON-RPC request, as far as it says what it uses.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow, default)]
    params: Params<'a>,
}

#[derive(Default, Deserialize)]
struct Params<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    uri: Option<Cow<'a, str>>,
}

/// Returns all scopes that the JSON-RPC request in `body` needs. None for what cannot be read: that is refused where it
/// is answered, as is whatever a tool that is not allowed is asked for in another way.
#[must_use]
pub fn required_scopes(body: &[u8]) -> Scopes {
    let Ok(Message { method, params: Params { name, uri } }) = serde_json::from_slice(body) else {
        return Scopes::default();
    };
    let target = if method == READ_RESOURCE { uri } else { name };
    target.map(|target| scopes_for(&method, &target)).unwrap_or_default()
}

/// Returns all scopes that a request needs whose headers say what it is (MCP 2026-07-28, "Standard Request Headers");
/// `None` if they do not, or encode it. rmcp refuses a request whose body says something else.
#[must_use]
pub fn scopes_required_by_headers(headers: &HeaderMap) -> Option<Scopes> {
    let text = |name| headers.get(name)?.to_str().ok();
    let (method, target) = (text("mcp-method")?, text("mcp-name")?);
    (!target.starts_with(ENCODED)).then(|| scopes_for(method, target))
}

fn scopes_for(method: &str, target: &str) -> Scopes {
    let tool = match method {
        "tools/call" => Some(target),
        "prompts/get" => prompts::tool_of(target),
        READ_RESOURCE => resources::tool_of(target),
        _ => None,
    };
    tool.and_then(tools::named).map(ToolSpec::scopes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;
    use serde_json::{Value, json};

    fn required(method: &str, params: &Value) -> String {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let required = required_scopes(body.to_string().as_bytes());
        let target = params.get("uri").or(params.get("name")).and_then(Value::as_str);
        let by_headers = target.and_then(|target| scopes_required_by_headers(&headers(method, target)));
        assert_eq!(by_headers, target.map(|_| required), "{body}");
        required.to_string()
    }

    fn headers(method: &str, name: &str) -> HeaderMap {
        let names = ["mcp-method", "mcp-name"].map(HeaderName::from_static);
        names.into_iter().zip([method, name].map(|value| value.parse().unwrap())).collect()
    }

    #[test]
    fn headers_that_encode_the_name_say_nothing() {
        for name in ["=?base64?aGVhbHRoX2FuYWx5emU=?=", "=?Base64?bGlzdF9tb2RlbHM=?="] {
            assert_eq!(scopes_required_by_headers(&headers("tools/call", name)), None);
        }
        assert_eq!(scopes_required_by_headers(&HeaderMap::new()), None);
    }

    #[test]
    fn a_call_needs_the_scopes_of_its_tool() {
        let of_call = |tool: &str| required("tools/call", &json!({"name": tool, "arguments": {"name": "x"}}));
        for spec in tools::all().values() {
            assert_eq!(of_call(spec.name), spec.scopes().to_string());
        }
        assert_eq!(of_call("list_models"), "models");
        assert_eq!(of_call("manage_api_keys"), "keys");
        assert_eq!(of_call("health_analyze"), "health");
        assert_eq!(of_call("auth_status"), "");
        assert_eq!(of_call("no_such_tool"), "");
    }

    #[test]
    fn prompts_and_resources_need_what_their_tools_need() {
        assert_eq!(required("prompts/get", &json!({"name": "triage"})), "health");
        assert_eq!(required("resources/read", &json!({"uri": "bondmcp://models"})), "models");
        assert_eq!(required("resources/read", &json!({"uri": "bondmcp://keys/key_1"})), "keys");
        assert_eq!(required("resources/read", &json!({"uri": "bondmcp://account"})), "");
        assert_eq!(required("tools/list", &json!({})), "");
    }

    #[test]
    fn an_unreadable_request_needs_nothing_here() {
        for body in ["", "[]", "{", r#"{"method": 1}"#, r#"{"method": "tools/call", "params": []}"#] {
            assert!(required_scopes(body.as_bytes()).is_empty(), "{body}");
        }
        // Escapes are read.
        let escaped = br#"{"method": "tools\/call", "params": {"name": "list\u005fmodels"}}"#;
        assert_eq!(required_scopes(escaped).to_string(), "models");
    }

    #[test]
    fn a_subject_without_scopes_may_use_nothing() {
        let mut extensions = Extensions::new();
        assert!(of_request(&extensions).is_none());
        extensions.insert(Owner::Subject("ada".to_owned()));
        assert!(of_request(&extensions).unwrap().1.is_empty());
        extensions.insert(Scopes::parse("models"));
        assert_eq!(of_request(&extensions).unwrap().1, Scopes::parse("models"));
        extensions.insert(Owner::Profile("default".parse().unwrap()));
        assert_eq!(of_request(&extensions).unwrap().1, Scopes::all());
    }
}
