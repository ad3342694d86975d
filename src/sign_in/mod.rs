//! Signing in outside the chat, on a page in the person's browser: served on loopback while a sign-in is pending, or
//! under the public origin of a hosted server ([`public`]). The host learns that the person has signed in, never what was typed. The
//! module uses the account and does not depend on MCP.

mod browser;
mod coordination;
mod demo;
mod page;
mod page_session;
mod pages;
mod peer;
mod pending;
mod place;
mod problem;
pub mod protect;
pub mod public;
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
    place::Place,
    problem::{Field, Problem, attempts_left},
    protect::sent_by_our_page,
};
use self::{
    page_session::PageSession,
    pages::Pages,
    peer::PeerPage,
    public::{PublicPage, PublicPages},
};
use crate::{
    account::{self, Account, RequiredCredential},
    error::{Kind, UserFacingError},
    listener::{self, Bounds, Workers},
};

/// Longest lifetime of a pending sign-in.
pub const LIFETIME: Duration = Duration::from_mins(10);

/// Number of wrong passwords and keys that end a sign-in, so that the account is not locked.
const MAX_ATTEMPTS: u8 = 5;

/// How long the end of a sign-in can be asked for.
const KEPT_AFTER_THE_END: Duration = Duration::from_hours(2);

/// Wait after the state of a sign-in that another process serves could not be read.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Limits of the page's listener.
const BOUNDS: Bounds = Bounds { connections: 64, head_timeout: Duration::from_secs(10) };

/// Options of the sign-in page.
#[derive(Clone, Debug)]
pub struct Options {
    /// Port of the page, on loopback; 0 for a free one.
    pub port: u16,
    /// The pages of a hosted server, which take the place of a page on loopback.
    pub public: Option<PublicPages>,
    /// Address of the page on which a person sees the apps that are connected to a hosted server.
    pub connections: Option<Arc<str>>,
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
            public: None,
            connections: None,
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
    /// A sign-in is pending in another process whose page cannot be reached from here. It ends at the latest in
    /// `ends_in`; `command` signs in without a page.
    #[error("a sign-in is pending in another process, probably on another computer")]
    Elsewhere { ends_in: Duration, command: String },
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
            Error::Elsewhere { ends_in, command } => Self::new(
                Kind::SignInRequired,
                "Not signed in to BondMCP. A sign-in page is open in another process, probably on another computer, and cannot be reached from here.",
                format!(
                    "Ask the person to sign in on that page or to run {command} in a terminal, outside the chat; then call again. The page ends in {} minutes at the latest.",
                    ends_in.as_secs().div_ceil(60)
                ),
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
    /// This process serves it among `pages`; the task informs the others.
    Own {
        pages: Pages,
        session: Arc<PageSession>,
        announcing: JoinHandle<()>,
    },
    Peer(PeerPage),
    /// Every process of the hosted server serves it.
    Public,
}

impl Current {
    /// Adds a caller; `false` if the sign-in has ended or its page is gone.
    async fn join(&self, request: &Request) -> bool {
        let need = request.need;
        match &self.page {
            Page::Own { session, .. } => session.join_here(request),
            Page::Peer(page) => self.pending.is_open() && page.join(need).await && self.pending.join(need),
            Page::Public => false,
        }
    }

    async fn shut_down(self) {
        self.pending.end(End::Gone);
        self.task.abort();
        // Its port is free once the task is gone.
        let _ = self.task.await;
        if let Page::Own { pages, session, announcing } = self.page {
            session.release();
            pages.remove(&session);
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
        if let Some(pages) = &self.options.public {
            let page = pages.page_of(&self.account, &request).await?;
            return Ok(self.follow_public(&mut current, page, need));
        }
        if let Some(current) = &*current
            && current.join(&request).await
        {
            return Ok(Arc::clone(&current.pending));
        }
        if let Some(over) = current.take() {
            over.shut_down().await;
        }
        let begun = match coordination::find_or_claim(&self.account, &self.holder, need).await? {
            Some((elsewhere, page)) => self.follow(elsewhere, page),
            None => self.page(request).await?,
        };
        Ok(Arc::clone(&current.insert(begun).pending))
    }

    /// Follows a sign-in whose page another process serves.
    fn follow(&self, elsewhere: Pending, page: PeerPage) -> Current {
        let pending = Arc::new(elsewhere);
        let following = coordination::follow(self.account.clone(), Arc::clone(&pending));
        Current { pending, page: Page::Peer(page), task: tokio::spawn(following) }
    }

    /// Follows a page that every process of the hosted server serves.
    fn follow_public(
        &self,
        current: &mut Option<Current>,
        page: PublicPage,
        need: RequiredCredential,
    ) -> Arc<Pending> {
        if let Some(current) = current
            && current.pending.name() == page.name()
            && current.pending.is_open()
        {
            return Arc::clone(&current.pending);
        }
        // The task of an earlier page ends with that page, and tells those who wait for it how it ended.
        let pending = Arc::new(page.pending(need));
        let task = tokio::spawn(page.follow(self.account.clone(), Arc::clone(&pending)));
        Arc::clone(&current.insert(Current { pending, page: Page::Public, task }).pending)
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

    /// Returns the account's sign-in with the name `name`, in this or another process, wherever that runs.
    pub async fn named(&self, name: &str) -> Result<Option<Arc<Pending>>, Error> {
        let mut current = self.current.lock().await;
        if let Some(pages) = &self.options.public {
            let page = pages.named(&self.account, name).await?;
            return Ok(page.map(|page| self.follow_public(&mut current, page, RequiredCredential::Session)));
        }
        if let Some(current) = &*current
            && (current.pending.name() == name || current.pending.is_open())
        {
            return Ok(Some(&current.pending).filter(|pending| pending.name() == name).cloned());
        }
        let Some((elsewhere, page)) = coordination::find(&self.account, name).await? else { return Ok(None) };
        if let Some(over) = current.take() {
            over.shut_down().await;
        }
        Ok(Some(Arc::clone(&current.insert(self.follow(elsewhere, page)).pending)))
    }

    /// Serves a page in this process and announces it to the others.
    async fn page(&self, request: Request) -> Result<Current, Error> {
        match self.open_page(request).await {
            Ok(current) => Ok(current),
            Err(error) => {
                self.account.release_announcement_lease(&self.holder).await?;
                Err(error)
            }
        }
    }

    async fn open_page(&self, request: Request) -> Result<Current, Error> {
        let (listener, address) = self.listen().await?;
        let pages = Pages::new(Place::loopback(address));
        let session = Arc::new(PageSession::new(self.account.clone(), pages.place(), request, &self.options));
        pages.add(Arc::clone(&session));
        if let Err(error) = coordination::publish(&self.account, &session).await {
            pages.remove(&session);
            return Err(error.into());
        }
        let announcing = tokio::spawn(coordination::announce(
            self.account.clone(),
            self.holder.clone(),
            Arc::clone(&session),
        ));
        let over = pages.clone().run(Arc::clone(&session));
        let task = tokio::spawn(listener::serve(
            listener,
            page::router(pages.clone()),
            BOUNDS,
            Workers::current(),
            over,
        ));
        Ok(Current {
            pending: Arc::clone(session.pending()),
            task,
            page: Page::Own { pages, session, announcing },
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
