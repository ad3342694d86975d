//! Ending an API key cannot be taken back, so the person confirms it: in a form of the host where it has one; elsewhere
//! the agent must name the key, as it can only after having looked which one it is.

use rmcp::{
    ErrorData, RoleServer,
    model::{
        CallToolRequestParams, CallToolResponse, ElicitRequestParams, ElicitResult, ElicitationAction,
        ElicitationSchema, ProtocolVersion,
    },
    schemars,
    schemars::JsonSchema,
    service::{ElicitationError, RequestContext},
};
use serde::Deserialize;
use serde_json::Value;

use super::{
    BondMcp,
    failure::Failure,
    input_required::{self, PendingInput},
    tools,
};
use crate::{account::Key, error::Kind};

/// What the person fills in.
#[derive(Debug, Deserialize, JsonSchema)]
struct Confirmation {
    /// Yes, end this key.
    confirm: bool,
}

rmcp::elicit_safe!(Confirmation);

impl BondMcp {
    /// Has `request` confirmed where it ends a key: `None` when it can go on, an answer when it cannot.
    pub(super) async fn confirmed_first(
        &self,
        request: &CallToolRequestParams,
        asked: Option<&PendingInput>,
        context: &RequestContext<RoleServer>,
    ) -> Result<Option<CallToolResponse>, ErrorData> {
        match ending(request) {
            // Seldom, and much to remember for a call that does not need it.
            Some((action, key_id)) => Box::pin(self.confirmed(action, key_id, request, asked, context)).await,
            None => Ok(None),
        }
    }

    async fn confirmed(
        &self,
        action: &str,
        key_id: &str,
        request: &CallToolRequestParams,
        asked: Option<&PendingInput>,
        context: &RequestContext<RoleServer>,
    ) -> Result<Option<CallToolResponse>, ErrorData> {
        let list = match self.account().list_keys().await {
            Ok(list) => list,
            Err(error) => return Ok(Some(Failure::from(error).into_result().into())),
        };
        // That there is no such key is the tool's to tell.
        let Some(key) = list.keys.into_iter().find(|key| key.id == key_id) else { return Ok(None) };
        if !has_forms(context) {
            return Ok(named(request, action, &key).err().map(|failure| failure.into_result().into()));
        }
        let confirmed = if context.protocol_version().is_some_and(|v| v >= ProtocolVersion::V_2026_07_28) {
            match (asked, input_required::answer(request)) {
                (Some(PendingInput::Confirmation), Some(answer)) => is_yes(answer),
                _ => {
                    return self
                        .inner
                        .request_states
                        .ask(PendingInput::Confirmation, form(action, &key)?, request)
                        .map(Some);
                }
            }
        } else {
            match context.peer.elicit::<Confirmation>(question(action, &key)).await {
                Ok(answer) => answer.is_some_and(|answer| answer.confirm),
                Err(ElicitationError::Service(error)) => {
                    tracing::warn!(%error, "the host could not ask the person");
                    false
                }
                Err(_) => false,
            }
        };
        Ok((!confirmed).then(|| declined().into_result().into()))
    }
}

/// The action and the key, where the call ends one.
fn ending(request: &CallToolRequestParams) -> Option<(&str, &str)> {
    let arguments = request.arguments.as_ref().filter(|_| request.name == tools::MANAGE_API_KEYS)?;
    let text = |name: &str| arguments.get(name).and_then(Value::as_str);
    let action = text("action").filter(|action| matches!(*action, "revoke" | "rotate"))?;
    Some((action, text("key_id")?))
}

/// Whether the host can show the person a form. One that declares elicitation and no mode means forms (2025-06-18).
fn has_forms(context: &RequestContext<RoleServer>) -> bool {
    context
        .client_capabilities()
        .and_then(|capabilities| capabilities.elicitation)
        .is_some_and(|elicitation| elicitation.form.is_some() || elicitation.url.is_none())
}

/// Whether the agent has named the key that it wants to end.
fn named(request: &CallToolRequestParams, action: &str, key: &Key) -> Result<(), Failure> {
    let confirm = request.arguments.as_ref().and_then(|arguments| arguments.get("confirm"));
    if confirm.and_then(Value::as_str) == Some(key.name.as_str()) {
        return Ok(());
    }
    Err(Failure::new(
        Kind::InvalidInput,
        format!("To {action} a key, `confirm` must be its name. It is {}.", described(key)),
        "Ask the person whether they want that; if they do, call again with `confirm`.",
    ))
}

fn described(key: &Key) -> String {
    match &key.preview {
        Some(preview) => format!("“{}” ({preview})", key.name),
        None => format!("“{}”", key.name),
    }
}

fn question(action: &str, key: &Key) -> String {
    let consequence = match action {
        "rotate" => {
            "Another key or value takes its place here; other programs that use the old one are refused then."
        }
        _ => "Every program that uses it is refused then.",
    };
    format!("Your assistant wants to {action} the BondMCP API key {}. {consequence}", described(key))
}

fn form(action: &str, key: &Key) -> Result<ElicitRequestParams, ErrorData> {
    let requested_schema = ElicitationSchema::from_type::<Confirmation>()
        .map_err(|_| ErrorData::internal_error("the form has no schema", None))?;
    Ok(ElicitRequestParams::FormElicitationParams {
        meta: None,
        message: question(action, key),
        requested_schema,
    })
}

fn is_yes(answer: ElicitResult) -> bool {
    let content = answer.content.and_then(|content| serde_json::from_value::<Confirmation>(content).ok());
    answer.action == ElicitationAction::Accept && content.is_some_and(|answer| answer.confirm)
}

fn declined() -> Failure {
    Failure::new(
        Kind::Forbidden,
        "The person did not confirm it, so nothing was done.",
        "Leave the key as it is, unless the person asks for it.",
    )
}
