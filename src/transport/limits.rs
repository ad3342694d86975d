//! Limits on requests of anybody, so that nobody can keep the others out: per client address and overall, in this
//! process. What is refused gets 429 with `Retry-After` (RFC 6585, section 4). A request with a valid token is not
//! counted here: it is its owner's, who has limits in [`crate::mcp`].

use std::{sync::Arc, time::Duration};

use axum::{
    extract::Request,
    response::{Html, IntoResponse as _, Response},
};
use http::{
    Method, StatusCode,
    header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS},
};
use moka::sync::Cache;
use tokio::time::Instant;

use super::refusals::error;
use crate::{
    client_address::{CLIENTS_OF_A_SITE, ClientAddress},
    clock::whole_seconds,
    metrics,
    token_bucket::{Bucket, Rate},
};

/// A kind of request with limits of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Class {
    Authorize,
    Page,
    Register,
    Token,
    Revoke,
    Mcp,
}

/// The limits of a class.
struct Limit {
    per_client: Rate,
    overall: Rate,
    counts: Counts,
}

/// Which requests are counted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Counts {
    All,
    /// Those that are [mistakes](Class::is_mistake), and those whose client does not wait for the answer. The others are
    /// known clients': large hosts send those of thousands of people from a few addresses.
    Mistakes,
}

/// Most client addresses that are remembered, about 100 bytes each. Whoever comes from more of them meets the overall
/// limits.
const MAX_CLIENTS: u64 = 100_000;

/// Time after which an address is forgotten; every bucket is full again by then.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(10);

impl Class {
    /// The limits. A company's people share one address, and so do all people of a host such as claude.ai: those per
    /// client keep out programs, not people. Those overall keep the database usable.
    const fn limit(self) -> Limit {
        let (per_client, overall, counts) = match self {
            // Each can write a record. Who adds a connector sends one or two; an office adds it after the same e-mail.
            Self::Authorize => (Rate::new(120, 4), Rate::new(1000, 100), Counts::All),
            // A sign-in with consent is about ten requests; an office signs in within minutes.
            Self::Page => (Rate::new(600, 20), Rate::new(4000, 400), Counts::All),
            // Registering stores nothing, but encrypts; hosts do it from their own addresses, some once for each person. At
            // `/revoke` an unknown token is no error (RFC 7009, section 2.2), so all are counted.
            Self::Register | Self::Revoke => (Rate::new(300, 20), Rate::new(1000, 200), Counts::All),
            // A host refreshes four times an hour for each of its people, which is not counted. A wrong code or refresh
            // token now and then is a race of the host's; a thousand of them are guesses.
            Self::Token => (Rate::new(1000, 20), Rate::new(8000, 1000), Counts::Mistakes),
            // A person's token runs out four times an hour, and a host of many thousands gets a 401 each time.
            Self::Mcp => (Rate::new(2000, 100), Rate::new(8000, 1000), Counts::Mistakes),
        };
        Limit { per_client, overall, counts }
    }

    /// Metadata, keys, health and what does not exist are cheap and not limited; nor are preflights.
    fn of(method: &Method, path: &str) -> Option<Self> {
        if method == Method::OPTIONS {
            return None;
        }
        let first = path.split('/').nth(1)?;
        match (path, first) {
            ("/authorize" | "/connections", _) => Some(Self::Authorize),
            ("/register", _) => Some(Self::Register),
            ("/token", _) => Some(Self::Token),
            ("/revoke", _) => Some(Self::Revoke),
            ("/mcp", _) => Some(Self::Mcp),
            (_, "authorize" | "sign-in" | "connections") => Some(Self::Page),
            _ => None,
        }
    }

    /// Whether an answer says that the client has made a mistake. 503 of `/token` may be due to a document that the client
    /// itself serves, slowly; a host that gets it for another reason is let in again as soon as that has passed.
    fn is_mistake(self, status: StatusCode) -> bool {
        match status {
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED => true,
            StatusCode::SERVICE_UNAVAILABLE => self == Self::Token,
            _ => false,
        }
    }

    /// Its name in metrics.
    fn name(self) -> &'static str {
        match self {
            Self::Authorize => "authorize",
            Self::Page => "page",
            Self::Register => "register",
            Self::Token => "token",
            Self::Revoke => "revoke",
            Self::Mcp => "mcp",
        }
    }
}

/// The counters of this process.
#[derive(Debug)]
pub struct Limits {
    began: Instant,
    /// By class.
    overall: [Bucket; 6],
    /// By class and address, and whether that is a site's.
    clients: Cache<(Class, ClientAddress, bool), Arc<Bucket>>,
}

/// The buckets that a request is counted in.
struct Counted<'a> {
    limit: Limit,
    began: Instant,
    client: Arc<Bucket>,
    /// Of the client's site, if it has one.
    site: Option<Arc<Bucket>>,
    overall: &'a Bucket,
}

impl Limits {
    pub fn new() -> Self {
        let clients = Cache::builder().max_capacity(MAX_CLIENTS).time_to_idle(FORGOTTEN_AFTER).build();
        Self { began: Instant::now(), overall: Default::default(), clients }
    }

    /// Answers a request of `client`, or refuses it beyond the limits.
    pub async fn limited<Answering: Future<Output = Response>>(
        &self,
        client: ClientAddress,
        request: Request,
        answer: impl FnOnce(Request) -> Answering,
    ) -> Response {
        let Some(class) = Class::of(request.method(), request.uri().path()) else {
            return answer(request).await;
        };
        if class == Class::Mcp && request.headers().contains_key(AUTHORIZATION) {
            // Whoever has a valid token is let in, however many mistakes others make at the same address. A mistake counts for
            // those that follow; it is answered itself, since a host must learn that its token has expired.
            let response = answer(request).await;
            if class.is_mistake(response.status()) {
                let _ = self.of(class, client).take();
            }
            return response;
        }
        // Taken before the work: a client that hangs up ends this future, and has made a mistake then.
        let counted = self.of(class, client);
        if let Err(wait) = counted.take() {
            return too_many(class, wait);
        }
        let response = answer(request).await;
        if counted.limit.counts == Counts::Mistakes && !class.is_mistake(response.status()) {
            counted.give_back();
        }
        response
    }

    fn of(&self, class: Class, client: ClientAddress) -> Counted<'_> {
        let bucket_of = |address, is_site| self.clients.get_with((class, address, is_site), Arc::default);
        Counted {
            limit: class.limit(),
            began: self.began,
            client: bucket_of(client, false),
            site: client.site().map(|site| bucket_of(site, true)),
            overall: &self.overall[class as usize],
        }
    }
}

impl Counted<'_> {
    /// Counts the request, or returns the wait until it is within the limits. One that is beyond a limit does not count for
    /// the other.
    fn take(&self) -> Result<(), Duration> {
        let now = self.began.elapsed();
        for (at, (bucket, rate)) in self.buckets().enumerate() {
            if let Err(wait) = bucket.take(&rate, now) {
                self.buckets().take(at).for_each(|(bucket, rate)| bucket.give_back(&rate));
                return Err(wait);
            }
        }
        Ok(())
    }

    /// Counts the request no more.
    fn give_back(&self) {
        self.buckets().for_each(|(bucket, rate)| bucket.give_back(&rate));
    }

    fn buckets(&self) -> impl Iterator<Item = (&Bucket, Rate)> {
        let Limit { per_client, overall, .. } = self.limit;
        let site = self.site.as_deref().map(|site| (site, per_client.times(CLIENTS_OF_A_SITE)));
        [Some((&*self.client, per_client)), site, Some((self.overall, overall))].into_iter().flatten()
    }
}

/// Answers with 429: a page where a person looks at it, otherwise JSON in the shape of an OAuth error, which hosts show.
fn too_many(class: Class, wait: Duration) -> Response {
    metrics::limited_request(class.name());
    let seconds = whole_seconds(wait);
    let headers = [(RETRY_AFTER, seconds.to_string()), (CACHE_CONTROL, "no-store".to_owned())];
    let body = match class {
        Class::Authorize | Class::Page => page(seconds),
        Class::Register | Class::Token | Class::Revoke | Class::Mcp => {
            let description = format!("There are too many requests; try again in {seconds} s.");
            error("temporarily_unavailable", &description).into_response()
        }
    };
    (StatusCode::TOO_MANY_REQUESTS, headers, body).into_response()
}

/// A page without anything that would have to be loaded, since that would be refused, too.
fn page(seconds: u64) -> Response {
    let html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width\"><meta name=color-scheme content=\"light dark\">\
         <title>Too many requests</title><main><h1>Too many requests</h1>\
         <p>Too many requests come from your network at the moment. Wait {seconds} s, then reload this page.</p></main></html>"
    );
    let headers = [
        (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, Html(html)).into_response()
}

#[cfg(test)]
mod tests;
