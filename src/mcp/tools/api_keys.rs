//! `manage_api_keys`: managing API keys without showing their values.

use rmcp::{model::JsonObject, schemars, schemars::JsonSchema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Effects, KeyChange, KeyEnding, Outcome, ToolSpec, Toolset,
    schema::{input_schema, output_schema},
};
use crate::{
    account::{Account, Key, RequiredCredential, Unfinished},
    bondmcp::wire::{CreateApiKey, KeyUsage, Permission},
    error::Kind,
    mcp::{call::Call, tool_error::ToolError},
};

pub(super) const TOOLS: &[ToolSpec] = &[ToolSpec {
    name: MANAGE_API_KEYS,
    title: "Manage BondMCP API keys",
    description: "Lists, creates, rotates, revokes and selects BondMCP API keys, and shows their usage. Key values are not shown. `revoke` and `rotate` disable a key everywhere, so the person must agree first.",
    toolset: Toolset::Keys,
    effects: Effects { read_only: false, destructive: true, idempotent: false },
    credential: Some(RequiredCredential::Session),
    explains_sign_in: false,
    price: None,
    action: |arguments| Action::of(arguments).map(Action::name),
    confirmation: |arguments| {
        let ending = Action::of(arguments)?.ending()?;
        let key_id = arguments.get("key_id").and_then(Value::as_str)?.to_owned();
        Some(KeyChange { ending, key_id })
    },
    input_schema: input_schema::<ManageApiKeysArguments>,
    output_schema: output_schema::<ManageApiKeysResult>,
    run: |call| Box::pin(manage(call)),
}];

/// Name of the tool; resources and completions depend on it too.
pub(in crate::mcp) const MANAGE_API_KEYS: &str = "manage_api_keys";

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ManageApiKeysArguments {
    /// `create` takes `name`; `rotate`, `revoke` and `usage` take `key_id`; `use` makes API calls with `key_id`, or without it with the session.
    action: Action,
    /// Id, from `list`.
    key_id: Option<String>,
    /// For `create`.
    name: Option<String>,
    /// For `create`: its purpose.
    description: Option<String>,
    /// For `create`; BondMCP decides if absent.
    permissions: Option<Vec<Permission>>,
    /// For `rotate` and `revoke`: the key's name, once the person has agreed.
    confirm: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Action {
    List,
    Create,
    Rotate,
    Revoke,
    Use,
    Usage,
}

impl Action {
    fn of(arguments: &JsonObject) -> Option<Self> {
        Self::deserialize(arguments.get("action")?).ok()
    }

    /// Returns the name that agents use.
    fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Create => "create",
            Self::Rotate => KeyEnding::Rotate.name(),
            Self::Revoke => KeyEnding::Revoke.name(),
            Self::Use => "use",
            Self::Usage => "usage",
        }
    }

    /// Returns how the action makes an existing key stop working, if it does.
    fn ending(self) -> Option<KeyEnding> {
        match self {
            Self::Rotate => Some(KeyEnding::Rotate),
            Self::Revoke => Some(KeyEnding::Revoke),
            Self::List | Self::Create | Self::Use | Self::Usage => None,
        }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
struct ManageApiKeysResult {
    action: Action,
    /// `list`: all keys; `create` and `rotate`: the new one.
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<Vec<Key>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<KeyUsage>,
    /// Interrupted changes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unfinished: Vec<Unfinished>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl ManageApiKeysResult {
    fn of(action: Action) -> Self {
        Self { action, keys: None, usage: None, unfinished: vec![], next: None }
    }

    fn with_key(mut self, key: Key, account: &Account) -> Result<Outcome, ToolError> {
        let id = key.id.clone();
        self.keys = Some(vec![key.shortened(account.redactor())]);
        let next = "The key is stored here and its value is not shown. `use` makes API calls with it";
        let next = if account.has_terminal() {
            let command = account.key_command("run", &id);
            format!("{next}; a person can run a program with it: `{command} -- COMMAND`.")
        } else {
            format!("{next}.")
        };
        self.with_next(next).map(|done| done.with_key(id))
    }

    fn with_next(mut self, next: impl Into<String>) -> Result<Outcome, ToolError> {
        self.next = Some(next.into());
        Outcome::of(&self)
    }
}

async fn manage(call: &Call<'_>) -> Result<Outcome, ToolError> {
    let arguments: ManageApiKeysArguments = call.arguments()?;
    arguments.check()?;
    let account = call.account();
    let result = ManageApiKeysResult::of(arguments.action);
    match arguments.action {
        Action::List => {
            let list = account.list_keys().await?;
            let redactor = account.redactor();
            let keys = Some(list.keys.into_iter().map(|key| key.shortened(redactor)).collect());
            let unfinished = list.unfinished.into_iter().map(|change| change.shortened(redactor)).collect();
            Outcome::of(&ManageApiKeysResult { keys, unfinished, ..result })
        }
        Action::Create => result.with_key(account.create_key(arguments.wanted()?).await?, account),
        Action::Rotate => result.with_key(account.rotate_key(arguments.key_id()?).await?, account),
        Action::Revoke => {
            let id = arguments.key_id()?;
            account.revoke_key(id).await.map_err(|error| call.with_page(error))?;
            result
                .with_next("The key is revoked; programs that used it stop working.")
                .map(|done| done.with_key(id))
        }
        Action::Use => {
            let id = arguments.key_id.as_deref();
            account.use_key(id).await?;
            match id {
                Some(id) => {
                    result.with_next("API calls are made with this key.").map(|done| done.with_key(id))
                }
                None => result.with_next("API calls are made with the session."),
            }
        }
        Action::Usage => {
            let id = arguments.key_id()?;
            let usage = Some(account.key_usage(id).await?);
            Outcome::of(&ManageApiKeysResult { usage, ..result }).map(|done| done.with_key(id))
        }
    }
}

impl ManageApiKeysArguments {
    /// Refuses arguments that the action does not take: the agent meant something else.
    fn check(&self) -> Result<(), ToolError> {
        let for_create = self.action == Action::Create;
        let stray = [
            ("key_id", self.key_id.is_some() && matches!(self.action, Action::List | Action::Create)),
            ("name", self.name.is_some() && !for_create),
            ("description", self.description.is_some() && !for_create),
            ("permissions", self.permissions.is_some() && !for_create),
            ("confirm", self.confirm.is_some() && !matches!(self.action, Action::Rotate | Action::Revoke)),
        ];
        match stray.into_iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((name, _)) => Err(ToolError::new(
                Kind::InvalidInput,
                format!("The argument `{name}` is not valid with this action."),
                "Leave it out, or read what each action takes in the tool's input schema.",
            )),
        }
    }

    fn key_id(&self) -> Result<&str, ToolError> {
        self.key_id
            .as_deref()
            .ok_or_else(|| missing("key_id", "List the keys and give the id of one of them."))
    }

    fn wanted(self) -> Result<CreateApiKey, ToolError> {
        Ok(CreateApiKey {
            name: self.name.ok_or_else(|| missing("name", "Give the new key a name."))?,
            description: self.description,
            permissions: self.permissions.unwrap_or_default(),
        })
    }
}

fn missing(name: &str, solution: &str) -> ToolError {
    ToolError::new(Kind::InvalidInput, format!("The argument `{name}` is missing."), solution)
}
