//! Signing in outside the chat: a local page in the person's browser, served on loopback while a sign-in is pending.
//! The host learns that the person has signed in, never what was typed. The module uses the account and does not depend
//! on MCP.

mod browser;
mod coordination;
mod demo;
mod page;
mod page_session;
mod peer;
mod pending;
mod problem;
mod protect;
mod verification;
mod views;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{net::TcpListener, sync::Mutex, task::JoinHandle};
use uuid::Uuid;

pub use self::{
    coordination::is_abandoned,
    demo::Demo,
    pending::{End, Pending, State, WaitingCall},
};
use self::{page_session::PageSession, peer::PeerPage};
use crate::{
    account::{self, Account, RequiredCredential},
    error::{Kind, UserFacingError},
    listener::{self, Bounds},
};

/// Longest lifetime of a pending sign-in.
pub const LIFETIME: Duration = Duration::from_mins(10);

/// Time for which the page is served after the end, so that the browser can show the outcome.
const PAGE_GRACE_PERIOD: Duration = Duration::from_secs(10);

/// Limits of the page's listener.
const BOUNDS: Bounds = Bounds { connections: 64, head_timeout: Duration::from_secs(10) };

/// Options of the sign-in page.
#[derive(Clone, Debug)]
pub struct Options {
    /// Port of the page, on loopback; 0 for a free one.
    pub port: u16,
    /// Lifetime of a pending sign-in, at most [`LIFETIME`].
    pub lifetime: Duration,
    /// Whether the server opens the person's browser if the host cannot show the link.
    pub open_browser: bool,
    /// The first wait before BondMCP is asked whether a new account's address is verified; later ones are up to
    /// fifteen times as long.
    pub verification_poll: Duration,
    /// The embedded sandbox, if the operator chose it as the upstream.
    pub demo: Option<Demo>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            port: 0,
            lifetime: LIFETIME,
            open_browser: false,
            verification_poll: Duration::from_secs(2),
            demo: None,
        }
    }
}

/// The purpose of a sign-in.
#[derive(Clone, Debug)]
pub struct Request {
    /// The name that the host gave itself; not verified.
    pub requested_by: Option<String>,
    /// The required credential.
    pub need: RequiredCredential,
    /// Initial value of the form's e-mail field.
    pub email: Option<String>,
    /// The form that the page opens on.
    pub opens_on: SignInMethod,
    /// Whether the link and the code are shown in a terminal instead of a chat.
    pub in_terminal: bool,
}

impl Request {
    /// Returns a request of an unnamed host, for a page that opens on signing in.
    #[must_use]
    pub fn new(need: RequiredCredential) -> Self {
        Self { requested_by: None, need, email: None, opens_on: SignInMethod::SignIn, in_terminal: false }
    }
}

/// A way to sign in, with a form of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignInMethod {
    SignIn,
    CreateAccount,
    ApiKey,
}

/// The reason why the sign-in page cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the sign-in page cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Account(#[from] account::Error),
}

impl From<&Error> for UserFacingError {
    fn from(error: &Error) -> Self {
        match error {
            Error::Listen { address, source } => Self::new(
                Kind::Internal,
                format!("The sign-in page cannot listen on {address}: {source}."),
                "Call again in a moment. If it still fails, the operator frees the port or starts the server with another --sign-in-port.",
            ),
            Error::Account(error) => error.into(),
        }
    }
}

/// The sign-in page of one account. Clones share the pending sign-in.
#[derive(Clone, Debug)]
pub struct SignIn {
    account: Account,
    options: Options,
    /// Identifies this process to the others of the account.
    holder: String,
    current: Arc<Mutex<Option<Current>>>,
}

/// The sign-in that was started last.
#[derive(Debug)]
struct Current {
    pending: Arc<Pending>,
    page: Page,
    /// The task that serves the page or follows another process's.
    task: JoinHandle<()>,
}

/// The process that serves the page.
#[derive(Debug)]
enum Page {
    /// This process serves it; the task informs the others.
    Own {
        session: Arc<PageSession>,
        announcing: JoinHandle<()>,
    },
    Peer(PeerPage),
}

impl Current {
    /// Adds a caller; `false` if the sign-in has ended or its page is gone.
    async fn join(&self, request: &Request) -> bool {
        let need = request.need;
        match &self.page {
            Page::Own { session, .. } => session.join_here(request),
            Page::Peer(page) => self.pending.is_open() && page.join(need).await && self.pending.join(need),
        }
    }

    async fn shut_down(self) {
        self.pending.end(End::Gone);
        self.task.abort();
        // Its port is free once the task is gone.
        let _ = self.task.await;
        if let Page::Own { session, announcing } = self.page {
            session.forget_browser();
            let _ = announcing.await;
        }
    }
}

impl SignIn {
    #[must_use]
    pub fn new(account: Account, options: Options) -> Self {
        Self { account, options, holder: Uuid::new_v4().to_string(), current: Arc::default() }
    }

    /// Returns the account's pending sign-in, in this or another process, or starts one if there is none. The caller
    /// gives its link to the person.
    pub async fn begin(&self, request: Request) -> Result<Arc<Pending>, Error> {
        let need = request.need;
        let mut current = self.current.lock().await;
        if let Some(current) = &*current
            && current.join(&request).await
        {
            return Ok(Arc::clone(&current.pending));
        }
        if let Some(over) = current.take() {
            over.shut_down().await;
        }
        let begun = match coordination::find_or_claim(&self.account, &self.holder, need).await? {
            Some((elsewhere, page)) => {
                let pending = Arc::new(elsewhere);
                let following =
                    coordination::follow(self.account.clone(), self.holder.clone(), Arc::clone(&pending));
                Current { pending, page: Page::Peer(page), task: tokio::spawn(following) }
            }
            None => self.page(request).await?,
        };
        Ok(Arc::clone(&current.insert(begun).pending))
    }

    /// Ends the pending sign-in before the process ends, so that other processes of the account learn of it at once.
    pub async fn close(&self) {
        if let Some(current) = self.current.lock().await.take() {
            current.shut_down().await;
        }
    }

    /// Opens the person's browser if the operator wants that, once for each page of this process.
    pub async fn show(&self) {
        if self.options.open_browser
            && let Some(Current { page: Page::Own { session, .. }, .. }) = &*self.current.lock().await
        {
            session.open_browser();
        }
    }

    /// Returns the pending sign-in, if its name is `name`.
    pub async fn named(&self, name: &str) -> Option<Arc<Pending>> {
        let current = self.current.lock().await;
        current.as_ref().map(|current| &current.pending).filter(|pending| pending.name() == name).cloned()
    }

    /// Serves a page in this process and announces it to the others.
    async fn page(&self, request: Request) -> Result<Current, Error> {
        let (listener, address) = match self.listen().await {
            Ok(listening) => listening,
            Err(error) => {
                self.account.release_announcement_lease(&self.holder).await?;
                return Err(error);
            }
        };
        let session = Arc::new(PageSession::new(self.account.clone(), address, request, &self.options));
        coordination::publish(&self.account, &session).await?;
        let announcing = tokio::spawn(coordination::announce(
            self.account.clone(),
            self.holder.clone(),
            Arc::clone(&session),
        ));
        Ok(Current {
            pending: Arc::clone(session.pending()),
            task: tokio::spawn(serve(listener, Arc::clone(&session))),
            page: Page::Own { session, announcing },
        })
    }

    async fn listen(&self) -> Result<(TcpListener, SocketAddr), Error> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.options.port));
        let broken = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(broken)?;
        let address = listener.local_addr().map_err(broken)?;
        Ok((listener, address))
    }
}

/// Serves the page until the sign-in has ended, and for [`PAGE_GRACE_PERIOD`] more.
async fn serve(listener: TcpListener, session: Arc<PageSession>) {
    let over = async {
        let pending = session.pending();
        if tokio::time::timeout(pending.expires_in(), pending.ended()).await.is_err() {
            pending.end(End::TimedOut);
        }
        session.forget_browser();
        tokio::time::sleep(PAGE_GRACE_PERIOD).await;
    };
    listener::serve(listener, page::router(Arc::clone(&session)), BOUNDS, over).await;
}
