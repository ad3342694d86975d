//! The record of a page: what it is for and how far it has come.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    clock::Timestamp,
    sign_in::{End, LIFETIME, MAX_ATTEMPTS, State},
};

/// Largest number of hosts that a page names.
const MAX_HOSTS: usize = 4;

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Page {
    pub purpose: Purpose,
    /// Identifier in the protocol; it gives no access to the page.
    pub name: String,
    /// What page and host show for the person to compare.
    pub code: String,
    /// Initial value of the form's e-mail field.
    pub email: String,
    pub state: State,
    /// Attempts that have begun, without those that BondMCP did not decide.
    attempts: u8,
    pub expires_at: Timestamp,
}

/// Whom a page signs in.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// The owner of an account, which adopts the session. The link was in a chat: whoever has it may open the page, and
    /// the owner's BondMCP user alone can finish it.
    Owner {
        subject: String,
        /// The account's e-mail address, masked.
        account: Option<String>,
        /// The names that the hosts gave themselves; not verified.
        requested_by: Vec<String>,
    },
    /// Whoever uses the browser that began it, which then goes on to a path of this server.
    Browser {
        /// Names the browser.
        browser: String,
        next: String,
        /// Reference of the authorization that the sign-in is for.
        #[serde(default)]
        reference: Option<String>,
    },
}

impl Page {
    #[must_use]
    pub fn new(purpose: Purpose, email: String, code: String, expires_at: Timestamp) -> Self {
        let name = Uuid::new_v4().to_string();
        Self { purpose, name, code, email, state: State::Open, attempts: 0, expires_at }
    }

    #[must_use]
    pub fn expires_in(&self, now: Timestamp) -> Duration {
        // A replica whose clock is slow gives no page more time.
        (self.expires_at - now).to_std().unwrap_or_default().min(LIFETIME)
    }

    pub fn begin_attempt(&mut self) -> bool {
        let has_more = self.attempts < MAX_ATTEMPTS;
        if has_more {
            self.attempts += 1;
        } else {
            self.set_state(State::Ended(End::TooManyAttempts));
        }
        has_more
    }

    pub fn attempt_was_wrong(&mut self) -> u8 {
        let left = MAX_ATTEMPTS - self.attempts;
        if left == 0 {
            self.set_state(State::Ended(End::TooManyAttempts));
        }
        left
    }

    pub fn attempt_was_undecided(&mut self) {
        self.attempts = self.attempts.saturating_sub(1);
    }

    /// An end is final, unless the person has signed in after all.
    pub fn set_state(&mut self, state: State) {
        if self.state.is_open() || matches!(state, State::SignedIn { .. }) {
            self.state = state;
        }
    }

    /// Returns from the verification of an address to the form, which shows the address.
    pub fn go_back(&mut self) {
        if let State::Verifying { email } = &self.state {
            self.email.clone_from(email);
            self.state = State::Open;
        }
    }

    /// Names another host that asks for the sign-in.
    pub fn add_host(&mut self, host: &str) {
        if let Purpose::Owner { requested_by, .. } = &mut self.purpose
            && requested_by.len() < MAX_HOSTS
            && !requested_by.iter().any(|known| known == host)
        {
            requested_by.push(host.to_owned());
        }
    }
}

/// Returns an e-mail address that its owner recognises and nobody else learns.
pub fn masked(email: &str) -> String {
    match email.split_once('@') {
        Some((local, domain)) => {
            format!("{}…@{domain}", local.chars().next().map(String::from).unwrap_or_default())
        }
        None => "…".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Page {
        let purpose = Purpose::Browser { browser: "b".into(), next: "/connections".into(), reference: None };
        Page::new(purpose, String::new(), "ABC-DEF".into(), Timestamp::UNIX_EPOCH + LIFETIME)
    }

    #[test]
    fn attempts_count_when_they_begin_and_five_end_a_page() {
        let mut page = page();
        for left in [4, 3, 2, 1] {
            assert!(page.begin_attempt());
            assert_eq!(page.attempt_was_wrong(), left);
        }
        assert!(page.begin_attempt());
        page.attempt_was_undecided();
        assert!(page.begin_attempt() && page.state.is_open());
        // Another one while the fifth is under way.
        assert!(!page.begin_attempt());
        assert_eq!(page.state, State::Ended(End::TooManyAttempts));
        page.set_state(State::Open);
        assert_eq!(page.attempt_was_wrong(), 0);
        assert_eq!(page.state, State::Ended(End::TooManyAttempts));
        // The fifth was right after all.
        page.set_state(State::SignedIn { email: None });
        assert_eq!(page.state, State::SignedIn { email: None });
    }

    #[test]
    fn a_page_lives_for_its_lifetime_whatever_a_clock_says() {
        let page = page();
        let at = |seconds| page.expires_in(Timestamp::from_timestamp(seconds, 0).unwrap());
        assert_eq!(at(0), LIFETIME);
        assert_eq!(at(599), Duration::from_secs(1));
        assert_eq!(at(600), Duration::ZERO);
        assert_eq!(at(9999), Duration::ZERO);
        assert_eq!(at(-3600), LIFETIME);
    }

    #[test]
    fn a_masked_address_is_recognised_and_not_learnt() {
        assert_eq!(masked("ada@example.com"), "a…@example.com");
        assert_eq!(masked("@example.com"), "…@example.com");
        assert_eq!(masked("nobody"), "…");
    }
}
