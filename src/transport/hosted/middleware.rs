//! What all routes of a hosted server share: the id of the request, the client's address, the limits and CORS.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tracing::Instrument as _;

use super::cors;
use crate::{
    client_address::TrustedProxies,
    listener::Peer,
    telemetry::{RequestId, span_of_request},
    transport::limits::Limits,
};

/// The header of a request's id; de facto standard.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Who uses a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// Programs, which may run in web pages of any origin.
    Programs,
    /// People and load balancers. What they get must not be read by other web pages.
    Others,
}

/// The middleware of all routes. Clones share everything.
#[derive(Clone, Debug)]
pub(super) struct Middleware {
    proxies: Arc<TrustedProxies>,
    limits: Arc<Limits>,
}

impl Middleware {
    pub fn new(proxies: TrustedProxies) -> Self {
        Self { proxies: Arc::new(proxies), limits: Arc::new(Limits::new()) }
    }

    /// Adds itself to all routes of `router`.
    pub fn wrap(&self, audience: Audience, router: Router) -> Router {
        router.layer(from_fn_with_state((self.clone(), audience), layer))
    }

    /// Answers a request with `answer`, which finds the request's span in its extensions.
    pub async fn handle<Answering: Future<Output = Response>>(
        &self,
        audience: Audience,
        mut request: Request,
        answer: impl FnOnce(Request) -> Answering,
    ) -> Response {
        let peer = request.extensions().get().map_or(Ipv4Addr::UNSPECIFIED.into(), |Peer(peer)| peer.ip());
        let id = self.given_id(peer, request.headers()).unwrap_or_else(RequestId::random);
        let client = self.proxies.client(peer, request.headers());
        let span = id.span(request.method());
        request.extensions_mut().insert(span);
        request.extensions_mut().insert(id.clone());
        request.extensions_mut().insert(client);
        let is_preflight = audience == Audience::Programs && cors::is_preflight(&request);
        let mut response = if is_preflight {
            StatusCode::NO_CONTENT.into_response()
        } else {
            self.limits.limited(client, request, answer).await
        };
        let headers = response.headers_mut();
        // Refusals too, so that programs in web pages can read why they are refused.
        if audience == Audience::Programs {
            cors::allow_every_origin(headers, is_preflight);
        }
        if let Ok(id) = HeaderValue::from_str(id.as_str()) {
            headers.insert(REQUEST_ID, id);
        }
        response
    }

    /// The id that a trusted proxy has given to the request.
    fn given_id(&self, peer: IpAddr, headers: &HeaderMap) -> Option<RequestId> {
        let id = headers.get(REQUEST_ID)?.to_str().ok()?;
        RequestId::given(id).filter(|_| self.proxies.contain(peer))
    }
}

async fn layer(
    State((middleware, audience)): State<(Middleware, Audience)>,
    request: Request,
    next: Next,
) -> Response {
    let answer = |request: Request| {
        let span = span_of_request(request.extensions());
        next.run(request).instrument(span)
    };
    middleware.handle(audience, request, answer).await
}
