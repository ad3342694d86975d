//! Browsers: each has a cookie that binds what it began to it (`__Host-`, `Secure`, `HttpOnly`, `SameSite=Lax`; without
//! the prefix and `Secure` on loopback over http), and a record of who has signed in in it, for ten minutes.

use http::HeaderMap;

use super::person::Person;
use crate::{
    account::{Authenticated, Authenticator},
    oauth::Records,
    secret::SecretString,
    vault,
};

/// The browsers that have a page open.
#[derive(Clone, Debug)]
pub struct Browsers {
    records: Records,
    authenticator: Authenticator,
}

/// A browser, by its cookie.
#[derive(Clone, Debug)]
pub struct Browser {
    id: SecretString,
}

impl Browser {
    /// Names the browser in our records. It stays the same when somebody signs in.
    #[must_use]
    pub fn binding(&self) -> String {
        todo!()
    }
}

impl Browsers {
    pub fn new(records: Records, authenticator: Authenticator) -> Self {
        Self { records, authenticator }
    }

    /// Returns the browser that sent these headers; `None` if it has no cookie yet.
    pub fn of(&self, headers: &HeaderMap) -> Option<Browser> {
        todo!("{headers:?}")
    }

    /// Makes a cookie for a browser without one; the second value is that of `Set-Cookie`.
    pub fn new_browser(&self) -> (Browser, String) {
        todo!()
    }

    /// Returns who has signed in in the browser.
    pub async fn person(&self, browser: &Browser) -> Result<Option<Person>, vault::Error> {
        todo!("{browser:?}")
    }

    /// Takes the session at BondMCP that was opened in the browser, for a grant to adopt. It can be taken once; then the
    /// person is no longer signed in in it.
    pub async fn take_session(
        &self,
        browser: &Browser,
    ) -> Result<Option<(Person, Authenticated)>, vault::Error> {
        let _ = (&self.records, &self.authenticator);
        todo!("{browser:?}")
    }

    /// Signs out in the browser and ends the session at BondMCP ("not you?").
    pub async fn sign_out(&self, browser: &Browser) -> Result<(), vault::Error> {
        todo!("{:?}", browser.id)
    }

    /// Starts a sign-in in the browser; returns the path of its page, which goes on to `next`, a path of this server.
    pub async fn begin_sign_in(&self, browser: &Browser, next: &str) -> Result<String, vault::Error> {
        todo!("{browser:?} {next}")
    }

    /// A value for the forms of this browser, so that no other page can submit them.
    pub fn form_token(&self, browser: &Browser) -> SecretString {
        todo!("{browser:?}")
    }

    pub fn is_form_token(&self, browser: &Browser, given: &SecretString) -> bool {
        todo!("{browser:?} {given:?}")
    }
}
