//! Examines an installation from the binary to the answer of BondMCP, and says how to fix what is broken. It changes
//! nothing that a start of the server would not change, creates no vault, and makes no billed request. Nothing in its
//! findings is secret: they are made to be pasted into a report.

mod credential;
mod database;
mod entry;
mod hosts;
mod installation;
mod leftovers;
mod network;
mod outside;
mod presentation;
mod sign_in_port;
mod storage;
mod vault_keys;

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

pub use self::outside::{PublicServer, examine as examine_from_outside};
use self::presentation::Presentation;
use crate::{
    account::Accounts,
    bondmcp::{Client, Timing},
    clock::{Clock, whole_milliseconds},
    config::{ConfigError, Settings},
    error::UserFacingError,
    redact::Redactor,
};

/// Returns the time-outs of the requests that examine the connection to BondMCP.
fn timing() -> Timing {
    Timing { request: Duration::from_secs(10), ..Timing::default() }
}

/// The outcome of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Ok,
    /// It works, but not well or not for long.
    Warn,
    Fail,
    /// Not examined, since something that it depends on failed or is not in use.
    Skip,
}

/// How to fix a finding: a command that works as it stands, a sentence, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Fix {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
}

impl Fix {
    fn advice(advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), run: None }
    }

    fn run(command: impl Into<String>) -> Self {
        Self { advice: None, run: Some(command.into()) }
    }

    /// Advice with a command for POSIX shells that follows it; on other platforms the advice stands alone.
    fn posix(advice: impl Into<String>, command: impl Into<String>) -> Self {
        if cfg!(unix) { Self::advice(advice).or_run(command) } else { Self::advice(advice) }
    }

    fn or_run(self, command: impl Into<String>) -> Self {
        Self { run: Some(command.into()), ..self }
    }
}

/// One line of the findings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: String,
    pub status: Status,
    pub detail: String,
    /// How long it took, where that is informative.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub milliseconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<Fix>,
}

impl Check {
    fn new(name: impl Into<String>, status: Status, detail: impl Into<String>) -> Self {
        Self { name: name.into(), status, detail: detail.into(), milliseconds: None, fix: None }
    }

    fn ok(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(name, Status::Ok, detail)
    }

    fn warn(name: impl Into<String>, detail: impl Into<String>, fix: Fix) -> Self {
        Self { fix: Some(fix), ..Self::new(name, Status::Warn, detail) }
    }

    fn fail(name: impl Into<String>, detail: impl Into<String>, fix: Fix) -> Self {
        Self { fix: Some(fix), ..Self::new(name, Status::Fail, detail) }
    }

    /// A failure in the words of an error.
    fn failed(name: impl Into<String>, error: impl Into<UserFacingError>) -> Self {
        let UserFacingError { message, solution, .. } = error.into();
        Self::fail(name, message, Fix::advice(solution))
    }

    fn skip(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::new(name, Status::Skip, reason)
    }

    /// Adds the time since `began`.
    fn since(self, began: Instant) -> Self {
        Self { milliseconds: Some(whole_milliseconds(began.elapsed())), ..self }
    }
}

/// What is examined.
#[derive(Debug)]
pub struct Subject {
    pub settings: Result<Settings, ConfigError>,
    /// The command line that runs this program for the same account in a terminal.
    pub command_line: String,
    /// Port of the sign-in page; 0 for a free one.
    pub sign_in_port: u16,
    /// Whether it is the set-up of a hosted server, in which nobody's own account is.
    pub is_hosted: bool,
    pub redactor: Redactor,
    pub clock: Clock,
}

/// The findings, and where each is reported as soon as it is known.
struct Findings<'a> {
    presentation: Presentation,
    report: &'a mut dyn FnMut(Check),
}

impl Findings<'_> {
    /// Reports a check; returns whether what depends on it can be examined.
    fn add(&mut self, check: Check) -> bool {
        let is_usable = matches!(check.status, Status::Ok | Status::Warn);
        (self.report)(self.presentation.without_private_parts(check));
        is_usable
    }

    fn skip(&mut self, names: &[&str], reason: &str) {
        for name in names {
            self.add(Check::skip(*name, reason));
        }
    }
}

/// Examines `subject` and passes each finding to `report`.
pub async fn examine(subject: Subject, report: &mut dyn FnMut(Check)) {
    let presentation = Presentation::new(&subject.command_line);
    let mut findings = Findings { presentation, report };
    findings.add(installation::version());
    findings.add(installation::binary(&findings.presentation));
    let settings = match &subject.settings {
        Ok(settings) => settings,
        Err(error) => {
            findings.add(installation::wrong_configuration(error));
            findings
                .skip(&["data directory", "vault", "BondMCP", "credential"], "the configuration is wrong");
            return;
        }
    };
    let client =
        Client::new(settings.base_url.clone(), subject.redactor.clone(), subject.clock.clone(), timing());
    let accounts = Accounts::new(
        settings,
        subject.command_line.clone(),
        client.clone(),
        subject.clock.clone(),
        subject.redactor.clone(),
    );
    let account = accounts.local();
    findings.add(installation::configuration(settings));
    let stored = storage::examine(settings, &account, &mut findings).await;
    if stored.is_some() && settings.vault.exists() {
        vault_keys::examine(&account, &mut findings).await;
    }
    leftovers::examine(settings, &account, stored.is_some(), &mut findings).await;
    if subject.is_hosted {
        network::examine(&client, &subject.clock, &mut findings).await;
        findings.skip(
            &["credential", "hosts"],
            "the server is hosted: everybody signs in for themselves; doctor --public-url examines it from outside",
        );
    } else {
        findings.add(sign_in_port::examine(subject.sign_in_port).await);
        let is_bondmcp = network::examine(&client, &subject.clock, &mut findings).await;
        credential::examine(&account, stored, is_bondmcp, &mut findings).await;
        hosts::examine(&settings.profile, &subject.redactor, &mut findings).await;
    }
    accounts.close().await;
}
