//! `bondmcp-server demo`: the complete flow offline, with a real MCP client, ending with a check that the host saw no
//! secret.

use anyhow::anyhow;
mod host;
mod person;

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};

use self::{host::Host, person::Person};
use super::{Error, printer::Printer, sandbox::start};
use crate::{
    clock::Clock,
    redact::Redactor,
    sandbox::{Plan, RunningSandbox, SandboxConfig},
    secret::SecretString,
};

pub(super) const EXAMPLES: &str = "Examples:
  bondmcp-server demo";

/// Runs the complete flow offline: a sandbox in place of BondMCP, this program as the MCP server of a host, and at
/// the end a search for secrets in everything that the host has seen.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

impl Args {
    pub async fn run(self, printer: Printer, clock: Clock) -> Result<(), Error> {
        let config = SandboxConfig { clock, plan: Plan::Professional, ..SandboxConfig::default() };
        let sandbox = start(config, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let person = Person::new(&sandbox.base_url(), printer.clone());
        printer.print_out(format_args!("BondMCP (a sandbox): {}", sandbox.base_url()));
        printer.print_out("MCP host:            this program as client of `bondmcp-server stdio`");

        let mut host = Host::start(&person, printer.clone()).await?;
        let outcome = flow(&mut host, &person, &sandbox, &printer).await;
        let seen = host.end().await?;
        outcome?;

        let mut secrets = sandbox.secrets_issued();
        secrets.push(person.password.clone());
        let found = secrets.iter().filter(|secret| occurs(secret, &seen)).count();
        printer.print_out("");
        printer.print_out(format_args!(
            "The host saw {} bytes. Secrets searched for in them, plain and encoded: {}. Found: {found}.",
            seen.len(),
            secrets.len()
        ));
        if found == 0 { Ok(()) } else { Err(Error::Failed(anyhow!("A secret has reached the host."))) }
    }
}

async fn flow(
    host: &mut Host,
    person: &Person,
    sandbox: &RunningSandbox,
    printer: &Printer,
) -> Result<(), Error> {
    let chapter = |title: &str| {
        printer.print_out("");
        printer.print_out(title);
    };

    chapter("Not signed in yet");
    host.call("list_models", json!({})).await?;
    host.call("login", json!({ "password": "a secret in the chat" })).await?;
    host.call("register", json!({ "email": person.email })).await?;

    chapter("The person creates an account and signs in outside the chat");
    person.run("register").await?;
    printer.print_out(format_args!("  person  opens the link in the e-mail to {}", person.email));
    sandbox.verify(&person.email);
    person.run("login").await?;

    chapter("The agent works");
    host.call("login", json!({})).await?;
    host.call("auth_status", json!({})).await?;
    host.call("list_models", json!({})).await?;

    chapter("A billed health service; the sandbox answers with samples");
    let medications =
        json!([{"name": "warfarin", "dosage": "5 mg"}, {"name": "ibuprofen", "dosage": "400 mg"}]);
    host.call("medication_check", json!({ "medications": medications })).await?;

    chapter("The token expires and is renewed automatically");
    sandbox.expire_tokens();
    host.call("list_models", json!({ "refresh": true })).await?;
    printer.print_out(format_args!(
        "  BondMCP saw {} log-in and {} refresh so far",
        sandbox.count("POST /auth/login"),
        sandbox.count("POST /auth/refresh")
    ));

    chapter("API keys, by their ids");
    let created =
        host.manage_keys(json!({"action": "create", "name": "demo", "permissions": ["read"]})).await?;
    let id = &created["keys"][0]["id"];
    host.manage_keys(json!({"action": "use", "key_id": id})).await?;
    host.call("list_models", json!({ "refresh": true })).await?;
    host.manage_keys(json!({"action": "usage", "key_id": id})).await?;
    let rotated = host.manage_keys(json!({"action": "rotate", "key_id": id, "confirm": "demo"})).await?;
    host.manage_keys(json!({ "action": "list" })).await?;
    let id = &rotated["keys"][0]["id"];
    host.manage_keys(json!({"action": "revoke", "key_id": id, "confirm": "demo"})).await?;

    chapter("Signing out");
    host.call("logout", json!({})).await?;
    host.call("list_models", json!({})).await?;
    Ok(())
}

/// Whether `seen` contains `secret` in any of the usual encodings.
fn occurs(secret: &SecretString, seen: &str) -> bool {
    let redactor = Redactor::default();
    redactor.remember(secret);
    redactor.redact(seen) != seen
}

/// Summarises an answer in one line that fits a screen.
fn brief(answer: &Value) -> String {
    const WIDTH: usize = 140;
    let line = match (&answer["error"], answer.as_object()) {
        (Value::Object(error), _) => {
            let [kind, message, solution] = ["kind", "message", "solution"].map(|part| word(&error[part]));
            format!("{kind}: {message} {solution}")
        }
        (_, Some(fields)) => {
            let fields = fields.iter().map(|(name, value)| format!("{name}: {}", word(value)));
            fields.collect::<Vec<_>>().join(" · ")
        }
        _ => answer.to_string(),
    };
    if line.chars().count() <= WIDTH { line } else { line.chars().take(WIDTH).collect::<String>() + "…" }
}

/// Formats a text without quotes, and a list or an object by its names.
fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(word).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => match fields.get("id").or_else(|| fields.get("endpoint")) {
            Some(name) => word(name),
            None => fields.values().map(word).collect::<Vec<_>>().join(" "),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_shown_with_what_to_do() {
        let failure =
            json!({"error": {"kind": "invalid_input", "message": "Wrong.", "solution": "Mend it."}});
        assert_eq!(brief(&failure), "invalid_input: Wrong. Mend it.");
    }
}
