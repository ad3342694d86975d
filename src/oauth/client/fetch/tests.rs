use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::future::join_all;
use serde_json::json;

use super::{super::testing::Server, *};

/// The answers of a DNS server, one for each lookup.
#[derive(Clone)]
pub struct Script(Arc<Mutex<VecDeque<Vec<SocketAddr>>>>);

impl Script {
    fn new<const N: usize>(answers: [&[&str]; N]) -> Self {
        let parsed = answers.map(|answer| answer.iter().map(|address| address.parse().unwrap()).collect());
        Self(Arc::new(Mutex::new(parsed.into())))
    }

    pub fn next(&self) -> Vec<SocketAddr> {
        self.0.lock().unwrap().pop_front().unwrap_or_default()
    }

    fn left(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// A DNS server that does not answer. Lookups go on until they are released.
#[derive(Clone)]
pub struct Silence {
    begun: Arc<AtomicUsize>,
    released: Arc<Semaphore>,
}

impl Silence {
    fn new() -> Self {
        Self { begun: Arc::default(), released: Arc::new(Semaphore::new(0)) }
    }

    pub async fn next(&self) -> Vec<SocketAddr> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.released.acquire().await.unwrap().forget();
        Vec::new()
    }

    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }
}

fn scripted(reach: Reach, script: &Script) -> Network {
    Network::new(reach, Lookup::Scripted(script.clone()), TIMEOUT)
}

async fn fetch(network: &Network, url: &str) -> Result<Vec<u8>, FetchError> {
    network.fetch(&url.parse().unwrap(), Asker::Anybody).await.map(|fetched| fetched.body)
}

#[tokio::test]
async fn json_is_fetched_with_its_headers() {
    let server = Server::start().await;
    server.publish("/client.json", "cache-control: max-age=60", &json!({"a": 1}));
    for host in ["localhost", "127.0.0.1"] {
        let url = format!("https://{host}:{}/client.json", server.address.port()).parse().unwrap();
        let fetched = server.network().fetch(&url, Asker::Anybody).await.unwrap();
        assert_eq!(fetched.body, br#"{"a":1}"#);
        assert_eq!(fetched.headers["cache-control"], "max-age=60");
    }
}

// MCP authorization, "Client ID Metadata Document Security", "Authorization Server Abuse Protection";
// draft-ietf-oauth-client-id-metadata-document, "Server Side Request Forgery (SSRF) Attacks".
#[tokio::test]
async fn nothing_is_fetched_from_an_address_that_is_not_public() {
    let server = Server::start().await;
    server.publish("/client.json", "", &json!({}));
    let port = server.address.port();
    for host in ["localhost", "127.0.0.1", "127.1", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]"] {
        let url = format!("https://{host}:{port}/client.json");
        assert_eq!(fetch(&Network::public(), &url).await, Err(FetchError::Unreachable), "{host}");
    }
    let names = Script::new([
        &["127.0.0.1:0"],
        &["10.0.0.1:0", "[fd00::1]:0"],
        &["169.254.169.254:0"],
        &["[::ffff:127.0.0.1]:0"],
        &["[64:ff9b::7f00:1]:0"],
    ]);
    let network = scripted(Reach::Public, &names);
    for left in (0..5).rev() {
        let url = format!("https://client.example:{port}/client.json");
        assert_eq!(fetch(&network, &url).await, Err(FetchError::Unreachable));
        assert_eq!(names.left(), left);
    }
    assert_eq!(server.connections(), 0);
}

// The same: DNS that changes between the check and the connection.
#[tokio::test]
async fn the_address_that_is_checked_is_the_one_connected_to() {
    let server = Server::start().await;
    server.publish("/client.json", "", &json!({}));
    let names = Script::new([&["192.0.2.1:0", "127.0.0.1:0"], &["192.0.2.1:0"], &["127.0.0.1:0"]]);
    let network = scripted(Reach::Loopback(server.certificate.clone()), &names);
    let url = format!("https://client.example:{}/client.json", server.address.port());

    // One lookup a fetch, and only the allowed one of its addresses is used.
    assert!(fetch(&network, &url).await.is_ok());
    assert_eq!(names.left(), 2);
    // Nothing is left of the former lookup, neither an address nor a connection.
    assert_eq!(fetch(&network, &url).await, Err(FetchError::Unreachable));
    assert!(fetch(&network, &url).await.is_ok());
    assert_eq!((server.connections(), names.left()), (2, 0));
}

// The same: no automatic redirects; an answer other than 200 with JSON is an error.
#[tokio::test]
async fn redirects_are_not_followed() {
    let server = Server::start().await;
    server.publish("/secret.json", "", &json!({}));
    for status in
        ["301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"]
    {
        server.answer("/client.json", &format!("{status}\r\nlocation: /secret.json"), "");
        assert_eq!(fetch(&server.network(), &server.url("/client.json")).await, Err(FetchError::Status));
    }
    assert_eq!(server.requests(), 5);
}

// The same; RFC 9700, section 2.6 (TLS).
#[tokio::test]
async fn only_small_json_over_tls_is_read() {
    let server = Server::start().await;
    let (network, url) = (server.network(), server.url("/client.json"));
    for (content_type, expected) in [
        ("content-type: application/json; charset=utf-8", Ok(b"{}".to_vec())),
        ("content-type: application/jwk-set+json", Ok(b"{}".to_vec())),
        ("content-type: Application/JSON", Ok(b"{}".to_vec())),
        ("content-type: text/html", Err(FetchError::NotJson)),
        ("content-type: text/json+json", Err(FetchError::NotJson)),
        ("x: y", Err(FetchError::NotJson)),
    ] {
        server.answer("/client.json", &format!("200 OK\r\n{content_type}"), "{}");
        assert_eq!(fetch(&network, &url).await, expected, "{content_type}");
    }
    for status in ["201 Created", "204 No Content", "404 Not Found", "500 Internal Server Error"] {
        server.answer("/client.json", &format!("{status}\r\ncontent-type: application/json"), "");
        assert_eq!(fetch(&network, &url).await, Err(FetchError::Status), "{status}");
    }
    for (length, is_read) in [(MAX_BODY_BYTES, true), (MAX_BODY_BYTES + 1, false), (20 << 20, false)] {
        server.answer("/client.json", "200 OK\r\ncontent-type: application/json", &"x".repeat(length));
        let fetched = fetch(&network, &url).await.map(|body| body.len());
        assert_eq!(fetched, if is_read { Ok(length) } else { Err(FetchError::TooLarge) });
    }
    let plain = url.replace("https:", "http:");
    assert_eq!(fetch(&network, &plain).await, Err(FetchError::Unreachable));
    // A certificate that nobody vouches for.
    let other = Server::start().await;
    assert_eq!(fetch(&other.network(), &url).await, Err(FetchError::Unreachable));
}

// The same: a document that never arrives.
#[tokio::test]
async fn what_does_not_arrive_in_time_is_given_up() {
    let server = Server::start().await;
    let reach = Reach::Loopback(server.certificate.clone());
    let network = Network::new(reach, Lookup::System, Duration::from_millis(300));
    assert_eq!(fetch(&network, &server.url("/no-answer")).await, Err(FetchError::TimedOut));
}

// The same: a document each of whose bytes arrives in time, but not all of them together.
#[tokio::test(start_paused = true)]
async fn a_document_that_drips_is_given_up_when_the_time_over_all_has_passed() {
    let server = Server::start().await;
    // A pause far below the limit, over and over, for ten times as long as the limit.
    let pause = TIMEOUT * 9 / 50;
    server.drip("/client.json", &format!("{:60}", "{}"), pause);
    // As long as a blocking task runs, a paused clock does not advance by itself. So no time passes until the request has
    // arrived, however slow this computer is; then it passes as fast as everything waits.
    let (arrived, hold) = std::sync::mpsc::channel::<()>();
    let holding = tokio::task::spawn_blocking(move || hold.recv());
    let (network, url) = (server.network(), server.url("/client.json"));
    let begun = tokio::time::Instant::now();
    let fetching = tokio::spawn(async move { fetch(&network, &url).await });
    while server.requests() == 0 {
        tokio::task::yield_now().await;
    }
    drop(arrived);
    assert!(holding.await.unwrap().is_err());
    assert_eq!(fetching.await.unwrap(), Err(FetchError::TimedOut));
    assert_eq!(begun.elapsed().as_secs(), TIMEOUT.as_secs());
    assert_eq!(server.dripped(), 5);
}

// The same: names that are looked up for longer than a fetch lasts.
#[tokio::test(start_paused = true)]
async fn lookups_count_until_they_return_and_strangers_leave_room_for_clients() {
    let silence = Silence::new();
    let network = Network::new(Reach::Public, Lookup::Silent(silence.clone()), TIMEOUT);
    let fetch_many = async |asker| {
        let urls: Vec<Url> =
            (0..100).map(|n| format!("https://{n}.client.example/").parse().unwrap()).collect();
        for fetched in join_all(urls.iter().map(|url| network.fetch(url, asker))).await {
            assert_eq!(fetched.unwrap_err(), FetchError::TimedOut);
        }
        silence.begun()
    };
    assert_eq!(fetch_many(Asker::Anybody).await, 48);
    assert_eq!(fetch_many(Asker::Anybody).await, 48);
    assert_eq!(fetch_many(Asker::Client).await, 64);
    assert_eq!(fetch_many(Asker::Client).await, 64);
    silence.released.add_permits(10);
    tokio::task::yield_now().await;
    assert_eq!(fetch_many(Asker::Anybody).await + fetch_many(Asker::Client).await, 64 + 10 + 64 + 10);
}
