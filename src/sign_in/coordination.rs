//! One pending sign-in for all processes of an account, so that two hosts do not show two competing pages: the process
//! that serves the page announces it in the vault, the others show its link and follow its state.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use url::{Host, Url};
use uuid::Uuid;

use super::{End, Error, PageSession, Pending, State, peer::PeerPage};
use crate::{
    account::{self, Account, RequiredCredential},
    clock::Timestamp,
    secret::{self, ExposeSecret as _, SecretString},
};

/// Interval at which a process reads the state of another one's sign-in.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

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
    /// Returns the sign-in for those who wait in this process, and its page.
    fn pending(self, account: &Account, need: RequiredCredential) -> (Pending, PeerPage) {
        let page = PeerPage { address: address(&self.url), key: self.peer_key };
        let is_public = page.address.is_none();
        let left = (self.expires_at - account.now()).to_std().unwrap_or_default();
        let pending = Pending::elsewhere(self.name, (self.url, is_public), self.code, left, need);
        pending.set_state(self.state);
        (pending, page)
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
        if let Some(announcement) = read(account).await?.filter(|announced| announced.state.is_open()) {
            let (pending, page) = announcement.pending(account, need);
            if pending.is_open() {
                if page.join(need).await {
                    return Ok(Some((pending, page)));
                }
                ends_in = Some(pending.expires_in());
            }
        }
        if began.elapsed() > LEASE_WAIT_TIMEOUT {
            return Err(match ends_in {
                Some(ends_in) => Error::Elsewhere { ends_in, command: account.login_command(None) },
                None => account::Error::SignInBusy.into(),
            });
        }
        tokio::time::sleep(POLL_INTERVAL / 5).await;
    }
}

/// Returns the sign-in `name` in another process, which may have ended. Its page need not be within reach: the person has
/// its link, and its state is in the vault.
pub async fn find(account: &Account, name: &str) -> Result<Option<(Pending, PeerPage)>, account::Error> {
    let Some(announcement) = read(account).await?.filter(|announced| announced.name == name) else {
        return Ok(None);
    };
    if let State::SignedIn { .. } = announcement.state {
        account.reload().await?;
    }
    Ok(Some(announcement.pending(account, RequiredCredential::Api)))
}

/// Whether a page is still announced whose process ended without withdrawing it. The next page replaces it.
pub async fn is_abandoned(account: &Account) -> Result<bool, account::Error> {
    if !read(account).await?.is_some_and(|announcement| announcement.state.is_open()) {
        return Ok(false);
    }
    let holder = Uuid::new_v4().to_string();
    let is_over = account.acquire_announcement_lease(&holder).await?;
    if is_over {
        account.release_announcement_lease(&holder).await?;
    }
    Ok(is_over)
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
    account.publish_announcement(&announcement).await
}

/// Copies the state of the sign-in in the other process to `pending`, until it has ended.
pub async fn follow(account: Account, holder: String, pending: Arc<Pending>) {
    while pending.is_open() {
        tokio::time::sleep(POLL_INTERVAL).await;
        match remote_state(&account, &holder, pending.name()).await {
            Ok(state) => pending.set_state(state),
            Err(error) => tracing::warn!(%error, "the sign-in of another process cannot be followed"),
        }
    }
    pending.end(End::TimedOut);
}

/// Returns the state of the sign-in `name` in another process.
async fn remote_state(account: &Account, holder: &str, name: &str) -> Result<State, account::Error> {
    // The lease is free: the sign-in or its process has ended.
    let is_over = account.acquire_announcement_lease(holder).await?;
    if is_over {
        account.release_announcement_lease(holder).await?;
    }
    let state = match read(account).await? {
        Some(announcement) if announcement.name == name && !(is_over && announcement.state.is_open()) => {
            announcement.state
        }
        _ => State::Ended(End::Gone),
    };
    if let State::SignedIn { .. } = state {
        account.reload().await?;
    }
    Ok(state)
}

/// Address of a page on loopback; `None` for one under a public origin, which every process of the server has.
fn address(url: &SecretString) -> Option<SocketAddr> {
    let url = Url::parse(url.expose_secret()).ok()?;
    match (url.host(), url.port()) {
        (Some(Host::Ipv4(address)), Some(port)) => Some((address, port).into()),
        _ => None,
    }
}

async fn read(account: &Account) -> Result<Option<Announcement>, account::Error> {
    Ok(account.announcement().await?.and_then(|announcement| serde_json::from_slice(&announcement).ok()))
}
