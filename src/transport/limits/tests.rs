use std::net::{IpAddr, Ipv4Addr};

use axum::body::{Body, to_bytes};
use futures_util::FutureExt as _;
use http::HeaderMap;

use super::*;

/// A server that answers every request with the status in its query, and `?never` not at all.
struct Server(Limits);

impl Server {
    fn new() -> Self {
        Self(Limits::new())
    }

    async fn send(&self, client: u32, request: http::request::Builder) -> Response {
        self.send_from(Ipv4Addr::from_bits(client).into(), request).await
    }

    async fn send_from(&self, client: IpAddr, request: http::request::Builder) -> Response {
        let client = ClientAddress::new(client);
        let answer = async |request: Request| match request.uri().query().unwrap_or("200") {
            "never" => std::future::pending().await,
            status => StatusCode::from_u16(status.parse().unwrap()).unwrap().into_response(),
        };
        self.0.limited(client, request.body(Body::empty()).unwrap(), answer).await
    }

    async fn status(&self, client: u32, method: Method, uri: &str) -> u16 {
        self.send(client, Request::builder().method(method).uri(uri)).await.status().as_u16()
    }

    /// How many of `count` requests get 429.
    async fn refused(&self, client: u32, method: Method, uri: &str, count: usize) -> usize {
        let mut refused = 0;
        for _ in 0..count {
            refused += usize::from(self.status(client, method.clone(), uri).await == 429);
        }
        refused
    }
}

async fn body(response: Response) -> (HeaderMap, String) {
    let (head, body) = response.into_parts();
    let body = to_bytes(body, 1 << 16).await.unwrap();
    (head.headers, String::from_utf8(body.to_vec()).unwrap())
}

// Registrations a thousand times a second: MCP authorization, "Dynamic Client Registration", and so RFC 7591, section 5.
#[tokio::test(start_paused = true)]
async fn a_flood_of_registrations_is_refused_and_keeps_nobody_out() {
    let server = Server::new();
    assert_eq!(server.refused(1, Method::POST, "/register", 1000).await, 700);
    let refused = server.send(1, Request::post("/register")).await;
    let (headers, text) = body(refused).await;
    assert_eq!(
        (&headers[RETRY_AFTER], &headers[CACHE_CONTROL]),
        (&"1".parse().unwrap(), &"no-store".parse().unwrap())
    );
    let error: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(error["error"], "temporarily_unavailable");
    assert_eq!(server.refused(2, Method::POST, "/register", 100).await, 0);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(server.refused(1, Method::POST, "/register", 100).await, 80);
}

/// One subscriber has many networks of IPv6, each of which counts as a client.
#[tokio::test(start_paused = true)]
async fn a_site_of_ipv6_is_limited_and_leaves_a_share_to_others() {
    let server = Server::new();
    let mut refused = 0;
    for network in 0..25 {
        let client: IpAddr = format!("2001:db8:1:{network}::1").parse().unwrap();
        for _ in 0..120 {
            let response = server.send_from(client, Request::get("/authorize")).await;
            refused += usize::from(response.status() == StatusCode::TOO_MANY_REQUESTS);
        }
    }
    assert_eq!(refused, 25 * 120 - 8 * 120);
    assert_eq!(server.refused(1, Method::GET, "/authorize", 40).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_person_who_is_refused_sees_a_page() {
    let server = Server::new();
    assert_eq!(server.refused(1, Method::GET, "/authorize", 200).await, 80);
    let (headers, page) = body(server.send(1, Request::get("/authorize?client_id=canary")).await).await;
    assert!(headers["content-type"].to_str().unwrap().starts_with("text/html"));
    assert!(headers.contains_key(RETRY_AFTER) && headers.contains_key(CONTENT_SECURITY_POLICY));
    assert!(page.contains("<h1>Too many requests</h1>") && page.contains("Wait 1 s"), "{page}");
    assert!(!page.contains("canary"));
    // Pages that are open can be used to their end.
    for page in ["/authorize/id", "/sign-in/id", "/connections/id"] {
        assert_eq!(server.status(1, Method::GET, page).await, 200, "{page}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_of_thousands_of_people_behind_one_address_is_not_limited() {
    let server = Server::new();
    assert_eq!(server.refused(1, Method::POST, "/token", 20_000).await, 0);
    assert_eq!(server.refused(1, Method::POST, "/mcp", 20_000).await, 0);
    // Trouble of ours is no mistake of the host's.
    assert_eq!(server.refused(1, Method::POST, "/token?500", 5000).await, 0);
    assert_eq!(server.refused(1, Method::POST, "/mcp?503", 5000).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_host_is_let_in_as_soon_as_the_server_can_answer_again() {
    let server = Server::new();
    assert_eq!(server.refused(1, Method::POST, "/token?503", 1500).await, 500);
    tokio::time::advance(Duration::from_millis(50)).await;
    assert_eq!(server.refused(1, Method::POST, "/token", 20_000).await, 0);
}

#[tokio::test(start_paused = true)]
async fn guesses_at_codes_are_refused_before_they_are_looked_at() {
    let server = Server::new();
    assert_eq!(server.refused(1, Method::POST, "/token?400", 1500).await, 500);
    assert_eq!(server.status(1, Method::POST, "/token?200").await, 429);
    assert_eq!(server.status(2, Method::POST, "/token?200").await, 200);
    tokio::time::advance(Duration::from_millis(50)).await;
    assert_eq!(server.status(1, Method::POST, "/token?200").await, 200);
}

// RFC 6749, section 10.10 (guesses), and what each of them costs.
#[tokio::test(start_paused = true)]
async fn who_hangs_up_before_the_answer_is_counted() {
    let server = Server::new();
    for _ in 0..1000 {
        assert!(server.status(1, Method::POST, "/token?never").now_or_never().is_none());
    }
    assert_eq!(server.status(1, Method::POST, "/token?never").now_or_never(), Some(429));
    assert_eq!(server.status(2, Method::POST, "/token").await, 200);
    tokio::time::advance(Duration::from_millis(50)).await;
    assert_eq!(server.status(1, Method::POST, "/token").await, 200);
}

#[tokio::test(start_paused = true)]
async fn a_request_beyond_the_overall_limit_takes_nothing_from_its_client() {
    let server = Server::new();
    for client in 2..10 {
        assert_eq!(server.refused(client, Method::POST, "/token?400", 1000).await, 0);
    }
    assert_eq!(server.refused(1, Method::POST, "/token", 5000).await, 5000);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(server.status(1, Method::POST, "/token").await, 200);
}

#[tokio::test(start_paused = true)]
async fn a_valid_token_is_let_in_whatever_others_send_from_its_address() {
    let server = Server::new();
    assert_eq!(server.refused(1, Method::POST, "/mcp?401", 3000).await, 1000);
    let with_token = |uri| Request::post(uri).header(AUTHORIZATION, "Bearer token");
    assert_eq!(server.send(1, with_token("/mcp")).await.status(), 200);
    assert_eq!(server.send(1, with_token("/mcp?401")).await.status(), 401, "a host refreshes its token");
    assert_eq!(server.status(1, Method::POST, "/mcp").await, 429);
}

#[tokio::test(start_paused = true)]
async fn many_clients_together_meet_the_overall_limit() {
    let server = Server::new();
    let mut refused = 0;
    for client in 0..1200 {
        refused += server.refused(client, Method::POST, "/revoke", 1).await;
    }
    assert_eq!(refused, 200);
}

#[tokio::test(start_paused = true)]
async fn what_costs_nothing_is_not_limited() {
    let server = Server::new();
    for (method, path) in [
        (Method::OPTIONS, "/register"),
        (Method::GET, "/healthz"),
        (Method::GET, "/.well-known/oauth-authorization-server"),
        (Method::GET, "/jwks"),
        (Method::GET, "/"),
        (Method::GET, "/anything/authorize"),
    ] {
        assert_eq!(server.refused(1, method, path, 2000).await, 0, "{path}");
    }
}
