//! Signing in outside the chat: a page of ours in the person's browser, served on loopback only while a sign-in is
//! pending. The host learns that it was done, never what was typed. It knows the account and nothing of MCP.

mod page;
mod pending;
mod protect;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{net::TcpListener, sync::Mutex, task::JoinHandle};

pub use self::pending::{End, Pending, State};
use crate::account::Account;

/// A sign-in that is not finished by then is over.
pub const LIFETIME: Duration = Duration::from_mins(10);

/// After the end, so that the browser can show it, its style and all.
const LAST_LOOK: Duration = Duration::from_secs(10);

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
#[error("the sign-in page cannot listen on {address}: {source}")]
pub struct PageError {
    address: SocketAddr,
    source: std::io::Error,
}

/// The sign-in page of one account. Clones share the pending sign-in.
#[derive(Clone, Debug)]
pub struct SignIn {
    account: Account,
    /// 0 takes a free one.
    port: u16,
    current: Arc<Mutex<Option<Current>>>,
}

/// The sign-in that was begun last, and the task that serves its page.
#[derive(Debug)]
struct Current {
    pending: Arc<Pending>,
    page: JoinHandle<()>,
}

impl SignIn {
    #[must_use]
    pub fn new(account: Account, port: u16) -> Self {
        Self { account, port, current: Arc::default() }
    }

    /// The pending sign-in, and a new one with its page where there is none. `asked_by` is what the host calls itself.
    pub async fn begin(&self, asked_by: Option<String>) -> Result<Arc<Pending>, PageError> {
        let mut current = self.current.lock().await;
        if let Some(Current { pending, page }) = current.take_if(|current| !current.pending.is_open()) {
            tracing::debug!(name = pending.name(), "the page of an earlier sign-in is taken down");
            page.abort();
            // Its port is free once the task is gone.
            let _ = page.await;
        }
        if let Some(current) = &*current {
            return Ok(Arc::clone(&current.pending));
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let broken = |source| PageError { address, source };
        let listener = TcpListener::bind(address).await.map_err(broken)?;
        let address = listener.local_addr().map_err(broken)?;
        let pending = Arc::new(Pending::new(self.account.clone(), address, asked_by));
        let page = tokio::spawn(serve(listener, Arc::clone(&pending)));
        *current = Some(Current { pending: Arc::clone(&pending), page });
        Ok(pending)
    }

    /// The sign-in that is pending now, if its name is `name`.
    pub async fn named(&self, name: &str) -> Option<Arc<Pending>> {
        let current = self.current.lock().await;
        current.as_ref().map(|current| &current.pending).filter(|pending| pending.name() == name).cloned()
    }
}

/// Serves the page until the sign-in has ended, and a little longer.
async fn serve(listener: TcpListener, pending: Arc<Pending>) {
    let router = page::router(Arc::clone(&pending));
    let over = async move {
        if tokio::time::timeout(LIFETIME, pending.ended()).await.is_err() {
            pending.end(End::TimedOut);
        }
        tokio::time::sleep(LAST_LOOK).await;
    };
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(over).await {
        tracing::warn!(%error, "the sign-in page ended");
    }
}
