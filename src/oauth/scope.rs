//! Scopes (RFC 6749, section 3.3): what an access token allows.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A scope of this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// What BondMCP offers.
    Models,
    /// The billed health services.
    Health,
    /// API keys.
    Keys,
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(from = "String", into = "String")]
pub struct Scopes(u8);

impl Scope {
    pub const ALL: [Self; 3] = [Self::Models, Self::Health, Self::Keys];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Models => "models",
            Self::Health => "health",
            Self::Keys => "keys",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl Scopes {
    #[must_use]
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    /// Reads a list that is separated by white space, which may be at its start too (claude.ai). Scopes of other
    /// servers, and `offline_access`, are left out.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        text.split_whitespace()
            .filter_map(|word| Scope::ALL.into_iter().find(|scope| scope.as_str() == word))
            .collect()
    }

    #[must_use]
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Whether all of these are among `others`.
    #[must_use]
    pub fn are_within(self, others: Self) -> bool {
        self.0 & !others.0 == 0
    }

    /// Returns those that are also among `others`.
    #[must_use]
    pub fn intersection(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }

    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.contains(*scope))
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(Scope::as_str).collect();
        f.write_str(&names.join(" "))
    }
}

impl From<String> for Scopes {
    fn from(text: String) -> Self {
        Self::parse(&text)
    }
}

impl From<Scopes> for String {
    fn from(scopes: Scopes) -> Self {
        scopes.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_reduced_to_our_scopes() {
        let parsed = Scopes::parse(" health  offline_access openid models Keys\thealth");
        assert_eq!(parsed.to_string(), "models health");
        assert!(parsed.are_within(Scopes::all()));
        assert!(!Scopes::all().are_within(parsed));
        assert!(Scopes::parse("").is_empty());
        assert_eq!(Scopes::all().to_string(), "models health keys");
    }

    #[test]
    fn they_are_stored_as_a_list() {
        let stored = serde_json::to_string(&Scopes::parse("keys models")).unwrap();
        assert_eq!(stored, r#""models keys""#);
        assert_eq!(serde_json::from_str::<Scopes>(&stored).unwrap(), Scopes::parse("models keys"));
    }
}
