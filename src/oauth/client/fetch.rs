//! Fetching what clients publish: their metadata documents and their keys. Who runs the client chooses the URL, so the
//! fetch is guarded (draft-ietf-oauth-client-id-metadata-document, "Server Side Request Forgery (SSRF) Attacks"): https, only
//! to addresses that are public when connected, no redirect, no proxy, bounded in size and in time.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, StatusCode, header};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::{OnceCell, Semaphore};
use url::{Host, Url};

use super::address;

/// Longest answer that is read, in bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Time for a fetch over all, from the lookup of the name to the last byte.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Largest number of concurrent fetches, and of lookups of names, for anybody. A lookup may occupy one of the runtime's
/// threads, of which there are 512, for longer than a fetch lasts.
const CONCURRENT_FOR_ANYBODY: usize = 48;

/// The same for clients that have a code or a token.
const CONCURRENT_FOR_CLIENTS: usize = 16;

/// For whom something is fetched. Each has fetches of its own, so that strangers who make this server wait keep out no client
/// that somebody has connected, whatever they publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asker {
    /// Whoever asks for an authorization.
    Anybody,
    /// A client that has a code or a token.
    Client,
}

/// How documents of clients are fetched: from public addresses, or, for tests, from loopback. Clones share everything.
#[derive(Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

struct Inner {
    reach: Reach,
    lookup: Lookup,
    timeout: Duration,
    for_anybody: Lane,
    for_clients: Lane,
}

/// A number of fetches at a time.
struct Lane {
    /// Created when first needed: it reads the system's certificates.
    http: OnceCell<reqwest::Client>,
    fetches: Semaphore,
    /// Held until a lookup returns, which may be after its fetch was given up.
    lookups: Arc<Semaphore>,
}

/// Which addresses may be connected to.
#[derive(Clone)]
enum Reach {
    Public,
    /// Loopback only, where a certificate (in DER) vouches for the servers.
    Loopback(Vec<u8>),
}

/// What finds the addresses of a name.
#[derive(Clone)]
enum Lookup {
    System,
    #[cfg(test)]
    Scripted(tests::Script),
    #[cfg(test)]
    Silent(tests::Silence),
}

/// Why nothing was fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchError {
    /// No public address, no connection, no trusted certificate, or a connection that broke. These are not told apart, since
    /// that would show the network that this server is in.
    Unreachable,
    TimedOut,
    /// The status was not 200.
    Status,
    NotJson,
    TooLarge,
}

/// What was fetched.
#[derive(Debug)]
pub struct Fetched {
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Network {
    /// Public addresses only.
    #[must_use]
    pub fn public() -> Self {
        Self::new(Reach::Public, Lookup::System, TIMEOUT)
    }

    /// Loopback addresses only, for tests and trials. The servers there show a certificate that `authority` (a certificate
    /// in DER) has signed or is.
    #[must_use]
    pub fn loopback(authority: &[u8]) -> Self {
        Self::new(Reach::Loopback(authority.to_owned()), Lookup::System, TIMEOUT)
    }

    fn new(reach: Reach, lookup: Lookup, timeout: Duration) -> Self {
        let (for_anybody, for_clients) =
            (Lane::new(CONCURRENT_FOR_ANYBODY), Lane::new(CONCURRENT_FOR_CLIENTS));
        Self { inner: Arc::new(Inner { reach, lookup, timeout, for_anybody, for_clients }) }
    }

    /// Fetches JSON.
    pub(super) async fn fetch(&self, url: &Url, asker: Asker) -> Result<Fetched, FetchError> {
        let lane = match asker {
            Asker::Anybody => &self.inner.for_anybody,
            Asker::Client => &self.inner.for_clients,
        };
        let fetched = tokio::time::timeout(self.inner.timeout, self.fetch_in_any_time(lane, url)).await;
        fetched.unwrap_or(Err(FetchError::TimedOut))
    }

    async fn fetch_in_any_time(&self, lane: &Lane, url: &Url) -> Result<Fetched, FetchError> {
        let _permit = lane.fetches.acquire().await.map_err(|_| FetchError::Unreachable)?;
        if url.scheme() != "https" || !self.inner.reach.allows_host(url) {
            return Err(FetchError::Unreachable);
        }
        let http = self.http(lane).await?;
        let request = http.get(url.clone()).header(header::ACCEPT, "application/json");
        let mut response = request.send().await.map_err(|_| FetchError::Unreachable)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status);
        }
        if !is_json(response.headers()) {
            return Err(FetchError::NotJson);
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|_| FetchError::Unreachable)? {
            if body.len() + chunk.len() > MAX_BODY_BYTES {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Fetched { headers: std::mem::take(response.headers_mut()), body })
    }

    async fn http<'a>(&self, lane: &'a Lane) -> Result<&'a reqwest::Client, FetchError> {
        let Inner { reach, lookup, .. } = &*self.inner;
        let make = || async {
            let (reach, lookup, permits) = (reach.clone(), lookup.clone(), lane.lookups.clone());
            let resolver = GuardedResolver { reach, lookup, permits };
            let made = tokio::task::spawn_blocking(move || client(resolver)).await;
            made.ok().and_then(Result::ok).ok_or(FetchError::Unreachable)
        };
        lane.http.get_or_try_init(make).await
    }
}

impl Lane {
    fn new(size: usize) -> Self {
        let (fetches, lookups) = (Semaphore::new(size), Arc::new(Semaphore::new(size)));
        Self { http: OnceCell::new(), fetches, lookups }
    }
}

/// Creates the HTTP client. It keeps no connections, so that each fetch looks at the addresses anew.
fn client(resolver: GuardedResolver) -> reqwest::Result<reqwest::Client> {
    let http = reqwest::Client::builder()
        .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
        .https_only(true)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .pool_max_idle_per_host(0);
    let http = match &resolver.reach {
        Reach::Public => http,
        Reach::Loopback(authority) => http.tls_certs_only([reqwest::Certificate::from_der(authority)?]),
    };
    http.dns_resolver(resolver).build()
}

impl Reach {
    fn allows(&self, address: IpAddr) -> bool {
        match self {
            Self::Public => address::is_public(address),
            Self::Loopback(_) => address.is_loopback(),
        }
    }

    /// Whether the host of the URL may be looked up. An address there would be connected to without a lookup.
    fn allows_host(&self, url: &Url) -> bool {
        match url.host() {
            Some(Host::Domain(_)) => true,
            Some(Host::Ipv4(address)) => matches!(self, Self::Loopback(_)) && address.is_loopback(),
            Some(Host::Ipv6(address)) => matches!(self, Self::Loopback(_)) && address.is_loopback(),
            None => false,
        }
    }
}

/// A resolver whose answers are the addresses that are connected to, so that they cannot change after the check.
struct GuardedResolver {
    reach: Reach,
    lookup: Lookup,
    permits: Arc<Semaphore>,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (reach, lookup, permits) = (self.reach.clone(), self.lookup.clone(), self.permits.clone());
        Box::pin(async move {
            let permit = permits.acquire_owned().await?;
            // The system's lookup goes on when nobody waits for it any more; so the permit is held by a task that does.
            let looking = tokio::spawn(async move {
                let found = lookup.addresses(name.as_str()).await;
                drop(permit);
                found
            });
            let found = looking.await??;
            let allowed: Vec<_> = found.into_iter().filter(|address| reach.allows(address.ip())).collect();
            if allowed.is_empty() {
                return Err(io::Error::from(io::ErrorKind::AddrNotAvailable).into());
            }
            let allowed: Addrs = Box::new(allowed.into_iter());
            Ok(allowed)
        })
    }
}

impl Lookup {
    async fn addresses(&self, name: &str) -> io::Result<Vec<SocketAddr>> {
        match self {
            Self::System => Ok(tokio::net::lookup_host((name, 0)).await?.collect()),
            #[cfg(test)]
            Self::Scripted(script) => Ok(script.next()),
            #[cfg(test)]
            Self::Silent(silence) => Ok(silence.next().await),
        }
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reach = match self.inner.reach {
            Reach::Public => "public",
            Reach::Loopback(_) => "loopback",
        };
        f.debug_struct("Network").field("reach", &reach).finish_non_exhaustive()
    }
}

/// Whether the content is `application/json` or another JSON type of `application` (RFC 6839, section 3.1).
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence.starts_with("application/") && essence.ends_with("+json")
}

#[cfg(test)]
mod tests;
