//! The credential, tried at BondMCP with a free request; the plan; and API key changes that were interrupted. A session
//! is renewed only as for any call.

use tokio::time::Instant;

use super::{
    Check, Findings, Fix,
    presentation::{Presentation, shown},
};
use crate::{
    account::{self, Account, Credential, Renewal, SignInReason, Status, Unfinished},
    error::UserFacingError,
};

pub(super) async fn examine(
    account: &Account,
    stored: Option<Status>,
    is_bondmcp: bool,
    findings: &mut Findings<'_>,
) {
    let names = ["credential", "plan", "API keys"];
    let Some(status) = stored else {
        return findings.skip(&names, "the vault cannot be read");
    };
    if !status.signed_in {
        let fix = Fix::run(findings.presentation.command("login"));
        findings.add(Check::fail("credential", "you are not signed in", fix));
        return findings.skip(&names[1..], "not signed in");
    }
    if !is_bondmcp {
        return findings.skip(&names, "not sent: BondMCP was not reached");
    }
    let began = Instant::now();
    let check = match account.list_models(true).await.and_then(|models| models.outage.map_or(Ok(()), Err)) {
        Ok(()) => {
            // It may have been renewed.
            let status = account.status().await.unwrap_or_else(|_| status.clone());
            Check::ok("credential", format!("BondMCP accepts {}", described(account, &status)))
        }
        Err(error) => refused(&error, &status, &findings.presentation),
    };
    if !findings.add(check.since(began)) {
        return findings.skip(&names[1..], "the credential was not accepted");
    }
    findings.add(plan(account).await);
    findings.add(key_changes(account, &status, &findings.presentation).await);
}

fn described(account: &Account, status: &Status) -> String {
    let credential = match (status.credential, &status.key_id) {
        (Some(Credential::ApiKey), Some(id)) => format!("API key {id}"),
        (Some(Credential::ApiKey), None) if account.has_environment_key() => {
            "the key in BONDMCP_API_KEY".to_owned()
        }
        (Some(Credential::ApiKey), None) => "the API key that was entered on the sign-in page".to_owned(),
        _ => "the session".to_owned(),
    };
    let owner = status.email.as_ref().map(|email| format!(" of {email}")).unwrap_or_default();
    let renewal = match status.renewal {
        _ if status.credential != Some(Credential::Session) => "",
        Some(Renewal::RefreshToken) => "; renewed with the refresh token",
        Some(Renewal::StoredPassword) => "; renewed with the stored password",
        Some(Renewal::Environment) => "; renewed with BONDMCP_EMAIL and BONDMCP_PASSWORD",
        Some(Renewal::None) | None => "; not renewed when it ends",
    };
    format!("{credential}{owner}{renewal}")
}

fn refused(error: &account::Error, status: &Status, presentation: &Presentation) -> Check {
    use account::Error;
    let UserFacingError { message, solution, .. } = error.into();
    let message = match error {
        Error::ApiKeyRejected { id: None } => "BondMCP does not accept BONDMCP_API_KEY".to_owned(),
        Error::ApiKeyRejected { id: Some(id) } => {
            format!("BondMCP does not accept API key {id}, which is in use; it was probably revoked")
        }
        Error::OwnKeyRejected => {
            "BondMCP does not accept the API key that was entered on the sign-in page".to_owned()
        }
        _ => message,
    };
    let sign_in = || Fix::run(presentation.command("login"));
    let fix = match error {
        Error::SignInRequired { why: SignInReason::EnvironmentRejected, .. } => {
            Fix::advice("Correct BONDMCP_EMAIL and BONDMCP_PASSWORD, or unset both and sign in:")
                .or_run(presentation.command("login"))
        }
        Error::SignInRequired { .. } => sign_in(),
        Error::ApiKeyRejected { id: None } => Fix::advice("Correct BONDMCP_API_KEY, or unset it."),
        Error::ApiKeyRejected { .. } if status.renewal.is_some() => {
            Fix::advice("To go back to the session:").or_run(presentation.command("keys use"))
        }
        Error::ApiKeyRejected { .. } => {
            Fix::run(format!("{} && {}", presentation.command("keys use"), presentation.command("login")))
        }
        Error::OwnKeyRejected => {
            Fix::run(format!("{} && {}", presentation.command("logout"), presentation.command("login")))
        }
        error if error.is_unauthorized() => sign_in(),
        _ => Fix::advice(solution),
    };
    Check::fail("credential", message.trim_end_matches('.'), fix)
}

async fn plan(account: &Account) -> Check {
    let plan = account.plan().await.map_or_else(
        || "not reported".to_owned(),
        |subscription| {
            let status =
                subscription.status.map(|status| format!(" ({})", shown(&status))).unwrap_or_default();
            format!("{}{status}", shown(&subscription.plan))
        },
    );
    let Some(allowance) = account.allowance() else {
        return Check::ok("plan", format!("{plan}; no rate limit reported"));
    };
    let detail = format!("{plan}; {} of {} requests a minute left", allowance.remaining, allowance.limit);
    if allowance.remaining > 0 {
        return Check::ok("plan", detail);
    }
    let advice = format!("Wait until {}, or upgrade the plan.", allowance.resets_at.format("%H:%M:%S UTC"));
    Check::warn("plan", detail, Fix::advice(advice))
}

/// Reports interrupted key changes. With a session, BondMCP's list of keys tells what became of them.
async fn key_changes(account: &Account, status: &Status, presentation: &Presentation) -> Check {
    if status.renewal.is_none() {
        return interrupted(&status.unfinished, "not listed: there is no session", presentation);
    }
    match account.list_keys().await {
        Ok(list) => {
            let active = list.keys.iter().filter(|key| key.is_active).count();
            let stored = list.keys.iter().filter(|key| key.stored).count();
            interrupted(&list.unfinished, &format!("{active} active, {stored} stored here"), presentation)
        }
        Err(error) => {
            let UserFacingError { message, solution, .. } = (&error).into();
            Check::warn("API keys", format!("they cannot be listed: {message}"), Fix::advice(solution))
        }
    }
}

fn interrupted(unfinished: &[Unfinished], otherwise: &str, presentation: &Presentation) -> Check {
    if unfinished.is_empty() {
        return Check::ok("API keys", otherwise);
    }
    let revoke = |id: &String| presentation.command(&format!("keys revoke {id}"));
    let mut commands = Vec::new();
    for change in unfinished {
        match &change.rotating_key_id {
            Some(id) => commands.push(presentation.command(&format!("keys rotate {id}"))),
            None => commands.extend(change.lost_key_ids.iter().map(revoke)),
        }
    }
    let names: Vec<_> = unfinished.iter().map(|change| format!("`{}`", change.name)).collect();
    Check::warn(
        "API keys",
        format!("a change of API keys was interrupted: {}", names.join(", ")),
        Fix::run(commands.join(" && ")),
    )
}
