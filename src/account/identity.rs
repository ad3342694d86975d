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
        let name = if record.uses_own_key() {
            "the owner of an API key".to_owned()
        } else {
            record.session.as_ref().and(record.email.clone())?
        };
        Some(Identity { generation: record.generation, name })
    }
}
