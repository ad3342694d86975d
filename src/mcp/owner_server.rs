//! The server as one owner sees it: everything that is the owner's own.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use super::{Shared, guard::Guard, permits::Permits, spending::Spending};
use crate::{
    account::{Account, Owner},
    sign_in::{self, Pending, SignIn},
};

/// No sign-in has this number.
const NOT_ANNOUNCED: u64 = u64::MAX;

/// The MCP server of one owner.
#[derive(Debug)]
pub(super) struct OwnerServer {
    pub shared: Arc<Shared>,
    pub account: Account,
    pub guard: Guard,
    /// The owner's sign-in page; `None` if the person cannot reach a page of this process.
    pub sign_in: Option<SignIn>,
    /// The permits of the person, whose other owners have the same.
    pub permits: Arc<Permits>,
    pub spending: Spending,
    /// Number of the sign-in that an answer named last.
    announced: AtomicU64,
    /// The sign-in for which this server is kept open.
    kept_for: Mutex<Weak<Pending>>,
    /// Looks for what an earlier process has left unfinished.
    _reconciling: AbortOnDropHandle<()>,
}

impl OwnerServer {
    pub fn new(shared: &Arc<Shared>, owner: &Owner) -> Self {
        let account = shared.accounts.open(owner);
        Self {
            guard: Guard::new(account.redactor().clone()),
            sign_in: shared.sign_in.clone().map(|options| SignIn::new(account.clone(), options)),
            permits: shared.persons.get_or_open(&owner.person(), || shared.limits.of_a_person()),
            spending: Spending::new(shared.total_spending.clone()),
            announced: AtomicU64::new(NOT_ANNOUNCED),
            kept_for: Mutex::default(),
            _reconciling: AbortOnDropHandle::new(tokio::spawn(reconcile(account.clone()))),
            shared: Arc::clone(shared),
            account,
        }
    }

    /// Whether `identity` is the number of an identity that no tool result has named yet.
    pub fn is_to_be_announced(&self, identity: u64) -> bool {
        self.announced.load(Ordering::Relaxed) != identity
    }

    /// Whether no tool result has named `identity` yet; it counts as named from now on.
    pub fn announce(&self, identity: u64) -> bool {
        self.announced.swap(identity, Ordering::Relaxed) != identity
    }

    /// Makes the next tool result name the account.
    pub fn announce_again(&self) {
        self.announced.store(NOT_ANNOUNCED, Ordering::Relaxed);
    }

    /// Starts a sign-in or joins the pending one. This server stays open until it has ended.
    pub async fn begin_sign_in(
        self: &Arc<Self>,
        sign_in: &SignIn,
        request: sign_in::Request,
    ) -> Result<Arc<Pending>, sign_in::Error> {
        let pending = sign_in.begin(request).await?;
        self.keep_for(&pending);
        Ok(pending)
    }

    fn keep_for(self: &Arc<Self>, pending: &Arc<Pending>) {
        let mut kept_for = self.kept_for.lock();
        if !Weak::ptr_eq(&kept_for, &Arc::downgrade(pending)) {
            *kept_for = Arc::downgrade(pending);
            let (server, pending) = (Arc::clone(self), Arc::clone(pending));
            tokio::spawn(async move {
                pending.finished(pending.expires_in()).await;
                drop(server);
            });
        }
    }

    /// Ends what is pending.
    pub async fn close(&self) {
        if let Some(sign_in) = &self.sign_in {
            sign_in.close().await;
        }
    }
}

/// Checks for API key changes that an earlier process left unfinished, while the server is already answering.
async fn reconcile(account: Account) {
    let span = tracing::info_span!("reconciling", owner = account.name());
    let work = async {
        if let Err(error) = account.reconcile_once_used().await {
            tracing::info!(%error, "interrupted API key changes could not be checked");
        }
    };
    work.instrument(span).await;
}
