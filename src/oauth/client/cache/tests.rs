use futures_util::FutureExt as _;
use serde_json::json;

use super::{super::testing::Server, *};

/// The body of a document that is sound unless it is `false`.
#[derive(Debug)]
struct Text(String);

impl Document for Text {
    fn parse(_url: &str, body: &[u8]) -> Result<Self, &'static str> {
        if body == b"false" { Err("unsound") } else { Ok(Self(String::from_utf8_lossy(body).into_owned())) }
    }

    fn may_stand_in(&self) -> bool {
        !self.0.contains("key")
    }
}

struct World {
    server: Server,
    clock: Clock,
    cache: Arc<Cache<Text>>,
    url: Url,
}

impl World {
    async fn new() -> Self {
        let server = Server::start().await;
        let clock = Clock::manual("2026-11-29T10:00:00Z".parse().unwrap());
        let cache = Cache::new(server.network(), Arc::new(Hosts::new()), clock.clone()).into();
        let url = server.url("/client.json").parse().unwrap();
        Self { server, clock, cache, url }
    }

    async fn get(&self, wanted: &str) -> Result<String, CacheError> {
        self.get_for(Asker::Anybody, wanted).await
    }

    async fn get_for(&self, asker: Asker, wanted: &str) -> Result<String, CacheError> {
        let found = self.cache.get(&self.url, asker, |text| text.0.contains(wanted)).await;
        found.map(|text| text.0.clone())
    }

    /// Gets another document for anybody.
    async fn get_at(&self, path: &str) -> Result<Arc<Text>, CacheError> {
        self.cache.get(&self.server.url(path).parse().unwrap(), Asker::Anybody, |_| true).await
    }

    fn entries(&self) -> u64 {
        self.cache.entries.run_pending_tasks();
        self.cache.entries.entry_count()
    }

    fn pass(&self, seconds: i64) {
        self.clock.advance(chrono::TimeDelta::seconds(seconds));
    }
}

#[tokio::test]
async fn a_document_is_fetched_again_when_its_headers_say_so() {
    let world = World::new().await;
    world.server.publish("/client.json", "cache-control: max-age=600", &json!("one"));
    assert_eq!(world.get("").await.unwrap(), "\"one\"");
    world.server.publish("/client.json", "cache-control: max-age=600", &json!("two"));
    world.pass(599);
    assert_eq!(world.get("").await.unwrap(), "\"one\"");
    world.pass(1);
    assert_eq!(world.get("").await.unwrap(), "\"two\"");
    assert_eq!(world.server.requests(), 2);
}

#[tokio::test]
async fn an_error_is_not_remembered() {
    let world = World::new().await;
    world.server.withdraw("/client.json");
    assert_eq!(world.get("").await, Err(CacheError::Fetch(FetchError::Status)));
    world.server.publish("/client.json", "", &json!(false));
    assert_eq!(world.get("").await, Err(CacheError::Unsound("unsound")));
    world.server.publish("/client.json", "", &json!("one"));
    assert_eq!(world.get("").await.unwrap(), "\"one\"");
}

#[tokio::test]
async fn a_document_stands_in_for_a_day_where_it_cannot_be_fetched() {
    let world = World::new().await;
    world.server.publish("/client.json", "cache-control: max-age=600", &json!("one"));
    assert_eq!(world.get("one").await.unwrap(), "\"one\"");
    world.server.withdraw("/client.json");
    world.pass(600);
    for _ in 0..10 {
        assert_eq!(world.get("one").await.unwrap(), "\"one\"");
    }
    assert_eq!(world.server.requests(), 2);
    // Not for what it does not have: that is trouble, and no answer.
    world.pass(60);
    assert_eq!(world.get("two").await, Err(CacheError::Fetch(FetchError::Status)));
    // Nor can anybody make it forgotten by asking for that.
    world.pass(86_399 - 660);
    assert_eq!(world.get("one").await.unwrap(), "\"one\"");
    world.pass(1);
    assert_eq!(world.get("one").await, Err(CacheError::Fetch(FetchError::Status)));

    // What is published in its place counts.
    world.pass(60);
    world.server.publish("/client.json", "cache-control: max-age=600", &json!("one"));
    assert_eq!(world.get("one").await.unwrap(), "\"one\"");
    world.server.publish("/client.json", "", &json!(false));
    world.pass(600);
    assert_eq!(world.get("one").await, Err(CacheError::Unsound("unsound")));
    world.server.withdraw("/client.json");
    assert_eq!(world.get("one").await, Err(CacheError::Fetch(FetchError::Status)));
}

// RFC 9111, section 4.2.4; a withdrawn key must not count for longer than its headers say.
#[tokio::test]
async fn nothing_stands_in_that_has_keys_or_whose_headers_forbid_it() {
    for (headers, document) in [
        ("cache-control: no-store", "one"),
        ("cache-control: no-cache", "one"),
        ("cache-control: public, max-age=600, Must-Revalidate", "one"),
        ("cache-control: max-age=600\r\ncache-control: proxy-revalidate", "one"),
        ("cache-control: s-maxage=600", "one"),
        ("cache-control: max-age=600", "a key"),
    ] {
        let world = World::new().await;
        world.server.publish("/client.json", headers, &json!(document));
        assert_eq!(world.get("").await.unwrap(), json!(document).to_string());
        world.server.withdraw("/client.json");
        world.pass(600);
        assert_eq!(world.get("").await, Err(CacheError::Fetch(FetchError::Status)), "{headers}");
        world.server.publish("/client.json", headers, &json!("new"));
        world.pass(60);
        assert_eq!(world.get("").await.unwrap(), "\"new\"");
    }
}

#[tokio::test]
async fn a_document_that_does_not_suffice_is_fetched_again_but_not_at_once() {
    let world = World::new().await;
    world.server.publish("/client.json", "", &json!("one"));
    assert_eq!(world.get("one").await.unwrap(), "\"one\"");
    world.server.publish("/client.json", "", &json!("one two"));
    for _ in 0..10 {
        assert_eq!(world.get("two").await.unwrap(), "\"one\"");
    }
    world.pass(30);
    assert_eq!(world.get("two").await.unwrap(), "\"one two\"");
    assert_eq!(world.server.requests(), 2);

    // What is known is not lost when the fetch fails, and that fetch counts.
    world.server.withdraw("/client.json");
    world.pass(30);
    for _ in 0..10 {
        assert_eq!(world.get("three").await.unwrap(), "\"one two\"");
    }
    assert_eq!(world.server.requests(), 3);
}

#[tokio::test]
async fn concurrent_requests_share_one_fetch_and_its_outcome() {
    let world = World::new().await;
    world.server.publish("/client.json", "", &json!("one"));
    let all = futures_util::future::join_all((0..100).map(|_| world.get(""))).await;
    assert!(all.iter().all(|text| text.as_deref() == Ok("\"one\"")));
    assert_eq!(world.server.requests(), 1);

    let world = World::new().await;
    world.server.withdraw("/client.json");
    let all = futures_util::future::join_all((0..100).map(|_| world.get(""))).await;
    assert!(all.iter().all(|text| *text == Err(CacheError::Fetch(FetchError::Status))));
    assert_eq!(world.server.requests(), 1);
}

// MCP authorization, "Client ID Metadata Document Security", "Authorization Server Abuse Protection";
// draft-ietf-oauth-client-id-metadata-document, "Server Side Request Forgery (SSRF) Attacks": no amplifier.
#[tokio::test]
async fn nobody_can_make_this_server_flood_a_host() {
    let world = World::new().await;
    world.server.publish("/client.json", "cache-control: max-age=60", &json!("one"));
    assert_eq!(world.get("").await.unwrap(), "\"one\"");
    let now = world.clock.now();
    while world.cache.hosts.admit(Asker::Anybody, world.url.host_str().unwrap(), now) {}
    for n in 0..10 {
        assert_eq!(world.get_at(&format!("/{n}.json")).await.unwrap_err(), CacheError::TooOften);
    }
    // Nor with what it has fetched before.
    world.pass(59);
    assert_eq!(world.get("two").await, Ok("\"one\"".to_owned()));
    assert_eq!(world.server.requests(), 1);
    // Whoever does that keeps no client out.
    world.server.publish("/client.json", "cache-control: max-age=60", &json!("one two"));
    assert_eq!(world.get_for(Asker::Client, "two").await.unwrap(), "\"one two\"");
    world.pass(1);
    world.server.withdraw("/0.json");
    assert_eq!(world.get_at("/0.json").await.unwrap_err(), CacheError::Fetch(FetchError::Status));
    assert_eq!(world.server.requests(), 3);
}

#[tokio::test]
async fn what_was_never_obtained_takes_no_place() {
    let world = World::new().await;
    world.server.publish("/client.json", "", &json!("one"));
    world.get("").await.unwrap();
    for n in 0..10 {
        let path = format!("/{n}.json");
        world.server.withdraw(&path);
        assert!(world.get_at(&path).await.is_err());
    }
    assert_eq!(world.entries(), 1);
    // Nor when whoever asked for it has hung up.
    for n in 0..10 {
        assert!(world.get_at(&format!("/{n}.json")).now_or_never().is_none());
    }
    while world.entries() > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.server.requests(), 21);
}

// As `nobody_can_make_this_server_flood_a_host`: nor can a host that fails hold the fetches that run at a time.
#[tokio::test]
async fn what_failed_is_not_fetched_again_at_once() {
    for asker in [Asker::Anybody, Asker::Client] {
        let world = World::new().await;
        world.server.publish("/client.json", "cache-control: no-store", &json!("one"));
        assert_eq!(world.get_for(asker, "").await.unwrap(), "\"one\"");
        world.server.withdraw("/client.json");
        world.pass(60);
        for _ in 0..10 {
            assert_eq!(world.get_for(asker, "").await, Err(CacheError::Fetch(FetchError::Status)));
        }
        assert_eq!(world.server.requests(), 2);
        world.server.publish("/client.json", "cache-control: no-store", &json!("one"));
        world.pass(60);
        assert_eq!(world.get_for(asker, "").await.unwrap(), "\"one\"");
    }
    assert_eq!(pause_after(Duration::ZERO), Duration::from_secs(1));
    assert_eq!(pause_after(Duration::from_millis(300)), Duration::from_millis(3600));
    assert_eq!(pause_after(Duration::from_secs(5)), Duration::from_mins(1));
    assert_eq!(pause_after(Duration::MAX), Duration::from_mins(1));
}

#[tokio::test]
async fn for_a_client_it_is_not_even_if_it_was_never_obtained_and_whoever_else_asks() {
    let world = World::new().await;
    world.server.withdraw("/client.json");
    for asker in [Asker::Client, Asker::Client, Asker::Anybody, Asker::Anybody, Asker::Client] {
        assert_eq!(world.get_for(asker, "").await, Err(CacheError::Fetch(FetchError::Status)));
    }
    assert_eq!(world.server.requests(), 2);
    world.pass(60);
    world.server.publish("/client.json", "", &json!("one"));
    assert_eq!(world.get_for(Asker::Client, "").await.unwrap(), "\"one\"");
}

#[tokio::test]
async fn a_client_waits_for_no_stranger_who_asks_for_the_same() {
    let world = World::new().await;
    let mut stranger = Box::pin(world.get(""));
    while world.server.requests() == 0 {
        // The server does not answer.
        assert!(stranger.as_mut().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    world.server.publish("/client.json", "", &json!("one"));
    assert_eq!(world.get_for(Asker::Client, "").await.unwrap(), "\"one\"");
    assert!(stranger.now_or_never().is_none());
}
