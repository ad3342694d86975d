//! An embedded BondMCP API for trying the product offline and for the tests. It implements the documented API, counts
//! requests and injects faults. It is not hardened, so it listens on loopback only.
#![allow(clippy::result_large_err, reason = "a refusal is a response, as everywhere in axum")]

mod answers;
mod api_keys;
mod auth;
mod bearer;
mod faults;
mod health;
mod models;
mod passwords;
mod plan;
mod samples;
mod state;
mod tokens;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{Router, middleware};
use parking_lot::{Mutex, MutexGuard};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub use self::{
    faults::{Fault, Faults},
    models::ModelShape,
    plan::Plan,
    state::StateFileError,
};
use self::{state::State, tokens::Issuer};
use crate::{
    clock::Clock,
    secret::{ExposeSecret as _, SecretString},
};

/// Base path of the API, as at the real one.
const BASE_PATH: &str = "/mcp";

/// The configuration of a sandbox.
#[derive(Clone, Debug)]
pub struct SandboxConfig {
    pub clock: Clock,
    /// Lifetime of an access token.
    pub token_lifetime: Duration,
    /// Whether logging in issues a refresh token; the API in BondMCP's guide issues none.
    pub refresh_tokens: bool,
    pub model_shape: ModelShape,
    /// Plan of new accounts.
    pub plan: Plan,
    /// Whether new accounts are verified at once.
    pub auto_verify: bool,
    /// File that accounts and keys (hashed) are saved to.
    pub state_file: Option<PathBuf>,
    /// Whether verification links are printed to stderr, instead of an e-mail.
    pub print_links: bool,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            clock: Clock::system(),
            token_lifetime: Duration::from_hours(1),
            refresh_tokens: true,
            model_shape: ModelShape::Models,
            plan: Plan::Free,
            auto_verify: false,
            state_file: None,
            print_links: false,
        }
    }
}

/// The reasons why a sandbox does not start.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("the sandbox listens on loopback only; {0} is not a loopback address")]
    NotLoopback(SocketAddr),
    #[error("the sandbox cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    State(#[from] StateFileError),
}

/// An embedded BondMCP. Clones share everything.
#[derive(Clone)]
pub struct Sandbox {
    inner: Arc<Inner>,
}

struct Inner {
    config: SandboxConfig,
    issuer: Issuer,
    state: Mutex<State>,
    faults: Faults,
    /// Every token and key that was issued, for tests to search for.
    issued: Mutex<Vec<SecretString>>,
}

impl Sandbox {
    pub fn new(config: SandboxConfig) -> Result<Self, StateFileError> {
        let state = match &config.state_file {
            Some(path) => State::load(path)?,
            None => State::default(),
        };
        Ok(Self {
            inner: Arc::new(Inner {
                issuer: Issuer::new(config.clock.clone(), config.token_lifetime),
                config,
                state: Mutex::new(state),
                faults: Faults::default(),
                issued: Mutex::default(),
            }),
        })
    }

    /// Returns the API's router, below `/mcp`.
    pub fn router(&self) -> Router {
        let authenticated = Router::new()
            .merge(auth::authenticated_routes())
            .merge(models::routes())
            .merge(health::routes())
            .merge(api_keys::routes())
            .route_layer(middleware::from_fn_with_state(self.clone(), bearer::require));
        let api = auth::public_routes()
            .merge(authenticated)
            .fallback(answers::unknown_path)
            .layer(middleware::from_fn_with_state(self.clone(), faults::apply))
            .with_state(self.clone());
        Router::new().nest(BASE_PATH, api)
    }

    /// Serves on `address`, which must be loopback; port 0 takes a free one.
    pub async fn start(config: SandboxConfig, address: SocketAddr) -> Result<RunningSandbox, SandboxError> {
        if !address.ip().is_loopback() {
            return Err(SandboxError::NotLoopback(address));
        }
        let sandbox = Self::new(config)?;
        let listen = |source| SandboxError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let stop = CancellationToken::new();
        let serving =
            axum::serve(listener, sandbox.router()).with_graceful_shutdown(stop.clone().cancelled_owned());
        let task = tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "the sandbox ended");
            }
        });
        Ok(RunningSandbox { sandbox, address, stop, task })
    }

    /// Returns the injected faults and the request counts.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.inner.faults
    }

    /// Returns the number of requests to `endpoint`, such as `POST /auth/login`; ids are written as `{id}`.
    #[must_use]
    pub fn count(&self, endpoint: &str) -> u64 {
        self.faults().counts().get(endpoint).copied().unwrap_or(0)
    }

    /// Returns the number of requests by endpoint.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.faults().counts()
    }

    /// Creates an account directly.
    pub fn add_account(&self, email: &str, password: &SecretString, plan: Plan, verified: bool) {
        let hash = passwords::hash(password);
        let now = self.inner.config.clock.now();
        self.state().add_account(email, None, hash, plan, verified, now);
    }

    /// Verifies an address, as opening the link in the e-mail does.
    pub fn verify(&self, email: &str) {
        if let Some(account) = self.state().account_by_email_mut(email) {
            account.verified = true;
        }
    }

    /// Returns the path and query of the verification link in the e-mail.
    #[must_use]
    pub fn verification_link(&self, email: &str) -> Option<String> {
        let state = self.state();
        let account = state.account_by_email(email)?;
        Some(format!("{BASE_PATH}/auth/verify?code={}", account.verification))
    }

    pub fn set_plan(&self, email: &str, plan: Plan) {
        if let Some(account) = self.state().account_by_email_mut(email) {
            account.plan = plan;
        }
    }

    /// Returns the remaining credits for health services, in cents.
    #[must_use]
    pub fn credits(&self, email: &str) -> Option<u64> {
        self.state().account_by_email(email).map(|account| account.credits)
    }

    pub fn set_credits(&self, email: &str, cents: u64) {
        if let Some(account) = self.state().account_by_email_mut(email) {
            account.credits = cents;
        }
    }

    /// Refuses every access token that was issued so far.
    pub fn expire_tokens(&self) {
        self.inner.issuer.expire_all();
    }

    /// Returns the ids and names of the active keys.
    #[must_use]
    pub fn live_keys(&self, email: &str) -> Vec<(String, String)> {
        let state = self.state();
        let Some(account) = state.account_by_email(email) else { return vec![] };
        state.keys_of(&account.id).map(|key| (key.id.clone(), key.name.clone())).collect()
    }

    /// Revokes a key, as in BondMCP's dashboard.
    pub fn revoke_key(&self, id: &str) {
        self.state().keys.retain(|key| key.id != id);
    }

    /// Returns every token and key that was issued.
    #[must_use]
    pub fn secrets_issued(&self) -> Vec<SecretString> {
        self.inner.issued.lock().clone()
    }

    /// Records a secret that is issued, and exposes it for the response that contains it.
    fn hand_out(&self, secret: &SecretString) -> String {
        self.inner.issued.lock().push(secret.clone());
        secret.expose_secret().to_owned()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock()
    }

    /// Writes the state file, if there is one.
    fn keep(&self, state: &State) {
        if let Some(path) = &self.inner.config.state_file
            && let Err(error) = state.save(path)
        {
            tracing::error!(%error, "the sandbox's state could not be saved");
        }
    }
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sandbox")
    }
}

/// A listening sandbox; it stops when this is dropped.
#[derive(Debug)]
pub struct RunningSandbox {
    sandbox: Sandbox,
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl RunningSandbox {
    /// Returns the value for `--base-url`.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}{BASE_PATH}", self.address)
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl std::ops::Deref for RunningSandbox {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.sandbox
    }
}

impl Drop for RunningSandbox {
    fn drop(&mut self) {
        self.stop.cancel();
        self.task.abort();
    }
}
