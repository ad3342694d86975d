//! Somebody who has signed in on a page of this server.

use crate::oauth::Subject;

/// Who has signed in in a browser.
#[derive(Clone, Debug)]
pub struct Person {
    pub subject: Subject,
    pub email: String,
}
