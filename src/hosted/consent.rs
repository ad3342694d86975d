//! What a person decides about an authorization request: which scopes, and how much may be spent in a day.

use chrono::NaiveDate;

use crate::{
    account::{Usd, grant_key_name},
    oauth::{AuthorizationRequest, GrantId, LOOPBACK_HOSTS, Scope, Scopes, Subject},
    secret::SecretString,
    text,
};

/// Longest part of an API key's name that names the client, and that names its host.
const MAX_NAME_CHARS: usize = 34;

/// The form of the consent page, as it was sent.
#[derive(Clone, Debug, Default)]
pub struct ConsentForm {
    pub form_token: SecretString,
    /// The person that the page has shown.
    pub shown: String,
    pub allows: bool,
    pub scopes: Scopes,
    pub daily_limit: String,
}

/// What a person has agreed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consent {
    pub scopes: Scopes,
    pub daily_limit: Usd,
}

/// What is wrong with the form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    NoScope,
    DailyLimit,
}

/// Where a client is answered, as a person knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A host on the internet.
    Host(String),
    /// A program on the person's own computer, by the name of that.
    Loopback(String),
    /// A program that has registered this scheme on the person's device.
    App(String),
}

impl ConsentForm {
    /// Reads the fields of the form; unknown ones are ignored.
    pub fn of(fields: Vec<(String, String)>) -> Self {
        let mut form = Self::default();
        let mut scopes = String::new();
        for (name, value) in fields {
            match name.as_str() {
                "form_token" => form.form_token = value.into(),
                "shown" => form.shown = value,
                "decision" => form.allows = value == "allow",
                "scope" => scopes.extend([value.as_str(), " "]),
                "daily_limit" => form.daily_limit = value,
                _ => {}
            }
        }
        form.scopes = Scopes::parse(&scopes);
        form
    }

    /// Returns what the person agrees to: of what was asked for, at least one scope.
    pub fn consent(&self, asked: Scopes) -> Result<Consent, Problem> {
        let scopes = self.scopes.intersection(asked);
        if scopes.is_empty() {
            return Err(Problem::NoScope);
        }
        let daily_limit = self.daily_limit.trim().parse().map_err(|_| Problem::DailyLimit)?;
        Ok(Consent { scopes, daily_limit })
    }

    /// Whether the page has shown this person.
    pub fn has_shown(&self, subject: &Subject) -> bool {
        self.shown == subject.as_str()
    }
}

impl Problem {
    pub fn message(self) -> &'static str {
        match self {
            Self::NoScope => "Choose at least one thing that the app may do, or deny the request.",
            Self::DailyLimit => "Enter an amount in US dollars such as 5 or 0.50, at most 1000000.",
        }
    }
}

impl Destination {
    pub fn of(request: &AuthorizationRequest) -> Self {
        Self::at(request.redirect_host())
    }

    /// Reads the host of a redirect URI, or its scheme with the colon.
    pub fn at(host: String) -> Self {
        if host.ends_with(':') {
            Self::App(host)
        } else if LOOPBACK_HOSTS.contains(&&*host) {
            Self::Loopback(host)
        } else {
            Self::Host(host)
        }
    }

    /// Returns the name that a page shows.
    pub fn name(&self) -> String {
        match self {
            Self::Host(name) | Self::App(name) => name.clone(),
            Self::Loopback(_) => "an app on your own computer".to_owned(),
        }
    }

    /// Returns the host where the name does not tell it.
    pub fn loopback_host(&self) -> Option<&str> {
        match self {
            Self::Loopback(host) => Some(host),
            _ => None,
        }
    }

    /// Whether browsers follow a redirect there by themselves. An app of the device is opened by the person's click.
    pub fn is_on_the_web(&self) -> bool {
        !matches!(self, Self::App(_))
    }
}

/// Returns the name of a grant's API key at BondMCP, at most 100 characters: client, host, and what makes it unique.
pub fn key_name(request: &AuthorizationRequest, grant: &GrantId, date: NaiveDate) -> String {
    let short = |text: &str| text::excerpt(text.trim(), MAX_NAME_CHARS);
    let host = match Destination::of(request) {
        Destination::Loopback(_) => "this computer".to_owned(),
        destination => short(&destination.name()),
    };
    let client = request.client.name.as_deref().map(short).filter(|name| !name.is_empty());
    let client = client.unwrap_or_else(|| "App".to_owned());
    grant_key_name(&format!("{client} ({host})"), date, &request.reference, grant.as_str())
}

/// A scope as a page offers it.
#[derive(Clone, Copy, Debug)]
pub struct OfferedScope {
    pub name: &'static str,
    pub title: &'static str,
    pub description: &'static str,
    pub is_ticked: bool,
}

impl OfferedScope {
    pub fn new(scope: Scope, is_ticked: bool) -> Self {
        let (title, description) = match scope {
            Scope::Models => ("See the models", "Lists the health-AI models of BondMCP. This is free."),
            Scope::Health => (
                "Use the health services",
                "Sends what you tell the app, which can be data about your health, to BondMCP, and gets the results. \
                 Each use is billed to your BondMCP account.",
            ),
            Scope::Keys => (
                "Manage your API keys",
                "Lists, creates, replaces and revokes BondMCP API keys. The app never sees their values. Revoking a key \
                 stops every program that uses it.",
            ),
        };
        Self { name: scope.as_str(), title, description, is_ticked }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::{Client, ClientKind};

    fn form(fields: &[(&str, &str)]) -> ConsentForm {
        ConsentForm::of(
            fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        )
    }

    #[test]
    fn nobody_agrees_to_more_than_was_asked_for() {
        let asked = Scopes::parse("models health");
        let all = [("scope", "models"), ("scope", "health"), ("scope", "keys"), ("daily_limit", " 0.50 ")];
        let consent = form(&all).consent(asked).unwrap();
        assert_eq!(consent, Consent { scopes: asked, daily_limit: Usd::cents(50) });
        assert_eq!(form(&all).consent(Scopes::parse("keys")).unwrap().scopes.to_string(), "keys");
        for nothing in [&[("daily_limit", "5")][..], &[("scope", "keys"), ("daily_limit", "5")]] {
            assert_eq!(form(nothing).consent(asked), Err(Problem::NoScope));
        }
    }

    #[test]
    fn the_name_of_a_key_is_unique_for_its_grant_and_short_enough_for_bondmcp() {
        let long = "n".repeat(200);
        let request = |name: &str, host: &str| AuthorizationRequest {
            client: Client {
                id: "c".into(),
                name: Some(name.into()),
                kind: ClientKind::Registered,
                redirect_uris: vec![],
            },
            redirect_uri: format!("https://{host}/callback"),
            state: None,
            scopes: Scopes::all(),
            code_challenge: String::new(),
            reference: "K7QM2RTX".into(),
        };
        let name = |request: &AuthorizationRequest, grant: &str| {
            key_name(request, &GrantId::given(grant), NaiveDate::default())
        };
        let claude = request("Claude", "claude.ai");
        let (one, other) = ("0123456789abcdef0123456789abcdef", "1123456789abcdef0123456789abcdef");
        assert_eq!(name(&claude, one), "Claude (claude.ai) 1970-01-01 K7QM2RTX-01234567");
        assert_ne!(name(&claude, one), name(&claude, other));
        let longest = name(&request(&long, &format!("{long}.example")), one);
        assert_eq!(longest.chars().count(), 100, "{longest}");
        assert!(longest.ends_with(" K7QM2RTX-01234567"), "{longest}");
    }

    #[test]
    fn a_form_without_an_amount_agrees_to_nothing() {
        for amount in ["", "-1", "all", "1e9"] {
            let sent = form(&[("scope", "health"), ("daily_limit", amount)]);
            assert_eq!(sent.consent(Scopes::all()), Err(Problem::DailyLimit), "{amount}");
        }
    }

    #[test]
    fn a_form_that_does_not_say_allow_denies() {
        assert!(form(&[("decision", "allow")]).allows);
        for other in [
            &[][..],
            &[("decision", "deny")],
            &[("decision", "ALLOW")],
            &[("decision", "allow"), ("decision", "deny")],
        ] {
            assert!(!form(other).allows);
        }
    }
}
