//! Limits on log-ins with a wrong password, by e-mail address and by client address (OWASP ASVS 5.0, 6.3.1). The
//! counters are in the vault, so that guesses spread over replicas are counted together. An attempt counts before BondMCP
//! is asked: neither parallel forms nor closed connections give more of them.
//!
//! Whoever knows somebody's e-mail address can keep them from signing in with wrong guesses, as with every such limit:
//! for [`WINDOW`] at a time, and only on these pages. What is connected already keeps working.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use crate::{
    client_address::{CLIENTS_OF_A_SITE, ClientAddress},
    clock::{Clock, Timestamp},
    metrics, secret,
    vault::{self, Next, RecordKind, Records},
};

const KIND: RecordKind = RecordKind::new("sign-in-attempts");

/// The time in which attempts are counted.
pub const WINDOW: Duration = Duration::from_mins(15);

/// Most wrong attempts, and accounts created, for one e-mail address in a window: 40 an hour try a thousand common passwords in a day.
pub const PER_EMAIL: usize = 10;

/// Most wrong attempts, and accounts created, from one client address in a window. An office of a thousand people behind one address mistypes
/// that often while all of them sign in.
pub const PER_CLIENT: usize = 100;

/// The same from one site of IPv6.
const PER_SITE: usize = PER_CLIENT * CLIENTS_OF_A_SITE as usize;

/// The wait of an attempt that was not counted because there were so many others at the same time.
const BUSY: Duration = Duration::from_secs(5);

/// The counters of attempts. Clones share the vault.
#[derive(Clone, Debug)]
pub struct Attempts {
    records: Records,
    clock: Clock,
}

/// An attempt, which is counted as a wrong one unless it is [taken back](Self::take_back).
#[derive(Debug)]
pub struct Attempt {
    attempts: Attempts,
    counted: Vec<(String, Timestamp)>,
}

/// Why an attempt must not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttemptRefused {
    /// There were too many; another one is possible after so long.
    Limited(Duration),
    /// It cannot be counted.
    Store(vault::Error),
}

/// The times of the counted attempts, in order; those of other replicas may be off by the difference of the clocks.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Counter {
    times: Vec<Timestamp>,
}

impl Attempts {
    #[must_use]
    pub fn new(records: Records, clock: Clock) -> Self {
        Self { records, clock }
    }

    /// Counts an attempt to sign in with `email` from `client`. It is for every attempt, before BondMCP is asked.
    ///
    /// # Errors
    /// [`AttemptRefused`]: the attempt must not be made.
    pub async fn begin(&self, email: &str, client: ClientAddress) -> Result<Attempt, AttemptRefused> {
        let mut attempt = Attempt { attempts: self.clone(), counted: Vec::new() };
        let email = email.trim().to_lowercase();
        // The client's first, so that one who has used up its attempts no longer locks others out.
        let site = client.site().map(|site| (self.counter("site", &site.ip().to_string()), PER_SITE));
        let client = (self.counter("client", &client.ip().to_string()), PER_CLIENT);
        for (name, limit) in
            [Some(client), site, Some((self.counter("email", &email), PER_EMAIL))].into_iter().flatten()
        {
            match self.count(&name, limit).await {
                Ok(time) => attempt.counted.push((name, time)),
                Err(refused) => {
                    attempt.take_back().await;
                    metrics::limited_request("sign_in");
                    return Err(refused);
                }
            }
        }
        Ok(attempt)
    }

    /// Returns the name of a counter: a keyed hash, so that whoever reads names learns no address. After a change of the
    /// sealing key counting starts anew.
    fn counter(&self, of: &str, value: &str) -> String {
        let (key, _) = self.records.vault().derived_keys(b"names of sign-in counters");
        URL_SAFE_NO_PAD.encode(*secret::mac(&*key, &[of.as_bytes(), value.as_bytes()]))
    }

    /// Counts an attempt under `name`; returns its time.
    async fn count(&self, name: &str, limit: usize) -> Result<Timestamp, AttemptRefused> {
        let count = |counter: Option<Counter>| {
            let (mut counter, now) = (counter.unwrap_or_default(), self.clock.now());
            counter.forget_before(now);
            if let Some(wait) = counter.wait(limit, now) {
                return (Next::Keep, Err(AttemptRefused::Limited(wait)));
            }
            counter.times.push(now);
            (Next::Write(counter, Some(WINDOW)), Ok(now))
        };
        match self.records.change(KIND, name, count).await {
            Ok(counted) => counted,
            Err(vault::Error::Conflict) => Err(AttemptRefused::Limited(BUSY)),
            Err(error) => Err(AttemptRefused::Store(error)),
        }
    }

    /// Takes back the attempt that was counted under `name` at `time`.
    async fn take_back(&self, name: &str, time: Timestamp) -> Result<(), vault::Error> {
        let take_back = |counter: Option<Counter>| {
            let Some(mut counter) = counter else { return (Next::Keep, ()) };
            let Some(at) = counter.times.iter().rposition(|&counted| counted == time) else {
                return (Next::Keep, ());
            };
            counter.times.remove(at);
            (Next::Write(counter, Some(WINDOW)), ())
        };
        self.records.change(KIND, name, take_back).await
    }
}

impl Attempt {
    /// Ends an attempt that was no wrong guess: BondMCP has accepted the password, or has certainly not looked at it. The
    /// other attempts stay counted: a right password of one's own must not give anybody more guesses at others'.
    pub async fn take_back(self) {
        for (name, time) in &self.counted {
            if let Err(error) = self.attempts.take_back(name, *time).await {
                tracing::info!(%error, "an attempt to sign in stays counted");
            }
        }
    }
}

impl Counter {
    /// Leaves the attempts of the window that ends at `now`. One that lies in the future by this clock was made now.
    fn forget_before(&mut self, now: Timestamp) {
        self.times.retain(|&time| time + window() > now);
        for time in &mut self.times {
            *time = (*time).min(now);
        }
    }

    /// Returns the time until another attempt is possible, if none is now.
    fn wait(&self, limit: usize, now: Timestamp) -> Option<Duration> {
        let oldest = self.times.get(self.times.len().checked_sub(limit)?)?;
        let wait = (*oldest + window() - now).to_std().unwrap_or_default();
        Some(wait.max(Duration::from_secs(1)))
    }
}

fn window() -> TimeDelta {
    TimeDelta::from_std(WINDOW).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;
    use crate::{
        config::VaultLocation,
        vault::{Keyring, Vault},
    };

    const EMAIL: &str = "ada@example.com";

    /// The counters of a replica.
    async fn replica(directory: &std::path::Path, clock: &Clock) -> Attempts {
        let location = VaultLocation::Sqlite(directory.join("data").join("vault.db"));
        let vault = Vault::open(&location, Keyring::of(&[1])).await.unwrap();
        Attempts::new(Records::new(vault, "https://bond.example.com".to_owned()), clock.clone())
    }

    fn client(last: u8) -> ClientAddress {
        ClientAddress::new([192, 0, 2, last].into())
    }

    /// Returns the wait of an attempt that is refused.
    async fn refused(attempts: &Attempts, email: &str, client: ClientAddress) -> Duration {
        match attempts.begin(email, client).await {
            Err(AttemptRefused::Limited(wait)) => wait,
            other => panic!("{other:?}"),
        }
    }

    // Log-in guesses spread over replicas: OAuth 2.1, "Credentials-Guessing Attacks" (RFC 6749, section 10.10), as
    // MCP authorization, "Security Considerations", demands. The address of each guess is another one.
    #[tokio::test]
    async fn guesses_at_one_address_are_counted_over_replicas_and_writings() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::manual(Timestamp::UNIX_EPOCH);
        let replicas = [replica(directory.path(), &clock).await, replica(directory.path(), &clock).await];
        for (guess, from) in (0..10).enumerate() {
            let email = ["ada@example.com", " Ada@Example.com "][guess % 2];
            replicas[guess % 2].begin(email, client(from)).await.unwrap();
            clock.advance(TimeDelta::minutes(1));
        }
        for replica in &replicas {
            assert_eq!(refused(replica, EMAIL, client(200)).await, Duration::from_mins(5));
        }
        replicas[0].begin("grace@example.com", client(1)).await.unwrap();
        // The first guess is over.
        clock.advance(TimeDelta::minutes(5));
        replicas[1].begin(EMAIL, client(200)).await.unwrap();
        assert_eq!(refused(&replicas[0], EMAIL, client(200)).await, Duration::from_mins(1));
    }

    // The same.
    #[tokio::test]
    async fn guesses_from_one_client_are_limited_whomever_they_are_at() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::manual(Timestamp::UNIX_EPOCH);
        let replicas = [replica(directory.path(), &clock).await, replica(directory.path(), &clock).await];
        for guess in 0..PER_CLIENT {
            replicas[guess % 2].begin(&format!("{guess}@example.com"), client(1)).await.unwrap();
        }
        // What is refused counts nowhere: the person can still sign in from elsewhere.
        for guess in 0..2 * PER_EMAIL {
            assert_eq!(refused(&replicas[guess % 2], EMAIL, client(1)).await, WINDOW);
        }
        replicas[0].begin(EMAIL, client(2)).await.unwrap().take_back().await;
    }

    // The same: one subscriber has many networks of IPv6.
    #[tokio::test]
    async fn guesses_from_one_site_of_ipv6_are_limited() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::manual(Timestamp::UNIX_EPOCH);
        let attempts = replica(directory.path(), &clock).await;
        let client = |text: &str| ClientAddress::new(text.parse().unwrap());
        attempts.begin("first@example.com", client("2001:db8:1:1::1")).await.unwrap();
        let fill = |counter: Option<Counter>| {
            let Counter { mut times } = counter.unwrap();
            times.resize(PER_SITE, clock.now());
            (Next::Write(Counter { times }, Some(WINDOW)), ())
        };
        let site = attempts.counter("site", "2001:db8:1::");
        attempts.records.change(KIND, &site, fill).await.unwrap();
        for other in ["2001:db8:1:1::1", "2001:db8:1:2::1"] {
            assert_eq!(refused(&attempts, EMAIL, client(other)).await, WINDOW);
        }
        attempts.begin(EMAIL, client("2001:db8:2:1::1")).await.unwrap();
    }

    // The same.
    #[tokio::test]
    async fn forms_that_are_sent_at_once_give_no_further_guesses() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::manual(Timestamp::UNIX_EPOCH);
        let attempts = replica(directory.path(), &clock).await;
        let outcomes = join_all((0..40).map(|_| attempts.begin(EMAIL, client(1)))).await;
        let mut guesses = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        // Closed connections drop their attempts.
        drop(outcomes);
        while attempts.begin(EMAIL, client(1)).await.is_ok() {
            guesses += 1;
        }
        assert_eq!(guesses, PER_EMAIL);
    }

    #[tokio::test]
    async fn a_right_password_takes_back_its_own_attempt_only() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::manual(Timestamp::UNIX_EPOCH);
        let attempts = replica(directory.path(), &clock).await;
        for _ in 0..PER_EMAIL - 1 {
            attempts.begin(EMAIL, client(1)).await.unwrap();
        }
        for _ in 0..20 {
            attempts.begin(EMAIL, client(1)).await.unwrap().take_back().await;
            attempts.begin(EMAIL, client(1)).await.unwrap().take_back().await;
        }
        attempts.begin(EMAIL, client(1)).await.unwrap();
        assert_eq!(refused(&attempts, EMAIL, client(1)).await, WINDOW);
    }

    #[tokio::test]
    async fn a_replica_whose_clock_is_ahead_locks_nobody_out_for_longer() {
        let directory = tempfile::tempdir().unwrap();
        let (clock, ahead) = (Clock::manual(Timestamp::UNIX_EPOCH), Clock::manual(Timestamp::UNIX_EPOCH));
        ahead.advance(TimeDelta::hours(2));
        let attempts = replica(directory.path(), &ahead).await;
        for _ in 0..PER_EMAIL {
            attempts.begin(EMAIL, client(1)).await.unwrap();
        }
        let attempts = replica(directory.path(), &clock).await;
        assert_eq!(refused(&attempts, EMAIL, client(1)).await, WINDOW);
    }

    #[tokio::test]
    async fn counters_are_named_by_no_address() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::manual(Timestamp::UNIX_EPOCH);
        let attempts = replica(directory.path(), &clock).await;
        let attempt = attempts.begin(EMAIL, client(1)).await.unwrap();
        let shown = format!("{attempt:?}");
        assert!(!shown.contains("ada@") && !shown.contains("192.0.2"), "{shown}");
    }
}
