//! Whose request it is. The transport decides that from what it verified; nothing that a host or an agent says does.

use std::fmt;

use crate::config::Profile;

/// The owner of a request, and of the account that the request uses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// A local account of the person who runs this program.
    Profile(Profile),
    /// The subject that the transport verified: an opaque id.
    Subject(String),
}

impl Owner {
    /// Returns the name in logs and in the audit log. A profile's name has no colon, so no subject is called like a
    /// profile.
    #[must_use]
    pub fn audit_name(&self) -> String {
        match self {
            Self::Profile(profile) => profile.to_string(),
            Self::Subject(_) => self.to_string(),
        }
    }

    /// Returns whose limits count for a request: those of a person count for all their grants together. The subject of
    /// a grant is `PERSON.GRANT`.
    #[must_use]
    pub fn person(&self) -> Self {
        match self {
            Self::Profile(_) => self.clone(),
            Self::Subject(subject) => {
                let person = subject.split_once('.').map_or(&**subject, |(person, _)| person);
                Self::Subject(person.to_owned())
            }
        }
    }
}

/// The name under which the vault keeps an owner's records; different for any two owners.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Profile(profile) => write!(f, "profile:{profile}"),
            Self::Subject(subject) => write!(f, "subject:{subject}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_owners_share_a_name() {
        let profile = |name: &str| Owner::Profile(name.parse().unwrap());
        let subject = |name: &str| Owner::Subject(name.to_owned());
        let owners = [
            profile("default"),
            profile("a"),
            profile("subject"),
            subject("default"),
            subject("a"),
            subject("profile:a"),
            subject(""),
        ];
        for (at, one) in owners.iter().enumerate() {
            for other in &owners[at + 1..] {
                assert_ne!(one.to_string(), other.to_string());
                assert_ne!(one.audit_name(), other.audit_name());
            }
        }
    }
}
