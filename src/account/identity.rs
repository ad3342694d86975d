//! The identity of the signed-in account, as far as this process knows without a request.

use super::Account;

/// The current sign-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Number of the sign-in; every sign-in has a different one.
    pub generation: u64,
    /// The e-mail address, or a description where there is none.
    pub name: String,
}

impl Account {
    /// Returns the current sign-in; `None` when not signed in.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        let memory = self.remembered()?;
        let record = &memory.record;
        let signed_in = record.session.as_ref().and(record.email.clone());
        let uses_key = record.uses_own_key() || self.inner.environment.api_key.is_some();
        let name = signed_in.filter(|_| !uses_key).or_else(|| {
            let has_credential = record.own_key.is_some() || record.session.is_some();
            (uses_key && has_credential).then(|| "the owner of an API key".to_owned())
        })?;
        Some(Identity { generation: record.generation, name })
    }
}
