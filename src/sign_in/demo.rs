//! The parts of the sign-in page for an embedded sandbox, which has a demo account and sends no e-mail.

use std::sync::Arc;

use crate::secret::SecretString;

/// A function from an e-mail address to a link.
type LinkOf = dyn Fn(&str) -> Option<String> + Send + Sync;

/// The sandbox behind the page. It is set where the operator chose the sandbox; the upstream cannot claim to be one.
#[derive(Clone)]
pub struct Demo {
    pub email: &'static str,
    pub password: SecretString,
    /// Returns the address of the link that the verification e-mail would contain.
    pub verification_link: Arc<LinkOf>,
}

impl std::fmt::Debug for Demo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Demo").field("email", &self.email).finish_non_exhaustive()
    }
}
