//! The identity of the signed-in account, as far as this process knows without a request.

use super::Account;

/// The current sign-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Another one for each sign-in, and for a key that was pasted.
    pub number: u64,
    /// The e-mail address, or a description where there is none.
    pub name: String,
}

impl Account {
    /// Returns the current sign-in; `None` when not signed in.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        let memory = self.remembered()?;
        let record = &memory.record;
        let is_signed_in = record.session.is_some() || record.uses_own_key();
        let name = if record.uses_own_key() || self.inner.environment.api_key.is_some() {
            is_signed_in.then(|| "the owner of an API key".to_owned())?
        } else {
            record.session.as_ref().and(record.email.clone())?
        };
        Some(Identity { number: record.identity(), name })
    }

    /// Whose calls they are.
    pub(super) fn identity_number(&self) -> Option<u64> {
        self.remembered().map(|memory| memory.record.identity())
    }
}
