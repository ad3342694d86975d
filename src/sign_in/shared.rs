//! One pending sign-in for all processes of an account, so that two hosts do not show two competing pages: the process
//! with the page posts a notice to the vault, the others show its link and follow how it goes.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::{End, Pending, State, Visit, peer::PeerPage};
use crate::{
    account::{self, Account, Need},
    clock::Timestamp,
    secret::{self, ExposeSecret as _, SecretString},
};

/// How often a process that has no page looks how the sign-in goes.
const POLL: Duration = Duration::from_millis(500);

/// How often one with a page shows that it still lives; its lease lasts several times as long.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// Between having claimed the sign-in and having posted the notice there is hardly any time, and a dead process's lease
/// runs out sooner.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct Notice {
    name: String,
    url: SecretString,
    code: String,
    expires_at: Timestamp,
    state: State,
    peer_key: SecretString,
}

/// [`Notice`] with its secrets exposed, for the sealed bytes alone.
#[derive(Serialize)]
struct NoticeView<'a> {
    name: &'a str,
    url: &'a str,
    code: &'a str,
    expires_at: Timestamp,
    state: State,
    peer_key: &'a str,
}

/// The sign-in that is pending in another process, joined; or the right to begin one: `None`.
pub async fn found_or_claimed(
    account: &Account,
    holder: &str,
    need: Need,
) -> Result<Option<(Pending, PeerPage)>, account::Error> {
    let began = tokio::time::Instant::now();
    loop {
        if account.hold_notice(holder).await? {
            return Ok(None);
        }
        if let Some(notice) = read(account).await?
            && let Ok(left) = (notice.expires_at - account.now()).to_std()
            && notice.state.is_open()
            && let Some(address) = address(&notice.url)
            && let page = (PeerPage { address, key: notice.peer_key })
            && page.join(need).await
        {
            let pending = Pending::elsewhere(notice.name, notice.url, notice.code, left, need);
            return Ok(Some((pending, page)));
        }
        if began.elapsed() > PATIENCE {
            return Err(account::Error::SignInBusy);
        }
        tokio::time::sleep(POLL / 5).await;
    }
}

/// Tells the other processes of `pending` until it has ended, and that it has.
pub async fn tell(account: Account, holder: String, visit: Arc<Visit>) {
    let pending = visit.pending();
    let mut changes = pending.changes();
    while pending.is_open() {
        let has_changed = tokio::select! {
            _ = changes.changed() => true,
            () = tokio::time::sleep(SIGN_OF_LIFE) => false,
        };
        let outcome = async {
            // Without the lease the announcement is another process's by now: this one slept for too long.
            if account.hold_notice(&holder).await? && has_changed {
                post(&account, &visit).await?;
            }
            Ok::<_, account::Error>(())
        };
        if let Err(error) = outcome.await {
            tracing::warn!(%error, "other processes do not learn of the sign-in");
        }
    }
    let last = async {
        if account.hold_notice(&holder).await? {
            post(&account, &visit).await?;
            account.release_notice(&holder).await?;
        }
        Ok::<_, account::Error>(())
    };
    if let Err(error) = last.await {
        tracing::warn!(%error, "other processes do not learn that the sign-in has ended");
    }
}

/// Posts the state of `visit`.
pub async fn post(account: &Account, visit: &Visit) -> Result<(), account::Error> {
    let pending = visit.pending();
    let notice = NoticeView {
        name: pending.name(),
        url: pending.url(),
        code: pending.code(),
        expires_at: account.now() + pending.expires_in(),
        state: pending.state(),
        peer_key: visit.peer_key().expose_secret(),
    };
    let notice = secret::to_secret_json(&notice).map_err(|_| account::Error::RecordUnreadable)?;
    account.post_notice(&notice).await
}

/// Lets `pending` go as the sign-in in the other process goes.
pub async fn follow(account: Account, holder: String, pending: Arc<Pending>) {
    while pending.is_open() {
        tokio::time::sleep(POLL).await;
        match standing(&account, &holder, pending.name()).await {
            Ok(state) => pending.becomes(state),
            Err(error) => tracing::warn!(%error, "the sign-in of another process cannot be followed"),
        }
    }
    pending.end(End::TimedOut);
}

/// How the sign-in `name` of another process stands.
async fn standing(account: &Account, holder: &str, name: &str) -> Result<State, account::Error> {
    // That we can have the lease means that it has ended, or that its process has.
    let is_over = account.hold_notice(holder).await?;
    if is_over {
        account.release_notice(holder).await?;
    }
    let state = match read(account).await? {
        Some(notice) if notice.name == name && !(is_over && notice.state.is_open()) => notice.state,
        _ => State::Ended(End::Gone),
    };
    if let State::SignedIn { .. } = state {
        account.look_again().await?;
    }
    Ok(state)
}

/// Where the page is served.
fn address(url: &SecretString) -> Option<SocketAddr> {
    let url = Url::parse(url.expose_secret()).ok()?;
    match (url.host(), url.port()) {
        (Some(Host::Ipv4(address)), Some(port)) => Some((address, port).into()),
        _ => None,
    }
}

async fn read(account: &Account) -> Result<Option<Notice>, account::Error> {
    Ok(account.notice().await?.and_then(|notice| serde_json::from_slice(&notice).ok()))
}
