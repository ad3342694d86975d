//! `manage_api_keys`: everything about API keys but the keys themselves.

use rmcp::{handler::server::wrapper::Json, schemars, schemars::JsonSchema, tool, tool_router};
use serde::{Deserialize, Serialize};

use super::super::{BondMcp, arguments::Arguments, failure::Failure};
use crate::{
    account::{Key, Unfinished},
    bondmcp::wire::{CreateApiKey, KeyUsage, Permission},
    error::Kind,
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ManageApiKeysArguments {
    /// `list`: all keys. `create`: a new one (`name`). `rotate`: replace one (`key_id`). `revoke`: end one (`key_id`).
    /// `use`: make API calls with one (`key_id`), or with the session again (no `key_id`). `usage`: how much one was
    /// used (`key_id`).
    action: Action,
    /// The id of the key, as `list` gives it.
    key_id: Option<String>,
    /// For `create`: what the key is to be called.
    name: Option<String>,
    /// For `create`: what the key is for.
    description: Option<String>,
    /// For `create`: what the key may do; BondMCP decides when absent.
    permissions: Option<Vec<Permission>>,
    /// For `rotate` and `revoke`: the key's name, once the person has agreed. Hosts with forms ask the person themselves.
    confirm: Option<String>,
}

/// The words of [`Action`].
pub(super) const ACTIONS: [&str; 6] = ["list", "create", "rotate", "revoke", "use", "usage"];

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

#[derive(Debug, Serialize, JsonSchema)]
struct ManageApiKeysResult {
    action: Action,
    /// `list`: all keys; `create` and `rotate`: the new one.
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<Vec<Key>>,
    /// `usage`.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<KeyUsage>,
    /// Changes that were interrupted, with what to do about them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unfinished: Vec<Unfinished>,
    /// What the person or you can do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl ManageApiKeysResult {
    fn of(action: Action) -> Self {
        Self { action, keys: None, usage: None, unfinished: vec![], next: None }
    }

    fn with_key(mut self, key: Key) -> Self {
        self.next = Some(format!(
            "The key is stored here and its value is not shown. `use` makes API calls with it; a person can run a program with it: `bondmcp-server keys run {} -- COMMAND`.",
            key.id
        ));
        self.keys = Some(vec![key]);
        self
    }

    fn with_next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

#[tool_router(router = api_key_tools, vis = "pub(super)")]
impl BondMcp {
    #[tool(
        title = "Manage BondMCP API keys",
        description = "Lists, creates, rotates, revokes and chooses the account's BondMCP API keys, and tells their usage. Answers with ids, names and previews; the keys themselves stay in the server. `revoke` and `rotate` end an existing key for every program that uses it, so the person must agree first.",
        annotations(read_only_hint = false, destructive_hint = true, idempotent_hint = false, open_world_hint = true),
        output_schema = super::output_schema::<ManageApiKeysResult>(),
        input_schema = super::input_schema::<ManageApiKeysArguments>()
    )]
    async fn manage_api_keys(
        &self,
        Arguments(arguments): Arguments<ManageApiKeysArguments>,
    ) -> Result<Json<ManageApiKeysResult>, Failure> {
        arguments.check()?;
        let account = self.account();
        let result = ManageApiKeysResult::of(arguments.action);
        Ok(Json(match arguments.action {
            Action::List => {
                let list = account.list_keys().await?;
                ManageApiKeysResult { keys: Some(list.keys), unfinished: list.unfinished, ..result }
            }
            Action::Create => result.with_key(account.create_key(arguments.wanted()?).await?),
            Action::Rotate => result.with_key(account.rotate_key(arguments.key_id()?).await?),
            Action::Revoke => {
                account.revoke_key(arguments.key_id()?).await?;
                result.with_next("The key is revoked; programs that used it are refused from now on.")
            }
            Action::Use => {
                account.use_key(arguments.key_id.as_deref()).await?;
                result.with_next(match arguments.key_id {
                    Some(_) => "API calls are made with this key.",
                    None => "API calls are made with the session.",
                })
            }
            Action::Usage => {
                ManageApiKeysResult { usage: Some(account.key_usage(arguments.key_id()?).await?), ..result }
            }
        }))
    }
}

impl ManageApiKeysArguments {
    /// An argument that the action does not take is refused: the agent meant something else.
    fn check(&self) -> Result<(), Failure> {
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
            Some((name, _)) => Err(Failure::new(
                Kind::InvalidInput,
                format!("The argument `{name}` does not go with this action."),
                "Leave it out, or read what each action takes in the tool's input schema.",
            )),
        }
    }

    fn key_id(&self) -> Result<&str, Failure> {
        self.key_id
            .as_deref()
            .ok_or_else(|| missing("key_id", "List the keys and give the id of one of them."))
    }

    fn wanted(self) -> Result<CreateApiKey, Failure> {
        Ok(CreateApiKey {
            name: self.name.ok_or_else(|| missing("name", "Give the new key a name."))?,
            description: self.description,
            permissions: self.permissions.unwrap_or_default(),
        })
    }
}

fn missing(name: &str, solution: &str) -> Failure {
    Failure::new(Kind::InvalidInput, format!("The argument `{name}` is missing."), solution)
}
