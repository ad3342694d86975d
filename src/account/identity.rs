//! Whose account it is, as far as this process knows without asking.

use super::Account;

/// A sign-in that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The number of the sign-in; another one has another number.
    pub generation: u64,
    /// The e-mail address, or what there is in its place.
    pub name: String,
}

impl Account {
    /// The sign-in in force; `None` when nobody has signed in.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        let memory = self.remembered()?;
        let record = &memory.record;
        let name = match (&record.session, &record.own_key) {
            (Some(_), _) => record.email.clone()?,
            (None, Some(_)) => "the owner of an API key".to_owned(),
            (None, None) => return None,
        };
        Some(Identity { generation: record.generation, name })
    }
}
