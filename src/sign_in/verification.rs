//! Waiting for the person to open the link in BondMCP's e-mail: the page signs in as soon as the address is verified.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{
    SignInMethod, State,
    page_session::{Login, PageSession},
    problem::{Field, Problem},
};
use crate::error::{Kind, UserFacingError};

/// A sign-in that waits for the verification of its address.
#[derive(Debug)]
pub struct Verification {
    login: Login,
    /// The form that it came from.
    method: SignInMethod,
    /// Cancelled when it has ended or the person has gone back to the form.
    over: CancellationToken,
}

impl PageSession {
    /// Waits for the verification of the address of `login`. The caller holds the turn.
    pub(super) fn await_verification(self: &Arc<Self>, login: Login, method: SignInMethod) {
        let verification = Arc::new(Verification { login, method, over: CancellationToken::new() });
        self.pending().set_state(State::Verifying { email: verification.login.email.clone() });
        *self.verification.lock() = Some(Arc::clone(&verification));
        tokio::spawn(Arc::clone(self).poll(verification));
    }

    /// Asks BondMCP now. Returns the reason why the page still waits.
    pub async fn check(&self) -> Result<(), Problem> {
        let Some(verification) = self.current_verification() else { return Ok(()) };
        self.try_signing_in(&verification).await.map_err(|error| {
            if error.kind == Kind::EmailNotVerified {
                let message = "BondMCP has not confirmed the address yet. Open the link in the e-mail first.";
                return Problem::new(Field::None, message);
            }
            Problem::with_account(&error)
        })
    }

    /// Goes back to the form that was sent. An attempt that has begun is awaited, so that none succeeds afterwards.
    pub async fn go_back(&self) {
        let _turn = self.wrong.lock().await;
        let Some(verification) = self.current_verification() else { return };
        if !verification.over.is_cancelled() && self.pending().is_open() {
            verification.over.cancel();
            self.open_on(verification.method);
            self.pending().set_state(State::Open);
        }
    }

    fn current_verification(&self) -> Option<Arc<Verification>> {
        self.verification.lock().clone()
    }

    /// Asks BondMCP again and again, until the verification is over.
    async fn poll(self: Arc<Self>, verification: Arc<Verification>) {
        let mut wait = self.verification_poll;
        loop {
            tokio::select! {
                () = self.pending().ended() => return,
                () = verification.over.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            if let Err(error) = self.try_signing_in(&verification).await {
                let asked_for = error.retry_after_seconds.map(Duration::from_secs);
                wait = next_wait(wait, self.verification_poll, asked_for);
            }
        }
    }

    /// Signs in, unless the verification is over. An error means that the page still waits; a refusal for another reason
    /// ends the waiting, and the form shows it.
    async fn try_signing_in(&self, verification: &Verification) -> Result<(), UserFacingError> {
        let mut wrong = self.wrong.lock().await;
        if verification.over.is_cancelled() || !self.pending().is_open() {
            return Ok(());
        }
        let error = match self.try_login(&verification.login).await {
            Ok(email) => {
                verification.over.cancel();
                self.pending().set_state(State::SignedIn { email });
                return Ok(());
            }
            Err(error) => error,
        };
        let report = UserFacingError::from(&error);
        if matches!(
            report.kind,
            Kind::EmailNotVerified | Kind::RateLimited | Kind::UpstreamUnavailable | Kind::Timeout
        ) {
            return Err(report);
        }
        verification.over.cancel();
        if error.is_unauthorized() {
            self.count(&mut wrong);
        }
        self.show_problem(verification.method, Problem::with_account(&report));
        self.pending().set_state(State::Open);
        Ok(())
    }
}

/// Doubles the wait, up to fifteen times the first one, unless BondMCP asks for more.
fn next_wait(wait: Duration, first: Duration, asked_for: Option<Duration>) -> Duration {
    (wait * 2).min(first * 15).max(asked_for.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verification_backs_off_to_half_a_minute_and_obeys_retry_after() {
        let first = Duration::from_secs(2);
        let mut wait = first;
        let mut waits = vec![];
        while waits.len() < 6 {
            waits.push(wait.as_secs());
            wait = next_wait(wait, first, None);
        }
        assert_eq!(waits, [2, 4, 8, 16, 30, 30]);
        let asked_for = Duration::from_mins(2);
        assert_eq!(next_wait(first, first, Some(asked_for)), asked_for);
        assert_eq!(next_wait(first, first, Some(Duration::ZERO)).as_secs(), 4);
    }
}
