//! Signing in outside the chat: a page of ours in the person's browser, served on loopback only while a sign-in is
//! pending. The host learns that it was done, never what was typed. It knows the account and nothing of MCP.

mod browser;
mod page;
mod peer;
mod pending;
mod protect;
mod shared;
mod visit;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{net::TcpListener, sync::Mutex, task::JoinHandle};
use uuid::Uuid;

pub use self::pending::{End, Pending, State};
use self::{peer::PeerPage, visit::Visit};
use crate::{
    account::{self, Account, Need},
    error::{Kind, Report},
    listener::{self, Bounds},
};

/// A sign-in that is not finished by then is over.
pub const LIFETIME: Duration = Duration::from_mins(10);

/// After the end, so that the browser can show it, its style and all.
const LAST_LOOK: Duration = Duration::from_secs(10);

/// What the visitors of the page together may hold.
const BOUNDS: Bounds = Bounds { connections: 64, head_timeout: Duration::from_secs(10) };

/// How a process shows its sign-in page.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The page's port, on loopback; 0 takes a free one.
    pub port: u16,
    /// How long a sign-in stays pending, [`LIFETIME`] at most.
    pub lifetime: Duration,
    /// Whether we open the person's browser where the host cannot show them the link.
    pub open_browser: bool,
    /// The first wait before BondMCP is asked whether a new account's address is verified; later ones are up to
    /// fifteen times as long.
    pub verification_poll: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { port: 0, lifetime: LIFETIME, open_browser: false, verification_poll: Duration::from_secs(2) }
    }
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    #[error("the sign-in page cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Account(#[from] account::Error),
}

impl From<&PageError> for Report {
    fn from(error: &PageError) -> Self {
        match error {
            PageError::Listen { address, source } => Self::new(
                Kind::Internal,
                format!("The sign-in page cannot listen on {address}: {source}."),
                "Call again in a moment; if it stays so, the operator frees the port or starts the server with another --sign-in-port.",
            ),
            PageError::Account(error) => error.into(),
        }
    }
}

/// The sign-in page of one account. Clones share the pending sign-in.
#[derive(Clone, Debug)]
pub struct SignIn {
    account: Account,
    options: Options,
    /// This process, to the others of the account.
    holder: String,
    current: Arc<Mutex<Option<Current>>>,
}

/// The sign-in that was begun last.
#[derive(Debug)]
struct Current {
    pending: Arc<Pending>,
    page: Page,
    /// Serves our page, or follows the one of another process.
    task: JoinHandle<()>,
}

/// Who serves the page.
#[derive(Debug)]
enum Page {
    /// This process; the task tells the others of it.
    Own {
        visit: Arc<Visit>,
        telling: JoinHandle<()>,
    },
    Peer(PeerPage),
}

impl Current {
    /// Adds a dependent; `false` when the sign-in has ended or its page is not there any more.
    async fn join(&self, need: Need) -> bool {
        match &self.page {
            Page::Own { .. } => self.pending.join(need),
            Page::Peer(page) => self.pending.is_open() && page.join(need).await && self.pending.join(need),
        }
    }

    async fn put_away(self) {
        self.pending.end(End::Gone);
        self.task.abort();
        // Its port is free once the task is gone.
        let _ = self.task.await;
        if let Page::Own { visit, telling } = self.page {
            visit.forget_browser();
            let _ = telling.await;
        }
    }
}

impl SignIn {
    #[must_use]
    pub fn new(account: Account, options: Options) -> Self {
        Self { account, options, holder: Uuid::new_v4().to_string(), current: Arc::default() }
    }

    /// The pending sign-in, of whatever process of this account, and a new one with its page where there is none. The
    /// caller gives its link to the person and depends on it from now on, until [`Pending::decline`]. `asked_by` is what
    /// the host calls itself.
    pub async fn begin(&self, asked_by: Option<String>, need: Need) -> Result<Arc<Pending>, PageError> {
        let mut current = self.current.lock().await;
        if let Some(current) = &*current
            && current.join(need).await
        {
            return Ok(Arc::clone(&current.pending));
        }
        if let Some(over) = current.take() {
            over.put_away().await;
        }
        let begun = match shared::found_or_claimed(&self.account, &self.holder, need).await? {
            Some((elsewhere, page)) => {
                let pending = Arc::new(elsewhere);
                let following =
                    shared::follow(self.account.clone(), self.holder.clone(), Arc::clone(&pending));
                Current { pending, page: Page::Peer(page), task: tokio::spawn(following) }
            }
            None => self.page(asked_by, need).await?,
        };
        Ok(Arc::clone(&current.insert(begun).pending))
    }

    /// Ends what is pending. For the end of the process: the others of the account learn of it at once.
    pub async fn close(&self) {
        if let Some(current) = self.current.lock().await.take() {
            current.put_away().await;
        }
    }

    /// Opens the person's browser, where the operator wants that, once for a page of ours.
    pub async fn show(&self) {
        if self.options.open_browser
            && let Some(Current { page: Page::Own { visit, .. }, .. }) = &*self.current.lock().await
        {
            visit.open_browser();
        }
    }

    /// The sign-in that is pending now, if its name is `name`.
    pub async fn named(&self, name: &str) -> Option<Arc<Pending>> {
        let current = self.current.lock().await;
        current.as_ref().map(|current| &current.pending).filter(|pending| pending.name() == name).cloned()
    }

    /// A page of our own, of which the other processes are told.
    async fn page(&self, asked_by: Option<String>, need: Need) -> Result<Current, PageError> {
        let (listener, address) = match self.listen().await {
            Ok(listening) => listening,
            Err(error) => {
                self.account.release_notice(&self.holder).await?;
                return Err(error);
            }
        };
        let visit = Arc::new(Visit::new(self.account.clone(), address, asked_by, need, self.options));
        shared::post(&self.account, &visit).await?;
        let telling =
            tokio::spawn(shared::tell(self.account.clone(), self.holder.clone(), Arc::clone(&visit)));
        Ok(Current {
            pending: Arc::clone(visit.pending()),
            task: tokio::spawn(serve(listener, Arc::clone(&visit))),
            page: Page::Own { visit, telling },
        })
    }

    async fn listen(&self) -> Result<(TcpListener, SocketAddr), PageError> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.options.port));
        let broken = |source| PageError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(broken)?;
        let address = listener.local_addr().map_err(broken)?;
        Ok((listener, address))
    }
}

/// Serves the page until the sign-in has ended, and a little longer.
async fn serve(listener: TcpListener, visit: Arc<Visit>) {
    let over = async {
        let pending = visit.pending();
        if tokio::time::timeout(pending.expires_in(), pending.ended()).await.is_err() {
            pending.end(End::TimedOut);
        }
        visit.forget_browser();
        tokio::time::sleep(LAST_LOOK).await;
    };
    listener::serve(listener, page::router(Arc::clone(&visit)), BOUNDS, over).await;
}
