//! One pending sign-in for all processes of an account, so that two hosts do not show two competing pages: the process
//! that serves the page announces it in the vault, the others show its link and follow its state.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::{
    End, Error, KEPT_AFTER_THE_END, LIFETIME, PageSession, Pending, RETRY_INTERVAL, State, peer::PeerPage,
};
use crate::{
    account::{self, Account, RequiredCredential},
    clock::Timestamp,
    secret::{self, ExposeSecret as _, SecretString},
};

/// Interval at which the process that serves the page extends its lease, which lasts several times as long.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Longest wait for a process that holds the lease and has not announced a page that can be joined. A process announces
/// its page right after taking the lease, and a dead process's lease expires sooner.
const LEASE_WAIT_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct Announcement {
    name: String,
    url: SecretString,
    code: String,
    expires_at: Timestamp,
    state: State,
    peer_key: SecretString,
}

/// [`Announcement`] with its secrets exposed; used only for encryption.
#[derive(Serialize)]
struct AnnouncementView<'a> {
    name: &'a str,
    url: &'a str,
    code: &'a str,
    expires_at: Timestamp,
    state: State,
    peer_key: &'a str,
}

impl Announcement {
    /// Returns the sign-in for those who wait in this process, and its page; `None` where that is not on loopback.
    fn pending(self, account: &Account, need: RequiredCredential) -> Option<(Pending, PeerPage)> {
        let page = PeerPage { address: address(&self.url)?, key: self.peer_key };
        // Where the clocks of the two processes differ, it is not known. The other one tells of the end, too.
        let left = (self.expires_at - account.now()).to_std().ok().filter(|left| *left <= LIFETIME);
        let left = left.unwrap_or(LIFETIME);
        let pending = Pending::elsewhere(self.name, (self.url, false), self.code, left, need);
        pending.set_state(self.state);
        Some((pending, page))
    }
}

/// Joins the sign-in that is pending in another process; `None` if this process now holds the lease to start one.
pub async fn find_or_claim(
    account: &Account,
    holder: &str,
    need: RequiredCredential,
) -> Result<Option<(Pending, PeerPage)>, Error> {
    let began = tokio::time::Instant::now();
    loop {
        if account.acquire_announcement_lease(holder).await? {
            return Ok(None);
        }
        let mut ends_in = None;
        let (announcement, seen) = read(account).await?;
        if let Some(announcement) = announcement.filter(|announced| announced.state.is_open())
            && let Some((pending, page)) = announcement.pending(account, need)
            && pending.is_open()
        {
            if page.join(need).await {
                return Ok(Some((pending, page)));
            }
            ends_in = Some(pending.expires_in());
        }
        if began.elapsed() > LEASE_WAIT_TIMEOUT {
            return Err(match ends_in {
                Some(ends_in) => Error::Elsewhere { ends_in, command: account.login_command(None) },
                None => account::Error::SignInBusy.into(),
            });
        }
        account.announcement_wait(seen).await?;
    }
}

/// Returns the sign-in `name` in another process, which may have ended. Its page need not be within reach: the person has
/// its link, and its state is in the vault.
pub async fn find(account: &Account, name: &str) -> Result<Option<(Pending, PeerPage)>, account::Error> {
    let Some(announcement) = read(account).await?.0.filter(|announced| announced.name == name) else {
        return Ok(None);
    };
    if let State::SignedIn { .. } = announcement.state {
        account.reload().await?;
    }
    Ok(announcement.pending(account, RequiredCredential::Api))
}

/// Whether a page is still announced whose process ended without withdrawing it. The next page replaces it.
pub async fn is_abandoned(account: &Account) -> Result<bool, account::Error> {
    let is_open = read(account).await?.0.is_some_and(|announcement| announcement.state.is_open());
    Ok(is_open && !account.is_announcer_alive().await?)
}

/// Publishes the state of `session` to the other processes until its sign-in has ended, and then the end.
pub async fn announce(account: Account, holder: String, session: Arc<PageSession>) {
    let pending = session.pending();
    let mut changes = pending.changes();
    while pending.is_open() {
        let has_changed = tokio::select! {
            _ = changes.changed() => true,
            () = tokio::time::sleep(HEARTBEAT_INTERVAL) => false,
        };
        let outcome = async {
            // Without the lease the announcement may be another process's: this one was suspended for too long.
            if account.acquire_announcement_lease(&holder).await? && has_changed {
                publish(&account, &session).await?;
            }
            Ok::<_, account::Error>(())
        };
        if let Err(error) = outcome.await {
            tracing::warn!(%error, "other processes do not learn of the sign-in");
        }
    }
    let last = async {
        if account.acquire_announcement_lease(&holder).await? {
            publish(&account, &session).await?;
            account.release_announcement_lease(&holder).await?;
        }
        Ok::<_, account::Error>(())
    };
    if let Err(error) = last.await {
        tracing::warn!(%error, "other processes do not learn that the sign-in has ended");
    }
}

/// Publishes the state of `session`.
pub async fn publish(account: &Account, session: &PageSession) -> Result<(), account::Error> {
    let pending = session.pending();
    let announcement = AnnouncementView {
        name: pending.name(),
        url: pending.url(),
        code: pending.code(),
        expires_at: account.now() + pending.expires_in(),
        state: pending.state(),
        peer_key: session.peer_key().expose_secret(),
    };
    let announcement = secret::to_secret_json(&announcement).map_err(|_| account::Error::RecordUnreadable)?;
    account.publish_announcement(&announcement, pending.expires_in() + KEPT_AFTER_THE_END).await
}

/// Copies the state of the sign-in in the other process to `pending`, until it has ended.
pub async fn follow(account: Account, pending: Arc<Pending>) {
    while pending.is_open() {
        if let Err(error) = copy_state(&account, &pending).await {
            tracing::warn!(%error, "the sign-in of another process cannot be followed");
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }
    pending.end(End::TimedOut);
}

/// Copies the state of the sign-in in another process, and waits for the next one.
async fn copy_state(account: &Account, pending: &Pending) -> Result<(), account::Error> {
    // Looked at first, since the process announces the end before it releases its lease.
    let is_alive = account.is_announcer_alive().await?;
    let (announcement, seen) = read(account).await?;
    let state = match announcement.filter(|announced| announced.name == pending.name()) {
        Some(announced) if is_alive || !announced.state.is_open() => announced.state,
        // The sign-in or its process has ended.
        _ => State::Ended(End::Gone),
    };
    if let State::SignedIn { .. } = state {
        account.reload().await?;
    }
    pending.set_state(state);
    if pending.is_open() { account.announcement_wait(seen).await } else { Ok(()) }
}

/// Returns the address of a page on loopback.
fn address(url: &SecretString) -> Option<SocketAddr> {
    let url = Url::parse(url.expose_secret()).ok()?;
    match (url.host(), url.port()) {
        (Some(Host::Ipv4(address)), Some(port)) => Some((address, port).into()),
        _ => None,
    }
}

/// Returns the announcement, and its version; 0 if there is none.
async fn read(account: &Account) -> Result<(Option<Announcement>, u64), account::Error> {
    let Some(record) = account.announcement().await? else { return Ok((None, 0)) };
    Ok((serde_json::from_slice(&record.plaintext).ok(), record.version))
}
