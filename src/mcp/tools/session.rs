//! `register`, `login`, `logout`, `auth_status`: who is signed in. None of them takes a secret.

use rmcp::{schemars, schemars::JsonSchema};
use serde::{Deserialize, Serialize};

use super::{
    Effects, Outcome, ToolSpec, Toolset, no_action,
    schema::{input_schema, output_schema},
    unconfirmed,
};
use crate::{
    account::{self, Credential, RequiredCredential, Status},
    bondmcp::{Allowance, wire::Subscription},
    clock::Timestamp,
    error::Kind,
    mcp::{OwnerServer, call::Call, elicitation::link_in_words, spending::Spent, tool_error::ToolError},
    sign_in::{Pending, SignInMethod, State},
};

/// Name of the tool; resources depend on it too.
pub(in crate::mcp) const AUTH_STATUS: &str = "auth_status";

pub(super) const TOOLS: &[ToolSpec] = &[
    ToolSpec {
        name: "register",
        title: "Create a BondMCP account",
        description: "Creates a BondMCP account. The person chooses the password outside the chat: pass on what `next` says.",
        effects: Effects { read_only: false, destructive: false, idempotent: true },
        credential: Some(RequiredCredential::Api),
        explains_sign_in: true,
        input_schema: input_schema::<SignInArguments>,
        output_schema: output_schema::<RegisterResult>,
        run: |call| Box::pin(register(call)),
        ..SESSION_TOOL
    },
    ToolSpec {
        name: "login",
        title: "Sign in to BondMCP",
        description: "Signs in to BondMCP. The person may have to do so outside the chat: pass on what `next` says. Other tools sign in by themselves, so this is rarely needed.",
        effects: Effects { read_only: false, destructive: false, idempotent: true },
        credential: Some(RequiredCredential::Api),
        explains_sign_in: true,
        input_schema: input_schema::<SignInArguments>,
        output_schema: output_schema::<LoginResult>,
        run: |call| Box::pin(login(call)),
        ..SESSION_TOOL
    },
    ToolSpec {
        name: "logout",
        title: "Sign out of BondMCP",
        description: "Signs out of BondMCP and deletes the stored credentials. Only the person can sign in again; stored API keys stay.",
        effects: Effects { read_only: false, destructive: true, idempotent: true },
        output_schema: output_schema::<LogoutResult>,
        run: |call| Box::pin(logout(call)),
        ..SESSION_TOOL
    },
    SESSION_TOOL,
];

/// The specification of `auth_status`, from which the other tools take their defaults.
const SESSION_TOOL: ToolSpec = ToolSpec {
    name: AUTH_STATUS,
    title: "Show who is signed in",
    description: "Shows who is signed in to BondMCP, until when, on which plan, with requests left, spending and interrupted API key changes. Contains no secret.",
    toolset: Toolset::Session,
    effects: Effects { read_only: true, destructive: false, idempotent: true },
    credential: None,
    explains_sign_in: false,
    price: None,
    action: no_action,
    confirmation: unconfirmed,
    input_schema: input_schema::<NoArguments>,
    output_schema: output_schema::<AuthStatusResult>,
    run: |call| Box::pin(async move { Outcome::of(&call.server.auth_status().await?) }),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SignInArguments {
    /// E-mail address for the page, if known.
    email: Option<String>,
}

#[derive(Debug, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NoArguments {}

/// The state of the sign-in.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum SignInStatus {
    SignedIn,
    /// The account is created; the person must still open the link in the e-mail.
    VerificationRequired,
    SignInRequired,
}

#[derive(Debug, Serialize, JsonSchema)]
struct RegisterResult {
    status: SignInStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sign_in_url: Option<String>,
    next: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct LoginResult {
    status: SignInStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<Credential>,
    /// When the session's token expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sign_in_url: Option<String>,
    /// Lifetime of the link.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in_seconds: Option<u64>,
    next: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct LogoutResult {
    status: LogoutStatus,
    next: String,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum LogoutStatus {
    SignedOut,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::mcp) struct AuthStatusResult {
    #[serde(flatten)]
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<Subscription>,
    /// Requests a minute, as BondMCP reported last.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limit: Option<Allowance>,
    /// In US dollars, since this server started.
    spent: Spent,
}

async fn register(call: &Call<'_>) -> Result<Outcome, ToolError> {
    let arguments: SignInArguments = call.arguments()?;
    let email = arguments.email.map(checked_email).transpose()?;
    if let Ok(status) = call.server.signed_in().await? {
        return Outcome::of(&RegisterResult {
            status: SignInStatus::SignedIn,
            user_id: status.user_id,
            email: status.email,
            sign_in_url: None,
            next: "An account is signed in already; continue with the other tools.".to_owned(),
        });
    }
    let page = call.sign_in_page(email, SignInMethod::CreateAccount).await?;
    let (status, next) =
        next_step(call, page.as_deref(), "create the account", &call.account().register_command(None));
    Outcome::of(&RegisterResult {
        status,
        user_id: None,
        email: None,
        sign_in_url: page.as_ref().map(|page| page.url().to_owned()),
        next,
    })
}

async fn login(call: &Call<'_>) -> Result<Outcome, ToolError> {
    let arguments: SignInArguments = call.arguments()?;
    let email = arguments.email.map(checked_email).transpose()?;
    let why = match call.server.signed_in().await? {
        Ok(status) => {
            return Outcome::of(&LoginResult {
                status: SignInStatus::SignedIn,
                account: status.email,
                credential: status.credential,
                expires_at: status.expires_at,
                sign_in_url: None,
                expires_in_seconds: None,
                next: "Continue with the other tools.".to_owned(),
            });
        }
        Err(why) => why,
    };
    let page = call.sign_in_page(email, SignInMethod::SignIn).await?;
    let (status, next) = next_step(call, page.as_deref(), "sign in", &call.account().login_command(None));
    Outcome::of(&LoginResult {
        status,
        account: None,
        credential: None,
        expires_at: None,
        sign_in_url: page.as_ref().map(|page| page.url().to_owned()),
        expires_in_seconds: page.as_ref().map(|page| page.expires_in().as_secs()),
        next: format!("{why} {next}"),
    })
}

async fn logout(call: &Call<'_>) -> Result<Outcome, ToolError> {
    call.account().sign_out(false).await?;
    let next = if call.account().has_environment_credentials() {
        "The server's environment holds credentials, so the next call signs in with them; the operator can unset them."
    } else {
        "The person signs in again with `login`."
    };
    Outcome::of(&LogoutResult { status: LogoutStatus::SignedOut, next: next.to_owned() })
}

impl OwnerServer {
    pub(in crate::mcp) async fn auth_status(&self) -> Result<AuthStatusResult, ToolError> {
        let account = &self.account;
        let status = account.status().await?;
        let unfinished = status.unfinished.into_iter().map(|change| change.shortened(account.redactor()));
        let status = Status { unfinished: unfinished.collect(), ..status };
        let plan = if status.signed_in { account.plan().await } else { None };
        Ok(AuthStatusResult { status, plan, rate_limit: account.allowance(), spent: self.spent().await? })
    }

    /// Returns what the owner has spent.
    pub(in crate::mcp) async fn spent(&self) -> Result<Spent, ToolError> {
        let today = match self.account.daily_limit(self.shared.limits.daily_spend).await? {
            Some(limit) => self.account.daily_spending(Some(limit.usd)).await?,
            None => None,
        };
        Ok(Spent { today, ..self.spending.spent() })
    }

    /// Signs in without the person if possible; otherwise returns why the person must do it.
    async fn signed_in(&self) -> Result<Result<Status, account::SignInReason>, ToolError> {
        match self.account.ensure_signed_in().await {
            Ok(status) => Ok(Ok(status)),
            Err(account::Error::SignInRequired { why, .. }) => Ok(Err(why)),
            Err(error) => Err(error.into()),
        }
    }
}

/// Returns the state of signing in, and what the person does next.
fn next_step(
    call: &Call<'_>,
    page: Option<&Pending>,
    purpose: &str,
    command: &str,
) -> (SignInStatus, String) {
    match page {
        None if !call.account().has_terminal() => (
            SignInStatus::SignInRequired,
            format!(
                "To {purpose}, the person connects this app again in the settings of their host. Then call again."
            ),
        ),
        None => (
            SignInStatus::SignInRequired,
            format!(
                "To {purpose}, the person must run {command} in a terminal, outside the chat. Tell them so; never ask for the password. Then call again."
            ),
        ),
        Some(page) if matches!(page.state(), State::Verifying { .. }) => (
            SignInStatus::VerificationRequired,
            "The account is created. Ask the person to open the link in the e-mail from BondMCP; then call again."
                .to_owned(),
        ),
        Some(page) => {
            (SignInStatus::SignInRequired, link_in_words(page, command, call.host.may_be_one_shot()))
        }
    }
}

/// Validates an e-mail address from an agent. It is shown on the sign-in page, so only a plain address is accepted.
fn checked_email(email: String) -> Result<String, ToolError> {
    let plain = |part: &str, extra: &[u8]| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || extra.contains(&b))
    };
    let fits = email.len() <= 254
        && !email.starts_with('-')
        && email.split_once('@').is_some_and(|(local, domain)| plain(local, b"._+-") && plain(domain, b".-"));
    if fits {
        Ok(email)
    } else {
        Err(ToolError::new(
            Kind::InvalidInput,
            "Invalid argument `email`: expected an e-mail address.",
            "Give a plain e-mail address such as ada@example.com, or leave it out.",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_e_mail_cannot_carry_a_command() {
        assert!(checked_email("ada.l+x@mail.example.com".into()).is_ok());
        for email in ["", "ada", "a@", "-x@b.c", "a@b.c; rm -rf ~", "$(x)@b.c", "a`b`@c.d", "a@b\n.c"] {
            assert!(checked_email(email.into()).is_err(), "{email}");
        }
    }
}
