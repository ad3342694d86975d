//! Revoking or rotating an API key is irreversible, so the person confirms it: in a form if the host has forms;
//! otherwise the agent must name the key, which requires looking it up.

use rmcp::{
    ErrorData,
    model::{ElicitRequestParams, ElicitResult, ElicitationAction, ElicitationSchema},
    schemars,
    schemars::JsonSchema,
};
use serde::Deserialize;
use serde_json::Value;

use super::{
    answer::Answer,
    call::Call,
    input_required::{self, PendingInput},
    tool_error::ToolError,
    tools::{KeyChange, KeyEnding},
};
use crate::{
    account::{self, Key},
    error::Kind,
};

/// The form that the person fills in.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Confirmation {
    /// Yes, end this key.
    pub confirm: bool,
}

impl Call<'_> {
    /// Asks for confirmation if the call revokes or rotates a key: returns `None` if it can continue, otherwise an
    /// answer.
    pub(super) async fn confirm(&self, asked: Option<&PendingInput>) -> Result<Option<Answer>, ErrorData> {
        match (self.tool.confirmation)(self.arguments) {
            // Boxed: this future is large and rarely needed.
            Some(change) => Box::pin(self.confirm_change(&change, asked)).await,
            None => Ok(None),
        }
    }

    async fn confirm_change(
        &self,
        change: &KeyChange,
        asked: Option<&PendingInput>,
    ) -> Result<Option<Answer>, ErrorData> {
        if change.ending == KeyEnding::Revoke
            && let Err(error) = self.account().check_not_the_grants_key(&change.key_id).await
        {
            return Ok(Some(ToolError::from(self.with_page(error)).into()));
        }
        let list = match self.with_permit(self.account().list_keys()).await {
            Ok(list) => list,
            Err(error) => return Ok(Some(ToolError::from(error).into())),
        };
        let Some(key) = list.keys.into_iter().find(|key| key.id == change.key_id) else {
            // BondMCP may know it all the same, under another spelling of its id, or list it next time.
            return Ok(Some(ToolError::from(account::Error::KeyNotFound).into()));
        };
        if let Err(error) = self.account().check_not_of_another_grant(&key.name).await {
            return Ok(Some(ToolError::from(self.with_page(error)).into()));
        }
        if !self.host.has_forms() {
            return Ok(self.named(change, &key).err().map(Into::into));
        }
        let described = self.described(&key);
        let form = form(change, &described)?;
        let answer = if self.host.asks_in_rounds() {
            let (Some(PendingInput::Confirmation), Some(answer)) =
                (asked, input_required::answer(self.request))
            else {
                let states = &self.server.shared.request_states;
                let question = states.ask(self.account(), PendingInput::Confirmation, form, self.request);
                return question.await.map(Some);
            };
            Some(answer)
        } else {
            match self.ask(self.answer_while_open(form)).await {
                Ok(answer) => answer,
                Err(failure) => return Ok(Some(failure.into())),
            }
        };
        let confirmed = answer.is_some_and(is_yes);
        Ok((!confirmed).then(|| self.unconfirmed(change).into()))
    }

    /// Returns the person's answer to a form during the call; `None` if there is none in time.
    async fn answer_while_open(&self, form: ElicitRequestParams) -> Option<ElicitResult> {
        match self.host.elicit(form).await {
            Ok(mut question) => {
                tokio::time::timeout(self.time_for_the_person(), question.answered()).await.ok().flatten()
            }
            Err(error) => {
                tracing::warn!(%error, "the host could not ask the person to confirm a change of an API key");
                None
            }
        }
    }

    /// Returns the key's name and preview. They are redacted before they are shortened, since the start of a secret is
    /// not recognised.
    fn described(&self, key: &Key) -> String {
        let guard = &self.server.guard;
        match &key.preview {
            Some(preview) => format!("“{}” ({})", guard.name(&key.name), guard.name(preview)),
            None => format!("“{}”", guard.name(&key.name)),
        }
    }

    /// A host without a terminal answers for the person, so there is a way that does not depend on the host.
    fn unconfirmed(&self, change: &KeyChange) -> ToolError {
        let account = self.account();
        let next = if account.has_terminal() {
            let command = account.key_command(change.ending.name(), &change.key_id);
            format!("If the person was not asked or wants it after all, they run `{command}` in a terminal.")
        } else {
            "If the person was not asked, this app cannot ask them; another app that is connected to this server may."
                .to_owned()
        };
        ToolError::new(
            Kind::Forbidden,
            "The person did not confirm it, so nothing was done.",
            format!("Leave the key as it is. {next}"),
        )
    }

    /// Whether the agent has named the key that it wants to revoke or rotate.
    fn named(&self, change: &KeyChange, key: &Key) -> Result<(), ToolError> {
        if self.arguments.get("confirm").and_then(Value::as_str)
            == Some(self.server.guard.name(&key.name).as_str())
        {
            return Ok(());
        }
        Err(ToolError::new(
            Kind::InvalidInput,
            format!(
                "To {} a key, `confirm` must be its name. It is {}.",
                change.ending.name(),
                self.described(key)
            ),
            "Ask the person whether they want that; if they do, call again with `confirm`.",
        ))
    }
}

fn question(change: &KeyChange, key: &str) -> String {
    let consequence = match change.ending {
        KeyEnding::Rotate => {
            "Another key or value takes its place here; other programs that use the old one stop working."
        }
        KeyEnding::Revoke => "Every program that uses it stops working.",
    };
    format!("Your assistant wants to {} the BondMCP API key {key}. {consequence}", change.ending.name())
}

fn form(change: &KeyChange, key: &str) -> Result<ElicitRequestParams, ErrorData> {
    let requested_schema = ElicitationSchema::from_type::<Confirmation>()
        .map_err(|_| ErrorData::internal_error("the form has no schema", None))?;
    Ok(ElicitRequestParams::FormElicitationParams {
        meta: None,
        message: question(change, key),
        requested_schema,
    })
}

fn is_yes(answer: ElicitResult) -> bool {
    let content = answer.content.and_then(|content| serde_json::from_value::<Confirmation>(content).ok());
    answer.action == ElicitationAction::Accept && content.is_some_and(|answer| answer.confirm)
}
